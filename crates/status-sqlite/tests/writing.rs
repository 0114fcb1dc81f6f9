//! Writing at once: grouped commits, two handles on one file, and those who wait for a change.

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{check, open, raw};
use futures::{future::join_all, poll};
use status_core::{
    Actor, BatchIndex, BatchReport, Clock, Effect, ManualClock, NewJob, Policy, Status, StatusStore,
    SystemClock, Totals, Tracker,
};
use status_sqlite::SqliteStore;
use status_testkit::Kit;

fn done(index: u64) -> BatchReport {
    BatchReport::completed(BatchIndex::new(index).expect("a small index"), 10, 0)
}

fn kit(store: &SqliteStore) -> Kit {
    let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
    Kit::over(Arc::new(store.clone().with_clock(clock.clone())), clock)
}

#[tokio::test]
async fn reports_that_wait_at_one_moment_share_a_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let kit = kit(&store);
    let id = kit.processing(64).await;
    let before = store.commits();
    let other = raw(store.path());
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes now");
    let reports = (0..32).map(|index| kit.tracker.report(id, vec![done(index)]));
    let mut reports = std::pin::pin!(join_all(reports));
    assert!(poll!(&mut reports).is_pending());
    other.execute_batch("COMMIT").expect("and now they do");
    for reported in reports.await {
        assert_eq!(reported.expect("reported").effects[0].1, Effect::Counted);
    }
    let commits = store.commits() - before;
    assert!((1..=2).contains(&commits), "{commits} commits for 32 reports");
    assert_eq!(kit.state(id).await.facts.counts.completed, 32);
    let before = store.commits();
    kit.complete(id, 0..32).await;
    assert_eq!(store.commits(), before, "a duplicate writes nothing");
}

#[tokio::test]
async fn a_report_changes_one_page_also_far_into_a_long_job() {
    // A page in SQLite's log, with the header of its own.
    const PAGE: u64 = 24 + 4_096;
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let kit = kit(&store);
    let id = kit.processing(40_000).await;
    kit.tracker.report(id, (0..39_000).map(done).collect()).await.expect("reported");
    let log = format!("{}-wal", store.path().display());
    let log = || std::fs::metadata(&log).expect("its size").len();
    let before = log();
    for index in 39_000..39_100 {
        kit.complete(id, [index]).await;
    }
    assert_eq!((log() - before) / PAGE, 100, "the bits and the sums are on one page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_one_file_count_exactly() {
    const TOTAL: u64 = 400;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("status.db");
    let stores = [open(&path).await, open(&path).await];
    let kits = stores.each_ref().map(kit);
    let id = kits[0].processing(TOTAL).await;
    // Each batch is reported through both, by eight workers each.
    let workers = (0..16_u64).map(|worker| {
        let tracker = kits[usize::try_from(worker % 2).expect("one of two")].tracker.clone();
        tokio::spawn(async move {
            let mut counted = 0;
            for index in (worker / 2..TOTAL).step_by(8) {
                let reported = tracker.report(id, vec![done(index)]).await.expect("reported");
                counted += u64::from(reported.effects[0].1 == Effect::Counted);
            }
            counted
        })
    });
    let counted: u64 = join_all(workers).await.into_iter().map(|counted| counted.expect("no panic")).sum();
    assert_eq!(counted, TOTAL);
    for kit in &kits {
        let job = kit.state(id).await.job;
        assert_eq!((job.status, job.frozen.map(|f| f.completed)), (Status::Completed, Some(TOTAL)));
    }
    drop((stores, kits));
    check(&path);
}

#[tokio::test]
async fn a_change_wakes_who_waits_for_it_also_across_handles() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("status.db");
    let (store, other) = (open(&path).await, open(&path).await);
    let (here, there) = (kit(&store), kit(&other));
    let (id, quiet) = (here.processing(9).await, here.processing(9).await);
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(100));
    let version = async |id| here.state(id).await.version();
    for writer in [&here, &there] {
        let before = version(id).await;
        let begun = Instant::now();
        let waiting = async {
            store.changed(id, before, long).await;
            begun.elapsed()
        };
        let silent = async {
            store.changed(quiet, version(quiet).await, Duration::from_secs(1)).await;
            begun.elapsed()
        };
        let working = async {
            tokio::time::sleep(short).await;
            writer.complete(id, [before]).await;
        };
        let (woken, silent, ()) = tokio::join!(waiting, silent, working);
        assert!((short..long / 2).contains(&woken), "woken by the change, after {woken:?}");
        assert!(silent >= Duration::from_secs(1), "another job's change is none: {silent:?}");
        let begun = Instant::now();
        store.changed(id, before, long).await;
        assert!(begun.elapsed() < long / 2, "it has changed before");
    }
}

