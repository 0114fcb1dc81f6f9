//! What the memory store promises beyond the contract: it is bounded, and it wakes who waits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use status_core::{
    Actor, BatchIndex, BatchReport, Clock, FileInfo, JobId, ManualClock, NewJob, OwnerId, Policy, Status,
    StatusStore, StoreError, SystemClock, Totals, Tracker,
};
use status_memory::MemoryStore;

/// A store with room for so many jobs, its clock, and a tracker over it.
fn store(capacity: usize) -> (Arc<MemoryStore>, Arc<ManualClock>, Tracker) {
    let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
    let store = Arc::new(MemoryStore::new(capacity, clock.clone()));
    let tracker = Tracker::new(store.clone()).with_clock(clock.clone());
    (store, clock, tracker)
}

async fn create(tracker: &Tracker) -> Result<JobId, status_core::Error> {
    let file = FileInfo::new("leads.csv", 1_000, "text/csv").expect("a file");
    let alice = tracker.owned_by(OwnerId::new("alice").expect("an owner"));
    alice.create(NewJob::new(file)).await.map(|job| job.id)
}

async fn start(tracker: &Tracker, id: JobId, batches: u64) {
    let totals = Totals { batches, items: None };
    tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("it starts");
}

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

#[tokio::test]
async fn a_full_store_forgets_the_oldest_terminal_job_and_refuses_where_all_are_alive() {
    let (_, clock, tracker) = store(3);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(1));
        jobs.push(create(&tracker).await.expect("there is room"));
    }
    let refused = create(&tracker).await;
    assert!(matches!(refused, Err(status_core::Error::Store(StoreError::Full(3)))), "{refused:?}");
    // Zero batches complete a job.
    start(&tracker, jobs[1], 0).await;
    clock.advance(Duration::from_secs(1));
    start(&tracker, jobs[0], 0).await;
    create(&tracker).await.expect("the one that has been terminal for longest makes room");
    assert!(tracker.snapshot_now(jobs[1]).await.is_err(), "it is forgotten");
    assert_eq!(tracker.snapshot_now(jobs[0]).await.expect("kept").status, Status::Completed);
    assert_eq!(tracker.snapshot_now(jobs[2]).await.expect("kept").status, Status::Uploading);
}

#[tokio::test]
async fn what_is_over_for_the_retention_leaves_its_room_to_others() {
    let (_, clock, tracker) = store(2);
    let retention = Policy::default().retention;
    let live = create(&tracker).await.expect("there is room");
    let over = create(&tracker).await.expect("there is room");
    start(&tracker, over, 0).await;
    clock.advance(retention);
    assert!(tracker.snapshot_now(over).await.is_err(), "its retention is over");
    create(&tracker).await.expect("its room is free");
    let refused = create(&tracker).await;
    assert!(matches!(refused, Err(status_core::Error::Store(StoreError::Full(2)))), "{refused:?}");
    tracker.snapshot_now(live).await.expect("a live job is never forgotten");
}

#[tokio::test]
async fn a_change_wakes_who_waits_for_it() {
    let (store, _, tracker) = store(3);
    let id = create(&tracker).await.expect("there is room");
    start(&tracker, id, 2).await;
    let version = tracker.snapshot_now(id).await.expect("there").version;
    let (long, short) = (Duration::from_secs(30), Duration::from_millis(50));
    let begun = Instant::now();
    store.changed(id, version, short).await;
    assert!(begun.elapsed() >= short, "nothing has changed");
    let begun = Instant::now();
    store.changed(id, version - 1, long).await;
    assert!(begun.elapsed() < long / 2, "it has changed before");
    let begun = Instant::now();
    let waiting = store.changed(id, version, long);
    let working = async {
        tokio::time::sleep(short).await;
        tracker.record(id, vec![BatchReport::completed(batch(0), 10, 0)]).await.expect("recorded");
    };
    tokio::join!(waiting, working);
    assert!((short..long / 2).contains(&begun.elapsed()), "woken by the change, {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_start_is_noted_only_of_a_job_that_tracks_them_and_runs() {
    let (store, clock, tracker) = store(9);
    for (track, started) in [(false, true), (true, false)] {
        let mut policy = Policy::default();
        policy.track_starts = track;
        let id = create(&tracker.clone().with_policy(policy)).await.expect("there is room");
        if started {
            start(&tracker, id, 2).await;
        }
        store.begin(id, &[batch(0)], clock.now()).await.expect("begun").expect("there");
        let record = store.read(id, status_core::Consistency::Strong).await.expect("read").expect("there");
        assert!(record.facts.running.is_empty(), "tracks: {track}, runs: {started}");
    }
}
