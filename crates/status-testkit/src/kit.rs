//! What every case is given: an empty store, a clock that stands still, a tracker, and short ways to
//! common states.

use std::{
    fmt::{self, Debug},
    future::Future,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use status_core::{
    Actor, BatchIndex, BatchReport, Clock, Command, Consistency, Effect, Error, Failure, FileInfo, Job,
    JobId, JobState, ManualClock, NewJob, OwnedJobs, OwnerId, Page, PageRequest, Policy, Rejection, Reported,
    Snapshot, Stage, StatusStore, StoreError, SystemClock, Tolerance, Totals, Tracker, Verdict, machine,
};

use crate::layer::{Answer, Call, Layer, Layered};

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
    again: Option<Again>,
}

/// Opens a store.
type Open = dyn Fn(Arc<dyn Clock>) -> BoxFuture<'static, Arc<dyn StatusStore>> + Send + Sync;

/// How the same data are opened again.
#[derive(Clone)]
struct Again(Arc<Open>);

impl Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

impl Kit {
    /// A kit over the store that `open` opens.
    pub async fn open<S: StatusStore>(open: impl AsyncFnOnce(Arc<dyn Clock>) -> Arc<S>) -> Self {
        let clock = today();
        Self::over(open(clock.clone()).await, clock)
    }

    /// A kit over the store that `open` opens at a new place, and opens again there whenever it is asked to.
    pub async fn placed<P, S, O, F>(place: impl AsyncFnOnce() -> P, open: O) -> Self
    where
        P: Clone + Send + Sync + 'static,
        S: StatusStore,
        O: Fn(P, Arc<dyn Clock>) -> F + Send + Sync + 'static,
        F: Future<Output = Arc<S>> + Send + 'static,
    {
        let place = place().await;
        let again = Again(Arc::new(move |clock| {
            let opened = open(place.clone(), clock);
            Box::pin(async move { opened.await as Arc<dyn StatusStore> })
        }));
        Self::again(again, today()).await
    }

    async fn again(again: Again, clock: Arc<ManualClock>) -> Self {
        let store = again.0(clock.clone()).await;
        Self { again: Some(again), ..Self::over(store, clock) }
    }

    /// A kit over this store and clock.
    pub fn over(store: Arc<dyn StatusStore>, clock: Arc<ManualClock>) -> Self {
        let tracker = Tracker::new(store.clone()).with_clock(clock.clone()).with_noun("Leads");
        let jobs = tracker.owned_by(owner("alice"));
        Self { store, clock, tracker, jobs, again: None }
    }

    /// A kit whose calls pass `layer` before they reach this kit's store.
    pub fn behind(&self, layer: impl Layer) -> Self {
        Self::over(Arc::new(Layered::new(self.store.clone(), layer)), self.clock.clone())
    }

    /// The kit with a store whose callers take turns at every call: as over a network, others come in
    /// between, also where a store never waits.
    pub fn in_turns(&self) -> Self {
        self.behind(TakeTurns)
    }

    /// Closes the store and opens the same data again.
    ///
    /// # Panics
    /// If the kit was not made by [`Kit::placed`].
    pub async fn reopened(self) -> Self {
        let again = self.again.clone().expect("the store can be opened again");
        let clock = self.clock.clone();
        drop(self);
        Self::again(again, clock).await
    }

    /// Opens the same data a second time.
    ///
    /// # Panics
    /// If the kit was not made by [`Kit::placed`].
    pub async fn second(&self) -> Self {
        self.clone().reopened().await
    }

    /// A new job with a policy.
    pub async fn create(&self, policy: Policy) -> JobId {
        let new = NewJob::new(file("leads.csv")).with_policy(policy);
        self.jobs.create(new).await.expect("a job is created").id
    }

