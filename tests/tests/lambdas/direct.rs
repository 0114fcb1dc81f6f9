//! What happens to single processes: the same event again, death half-way, two at once, the last receive.

use std::{collections::HashSet, time::Duration};

use e2e::{DeepSeek, Upset, leads_100, many_leads};
use serde_json::{Value, json};
use status_core::Status;

use crate::{
    function::Function,
    stack::{Stack, received, split, upload},
};

const NO_FAILURES: &str = r#"{"batchItemFailures":[]}"#;

async fn function(stack: &Stack, name: &str, more: &Value) -> Function {
    Function::start(name, &stack.environment(more)).await
}

fn numbers(messages: &[Value]) -> HashSet<u64> {
    messages.iter().map(|message| message["batch"].as_u64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_splitters_event_three_times_and_every_message_twice_change_nothing() {
    let stack = Stack::prepare("again").await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "leads.csv", leads_100()).await;
    let splitter = function(&stack, "splitter", &Value::Null).await;
    for _ in 0..3 {
        splitter.invoke(stack.uploaded(&job, "leads.csv")).await.expect("split");
    }
    let messages = stack.take_all().await;
    assert_eq!(numbers(&messages), (0..10).collect());
    let caller = function(&stack, "caller", &Value::Null).await;
    for part in messages.chunks(3) {
        for receives in [1, 2] {
            let answer = caller.invoke(received(part, receives)).await.expect("handled");
            assert_eq!(answer.to_string(), NO_FAILURES);
        }
    }
    let done = visitor.get(&job).await;
    assert_eq!((&done["status"], &done["outcome"]), (&json!("completed"), &json!("succeeded")), "{done}");
    assert_eq!(done["progress"]["items"], json!({"total": 100, "processed": 100, "failed": 0}));
    assert_eq!(visitor.get("/leads").await["total"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_splitters_with_one_event_at_once_change_nothing() {
    let stack = Stack::prepare("thrice").await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "leads.csv", leads_100()).await;
    let event = stack.uploaded(&job, "leads.csv");
    let splitters =
        futures::future::join_all((0..3).map(|_| function(&stack, "splitter", &Value::Null))).await;
    for split in futures::future::join_all(splitters.iter().map(|s| s.invoke(event.clone()))).await {
        split.expect("split");
    }
    let mut messages = stack.take_all().await;
    messages.sort_by_key(|message| message["batch"].as_u64());
    assert_eq!(numbers(&messages), (0..10).collect());
    // Each delivery holds its batches up to three times.
    let deepseek = DeepSeek::serve(Duration::ZERO, Upset::Never).await;
    let caller = function(&stack, "caller", &deepseek.environment()).await;
    for part in messages.chunks(10) {
        assert_eq!(caller.invoke(received(part, 1)).await.expect("handled").to_string(), NO_FAILURES);
    }
    assert_eq!(deepseek.asked(), 10, "each batch is worked on once");
    assert_eq!(stack.stored_status(&job).await, Status::Completed);
    let done = visitor.get(&job).await;
    assert_eq!(done["progress"]["items"], json!({"total": 100, "processed": 100, "failed": 0}));
    assert_eq!(visitor.get("/leads").await["total"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_delivery_gives_each_message_its_own_answer_and_works_on_a_batch_once() {
    let stack = Stack::prepare("mixed").await;
    let (visitor, one, of_one) = split(&stack, many_leads(30)).await;
    let (other_visitor, other, of_other) = split(&stack, many_leads(20)).await;
    let mut past_the_total = of_one[0].clone();
    past_the_total["batch"] = json!(3);
    let delivery = [
        &of_one[0],
        &of_one[0],
        &past_the_total,
        &of_other[0],
        &of_one[2],
        &of_one[1],
        &of_other[0],
        &of_one[2],
        &of_other[1],
        &of_one[0],
    ];
    let delivery = delivery.map(Clone::clone);
    let deepseek = DeepSeek::serve(Duration::ZERO, Upset::By("ann25@")).await;
    let caller = function(&stack, "caller", &deepseek.environment()).await;
    let answer = caller.invoke(received(&delivery, 1)).await.expect("handled");
    let failures = json!([{"itemIdentifier": "m4"}, {"itemIdentifier": "m7"}]);
    assert_eq!(answer["batchItemFailures"], failures, "both messages of the batch that failed");
    assert_eq!(deepseek.asked(), 5, "once for each batch that a job has");
    assert_eq!(stack.stored_status(&other).await, Status::Completed);
    assert_eq!(other_visitor.get("/leads").await["total"], 20);
    let half = visitor.get(&one).await;
    assert_eq!(half["progress"]["batches"]["completed"], 2, "{half}");
    // The two come again, together.
    let caller = function(&stack, "caller", &Value::Null).await;
    let again = [of_one[2].clone(), of_one[2].clone()];
    assert_eq!(caller.invoke(received(&again, 2)).await.expect("handled").to_string(), NO_FAILURES);
    assert_eq!(stack.stored_status(&one).await, Status::Completed);
    let done = visitor.get(&one).await;
    assert_eq!(done["progress"]["items"], json!({"total": 30, "processed": 30, "failed": 0}));
    assert_eq!(visitor.get("/leads").await["total"], 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_splitter_killed_half_way_sends_what_was_missing_when_the_event_comes_again() {
    let stack = Stack::prepare("halfway").await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "many.csv", many_leads(10_000)).await;
    let splitter = function(&stack, "splitter", &Value::Null).await;
    let _unanswered = splitter.begin(stack.uploaded(&job, "many.csv"));
    while stack.waiting().await < 20 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    splitter.kill();
    let half = visitor.get(&job).await;
    assert_eq!(
        (&half["status"], &half["progress"]["batches"]["total"]),
        (&json!("processing"), &Value::Null),
        "{half}"
    );
    assert!(stack.waiting().await < 1_000);

    // A caller works on what is there before the second splitter comes.
    let caller = function(&stack, "caller", &Value::Null).await;
    let early = stack.take_all().await;
    for part in early.chunks(10) {
        assert_eq!(caller.invoke(received(part, 1)).await.expect("handled").to_string(), NO_FAILURES);
    }
    let splitter = function(&stack, "splitter", &Value::Null).await;
    splitter.invoke(stack.uploaded(&job, "many.csv")).await.expect("split");
    let messages = stack.take_all().await;
    assert_eq!(numbers(&messages), (0..1_000).collect());
    for part in messages.chunks(10) {
        assert_eq!(caller.invoke(received(part, 1)).await.expect("handled").to_string(), NO_FAILURES);
    }
    let done = visitor.get(&job).await;
    assert_eq!((&done["status"], &done["outcome"]), (&json!("completed"), &json!("succeeded")), "{done}");
    assert_eq!(done["progress"]["batches"]["completed"], 1_000);
    assert_eq!(done["progress"]["items"], json!({"total": 10_000, "processed": 10_000, "failed": 0}));
    assert_eq!(visitor.get("/leads").await["total"], 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_killed_half_way_is_made_good_when_the_event_comes_again() {
    let stack = Stack::prepare("killed").await;
    let (visitor, job, messages) = split(&stack, many_leads(10)).await;
    let slow = DeepSeek::serve(Duration::from_secs(30), Upset::Never).await;
    let caller = function(&stack, "caller", &slow.environment()).await;
    let _unanswered = caller.begin(received(&messages, 1));
    while slow.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    caller.kill();
    assert_eq!(visitor.get(&job).await["progress"]["batches"]["completed"], 0);
    let caller = function(&stack, "caller", &Value::Null).await;
    assert_eq!(caller.invoke(received(&messages, 2)).await.expect("handled").to_string(), NO_FAILURES);
    let done = visitor.get(&job).await;
    assert_eq!(
        (&done["status"], &done["progress"]["items"]["processed"]),
        (&json!("completed"), &json!(10)),
        "{done}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_on_one_message_count_it_once() {
    let stack = Stack::prepare("two").await;
    let (visitor, job, messages) = split(&stack, many_leads(20)).await;
    let deepseek = DeepSeek::serve(Duration::from_millis(300), Upset::Never).await;
    let first = function(&stack, "caller", &deepseek.environment()).await;
    let second = function(&stack, "caller", &deepseek.environment()).await;
    let event = received(&messages, 1);
    let (one, two) = tokio::join!(first.invoke(event.clone()), second.invoke(event));
    assert_eq!(
        (one.expect("handled").to_string(), two.expect("handled").to_string()),
        (NO_FAILURES.into(), NO_FAILURES.into())
    );
    let done = visitor.get(&job).await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["progress"]["batches"]["completed"], 2);
    assert_eq!(done["progress"]["items"]["processed"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_allowed_receive_records_the_batch_as_failed() {
    let stack = Stack::prepare("last").await;
    let (visitor, job, messages) = split(&stack, many_leads(10)).await;
    let deepseek = DeepSeek::serve(Duration::ZERO, Upset::By("ann3@")).await;
    let caller = function(&stack, "caller", &deepseek.environment()).await;
    for receives in [1, 2] {
        let answer = caller.invoke(received(&messages, receives)).await.expect("handled");
        assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "m0"}]}));
        assert_eq!(visitor.get(&job).await["status"], "processing");
    }
    assert_eq!(caller.invoke(received(&messages, 3)).await.expect("handled").to_string(), NO_FAILURES);
    let failed = visitor.get(&job).await;
    assert_eq!(
        (&failed["status"], &failed["failure"]["code"]),
        (&json!("failed"), &json!("too-many-failed-batches"))
    );
    assert_eq!(failed["progress"]["items"]["failed"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_batch_comes_again_until_it_is_a_dead_letter_and_takes_no_other_with_it() {
    let stack = Stack::prepare("nobatch").await;
    let (visitor, job, mut messages) = split(&stack, many_leads(10)).await;
    messages.insert(0, json!({"hello": "world"}));
    messages.insert(1, json!("text"));
    let caller = function(&stack, "caller", &Value::Null).await;
    let answer = caller.invoke(received(&messages, 1)).await.expect("handled");
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m1"}]}));
    assert_eq!(visitor.get(&job).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_sweeps() {
    let stack = Stack::prepare("sweep").await;
    let caller = function(&stack, "caller", &Value::Null).await;
    let event = json!({
        "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "detail-type": "Scheduled Event", "source": "aws.events",
        "account": "123456789012", "time": "2026-10-08T16:53:06Z", "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/sweep"], "detail": {},
    });
    let swept = caller.invoke(event).await.expect("swept");
    assert_eq!(swept, json!({"looked_at": 0, "completed": 0, "failed": 0, "cancelled": 0, "errors": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_takes_less_than_fifty_milliseconds() {
    let stack = Stack::prepare("cold").await;
    for name in ["splitter", "caller"] {
        let mut starts = Vec::new();
        for _ in 0..5 {
            starts.push(function(&stack, name, &Value::Null).await.cold_start().await);
        }
        starts.sort_unstable();
        println!("cold start of {name}: {starts:?}");
        // The least of them: other tests keep the machine busy meanwhile.
        assert!(starts[0] < Duration::from_millis(50), "{name}: {starts:?}");
    }
}
