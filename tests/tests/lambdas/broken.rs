//! The import while the wire to DynamoDB breaks and callers die: nothing is lost, nothing counts twice.

use std::collections::BTreeSet;

use e2e::{Fault, Moment, Visitor, Wire, leads_with_nobody, many_leads};
use serde_json::{Value, json};
use status_core::Status;

use crate::{
    function::Function,
    queue::{Chaos, drain},
    stack::{Stack, dynamodb, lists_the_error_of_each_batch, received, split, upload},
};

const NO_FAILURES: &str = r#"{"batchItemFailures":[]}"#;

/// A hundred batches of ten rows, of which one has nobody in it.
fn file() -> Vec<u8> {
    leads_with_nobody(1_000, 10)
}

/// What must be so in the end, whatever happened in between.
async fn is_imported(visitor: &Visitor, job: &str) {
    let done = visitor.get(job).await;
    assert_eq!((&done["status"], &done["outcome"]), (&json!("completed"), &json!("partial")), "{done}");
    let batches = json!({"total": 100, "completed": 100, "failed": 0, "pending": 0, "running": 0});
    assert_eq!(done["progress"]["batches"], batches);
    assert_eq!(done["progress"]["items"], json!({"total": 1000, "processed": 900, "failed": 100}));
    assert_eq!(visitor.get("/leads").await["total"], 900);
    lists_the_error_of_each_batch(visitor, job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_batches_are_imported_while_requests_break_and_callers_die() {
    let stack = Stack::prepare("broken").await;
    let mut faults = BTreeSet::new();
    for seed in 1..=3 {
        let (visitor, job, messages) = split(&stack, file()).await;
        let chaos = Chaos { seed, one_fault_in: 5, one_death_in: 4 };
        let drained = drain(&stack, &["caller"; 3], &messages, chaos).await;
        println!("seed {seed}: {drained:?}");
        assert!(drained.dead.is_empty(), "{drained:?}");
        assert!(drained.killed > 0 && drained.repeated > 0, "{drained:?}");
        assert_eq!(stack.stored_status(&job).await, Status::Completed, "without anybody who looks");
        is_imported(&visitor, &job).await;
        faults.extend(drained.injected.into_keys());
    }
    assert_eq!(faults, BTreeSet::from(Fault::ALL), "every kind of fault happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_batches_are_imported_as_deployed_while_requests_break() {
    let wire = Wire::faulty(&dynamodb(), 5, 4).await;
    let stack = Stack::deploy_at(&wire.url, "faulty", &[]).await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "leads.csv", file()).await;
    visitor.until_over(&job).await;
    stack.until_drained().await;
    println!("{:?}", wire.injected());
    assert!(wire.injected().into_values().sum::<u64>() >= 10, "{:?}", wire.injected());
    is_imported(&visitor, &job).await;
    assert_eq!(stack.dead().await, 0);
}

/// Gives an event to a function that dies at one of its requests to DynamoDB; whether it came so far.
async fn dies(function: Function, wire: &Wire, event: Value, passes: u64, moment: Moment) -> bool {
    let reached = wire.hold_after(passes, moment);
    let died = tokio::select! {
        answer = function.invoke(event) => { answer.expect("handled"); false },
        Ok(()) = reached => true,
    };
    function.kill();
    died
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_dies_at_any_request_is_made_good_when_its_messages_come_again() {
    let stack = Stack::prepare("anywhere").await;
    let wire = Wire::sound(&dynamodb()).await;
    let through_wire = stack.environment(&json!({"AWS_ENDPOINT_URL_DYNAMODB": wire.url}));
    let caller = Function::start("caller", &stack.environment(&Value::Null)).await;
    for moment in [Moment::Before, Moment::After] {
        for passes in 0.. {
            let (visitor, job, messages) = split(&stack, leads_with_nobody(20, 10)).await;
            let dying = Function::start("caller", &through_wire).await;
            let died = dies(dying, &wire, received(&messages, 1), passes, moment).await;
            let answer = caller.invoke(received(&messages, 2)).await.expect("handled");
            let place = format!("{moment:?} request {passes}");
            assert_eq!(answer.to_string(), NO_FAILURES, "{place}");
            assert_eq!(stack.stored_status(&job).await, Status::Completed, "{place}");
            let done = visitor.get(&job).await;
            assert_eq!(done["progress"]["batches"]["completed"], 2, "{place}");
            let items = json!({"total": 20, "processed": 18, "failed": 2});
            assert_eq!(done["progress"]["items"], items, "{place}");
            let errors = visitor.get(&format!("{job}/errors")).await;
            assert_eq!(errors["errors"].as_array().map(Vec::len), Some(2), "{place}: {errors}");
            assert_eq!(visitor.get("/leads").await["total"], 18, "{place}");
            if !died {
                println!("{moment:?}: killed at each of {passes} requests");
                // To begin, to write the leads of two batches, to report, to complete the job.
                assert!(passes >= 5, "there were only {passes} requests: {:?}", wire.passed());
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_splitter_that_dies_at_any_request_is_made_good_when_its_event_comes_again() {
    let stack = Stack::prepare("splits").await;
    let wire = Wire::sound(&dynamodb()).await;
    let through_wire = stack.environment(&json!({"AWS_ENDPOINT_URL_DYNAMODB": wire.url}));
    let environment = stack.environment(&Value::Null);
    let splitter = Function::start("splitter", &environment).await;
    let caller = Function::start("caller", &environment).await;
    for moment in [Moment::Before, Moment::After] {
        for passes in 0.. {
            let visitor = stack.server.visitor();
            let job = upload(&visitor, "leads.csv", many_leads(20)).await;
            let event = stack.uploaded(&job, "leads.csv");
            let dying = Function::start("splitter", &through_wire).await;
            let died = dies(dying, &wire, event.clone(), passes, moment).await;
            splitter.invoke(event).await.expect("split");
            let messages = stack.take_all().await;
            let answer = caller.invoke(received(&messages, 1)).await.expect("handled");
            let place = format!("{moment:?} request {passes}");
            assert_eq!(answer.to_string(), NO_FAILURES, "{place}");
            assert_eq!(stack.stored_status(&job).await, Status::Completed, "{place}");
            let done = visitor.get(&job).await;
            assert_eq!(done["progress"]["batches"]["completed"], 2, "{place}");
            let items = json!({"total": 20, "processed": 20, "failed": 0});
            assert_eq!(done["progress"]["items"], items, "{place}");
            if !died {
                println!("{moment:?}: killed at each of {passes} requests");
                // To look at the job, to start it, to seal it.
                assert!(passes >= 4, "there were only {passes} requests: {:?}", wire.passed());
                break;
            }
        }
    }
}