    /// A job in Processing with a policy, whose total is not known yet.
    pub async fn streaming_with(&self, policy: Policy) -> JobId {
        let id = self.create(policy).await;
        self.tracker.start(id, None, &splitter()).await.expect("it starts");
        id
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

    /// The record that the facts or `command` make of the job as it stands; it is not swapped in.
    pub async fn next(&self, id: JobId, command: &Command) -> Job {
        let JobState { job, facts, .. } = self.state(id).await;
        match machine::decide(&job, &facts, command, &splitter(), self.clock.now()) {
            Ok(Verdict::Next(next) | Verdict::Reconciled(next)) => *next,
            other => panic!("{command:?} makes no new record of {job:?}: {other:?}"),
        }
    }

    /// The job as the store has it, strongly consistent; decides nothing.
    pub async fn state(&self, id: JobId) -> JobState {
        self.store.read(id, Consistency::Strong).await.expect("the store answers").expect("the job is there")
    }

    /// The job as people see it now.
    pub async fn snapshot(&self, id: JobId) -> Snapshot {
        self.tracker.snapshot_now(id).await.expect("the job is there")
    }

    /// The errors of a job's items, all pages of them.
    pub async fn errors(&self, id: JobId) -> Vec<status_core::ItemError> {
        all_pages(1_000, |page| async move { self.store.errors(id, &page).await }).await
    }

    /// The jobs that are due now.
    pub async fn due(&self) -> Vec<JobId> {
        let now = self.clock.now();
        let due = all_pages(100, |page| async move { self.store.due(now, &page).await }).await;
        due.into_iter().map(|due| due.id).collect()
    }

    /// Lets time pass.
    pub fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

#[derive(Debug)]
struct TakeTurns;

#[async_trait]
impl Layer for TakeTurns {
    async fn call(&self, store: &dyn StatusStore, call: Call<'_>) -> Result<Answer, StoreError> {
        tokio::task::yield_now().await;
        let answer = call.on(store).await;
        tokio::task::yield_now().await;
        answer
    }
}

/// The store that `open` opens at a new place.
pub async fn open_at<P, S>(
    place: impl AsyncFnOnce() -> P,
    open: impl AsyncFnOnce(P, Arc<dyn Clock>) -> Arc<S>,
    clock: Arc<dyn Clock>,
) -> Arc<S> {
    open(place().await, clock).await
}

/// A clock that stands at this moment: a backend with a time to live of its own deletes, by its own
/// clock, what was kept for long enough.
fn today() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(SystemClock.now().as_millisecond()))
}

/// The rows of all pages of at most `limit`, which have to come to an end.
pub(crate) async fn all_pages<T, E: Debug, F: Future<Output = Result<Page<T>, E>>>(
    limit: usize,
    list: impl Fn(PageRequest) -> F,
) -> Vec<T> {
    let (mut page, mut rows) = (PageRequest::first(limit), Vec::new());
    for _ in 0..100 {
        let part = list(page.clone()).await.expect("listed");
        assert!(part.rows.len() <= limit, "{} rows in a page of {limit}", part.rows.len());
        assert!(part.damaged.is_empty(), "{:?}", part.damaged);
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

/// This many batches of ten items.
pub(crate) fn totals(batches: u64) -> Totals {
    Totals { batches, items: Some(batches * 10) }
}

/// A policy that survives any number of failed batches.
pub(crate) fn tolerant() -> Policy {
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Percent(100);
    policy
}

/// A policy that notes when work on batches begins.
pub(crate) fn tracking() -> Policy {
    let mut policy = tolerant();
    policy.track_starts = true;
    policy
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

/// Why somebody gives a job up.
pub(crate) fn gave_up() -> Failure {
    Failure::new(Stage::Process, "given-up", "Given up.", false)
}

/// The rejection in an error, for cases that expect one.
pub(crate) fn rejection<T: Debug>(result: Result<T, Error>) -> Rejection {
    match result {
        Err(Error::Rejected { rejection, .. }) => rejection,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

/// What became of each report, in the order given.
pub(crate) fn effects(reported: &Reported) -> Vec<Effect> {
    reported.effects.iter().map(|(_, effect)| *effect).collect()
}
