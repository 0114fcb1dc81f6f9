//! The trait a backend implements. The core turns an intent into a decision; a store makes it atomic
//! and durable.

use std::{
    fmt::{self, Debug},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    BatchIndex, BatchReport, Effect, Facts, ItemError, Job, JobId, OwnerId, Settled, Status, StoreError,
    Timestamp,
};

/// How many pages a provided method of [`StatusStore`] reads at most.
const MAX_PAGES: usize = 50;
/// How many jobs a provided method of [`StatusStore`] reads in one page.
const PAGE: usize = 100;

/// A backend that keeps jobs. Object-safe; any number of processes may call all methods at once.
///
/// Every method is *idempotent*: after a lost answer the caller repeats the call. `status-testkit` is
/// this contract as a test suite. `Arc<S>` and `Box<S>` of a store are stores.
///
/// # Time to live
/// Everything a store writes has an expiry from the moment it is written
/// ([`Job::expires_at`] says when a job may be forgotten), so that a caller that crashes leaves no
/// orphan. A store whose backend does not delete by itself does so in [`purge`](Self::purge). A job whose
/// expiry is over is not there, whether or not it has been deleted: nor are its errors, nor its
/// idempotency key, which may then be used for another job.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait StatusStore: Debug + Send + Sync + 'static {
    /// Keeps a new job, atomically with its idempotency key if it has one.
    ///
    /// The same job created twice is [`Created::New`] both times. [`Created::Existing`] names the job
    /// that already has the owner's key or this very id; nothing was written. Two calls with one key
    /// never both answer [`Created::New`] for different jobs.
    ///
    /// # Errors
    /// [`StoreError::Full`] from a bounded store; and those of the backend.
    async fn create(&self, job: &Job) -> Result<Created, StoreError>;

    /// The job's own record, without its facts. `None` if there is none, or its retention is over: to be
    /// believed only of a [`Consistency::Strong`] read.
    async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError>;

    /// The job and what is known of its batches. `None` as for [`job`](Self::job).
    ///
    /// A [`Consistency::Strong`] read sees every write that was acknowledged before it began. It is not
    /// a snapshot across the job and its batches: each part is at least as new as that. Batches at or
    /// past a known total are set aside ([`Facts::set_aside`]).
    ///
    /// A part of the facts that cannot be read is left out and named in [`JobState::damaged`]: only a job's
    /// own record that cannot be read makes the read fail.
    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError>;

    /// Swaps `next` in, atomically, if the stored revision is `next.revision - 1`. Of several swaps of
    /// one revision exactly one is told `Ok`. Repeating the very same swap succeeds.
    ///
    /// From now on the job is due at [`Job::due_at`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the stored revision is another; [`StoreError::NotFound`].
    async fn decide(&self, next: &Job) -> Result<(), StoreError>;

    /// Carries a decision that [`decide`](Self::decide) made durable to wherever else the store needs it:
    /// the size of the last part when sealed, expiry when terminal.
    ///
    /// The tracker calls it after a seal and after a terminal decision. After a crash in between, the
    /// splitter repeats the seal; a terminal job stays due until this has succeeded for it, so that a
    /// sweep repeats it.
    async fn propagate(&self, job: &Job) -> Result<(), StoreError>;

    /// Reads the job and these batches before work on them begins. Where the job tracks starts, is in
    /// Processing and nobody asked to cancel it, also notes `at` as the start of those that are not
    /// settled and not past the total ([`Facts::running`] is without batches that stand as failed). A batch that is named twice is one batch. `None` if there is no
    /// such job: to be believed, as of a strong read.
    ///
    /// A batch of which what is stored cannot be read, or could not be added to, is in
    /// [`Begun::damaged`], whatever else it is in, and takes no other with it.
    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError>;

    /// Records outcomes: each batch counts once ([`BatchReport::effect`]), however often and in whatever
    /// order it is reported, by however many workers. A batch that failed and completes counts as if it
    /// had not failed: what its failed attempt counted is taken back, no more and no less. Reports of
    /// different batches commute. The reports are of different batches. One past the total is [`Effect::OutOfRange`] and changes nothing; one that
    /// cannot be added to what is stored, since that cannot be read, is [`Effect::Damaged`], changes nothing
    /// and takes no other with it.
    ///
    /// The errors of items are those of the attempt that counted, at most
    /// [`ItemError::MAX_PER_BATCH`] of each batch and the job's
    /// [`max_errors`](crate::Policy::max_errors) in all. When the call fails half-way, some of the reports may
    /// have counted; repeating it completes it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError>;

    /// What failed in a job, by batch and item: at most the job's
    /// [`max_errors`](crate::Policy::max_errors) in all. Empty if there is no such job. Sorted by batch;
    /// cursors are [`ErrorsPosition`]s as text.
    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError>;

    /// The batches from `from` on that stand as `which`, in order, at most `limit`: below the total, or
    /// up to the highest settled one where the total is unknown.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Corrupt`] if how one of them stands cannot be read: those
    /// before it and after it can be asked for by themselves.
    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError>;

    /// The jobs of an owner, newest first; facts are not read for it, so that a job that is over stands
    /// there with the counters of the moment in which its end was decided. With a status,
    /// a page may hold fewer jobs than its limit, even none, and still name a next one: the store
    /// reads a bounded number of jobs for one page. May be a moment old.
    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError>;

    /// The jobs a sweeper should look at: those whose due time is not after `now`, among them terminal
    /// ones whose end is not propagated yet. In no order; each once. May be a moment old.
    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError>;

    /// Moves the due time of a job from `due.at` to `until`, atomically: of several sweepers that found
    /// the same job exactly one is told `true` and looks at it. `false` if the due time is another by
    /// now, or the job is gone. Repeating the very same move may answer either.
    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError>;

    /// Deletes a job with everything that belongs to it, whatever its status. Idempotent. When it fails
    /// half-way, the job may still be there or not; what is left of it expires, and repeating the call
    /// deletes it.
    async fn erase(&self, id: JobId) -> Result<(), StoreError>;

    /// Deletes what has expired, if the backend does not do so by itself; gives the number of jobs.
    async fn purge(&self, _now: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// How many jobs of the owner are not over; counting ends at `at_most`. May be a moment old.
    ///
    /// A store without an index for it looks at the owner's newest 5,000 jobs and no others, as this
    /// provided method does: an open one behind so many newer ones is not counted.
    async fn count_open(&self, owner: &OwnerId, at_most: usize) -> Result<usize, StoreError> {
        let jobs = matching(self, owner, at_most, |job| !job.status.is_terminal()).await?;
        Ok(jobs.len())
    }

    /// The jobs of the owner that are not over, and those that were decided about at or after `since`,
    /// newest first, at most `limit`. May be a moment old. Of how many jobs, says
    /// [`count_open`](Self::count_open).
    async fn changed_since(
        &self,
        owner: &OwnerId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        matching(self, owner, limit, |job| !job.status.is_terminal() || job.updated_at >= since).await
    }

    /// The owner's last completed jobs of a kind, newest first, at most `limit`. Of how many jobs, says
    /// [`count_open`](Self::count_open).
    async fn last_completed(
        &self,
        owner: &OwnerId,
        kind: &str,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let is_one = |job: &Job| job.status == Status::Completed && job.kind.as_deref() == Some(kind);
        matching(self, owner, limit, is_one).await
    }

    /// The jobs of all owners that are not over, in no order. May be a moment old.
    async fn list_open(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
        let due = self.due(Timestamp::MAX, page).await?;
        let mut open = Page { rows: Vec::new(), next: due.next, damaged: due.damaged };
        for Due { id, .. } in due.rows {
            match self.job(id, Consistency::Eventual).await {
                Ok(job) => open.rows.extend(job.filter(|job| !job.status.is_terminal())),
                Err(StoreError::Corrupt { subject, why }) => open.damaged.push(Damaged { subject, why }),
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }

    /// Waits until the job may have changed since a read that gave `version` ([`JobState::version`]), at
    /// most for `at_most`. A store that cannot know just waits.
    async fn changed(&self, _id: JobId, _version: u64, at_most: Duration) {
        tokio::time::sleep(at_most).await;
    }
}

/// The owner's newest jobs for which `is_wanted` holds, of a bounded number of pages.
async fn matching<S: StatusStore + ?Sized>(
    store: &S,
    owner: &OwnerId,
    limit: usize,
    is_wanted: impl Fn(&Job) -> bool,
) -> Result<Vec<Job>, StoreError> {
    let (mut page, mut found) = (PageRequest::first(PAGE), Vec::new());
    for _ in 0..MAX_PAGES {
        let part = store.list(owner, None, &page).await?;
        found.extend(part.rows.into_iter().filter(&is_wanted).take(limit - found.len()));
        match part.next {
            Some(next) if found.len() < limit => page.cursor = Some(next),
            _ => break,
        }
    }
    Ok(found)
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
    /// This job has the owner's idempotency key already.
    Existing(Box<Job>),
}

/// A job and what is known of its batches.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct JobState {
    /// What was decided.
    pub job: Job,
    /// What happened.
    pub facts: Facts,
    /// The parts of the facts that cannot be read, as far as the store has noticed: one that keeps sums does
    /// not look at every part for them. The facts are those of the other parts.
    pub damaged: Vec<Damaged>,
}

impl JobState {
    /// The state with the facts completed by the counters that were frozen at the terminal decision,
    /// should the read have been too old to see them or retention have removed them.
    #[must_use]
    pub fn new(job: Job, mut facts: Facts) -> Self {
        if let Some(frozen) = job.frozen.filter(|f| f.version() > facts.counts.version()) {
            facts.counts = frozen;
        }
        Self { job, facts, damaged: Vec::new() }
    }

    /// The state of which these parts cannot be read: its facts are lower bounds.
    #[must_use]
    pub fn with_damaged(mut self, damaged: Vec<Damaged>) -> Self {
        self.facts.is_incomplete |= !damaged.is_empty();
        self.damaged.extend(damaged);
        self
    }

    /// Grows with every decision and with every fact, and with nothing else.
    pub fn version(&self) -> u64 {
        self.job.revision + self.facts.version()
    }
}

/// What a worker finds before it begins.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Begun {
    /// The job.
    pub job: Job,
    /// What the batches that were asked for are settled as.
    pub settled: Vec<(BatchIndex, Option<Settled>)>,
    /// Whether, for all this read can tell, the facts may decide the job now: then the caller reads it
    /// and reconciles it.
    pub may_decide: bool,
    /// Those of them of which what is stored cannot be read: they cannot be worked on.
    pub damaged: Vec<BatchIndex>,
}

