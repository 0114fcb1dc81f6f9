//! What the memory store promises beyond the contract: it is bounded, and it wakes who waits.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use status_core::{
    Clock, Error, FileInfo, JobId, ManualClock, NewJob, Policy, Status, StoreError, SystemClock,
};
use status_memory::MemoryStore;
use status_testkit::Kit;
use tokio::time::Instant;

/// A kit over a store with room for so many jobs.
fn kit(capacity: usize) -> Kit {
    let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
    Kit::over(Arc::new(MemoryStore::new(capacity, clock.clone())), clock)
}

async fn create(kit: &Kit) -> Result<JobId, Error> {
    let file = FileInfo::new("leads.csv", 1_000, "text/csv").expect("a file");
    kit.jobs.create(NewJob::new(file)).await.map(|job| job.id)
}

#[tokio::test]
async fn a_full_store_forgets_the_oldest_terminal_job_and_refuses_where_all_are_alive() {
    let kit = kit(3);
    let live = create(&kit).await.expect("there is room");
    let completed = [kit.processing(1).await, kit.processing(1).await];
    let refused = create(&kit).await;
    assert!(matches!(refused, Err(Error::Store(StoreError::Full(3)))), "{refused:?}");
    kit.complete(completed[1], [0]).await;
    kit.wait(1);
    kit.complete(completed[0], [0]).await;
    create(&kit).await.expect("the one that has been terminal for longest makes room");
    assert!(kit.tracker.snapshot_now(completed[1]).await.is_err(), "it is forgotten");
    assert_eq!(kit.snapshot(completed[0]).await.status, Status::Completed);
    assert_eq!(kit.snapshot(live).await.status, Status::Uploading);
}

#[tokio::test]
async fn what_is_over_for_the_retention_leaves_its_room_to_others() {
    let kit = kit(2);
    let live = create(&kit).await.expect("there is room");
    let over = kit.processing(0).await;
    kit.clock.advance(Policy::default().retention);
    assert!(kit.tracker.snapshot_now(over).await.is_err(), "its retention is over");
    create(&kit).await.expect("its room is free");
    let refused = create(&kit).await;
    assert!(matches!(refused, Err(Error::Store(StoreError::Full(2)))), "{refused:?}");
    kit.state(live).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_who_waits_for_it() {
    let kit = kit(3);
    let id = kit.processing(2).await;
    let version = kit.snapshot(id).await.version;
    let (long, short) = (Duration::from_secs(30), Duration::from_millis(50));
    let begun = Instant::now();
    kit.store.changed(id, version, short).await;
    assert_eq!(begun.elapsed(), short, "nothing has changed");
    let begun = Instant::now();
    kit.store.changed(id, version - 1, long).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "it has changed before");
    for change in 0..3 {
        let version = kit.state(id).await.version();
        let begun = Instant::now();
        let waiting = kit.store.changed(id, version, long);
        let working = async {
            tokio::time::sleep(short).await;
            match change {
                0 => kit.complete(id, [0]).await,
                1 => drop(kit.jobs.cancel(id, None).await.expect("requested")),
                _ => kit.complete(id, [1]).await,
            }
        };
        tokio::join!(waiting, working);
        assert_eq!(begun.elapsed(), short, "woken by the change, not by the clock");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_a_change_when_it_comes() {
    let kit = kit(3);
    let id = kit.processing(3).await;
    let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
    watched.next().await.expect("the newest");
    for index in 0..3 {
        // Longer than a feed waits between two reads, so that only what comes next is waited for.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        kit.complete(id, [index]).await;
        watched.next().await.expect("a snapshot");
        assert!(begun.elapsed() <= Duration::from_millis(100), "{:?}", begun.elapsed());
    }
}
