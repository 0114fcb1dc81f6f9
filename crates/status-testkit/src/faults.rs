//! A store around a store that fails as networks and queues do, by a seed: answers lost after the write happened, requests
//! refused before it, repeated by a client that lost patience, or late.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use status_core::{
    BatchIndex, BatchReport, BatchState, Begin, Begun, Clock, Consistency, Created, Due, Effect, Error,
    ItemError, Job, JobId, JobState, OwnerId, Page, PageRequest, Status, StatusStore, StoreError, Timestamp,
    Written,
};

use crate::kit::{Kit, batch, done, splitter, totals};

/// How often, of a hundred calls, what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// The call is carried out, and the caller is told it was not.
    pub lost_answers: u64,
    /// The call is refused and not carried out.
    pub throttled: u64,
    /// The call is carried out twice.
    pub repeated: u64,
    /// The call waits for others.
    pub delayed: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self { lost_answers: 10, throttled: 10, repeated: 10, delayed: 20 }
    }
}

/// The store around a store.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn StatusStore>,
    faults: Faults,
    random: AtomicU64,
}

impl FaultyStore {
    /// A store that fails by `faults`, the same way for the same `seed` and the same calls.
    pub fn new(inner: Arc<dyn StatusStore>, faults: Faults, seed: u64) -> Self {
        Self { inner, faults, random: AtomicU64::new(seed) }
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn chance(&self) -> u64 {
        let mut z = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 100
    }

    async fn call<T, F>(&self, operation: &'static str, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        if self.chance() < self.faults.delayed {
            tokio::time::sleep(Duration::from_millis(self.chance() % 5)).await;
        }
        if self.chance() < self.faults.throttled {
            return Err(StoreError::Throttled {
                operation,
                subject: "a test".into(),
                source: "too fast".into(),
            });
        }
        let first = call().await;
        let answer = if self.chance() < self.faults.repeated { call().await } else { first };
        if self.chance() < self.faults.lost_answers {
            return Err(StoreError::Unavailable {
                operation,
                subject: "a test".into(),
                source: "the answer was lost".into(),
            });
        }
        answer
    }
}

#[async_trait]
impl StatusStore for FaultyStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        self.call("create", || self.inner.create(job)).await
    }

    async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        self.call("job", || self.inner.job(id, consistency)).await
    }

    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError> {
        self.call("read", || self.inner.read(id, consistency)).await
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        self.call("decide", || self.inner.decide(next)).await
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        self.call("propagate", || self.inner.propagate(job)).await
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        self.call("begin", || self.inner.begin(id, batches, at)).await
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        self.call("report", || self.inner.report(id, reports, at)).await
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        self.call("errors", || self.inner.errors(id, page)).await
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        self.call("batches", || self.inner.batches(id, which, from, limit)).await
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        self.call("list", || self.inner.list(owner, status, page)).await
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        self.call("due", || self.inner.due(now, page)).await
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        self.call("postpone", || self.inner.postpone(due, until)).await
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        self.call("erase", || self.inner.erase(id)).await
    }

    async fn changed(&self, id: JobId, version: u64, at_most: Duration) {
        self.inner.changed(id, version, at_most).await;
    }
}

/// Workers over a faulty store: they fail, die between two writes, and their messages come again. In the end every batch
/// has counted once and the job is completed.
///
/// # Panics
/// If it is not.
pub async fn workers_get_through<S: StatusStore>(seed: u64, open: impl AsyncFn(Arc<dyn Clock>) -> Arc<S>) {
    const TOTAL: u64 = 300;
    let sound = Kit::open(async |clock| open(clock).await).await;
    let id = sound.create(status_core::Policy::default()).await;
    let faulty = Arc::new(FaultyStore::new(sound.store.clone(), Faults::default(), seed));
    let kit = Kit::over(faulty, sound.clock.clone());
    let starting = async || kit.tracker.start(id, None, &splitter()).await;
    let sealing = async || kit.tracker.seal(id, totals(TOTAL), &splitter()).await;
    until_it_works(starting).await;
    let counted = join_all((0..8).map(|worker| {
        let kit = kit.clone();
        tokio::spawn(async move {
            let mut counted = 0;
            // Two workers share each batch.
            for index in (worker / 2..TOTAL).step_by(4) {
                counted += deliver(&kit, id, index).await;
            }
            counted
        })
    }));
    let (counted, _) = futures::join!(counted, until_it_works(sealing));
    let counted: u64 = counted.into_iter().map(|c| c.expect("no worker panicked")).sum();
    assert!(counted <= TOTAL, "seed {seed}: {counted} batches were said to be counted");
    let snapshot = until_it_works(async || kit.tracker.snapshot(id).await).await;
    assert_eq!(snapshot.status, Status::Completed, "seed {seed}");
    let state = sound.state(id).await;
    assert_eq!(
        (state.facts.counts.completed, state.facts.counts.items_processed),
        (TOTAL, 10 * TOTAL),
        "seed {seed}"
    );
    assert_eq!(state.facts.moments.get(status_core::Sum::Samples), i128::from(TOTAL), "seed {seed}");
}

/// Delivers a batch until a worker gets through with it.
async fn deliver(kit: &Kit, id: JobId, index: u64) -> u64 {
    loop {
        match kit.tracker.begin(id, batch(index)).await {
            Ok(Begin::Work) => {}
            Ok(Begin::AlreadyCompleted | Begin::Over(_)) => return 0,
            Ok(other) => panic!("one batch of the job is {other:?}"),
            Err(_) => continue,
        }
        if let Ok(recorded) = kit.tracker.report(id, vec![done(index)]).await {
            return u64::from(recorded.effects == [(batch(index), Effect::Counted)]);
        }
    }
}

async fn until_it_works<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    for _ in 0..1_000 {
        if let Ok(value) = call().await {
            return value;
        }
    }
    panic!("it never worked");
}
