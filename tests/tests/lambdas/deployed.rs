//! What people upload becomes leads, through everything that is deployed.

use std::time::Duration;

use e2e::{DeepSeek, Upset, leads_100, many_leads};
use reqwest::Method;
use serde_json::json;
use status_core::{Actor, Status, Totals};

use crate::stack::{ORIGIN, Stack, upload, upload_often};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_leads_through_the_lambdas() {
    let stack = Stack::deploy("once", &[]).await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "leads 100+ümlaut.csv", leads_100()).await;
    let done = visitor.until_over(&job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(
        done["progress"]["batches"],
        json!({"total": 10, "completed": 10, "failed": 0, "pending": 0, "running": 0})
    );
    assert_eq!(done["progress"]["items"]["processed"], 100);
    assert_eq!(visitor.get("/leads").await["total"], 100);
    // Every message once more: nothing changes, and none is left.
    for batch in 0..10 {
        let id = job.trim_start_matches("/jobs/");
        let leads = json!([{"Email": "x@example.com"}]);
        stack.send(&json!({"job_id": id, "batch": batch, "file_name": "again.csv", "first_row": 1, "leads": leads})).await;
    }
    stack.until_drained().await;
    assert_eq!(stack.dead().await, 0);
    let after = visitor.get(&job).await;
    assert_eq!((&after["progress"], &after["status"]), (&done["progress"], &done["status"]));
    assert_eq!(visitor.get("/leads").await["total"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_s3_tells_of_three_times_is_imported_once() {
    let stack = Stack::deploy("told", &[]).await;
    let visitor = stack.server.visitor();
    let job = upload_often(&visitor, "leads.csv", leads_100(), 3).await;
    let done = visitor.until_over(&job).await;
    assert_eq!(done["status"], "completed", "{done}");
    stack.until_drained().await;
    let done = visitor.get(&job).await;
    assert_eq!(done["progress"]["batches"]["completed"], 10, "{done}");
    assert_eq!(done["progress"]["items"], json!({"total": 100, "processed": 100, "failed": 0}));
    assert_eq!(visitor.get("/leads").await["total"], 100);
    assert_eq!(stack.dead().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_delivered_twice_at_once_are_no_dead_letters() {
    let stack = Stack::deploy("twice", &[]).await;
    let visitor = stack.server.visitor();
    let mut jobs = Vec::new();
    let mut messages = Vec::new();
    for (batches, and_past) in [(3, 3), (2, 99)] {
        let (job, _) = visitor.create("leads.csv", 1).await;
        let id = job.trim_start_matches("/jobs/").to_owned();
        for batch in (0..batches).chain([and_past]) {
            let leads = json!([{"Email": format!("ann{batch}@example.com")}]);
            let message = json!({"job_id": id, "batch": batch, "file_name": "leads.csv", "first_row": batch + 1, "leads": leads});
            messages.extend([message.clone(), message]);
        }
        let totals = Totals { batches, items: Some(batches) };
        let splitter = Actor::named("splitter");
        stack.tracker().start(id.parse().expect("an id"), Some(totals), &splitter).await.expect("started");
        jobs.push((job, batches));
    }
    for together in messages.chunks(10) {
        stack.send_together(together).await;
    }
    stack.until_drained().await;
    assert_eq!(stack.dead().await, 0);
    for (job, batches) in jobs {
        assert_eq!(stack.stored_status(&job).await, Status::Completed);
        let done = visitor.get(&job).await;
        assert_eq!(done["progress"]["batches"]["completed"], batches, "{done}");
        assert_eq!(done["progress"]["items"]["processed"], batches, "{done}");
    }
    assert_eq!(visitor.get("/leads").await["total"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisonous_batch_among_a_hundred_fails_and_the_others_are_imported() {
    let deepseek = DeepSeek::serve(Duration::ZERO, Upset::By("ann555@example.com")).await;
    let stack = Stack::deploy("poison", &deepseek.parameters()).await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "poison.csv", many_leads(1_000)).await;
    let done = visitor.until_over(&job).await;
    assert_eq!((&done["status"], &done["outcome"]), (&json!("completed"), &json!("partial")), "{done}");
    assert_eq!(done["progress"]["batches"]["completed"], 99);
    assert_eq!(done["progress"]["batches"]["failed"], 1);
    assert_eq!(done["progress"]["items"], json!({"total": 1000, "processed": 990, "failed": 10}));
    assert_eq!(visitor.get("/leads").await["total"], 990);
    // Asked three times for the poisonous batch, once for each other.
    assert_eq!(deepseek.asked(), 102);
    let errors = visitor.get(&format!("{job}/errors")).await;
    let errors = errors["errors"].as_array().expect("errors");
    let items: Vec<_> = errors.iter().map(|error| error["item"].as_u64().expect("a row")).collect();
    assert_eq!(items, (551..=560).collect::<Vec<_>>());
    for error in errors {
        assert_eq!((&error["batch"], &error["code"]), (&json!(55), &json!("normaliser-refused")));
    }
    let csv =
        visitor.request(Method::GET, &format!("{job}/errors")).header("accept", "text/csv").send().await;
    let csv = csv.expect("answered").text().await.expect("text");
    assert_eq!(csv.lines().count(), 11);
    assert!(csv.contains("55,551,normaliser-refused,The normaliser refused the request."), "{csv}");
    stack.until_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cancel_in_mid_flight_the_remaining_messages_drain_without_being_processed() {
    let deepseek = DeepSeek::serve(Duration::from_secs(1), Upset::Never).await;
    let stack = Stack::deploy("cancel", &deepseek.parameters()).await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "cancel.csv", many_leads(20_000)).await;
    visitor.until(&job, |s| s["progress"]["batches"]["completed"].as_u64() > Some(5)).await;
    let (status, _) = visitor.post(&format!("{job}/cancel"), &json!({"reason": "wrong file"})).await;
    assert!(status.is_success(), "{status}");
    let over = visitor.until_over(&job).await;
    assert_eq!(over["status"], "cancelled", "{over}");
    stack.until_drained().await;
    let after = visitor.get(&job).await;
    let batches = &after["progress"]["batches"];
    let number = |name: &str| batches[name].as_u64().expect("a number");
    assert!((6..2_000).contains(&number("completed")), "{batches}");
    if let Some(total) = batches["total"].as_u64() {
        assert_eq!(number("completed") + number("failed") + number("pending"), total);
    }
    // Nothing was worked on but what the job says was done.
    let done = number("completed");
    assert_eq!(deepseek.asked() as u64, done);
    assert_eq!(after["progress"]["items"]["processed"], done * 10);
    assert_eq!(visitor.get("/leads").await["total"], done * 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_upload_from_the_page_and_from_nowhere_else() {
    let rules = Stack::deploy("cors", &[]).await.cors().await;
    let [rule] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!(
        (rule.allowed_origins(), rule.allowed_methods()),
        (&[ORIGIN.to_owned()][..], &["PUT".to_owned()][..])
    );
    assert_eq!(rule.allowed_headers(), ["*"]);
}