#[tokio::test]
async fn lists_that_have_their_own_index_say_what_the_default_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let kit = kit(&store);
    let start = kit.clock.now();
    let mut ids = Vec::new();
    for index in 0..9_u64 {
        kit.wait(1);
        let new = NewJob::titled("Nightly").with_kind(if index % 2 == 0 { "even" } else { "odd" });
        let id = kit.jobs.create(new).await.expect("created").id;
        if index >= 2 {
            let totals = Totals { batches: u64::from(index == 8), items: None };
            kit.tracker.start(id, Some(totals), &Actor::WORKER).await.expect("started");
        }
        ids.push(id);
    }
    let owner = status_core::OwnerId::new("alice").expect("a name");
    let store: &dyn StatusStore = &store;
    assert_eq!(store.count_open(&owner, 10).await.expect("counted"), 3);
    assert_eq!(store.count_open(&owner, 2).await.expect("counted"), 2);
    let named = |jobs: Vec<status_core::Job>| -> Vec<usize> {
        jobs.iter().map(|job| ids.iter().position(|id| *id == job.id).expect("known")).collect()
    };
    assert_eq!(named(store.last_completed(&owner, "even", 2).await.expect("listed")), [6, 4]);
    assert_eq!(named(store.last_completed(&owner, "odd", 9).await.expect("listed")), [7, 5, 3]);
    let since = status_core::clock::after(start, Duration::from_secs(7));
    assert_eq!(named(store.changed_since(&owner, since, 9).await.expect("listed")), [8, 7, 6, 1, 0]);
    assert_eq!(named(store.changed_since(&owner, since, 2).await.expect("listed")), [8, 7]);
}

#[test]
fn a_store_serves_one_runtime_after_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("status.db");
    let store = status_testkit::run(async { open(&path).await });
    let id = status_testkit::run(async { kit(&store).processing(2).await });
    status_testkit::run(async {
        let tracker = Tracker::new(Arc::new(store.clone()));
        tracker.report(id, vec![done(0), done(1)]).await.expect("reported");
        assert_eq!(tracker.snapshot_now(id).await.expect("there").status, Status::Completed);
    });
}

#[tokio::test]
async fn a_batch_that_was_counted_before_a_lower_total_was_known_stands_for_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let kit = kit(&store);
    for (total, past) in [(3, 5), (3, 300), (256, 256), (257, 600)] {
        let id = kit.create(Policy::default()).await;
        kit.tracker.start(id, None, &Actor::WORKER).await.expect("started");
        // The seal was decided from what was read before the report came.
        let mut sealed = kit.state(id).await.job;
        kit.complete(id, [past]).await;
        sealed.totals = Some(Totals { batches: total, items: None });
        sealed.revision += 1;
        store.decide(&sealed).await.expect("sealed");
        kit.tracker.report(id, (1..total).map(done).collect()).await.expect("reported");
        let facts = kit.state(id).await.facts;
        assert_eq!((facts.counts.completed, facts.stray.completed), (total - 1, 1), "{past} of {total}");
        assert_eq!(kit.snapshot(id).await.status, Status::Processing, "batch 0 is missing");
        kit.complete(id, [0]).await;
        assert_eq!(kit.state(id).await.job.status, Status::Completed);
    }
}
