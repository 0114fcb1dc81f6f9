//! What every case is given: an empty store, a clock that stands still, a tracker, and short ways to common states.

use std::{future::Future, sync::Arc, time::Duration};

use status_core::{
    Actor, BatchIndex, BatchReport, Clock, Consistency, Effect, Error, FileInfo, JobId, JobState,
    ManualClock, NewJob, OwnedJobs, OwnerId, Page, PageRequest, Policy, Reported, Snapshot, StatusStore,
    SystemClock, Totals, Tracker,
};

/// Runs a test to its end on a runtime of two threads.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be built").block_on(test)
}

/// An empty store and what is needed to use it.
#[derive(Clone, Debug)]
pub struct Kit {
    /// The store, for what a crashed worker would have done.
    pub store: Arc<dyn StatusStore>,
    /// Stands still unless told.
    pub clock: Arc<ManualClock>,
    /// A tracker over the store.
    pub tracker: Tracker,
    /// The jobs of the owner of all the kit's jobs.
    pub jobs: OwnedJobs,
}

impl Kit {
    /// A kit over the store that `open` opens.
    pub async fn open<S: StatusStore>(open: impl AsyncFnOnce(Arc<dyn Clock>) -> Arc<S>) -> Self {
        // Today: a store with a time to live deletes, by its own clock, what was kept for long enough.
        let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
        Self::over(open(clock.clone()).await, clock)
    }

    /// A kit over this store and clock.
    pub fn over(store: Arc<dyn StatusStore>, clock: Arc<ManualClock>) -> Self {
        let tracker = Tracker::new(store.clone()).with_clock(clock.clone()).with_noun("Leads");
        let jobs = tracker.owned_by(owner("alice"));
        Self { store, clock, tracker, jobs }
    }

    /// A new job with a policy.
    pub async fn create(&self, policy: Policy) -> JobId {
        let new = NewJob::new(file("leads.csv")).with_policy(policy);
        self.jobs.create(new).await.expect("a job is created").id
    }

    /// A job in Processing with a policy and a total.
    pub async fn processing_with(&self, policy: Policy, total: u64) -> JobId {
        let id = self.create(policy).await;
        self.tracker.start(id, Some(totals(total)), &splitter()).await.expect("it starts");
        id
    }

    /// A job in Processing with the default policy and a total.
    pub async fn processing(&self, total: u64) -> JobId {
        self.processing_with(Policy::default(), total).await
    }

    /// Reports batches of ten items as completed.
    pub async fn complete(&self, id: JobId, batches: impl IntoIterator<Item = u64>) {
        for index in batches {
            self.tracker.report(id, vec![done(index)]).await.expect("a completed batch is recorded");
        }
    }

    /// Reports batches of ten items as failed.
    pub async fn fail(&self, id: JobId, batches: impl IntoIterator<Item = u64>) {
        for index in batches {
            self.tracker.report(id, vec![failed(index)]).await.expect("a failed batch is recorded");
        }
    }

    /// What a worker does that dies before it can decide anything: the store's write, and no more.
    pub async fn report_and_die(&self, id: JobId, report: BatchReport) {
        self.store.report(id, &[report], self.clock.now()).await.expect("the outcome is recorded");
    }

    /// The job as the store has it, strongly consistent; decides nothing.
    pub async fn state(&self, id: JobId) -> JobState {
        self.store.read(id, Consistency::Strong).await.expect("the store answers").expect("the job is there")
    }

    /// The job as people see it now.
    pub async fn snapshot(&self, id: JobId) -> Snapshot {
        self.tracker.snapshot_now(id).await.expect("the job is there")
    }

    /// Lets time pass.
    pub fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// The rows of all pages of at most `limit`, which have to come to an end.
pub(crate) async fn all_pages<T, E: std::fmt::Debug, F: Future<Output = Result<Page<T>, E>>>(
    limit: usize,
    list: impl Fn(PageRequest) -> F,
) -> Vec<T> {
    let (mut page, mut rows) = (PageRequest::first(limit), Vec::new());
    for _ in 0..100 {
        let part = list(page.clone()).await.expect("listed");
        assert!(part.rows.len() <= limit, "{} rows in a page of {limit}", part.rows.len());
        rows.extend(part.rows);
        match part.next {
            Some(next) => page.cursor = Some(next),
            None => return rows,
        }
    }
    panic!("a hundred pages of {limit}, and no end");
}

/// The batch with this number.
pub(crate) fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

/// Batch `index` of ten items, completed within a second.
pub(crate) fn done(index: u64) -> BatchReport {
    BatchReport::completed(batch(index), 10, 0).took(Duration::from_secs(1))
}

/// Batch `index` of ten items, failed.
pub(crate) fn failed(index: u64) -> BatchReport {
    BatchReport::failed(batch(index), 10, "llm-refused", "The model refused.")
}

/// So many batches of ten items.
pub(crate) fn totals(batches: u64) -> Totals {
    Totals { batches, items: Some(batches * 10) }
}

pub(crate) fn owner(name: &str) -> OwnerId {
    OwnerId::new(name).expect("a good name")
}

pub(crate) fn file(name: &str) -> FileInfo {
    FileInfo::new(name, 2_000, "text/csv").expect("a good file")
}

pub(crate) fn splitter() -> Actor {
    Actor::named("splitter")
}

/// The rejection in an error, for cases that expect one.
pub(crate) fn rejection<T: std::fmt::Debug>(result: Result<T, Error>) -> status_core::Rejection {
    match result {
        Err(Error::Rejected { rejection, .. }) => rejection,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

/// What became of each report, in the order given.
pub(crate) fn effects(reported: &Reported) -> Vec<Effect> {
    reported.effects.iter().map(|(_, effect)| *effect).collect()
}
