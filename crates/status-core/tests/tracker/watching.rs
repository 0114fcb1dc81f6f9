//! Watchers share one read of the store, and outlive whoever reads it for them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all};
use status_core::{Facts, JobState, Policy, Snapshot, Status, StatusStore, Tracker};
use status_testkit::{
    Kit,
    layer::{Answer, Call, after, before},
};
use tokio::time::timeout;

use super::{kit, tracking, unavailable};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn fifty_watchers_of_a_job_cost_the_reads_of_one() {
    let sound = kit().await;
    let id = sound.create(Policy::default()).await;
    let job = sound.state(id).await.job;
    let reads = Arc::new(AtomicU64::new(0));
    let counted = reads.clone();
    let kit = sound.behind(before(move |call| match call {
        Call::Read(..) => {
            let read = counted.fetch_add(1, Ordering::SeqCst);
            let mut job = job.clone();
            job.revision = read + 1;
            if read == 9 {
                job.status = Status::Cancelled;
            }
            Some(Ok(Answer::Read(Some(JobState::new(job, Facts::default())))))
        }
        Call::Changed(..) => Some(Ok(Answer::Changed(()))),
        _ => None,
    }));
    let watchers = join_all((0..50).map(|_| kit.jobs.watch(id))).await;
    let watched = join_all(watchers.into_iter().map(|watched| async {
        let snapshots: Vec<_> = watched.expect("watched").collect().await;
        assert!(snapshots.is_sorted_by_key(|s| s.version));
        snapshots.last().map(|s| s.status)
    }));
    let seen = timeout(PATIENCE, watched).await.expect("they end");
    assert!(seen.iter().all(|status| *status == Some(Status::Cancelled)));
    assert_eq!(reads.load(Ordering::SeqCst), 10, "for all fifty together");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_facts_that_went_back_is_shown_the_truth_and_the_end() {
    let sound = kit().await;
    let (ahead, reads) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (shows, counted) = (ahead.clone(), reads.clone());
    let kit = sound.behind(after(move |call, mut answer| {
        if let (Call::Read(..), Ok(Answer::Read(Some(state)))) = (call, &mut answer) {
            counted.fetch_add(1, Ordering::SeqCst);
            if shows.load(Ordering::SeqCst) {
                state.facts.counts.completed += 1;
                state.facts.counts.items_processed += 1_000;
            }
        }
        answer
    }));
    let items = |snapshot: &Snapshot| snapshot.progress.items.processed;
    let id = sound.processing(3).await;
    let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
    assert_eq!(items(&watched.next().await.expect("the newest")), 1_000);
    ahead.store(false, Ordering::SeqCst);
    let truth = timeout(PATIENCE, watched.next()).await.expect("shown").expect("a snapshot");
    assert_eq!(items(&truth), 0, "a strong read says so");
    assert_eq!(see_to_the_end(&sound, id, watched).await.last(), Some(&Status::Completed));

    // The same where the job ends in the moment in which its facts go back.
    ahead.store(true, Ordering::SeqCst);
    let id = sound.processing(3).await;
    let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
    watched.next().await.expect("the newest");
    ahead.store(false, Ordering::SeqCst);
    let before = reads.load(Ordering::SeqCst);
    assert_eq!(see_to_the_end(&sound, id, watched).await.last(), Some(&Status::Completed));
    let read = reads.load(Ordering::SeqCst) - before;
    assert!(read < 20, "{read} reads");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_nobody_watches_reads_no_more() {
    let sound = kit().await;
    let id = sound.processing(3).await;
    let reads = Arc::new(AtomicU64::new(0));
    let counted = reads.clone();
    let kit = sound.behind(before(move |call| {
        if matches!(call, Call::Read(..)) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        None
    }));
    let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
    watched.next().await.expect("the newest");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let while_watched = reads.load(Ordering::SeqCst);
    assert!((20..100).contains(&while_watched), "{while_watched} reads in 30 s");
    drop(watched);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = reads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(reads.load(Ordering::SeqCst), after);
}

/// Completes the job and gives what a watcher that was shown the newest sees then.
async fn see_to_the_end(
    sound: &Kit,
    id: status_core::JobId,
    watched: impl futures::Stream<Item = Arc<status_core::Snapshot>>,
) -> Vec<Status> {
    sound.complete(id, 0..3).await;
    let seen = watched.map(|snapshot| snapshot.status).collect();
    timeout(PATIENCE, seen).await.expect("the stream ends with the job")
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_once_leaves_no_watcher_hanging() {
    for panics_at in [0, 1, 2, 5] {
        let sound = kit().await;
        let id = sound.processing(3).await;
        let reads = AtomicU64::new(0);
        let kit = sound.behind(before(move |call| {
            if matches!(call, Call::Read(..)) && reads.fetch_add(1, Ordering::SeqCst) == panics_at {
                panic!("a fault of the store");
            }
            None
        }));
        let mut early =
            Box::pin(timeout(PATIENCE, kit.jobs.watch(id)).await.expect("it answers").expect("found"));
        early.next().await.expect("the newest");
        tokio::time::sleep(Duration::from_secs(10)).await;
        let late = timeout(PATIENCE, kit.jobs.watch(id)).await.expect("it answers").expect("found");
        let seen = see_to_the_end(&sound, id, late).await;
        assert_eq!(seen.last(), Some(&Status::Completed), "a later watcher, at read {panics_at}");
        let seen: Vec<_> = timeout(PATIENCE, early.collect::<Vec<_>>()).await.expect("it ends");
        let last = seen.last().expect("the end");
        assert_eq!(last.status, Status::Completed, "who watched then, at read {panics_at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_ends_no_stream() {
    for fails_from in [0, 1, 3] {
        let sound = kit().await;
        let id = sound.processing(3).await;
        let (reads, failing) = (AtomicU64::new(0), Arc::new(AtomicBool::new(true)));
        let fails = failing.clone();
        let kit = sound.behind(before(move |call| match call {
            Call::Read(..) => {
                let read = reads.fetch_add(1, Ordering::SeqCst);
                // The watcher's own first read succeeds.
                let fails =
                    read >= fails_from && (fails_from > 0 || read != 1) && fails.load(Ordering::SeqCst);
                fails.then(|| Err(unavailable("read")))
            }
            _ => None,
        }));
        let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
        watched.next().await.expect("the newest");
        let seeing = see_to_the_end(&sound, id, watched);
        let recovering = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            failing.store(false, Ordering::SeqCst);
        };
        let (seen, ()) = futures::join!(seeing, recovering);
        assert_eq!(seen.last(), Some(&Status::Completed), "it failed from read {fails_from}");
    }
}

/// Runs on a runtime of its own, which is gone when it returns.
fn on_a_runtime<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(test)
}

#[test]
fn a_feed_whose_runtime_is_gone_is_begun_again() {
    let kit = on_a_runtime(kit());
    let id = on_a_runtime(kit.processing(3));
    let watched = on_a_runtime(async {
        let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
        watched.next().await.expect("the newest");
        watched
    });
    on_a_runtime(async {
        let late = timeout(PATIENCE, kit.jobs.watch(id)).await.expect("it answers").expect("found");
        let seen = see_to_the_end(&kit, id, late).await;
        assert_eq!(seen.last(), Some(&Status::Completed), "a later watcher");
        let seen = timeout(PATIENCE, watched.collect::<Vec<_>>()).await.expect("it ends");
        assert_eq!(seen.last().map(|s| s.status), Some(Status::Completed), "who watched before");
    });
}

#[test]
fn watching_while_the_runtime_shuts_down_does_not_hang() {
    let kit = on_a_runtime(kit());
    let id = on_a_runtime(kit.processing(3));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let handle = runtime.handle().clone();
    drop(runtime);
    let (done, waiting) = mpsc::channel();
    let jobs = kit.jobs.clone();
    thread::spawn(move || {
        // A task that is begun here is dropped at once.
        let _entered = handle.enter();
        let watched = jobs.watch(id).now_or_never();
        let _ = done.send(watched.is_some_and(|watched| watched.is_ok()));
    });
    assert_eq!(waiting.recv_timeout(PATIENCE), Ok(true), "it gives what it has read itself");
    assert!(on_a_runtime(async { kit.jobs.watch(id).await.is_ok() }), "and the feeds are not locked");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_time_alone_when_there_is_something_to_see() {
    let kit = kit().await;
    let id = kit.processing_with(tracking(), 3).await;
    let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
    watched.next().await.expect("the newest");
    kit.wait(10);
    let nothing = timeout(Duration::from_secs(30), watched.next()).await;
    assert!(nothing.is_err(), "ten seconds later it looks the same");
    kit.wait(200);
    let stalled = timeout(PATIENCE, watched.next()).await.expect("something to see").expect("a snapshot");
    assert_eq!(stalled.health, status_core::Health::Stalled);
}

#[tokio::test]
async fn pointers_to_stores_are_stores() {
    let sound = kit().await;
    let boxed: Box<dyn StatusStore> = Box::new(sound.store.clone());
    let tracker = Tracker::new(Arc::new(boxed)).with_clock(sound.clock.clone());
    let jobs = tracker.owned_by(status_core::OwnerId::new("alice").expect("a name"));
    let id = jobs.create(status_core::NewJob::titled("Nightly export")).await.expect("created").id;
    assert_eq!(sound.state(id).await.job.id, id);
    assert_eq!((jobs.count_open(9).await.expect("counted"), sound.due().await.len()), (1, 0));
}