impl Begun {
    /// What [`StatusStore::begin`] found, with no batch damaged.
    pub fn new(job: Job, settled: Vec<(BatchIndex, Option<Settled>)>, may_decide: bool) -> Self {
        Self { job, settled, may_decide, damaged: Vec::new() }
    }

    /// The same, with these batches damaged.
    #[must_use]
    pub fn with_damaged(mut self, damaged: Vec<BatchIndex>) -> Self {
        self.damaged.extend(damaged);
        self
    }
}

/// What [`StatusStore::report`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Written {
    /// What became of each report.
    pub effects: Vec<(BatchIndex, Effect)>,
    /// Whether, for all this write can tell, the facts may decide the job now: then the caller reads it
    /// and reconciles it.
    pub may_decide: bool,
    /// The job's status, if the store happened to learn it. A terminal one must be told to whoever
    /// reports after [`propagate`](StatusStore::propagate).
    pub status: Option<Status>,
}

impl Written {
    /// What a call of [`StatusStore::report`] did.
    pub fn new(effects: Vec<(BatchIndex, Effect)>, may_decide: bool, status: Option<Status>) -> Self {
        Self { effects, may_decide, status }
    }
}

/// How a batch stands, as a filter of [`StatusStore::batches`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BatchState {
    /// Neither completed nor failed.
    Unsettled,
    /// Completed.
    Completed,
    /// Failed, and not completed since.
    Failed,
}

