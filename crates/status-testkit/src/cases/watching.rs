//! Watching: snapshots as they come, and waiting for a change.

use std::time::Duration;

use futures::StreamExt;
use status_core::{Command, JobId, Policy, Status};
use tokio::time::{Instant, timeout};

use crate::kit::{Kit, batch, done, failed, splitter, tolerant, totals};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn a_watcher_sees_progress_and_the_end(kit: Kit) {
    watch_to_the_end(&kit, &kit).await;
}

/// Watches with one kit what workers do with the other.
pub(super) async fn watch_to_the_end(kit: &Kit, workers: &Kit) {
    let id = workers.processing(3).await;
    let mut watched = std::pin::pin!(kit.jobs.watch(id).await.expect("watched"));
    let mut last = watched.next().await.expect("the newest at once");
    assert_eq!(last.status, Status::Processing);
    for index in 0..3 {
        workers.complete(id, [index]).await;
        // Each change is waited for: nothing here depends on how often a feed reads.
        while last.progress.batches.completed <= index {
            let next = timeout(PATIENCE, watched.next()).await.expect("it goes on");
            let next = next.expect("the stream ends with the job");
            assert!(next.version >= last.version && next.covers(&last.token()), "never back");
            assert_ne!(next.token(), last.token(), "something has changed");
            last = next;
        }
    }
    while last.status != Status::Completed {
        last = timeout(PATIENCE, watched.next()).await.expect("it goes on").expect("until the end");
    }
    assert!(timeout(PATIENCE, watched.next()).await.expect("at once").is_none(), "the stream has ended");
}

pub(super) async fn waiting_for_a_change_of_a_quiet_job_takes_the_time_it_is_given(kit: Kit) {
    let at_most = Duration::from_millis(60);
    for id in in_every_state(&kit).await {
        let version = kit.state(id).await.version();
        let begun = Instant::now();
        timeout(PATIENCE, kit.store.changed(id, version, at_most)).await.expect("it ends");
        // A timer may be early by its resolution.
        let waited = begun.elapsed() + Duration::from_millis(5);
        assert!(waited >= at_most, "returned at once: {waited:?}, {:?}", kit.state(id).await.job);
    }
}

/// A job of each kind for which a store may count its changes another way.
async fn in_every_state(kit: &Kit) -> Vec<JobId> {
    let uploading = kit.create(Policy::default()).await;
    let failing = kit.processing_with(tolerant(), 600).await;
    kit.complete(failing, [0, 1, 300]).await;
    kit.fail(failing, [2, 301]).await;
    kit.complete(failing, [301]).await;
    let asked = kit.processing(2).await;
    kit.jobs.cancel(asked, None).await.expect("requested");
    let over = kit.processing(3).await;
    kit.fail(over, [0]).await;
    kit.complete(over, [1]).await;
    let strays = kit.streaming_with(tolerant()).await;
    let sealed = kit.next(strays, &Command::Start(Some(totals(2)))).await;
    kit.report_and_die(strays, done(2)).await;
    kit.report_and_die(strays, failed(300)).await;
    kit.store.decide(&sealed).await.expect("swapped in");
    kit.store.propagate(&sealed).await.expect("propagated");
    let ended = kit.streaming_with(tolerant()).await;
    kit.complete(ended, [0]).await;
    kit.tracker.seal(ended, totals(1), &splitter()).await.expect("sealed");
    kit.tracker.begin(ended, batch(0)).await.expect("asked");
    vec![uploading, failing, asked, over, strays, ended]
}

pub(super) async fn waiting_ends_when_the_job_changes_or_the_time_is_up(kit: Kit) {
    let id = kit.processing_with(tolerant(), 9).await;
    let at_most = Duration::from_millis(60);
    for index in 0..4 {
        let version = kit.state(id).await.version();
        let waiting = timeout(PATIENCE, kit.store.changed(id, version, at_most));
        let working = async {
            match index {
                0 => kit.complete(id, [0]).await,
                1 => kit.fail(id, [1]).await,
                2 => kit.complete(id, [1]).await,
                _ => drop(kit.jobs.cancel(id, None).await.expect("requested")),
            }
        };
        let (waited, ()) = futures::join!(waiting, working);
        waited.expect("it ends");
        assert!(kit.state(id).await.version() > version);
        // It has changed since: there is nothing to wait for, though a store may not know that.
        timeout(PATIENCE, kit.store.changed(id, version, at_most)).await.expect("it ends");
    }
    let gone = kit.processing(2).await;
    let version = kit.state(gone).await.version();
    kit.tracker.erase(gone).await.expect("erased");
    timeout(PATIENCE, kit.store.changed(gone, version, at_most)).await.expect("it ends");
}
