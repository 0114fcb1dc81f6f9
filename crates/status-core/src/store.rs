//! The trait a backend implements. The core turns an intent into a decision; a store makes it atomic and durable.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{
    BatchIndex, BatchReport, Effect, Facts, ItemError, Job, JobId, OwnerId, Settled, Status, StoreError,
    Timestamp,
};

/// A backend that keeps jobs. Object-safe; all methods may be called by any number of processes at once.
///
/// Every method is *idempotent*: after a lost answer the caller repeats the call. `status-testkit` is this contract as
/// a test suite.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait StatusStore: Debug + Send + Sync + 'static {
    /// Keeps a new job, atomically with its idempotency key if it has one.
    ///
    /// [`Created::Existing`] if the owner has used the key before: nothing was written. The same job created twice is
    /// [`Created::New`] both times.
    ///
    /// # Errors
    /// [`StoreError::Full`] from a bounded store; and those of the backend.
    async fn create(&self, job: &Job) -> Result<Created, StoreError>;

    /// The job and what is known of its batches. `None` if there is none, or its retention is over.
    ///
    /// A [`Consistency::Strong`] read sees every write that was acknowledged before it began. It is not a snapshot
    /// across the job and its batches: each part is at least as new as that.
    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<Record>, StoreError>;

    /// Swaps `next` in, atomically, if the stored revision is `next.revision - 1`. Repeating the very same swap succeeds.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the stored revision is another; [`StoreError::NotFound`].
    async fn decide(&self, next: &Job) -> Result<(), StoreError>;

    /// Carries a decision that [`decide`](Self::decide) made durable to wherever else the store needs it: the size of the
    /// last part when sealed, expiry when terminal. Called after every such decision, and again by the sweeper for jobs
    /// that [`due`](Self::due) still names, so that a crash in between heals.
    async fn propagate(&self, job: &Job) -> Result<(), StoreError>;

    /// Reads the job and these batches before work on them begins; where the job tracks starts, is in Processing and
    /// nobody asked to cancel it, also notes `at` as the start of those that are open. `None` if there is no such job.
    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError>;

    /// Records outcomes: each batch counts once ([`BatchReport::effect`]), however often and in whatever order it is
    /// reported, by however many workers. Commutes with every other `record`. The reports are of different batches.
    ///
    /// Errors of items are kept with the outcome and listed by [`errors`](Self::errors), at most as many as the job's
    /// policy allows; those of a batch that completes after it failed are replaced.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Rejected`] for a batch past the total, and then none is recorded.
    async fn record(&self, id: JobId, reports: &[BatchReport], at: Timestamp)
    -> Result<Recorded, StoreError>;

    /// What failed in a job, by batch and item.
    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError>;

    /// The batches `from..total` that are not settled, at most `limit`. Up to the highest settled one where the total is
    /// unknown.
    async fn unsettled(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<BatchIndex>, StoreError>;

    /// The jobs of an owner, newest first. Counters of running jobs are not read for it.
    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError>;

    /// Jobs whose [`due_at`](Job::due_at) is not after `now`, and those whose last decision is not propagated yet.
    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<JobId>, StoreError>;

    /// Waits until the job may have changed since a read that gave `version` ([`Record::version`]), at most for `at_most`.
    /// A store that cannot know just waits.
    async fn changed(&self, id: JobId, version: u64, at_most: Duration);
}

/// How new a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// May be a moment old; cheaper. For people to look at.
    Eventual,
    /// Sees every acknowledged write. For decisions.
    Strong,
}

/// What [`StatusStore::create`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Created {
    /// The job is kept.
    New,
    /// The owner's idempotency key belongs to this job already.
    Existing(Box<Job>),
}

/// A job and what is known of its batches.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// What was decided.
    pub job: Job,
    /// What happened.
    pub facts: Facts,
}

impl Record {
    /// The record with the facts completed by the counters that were frozen at the terminal decision, should the read have
    /// been too old to see them or retention have removed them.
    #[must_use]
    pub fn new(job: Job, mut facts: Facts) -> Self {
        if let Some(frozen) = job.frozen.filter(|f| f.version() > facts.counts.version()) {
            facts.counts = frozen;
        }
        Self { job, facts }
    }

    /// Grows with every decision and with every fact, and with nothing else.
    pub fn version(&self) -> u64 {
        self.job.revision + self.facts.counts.version()
    }
}

/// What a worker finds before it begins.
#[derive(Clone, PartialEq, Debug)]
pub struct Begun {
    /// The job.
    pub job: Job,
    /// What each of the batches is settled as, in the order asked for.
    pub settled: Vec<Option<Settled>>,
    /// Whether, for all this read can tell, every batch of the job may be settled.
    pub may_be_settled: bool,
}

/// What recording did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// One for each report, in their order.
    pub effects: Vec<Effect>,
    /// Whether, for all this write can tell, the facts may decide the job now: then somebody has to look.
    pub may_be_settled: bool,
    /// The terminal status the job is known to have had already: the worker was late.
    pub late: Option<Status>,
}

/// Which part of a list is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// At most so many rows.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl PageRequest {
    /// The first `limit` rows.
    pub fn first(limit: usize) -> Self {
        Self { limit, cursor: None }
    }
}

/// A part of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}
