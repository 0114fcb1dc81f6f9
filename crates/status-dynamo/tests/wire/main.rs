//! The store over a wire that loses and holds requests: what others see in between, and what is left.

mod chunks;
mod counts;
mod erasing;
mod errors;
mod keys;
mod lists;
mod rig;

use std::{sync::Arc, time::Duration};

use rig::{Fault, Held, Rig};
use serde_json::json;
use status_core::{
    Actor, BatchIndex, BatchReport, BatchState, Clock, Consistency, Effect, Error, Failure, FileInfo,
    ItemError, JobId, ManualClock, NewJob, Outcome, OwnedJobs, OwnerId, PageRequest, Policy, Snapshot, Stage,
    Status, StatusStore, StoreError, SystemClock, Tolerance, Totals, Tracker,
};
use status_dynamo::DynamoStore;

struct Bench {
    rig: Rig,
    clock: Arc<ManualClock>,
    store: Arc<DynamoStore>,
    tracker: Tracker,
    jobs: OwnedJobs,
}

impl Bench {
    async fn open() -> Self {
        let rig = Rig::new();
        let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
        let store = rig.store(clock.clone()).await;
        let tracker = Tracker::new(store.clone()).with_clock(clock.clone());
        let jobs = tracker.owned_by(OwnerId::new("alice").expect("a name"));
        Self { rig, clock, store, tracker, jobs }
    }

    /// A running job that tolerates every failure, of so many batches, if that is known.
    async fn job(&self, batches: Option<u64>) -> JobId {
        self.job_with(tolerant(), batches).await
    }

    async fn job_with(&self, policy: Policy, batches: Option<u64>) -> JobId {
        let id = self.jobs.create(NewJob::titled("a").with_policy(policy)).await.expect("created").id;
        let totals = batches.map(|batches| Totals { batches, items: None });
        self.tracker.start(id, totals, &Actor::named("splitter")).await.expect("started");
        id
    }

    async fn report(&self, id: JobId, report: BatchReport) -> Result<status_core::Reported, Error> {
        self.tracker.report(id, vec![report]).await
    }

    async fn counted(&self, id: JobId, report: BatchReport) {
        self.report(id, report).await.expect("counted");
    }

    /// A report that goes on while the test does.
    fn reporting(&self, id: JobId, report: BatchReport) -> tokio::task::JoinHandle<Result<(), Error>> {
        let tracker = self.tracker.clone();
        tokio::spawn(async move { tracker.report(id, vec![report]).await.map(drop) })
    }

    async fn shown(&self, id: JobId) -> Snapshot {
        self.tracker.snapshot_now(id).await.expect("readable")
    }

    async fn errors(&self, id: JobId) -> Vec<ItemError> {
        let (mut page, mut all) = (PageRequest::first(1_000), Vec::new());
        loop {
            let part = self.tracker.errors(id, &page).await.expect("listed");
            all.extend(part.rows);
            match part.next {
                Some(next) => page.cursor = Some(next),
                None => return all,
            }
        }
    }

    /// Whether every chunk that the job does not have is closed.
    fn is_closed(&self, sk: &str) -> bool {
        self.rig.with_sk(sk).iter().all(|chunk| chunk["cap"]["N"] == "0")
    }
}

fn tolerant() -> Policy {
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Percent(100);
    policy
}

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

fn done(index: u64) -> BatchReport {
    BatchReport::completed(batch(index), 10, 0)
}

fn failed(index: u64, items: u64) -> BatchReport {
    BatchReport::failed(batch(index), items, "llm-refused", "The model refused.")
}

/// Errors of the first items of a batch.
fn errors_of(index: u64, count: u64) -> Vec<ItemError> {
    (0..count).map(|item| ItemError::new(batch(index), Some(item), "bad", "It is bad.")).collect()
}

/// The first write of a chunk, after a look at the head.
fn is_first_write(operation: &str, body: &str) -> bool {
    operation == "UpdateItem" && body.contains("NOT contains(c") && !body.contains("attribute_exists(k)")
}

fn is_past(told: &Result<status_core::Reported, Error>) -> bool {
    matches!(told, Err(Error::Rejected { .. }))
}
