//! Watchers share one read of the store.
#![cfg(feature = "mock")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use status_core::{
    Actor, Facts, FileInfo, JobId, JobState, MockStatusStore, NewJob, OwnerId, Policy, Status, Timestamp,
    Tracker,
};

#[tokio::test(start_paused = true)]
async fn fifty_watchers_of_a_job_cost_the_reads_of_one() {
    let owner = OwnerId::new("alice").expect("a name");
    let file = FileInfo::new("leads.csv", 10, "text/csv").expect("a file");
    let id = JobId::new(Timestamp::now());
    let new = NewJob::new(file);
    let job = new.into_job(id, owner.clone(), &Policy::default(), Actor::OWNER).expect("a good job");
    let reads = Arc::new(AtomicU64::new(0));
    let mut store = MockStatusStore::new();
    let counted = reads.clone();
    store.expect_read().returning(move |_, _| {
        let read = counted.fetch_add(1, Ordering::SeqCst);
        let mut job = job.clone();
        job.revision = read + 1;
        if read == 9 {
            job.status = Status::Cancelled;
        }
        Ok(Some(JobState::new(job, Facts::default())))
    });
    store.expect_changed().returning(|_, _, _| ());
    let jobs = Tracker::new(Arc::new(store)).owned_by(owner);
    let watchers = join_all((0..50).map(|_| jobs.watch(id))).await;
    let watched = join_all(watchers.into_iter().map(|watched| async {
        let snapshots: Vec<_> = watched.expect("watched").collect().await;
        assert!(snapshots.is_sorted_by_key(|s| s.version));
        snapshots.last().map(|s| s.status)
    }));
    let seen = tokio::time::timeout(Duration::from_secs(60), watched).await.expect("they end");
    assert!(seen.iter().all(|status| *status == Some(Status::Cancelled)));
    assert_eq!(reads.load(Ordering::SeqCst), 10, "for all fifty together");
}
