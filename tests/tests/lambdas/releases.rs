//! Two releases at once, as during every deployment: what one writes the other understands.

use e2e::leads_with_nobody;
use futures::future::join_all;
use serde_json::{Value, json};
use status_core::Status;

use crate::{
    function::Function,
    stack::{Stack, lists_the_error_of_each_batch, received, split},
};

const NO_FAILURES: &str = r#"{"batchItemFailures":[]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_two_releases_share_one_import_and_every_batch_counts_once() {
    let stack = Stack::prepare("releases").await;
    let environment = stack.environment(&Value::Null);
    let callers =
        [Function::start("caller-0.1.0", &environment).await, Function::start("caller", &environment).await];
    let (visitor, job, messages) = split(&stack, leads_with_nobody(1_000, 10)).await;
    let deliveries: Vec<_> = messages.chunks(5).collect();
    // Each takes half of them; then each gets what the other had; the last two go to both at once.
    let (apart, together) = deliveries.split_at(deliveries.len() - 2);
    for swapped in [0, 1] {
        let halves = [0, 1].map(|half| {
            let caller = &callers[half ^ swapped];
            let mine = apart.iter().skip(half).step_by(2);
            async move {
                for delivery in mine {
                    let answer = caller.invoke(received(delivery, 1)).await.expect("handled");
                    assert_eq!(answer.to_string(), NO_FAILURES);
                }
            }
        });
        join_all(halves).await;
    }
    assert_eq!(stack.stored_status(&job).await, Status::Processing);
    for delivery in together {
        let both = callers.iter().map(|caller| caller.invoke(received(delivery, 1)));
        for answer in join_all(both).await {
            assert_eq!(answer.expect("handled").to_string(), NO_FAILURES);
        }
    }
    assert_eq!(stack.stored_status(&job).await, Status::Completed);
    let done = visitor.get(&job).await;
    assert_eq!(
        done["progress"]["batches"],
        json!({"total": 100, "completed": 100, "failed": 0, "pending": 0, "running": 0})
    );
    assert_eq!(done["progress"]["items"], json!({"total": 1000, "processed": 900, "failed": 100}));
    assert_eq!(visitor.get("/leads").await["total"], 900);
    lists_the_error_of_each_batch(&visitor, &job).await;
}