impl BatchState {
    /// Whether a batch that is settled so stands like this.
    pub fn holds(self, settled: Option<Settled>) -> bool {
        settled
            == match self {
                Self::Unsettled => None,
                Self::Completed => Some(Settled::Completed),
                Self::Failed => Some(Settled::Failed),
            }
    }
}

/// A job that a sweeper should look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Due {
    /// The job.
    pub id: JobId,
    /// Since when.
    pub at: Timestamp,
}

impl Due {
    /// A job that is due since `at`.
    pub fn new(id: JobId, at: Timestamp) -> Self {
        Self { id, at }
    }
}

/// Which part of a list is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// At most this many rows; at least 1.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl PageRequest {
    /// The first `limit` rows.
    pub fn first(limit: usize) -> Self {
        Self { limit, cursor: None }
    }

    /// The cursor as what the store makes its cursors of.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] if it is not one that the store gave out.
    pub fn position<T: FromStr>(&self) -> Result<Option<T>, StoreError> {
        self.cursor.as_deref().map(str::parse).transpose().map_err(|_| StoreError::InvalidCursor)
    }
}

/// Where a page of a job's errors begins: what stores make the cursors of
/// [`errors`](StatusStore::errors) of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ErrorsPosition {
    /// The batch of the first row.
    pub batch: u64,
    /// Which of its errors that is, from 0.
    pub place: usize,
    /// How many rows were listed before: there is a bound for all pages together.
    pub listed: u64,
}

