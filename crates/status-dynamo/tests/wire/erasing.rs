//! Erasing a job while somebody reports.

use crate::*;

#[tokio::test]
async fn a_late_report_leaves_nothing_behind_of_a_job_that_is_being_erased() {
    let bench = Bench::open().await;
    for first in [false, true] {
        let id = bench.job(Some(2)).await;
        if first {
            bench.counted(id, done(1)).await;
        }
        let failure = Failure::new(Stage::Process, "x", "x", false);
        bench.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("failed");
        let held = bench.rig.hold("PutItem", "#errors");
        let error = ItemError::new(batch(0), Some(1), "bad", "bad").with_input("Erika Mustermann");
        let late = bench.reporting(id, BatchReport::completed(batch(0), 9, 1).with_errors([error]));
        held.came().await;
        bench.jobs.erase(id).await.expect("erased");
        held.let_go();
        let told = late.await.expect("no panic");
        assert!(matches!(told, Err(Error::NotFound(_))), "{told:?}");
        assert_eq!(bench.rig.items(), Vec::<serde_json::Value>::new());
    }
}

/// An erase that is held before it deletes the head.
async fn erasing_up_to_the_head(
    bench: &Bench,
    id: JobId,
) -> (Held, tokio::task::JoinHandle<Result<(), Error>>) {
    let held = bench.rig.hold("DeleteItem", "\"job\"");
    let jobs = bench.jobs.clone();
    let erase = tokio::spawn(async move { jobs.erase(id).await });
    held.came().await;
    (held, erase)
}

#[tokio::test]
async fn errors_that_are_kept_while_their_job_is_erased_are_erased_with_it() {
    let bench = Bench::open().await;
    let id = bench.job(Some(300)).await;
    bench.counted(id, done(1)).await;
    bench.counted(id, done(2)).await;
    let failure = Failure::new(Stage::Process, "x", "x", false);
    bench.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("failed");
    // The erase has looked for errors, and found none; then a late report counts.
    let (held, erase) = erasing_up_to_the_head(&bench, id).await;
    bench.counted(id, BatchReport::completed(batch(0), 9, 1).with_errors(errors_of(0, 1))).await;
    held.let_go();
    erase.await.expect("no panic").expect("erased");
    assert_eq!(bench.rig.items(), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn what_people_typed_is_erased_first() {
    let bench = Bench::open().await;
    let id = bench.job(Some(300)).await;
    bench.counted(id, BatchReport::completed(batch(0), 9, 1).with_errors(errors_of(0, 1))).await;
    let failure = Failure::new(Stage::Process, "x", "x", false);
    bench.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("failed");
    let (held, erase) = erasing_up_to_the_head(&bench, id).await;
    // Should it end here, nothing is left of any lead.
    let left = bench.rig.items();
    assert!(left.iter().all(|item| item.get("rows").is_none()), "{left:?}");
    held.let_go();
    erase.await.expect("no panic").expect("erased");
    assert_eq!(bench.rig.items(), Vec::<serde_json::Value>::new());
}