impl fmt::Display for ErrorsPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.batch, self.place, self.listed)
    }
}

impl FromStr for ErrorsPosition {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let parse = || {
            let (batch, rest) = text.split_once('-')?;
            let (place, listed) = rest.split_once('-')?;
            Some(Self {
                batch: batch.parse().ok()?,
                place: place.parse().ok()?,
                listed: listed.parse().ok()?,
            })
        };
        parse().ok_or(StoreError::InvalidCursor)
    }
}

/// A part of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
    /// What should be here and cannot be read. One damaged row never hides the others.
    pub damaged: Vec<Damaged>,
}

impl<T> Page<T> {
    /// A page with nothing damaged on it.
    pub fn new(rows: Vec<T>, next: Option<String>) -> Self {
        Self { rows, next, damaged: Vec::new() }
    }

    /// The same page with its rows turned into others.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { rows: self.rows.into_iter().map(f).collect(), next: self.next, damaged: self.damaged }
    }
}

/// Something stored that this version cannot read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// What it is: "job 06…".
    pub subject: String,
    /// What is wrong with it, and what to do.
    pub why: String,
}

/// Makes pointers to stores stores.
macro_rules! pointers {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        impl<S: StatusStore + ?Sized> StatusStore for $pointer<S> {
            async fn create(&self, job: &Job) -> Result<Created, StoreError> {
                (**self).create(job).await
            }
            async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
                (**self).job(id, consistency).await
            }
            async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError> {
                (**self).read(id, consistency).await
            }
            async fn decide(&self, next: &Job) -> Result<(), StoreError> {
                (**self).decide(next).await
            }
            async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
                (**self).propagate(job).await
            }
            async fn begin(
                &self, id: JobId, batches: &[BatchIndex], at: Timestamp,
            ) -> Result<Option<Begun>, StoreError> {
                (**self).begin(id, batches, at).await
            }
            async fn report(
                &self, id: JobId, reports: &[BatchReport], at: Timestamp,
            ) -> Result<Written, StoreError> {
                (**self).report(id, reports, at).await
            }
            async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
                (**self).errors(id, page).await
            }
            async fn batches(
                &self, id: JobId, which: BatchState, from: u64, limit: usize,
            ) -> Result<Vec<BatchIndex>, StoreError> {
                (**self).batches(id, which, from, limit).await
            }
            async fn list(
                &self, owner: &OwnerId, status: Option<Status>, page: &PageRequest,
            ) -> Result<Page<Job>, StoreError> {
                (**self).list(owner, status, page).await
            }
            async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
                (**self).due(now, page).await
            }
            async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
                (**self).postpone(due, until).await
            }
            async fn erase(&self, id: JobId) -> Result<(), StoreError> {
                (**self).erase(id).await
            }
            async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
                (**self).purge(now).await
            }
            async fn count_open(&self, owner: &OwnerId, at_most: usize) -> Result<usize, StoreError> {
                (**self).count_open(owner, at_most).await
            }
            async fn changed_since(
                &self, owner: &OwnerId, since: Timestamp, limit: usize,
            ) -> Result<Vec<Job>, StoreError> {
                (**self).changed_since(owner, since, limit).await
            }
            async fn last_completed(
                &self, owner: &OwnerId, kind: &str, limit: usize,
            ) -> Result<Vec<Job>, StoreError> {
                (**self).last_completed(owner, kind, limit).await
            }
            async fn list_open(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
                (**self).list_open(page).await
            }
            async fn changed(&self, id: JobId, version: u64, at_most: Duration) {
                (**self).changed(id, version, at_most).await;
            }
        }
    )*};
}

pointers!(Arc Box);
