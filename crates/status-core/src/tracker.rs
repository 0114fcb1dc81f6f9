//! The façade over a store: what splitters, workers, sweepers and web servers call. It turns intents into decisions by
//! the machine and has the store swap them in; it keeps nothing between calls.

mod owned;

use std::{sync::Arc, time::Duration};

use futures::Stream;

use crate::{
    Actor, BatchIndex, BatchReport, Clock, Command, Consistency, Effect, Error, Facts, Failure, FileInfo,
    ItemError, Job, JobId, OwnerId, Page, PageRequest, Policy, Record, Recorded, Rejection, Settled,
    Snapshot, Status, StatusStore, StoreError, SystemClock, Totals, Verdict, machine, text, watch::Feeds,
};

pub use owned::OwnedJobs;

/// How often a decision is tried again because somebody else's came first. A job sees at most seven decisions, so more
/// conflicts than this are a fault of the store.
const TRIES: u32 = 32;

/// Keeps track of jobs: cheap to clone, safe to share.
///
/// A tracker acts for the service: it may do anything to any job. What a person may do to their own jobs, and only
/// that, is [`OwnedJobs`].
#[derive(Clone, Debug)]
pub struct Tracker {
    pub(crate) store: Arc<dyn StatusStore>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    pub(crate) noun: Arc<str>,
    pub(crate) feeds: Arc<Feeds>,
}

/// What a worker is told before it begins a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// Do it.
    Work,
    /// It completed before: acknowledge the message and do nothing.
    AlreadyCompleted,
    /// The job is over: acknowledge the message and do nothing.
    Over(Status),
}

/// What a worker is told before it begins several batches.
#[derive(Clone, PartialEq, Debug)]
pub struct Beginning {
    /// The job: whose it is, for one.
    pub job: Job,
    /// What to do with each batch, in the order asked for.
    pub batches: Vec<Begin>,
}

/// What a request to cancel came to.
#[derive(Clone, PartialEq, Debug)]
pub enum Cancelled {
    /// The job is cancelled.
    Now(Snapshot),
    /// The request is recorded; a worker or the sweeper will confirm it.
    Requested(Snapshot),
}

/// What a sweep found and did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Swept {
    /// Jobs that were due for a look.
    pub looked_at: u64,
    /// Jobs it completed: their last batch had settled, and whoever did it had died.
    pub completed: u64,
    /// Jobs it failed: past their deadline, or with too many failed batches.
    pub failed: u64,
    /// Cancels it confirmed because no worker had.
    pub cancelled: u64,
    /// Jobs it could not look at; the next sweep tries again.
    pub errors: u64,
}

/// A job to create.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewJob {
    /// The file it is about.
    pub file: FileInfo,
    /// Its rules, if not the tracker's.
    pub policy: Option<Policy>,
    /// A key under which the same request finds the same job again.
    pub idempotency_key: Option<String>,
}

impl NewJob {
    /// A job about `file`, by the tracker's policy.
    pub fn new(file: FileInfo) -> Self {
        Self { file, policy: None, idempotency_key: None }
    }

    /// The same with rules of its own.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// The same under an idempotency key of 1 to 255 bytes.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl Tracker {
    /// A tracker over `store` with the default policy and the system's clock.
    pub fn new(store: Arc<dyn StatusStore>) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            policy: Policy::default(),
            noun: "Items".into(),
            feeds: Arc::default(),
        }
    }

    /// The same with another policy for new jobs.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same with another word for items in labels: "Leads" gives "Leads Processing".
    #[must_use]
    pub fn with_noun(mut self, noun: &str) -> Self {
        self.noun = text::bounded(noun, 40).into();
        self
    }

    /// The jobs of `owner`: nobody else's exist.
    pub fn owned_by(&self, owner: OwnerId) -> OwnedJobs {
        OwnedJobs { tracker: self.clone(), owner }
    }

    /// The file of a job has arrived. Idempotent; already so on any job that is further.
    ///
    /// # Errors
    /// [`Error::Rejected`] on a failed or cancelled job.
    pub async fn finish_upload(&self, id: JobId, by: &Actor) -> Result<Snapshot, Error> {
        self.apply(id, &Command::FinishUpload, by, None).await.map(|r| self.show(&r))
    }

    /// Processing begins: with a known total, or with `None` to [`seal`](Self::seal) it later. Idempotent. Implies that
    /// the upload is finished.
    ///
    /// # Errors
    /// [`Error::Rejected`] on a failed or cancelled job, and as [`seal`](Self::seal) says.
    pub async fn start(&self, id: JobId, totals: Option<Totals>, by: &Actor) -> Result<Snapshot, Error> {
        let record = self.apply(id, &Command::Start(totals), by, None).await?;
        if totals.is_none() {
            return Ok(self.show(&record));
        }
        // The seal is three steps: the head, the mark on the last part, and a look. Whoever settles the last batch before
        // the mark is seen by the look; whoever settles it after sees the mark. So they are repeated with the command.
        self.store.propagate(&record.job).await?;
        self.settle(id, None).await.map(|r| self.show(&r))
    }

    /// The total is known now. Idempotent; zero batches complete the job.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it was sealed with another total, or if a batch at or past this total is settled.
    pub async fn seal(&self, id: JobId, totals: Totals, by: &Actor) -> Result<Snapshot, Error> {
        self.start(id, Some(totals), by).await
    }

    /// Says what is going on within the status: "reading worksheet 2 of 3". A courtesy, kept at most every two seconds.
    pub async fn stage(&self, id: JobId, stage: &str, by: &Actor) -> Result<(), Error> {
        self.apply(id, &Command::Stage(stage.to_owned()), by, None).await.map(drop)
    }

    /// Whether a worker is to work on `batch`. Confirms a requested cancel; decides the job if its last batch settled.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Rejected`] for a batch past the total.
    pub async fn begin(&self, id: JobId, batch: BatchIndex) -> Result<Begin, Error> {
        let begun = self.begin_all(id, &[batch]).await?;
        Ok(begun.batches.first().copied().unwrap_or(Begin::Work))
    }

    /// [`begin`](Self::begin) for the batches of one delivery, with one read for all.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn begin_all(&self, id: JobId, batches: &[BatchIndex]) -> Result<Beginning, Error> {
        let begun = self.store.begin(id, batches, self.clock.now()).await?.ok_or(Error::NotFound(id))?;
        let mut status = begun.job.status;
        if status == Status::Processing && begun.job.cancel_requested.is_some() {
            status = match self.apply(id, &Command::ConfirmCancel, &Actor::WORKER, None).await {
                Ok(record) => record.job.status,
                Err(Error::Rejected { rejection: Rejection::NoCancelRequest { status }, .. }) => status,
                Err(error) => return Err(error),
            };
        } else if status == Status::Processing && begun.may_be_settled {
            status = self.settle(id, None).await?.job.status;
        }
        if let Some((batch, total)) =
            begun.job.total().and_then(|t| Some((*batches.iter().find(|b| b.get() >= t)?, t)))
        {
            return Err(Error::Rejected { id, rejection: Rejection::BatchOutOfRange { batch, total } });
        }
        let batches = begun
            .settled
            .into_iter()
            .map(|settled| match settled {
                Some(Settled::Completed) => Begin::AlreadyCompleted,
                _ if status.is_terminal() => Begin::Over(status),
                // A failed batch that comes again gets another chance.
                Some(Settled::Failed) | None => Begin::Work,
            })
            .collect();
        Ok(Beginning { job: begun.job, batches })
    }

    /// Records what became of batches of one job; each counts once. Whoever settles the last one decides the job.
    ///
    /// A report that comes after the job's end counts, moves nothing, and is no error: see [`Recorded::late`].
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Rejected`] for a batch past the total; [`Error::Store`], and then the call may be
    /// repeated: nothing counts twice.
    pub async fn record(&self, id: JobId, mut reports: Vec<BatchReport>) -> Result<Recorded, Error> {
        // Of two reports of one batch in one call the success counts.
        reports.sort_by_key(|r| (r.batch, r.settles_as()));
        reports.dedup_by_key(|r| r.batch);
        let recorded = self.store.record(id, &reports, self.clock.now()).await.map_err(not_found)?;
        if recorded.may_be_settled {
            let failed = reports.iter().zip(&recorded.effects);
            let failed = failed.filter(|(r, e)| r.settles_as() == Settled::Failed && **e == Effect::Counted);
            let culprit = failed.filter_map(|(r, _)| r.errors.first()).next();
            self.settle(id, culprit.cloned()).await?;
        }
        Ok(recorded)
    }

    /// Asks to stop a job: at once before processing, else recorded and confirmed by the next worker that asks for work.
    /// Idempotent.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it is completed or failed.
    pub async fn cancel(&self, id: JobId, by: &Actor, reason: Option<String>) -> Result<Cancelled, Error> {
        self.cancel_as(id, by, reason, None).await
    }

    /// Gives a job up. Idempotent.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it is completed or cancelled.
    pub async fn fail(&self, id: JobId, failure: Failure, by: &Actor) -> Result<Snapshot, Error> {
        self.apply(id, &Command::Fail(failure), by, None).await.map(|r| self.show(&r))
    }

    /// Looks at every job that is due: decides what workers that died left undecided, confirms cancels nobody heard, fails
    /// what is past its deadline. Any process may run it, any number at once.
    ///
    /// # Errors
    /// [`Error::Store`] if the due jobs cannot be listed.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let mut page = PageRequest::first(100);
        loop {
            let due = self.store.due(self.clock.now(), &page).await?;
            for id in due.rows {
                swept.looked_at += 1;
                if let Err(error) = self.sweep_one(id, &mut swept).await {
                    tracing::warn!(job = %id, %error, "the sweeper could not look at a job");
                    swept.errors += 1;
                }
            }
            match due.next {
                Some(next) => page.cursor = Some(next),
                None => return Ok(swept),
            }
        }
    }

    /// The job as it is to be shown now; may be a moment old.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn snapshot(&self, id: JobId) -> Result<Snapshot, Error> {
        self.snapshot_as(id, None).await
    }

    /// The job with everything that was acknowledged before the call. Decides it, should it be undecided at its last batch.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn snapshot_now(&self, id: JobId) -> Result<Snapshot, Error> {
        self.settle(id, None).await.map(|r| self.show(&r))
    }

    /// The job's record: what was decided, without its batches' facts being up to date.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn job(&self, id: JobId) -> Result<Job, Error> {
        self.read(id, Consistency::Eventual, None).await.map(|r| r.job)
    }

    /// Snapshots from now on, until a terminal one: see [`OwnedJobs::watch`].
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn watch(&self, id: JobId) -> Result<impl Stream<Item = Arc<Snapshot>> + Send + use<>, Error> {
        self.watch_as(id, None).await
    }

    /// What failed, by batch and item.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, Error> {
        Ok(self.store.errors(id, page).await?)
    }

    /// The batches from `from` on that are not settled, at most `limit`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn unsettled(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<BatchIndex>, Error> {
        self.store.unsettled(id, from, limit).await.map_err(not_found)
    }

    pub(crate) async fn snapshot_as(&self, id: JobId, owner: Option<&OwnerId>) -> Result<Snapshot, Error> {
        let record = self.read(id, Consistency::Eventual, owner).await?;
        Ok(self.show(&self.decided(record).await?))
    }

    /// The owner and the snapshot of a job, for feeds.
    pub(crate) async fn view(&self, id: JobId) -> Result<Option<(OwnerId, Snapshot)>, Error> {
        match self.store.read(id, Consistency::Eventual).await? {
            Some(record) => {
                let record = self.decided(record).await?;
                Ok(Some((record.job.owner.clone(), self.show(&record))))
            }
            None => Ok(None),
        }
    }

    async fn cancel_as(
        &self,
        id: JobId,
        by: &Actor,
        reason: Option<String>,
        owner: Option<&OwnerId>,
    ) -> Result<Cancelled, Error> {
        let record = self.apply(id, &Command::Cancel(reason), by, owner).await?;
        let cancelled = record.job.status == Status::Cancelled;
        let snapshot = self.show(&record);
        Ok(if cancelled { Cancelled::Now(snapshot) } else { Cancelled::Requested(snapshot) })
    }

    async fn sweep_one(&self, id: JobId, swept: &mut Swept) -> Result<(), Error> {
        let Some(before) = self.store.read(id, Consistency::Strong).await? else { return Ok(()) };
        if before.job.status.is_terminal() {
            return Ok(self.store.propagate(&before.job).await?);
        }
        let after = self.apply(id, &Command::Expire, &Actor::SWEEPER, None).await?;
        match after.job.status {
            Status::Completed => swept.completed += 1,
            Status::Failed => swept.failed += 1,
            Status::Cancelled => swept.cancelled += 1,
            Status::Uploading | Status::Uploaded | Status::Processing => {}
        }
        Ok(())
    }

    /// Decides the job if its facts do.
    async fn settle(&self, id: JobId, culprit: Option<ItemError>) -> Result<Record, Error> {
        self.apply(id, &Command::Settle(culprit), &Actor::WORKER, None).await
    }

    /// The record itself, or the decided one if its facts decide it.
    async fn decided(&self, record: Record) -> Result<Record, Error> {
        let settle = Command::Settle(None);
        match machine::decide(&record.job, &record.facts, &settle, &Actor::WORKER, self.clock.now()) {
            Ok(Verdict::Next(_)) => self.settle(record.job.id, None).await,
            _ => Ok(record),
        }
    }

    async fn read(
        &self,
        id: JobId,
        consistency: Consistency,
        owner: Option<&OwnerId>,
    ) -> Result<Record, Error> {
        let record = self.store.read(id, consistency).await?.ok_or(Error::NotFound(id))?;
        match owner {
            Some(owner) if record.job.owner != *owner => Err(Error::NotFound(id)),
            _ => Ok(record),
        }
    }

    /// Reads, decides and swaps until the decision holds.
    async fn apply(
        &self,
        id: JobId,
        command: &Command,
        by: &Actor,
        owner: Option<&OwnerId>,
    ) -> Result<Record, Error> {
        let mut tries = 0;
        loop {
            let Record { job, facts } = self.read(id, Consistency::Strong, owner).await?;
            // Whatever the command is: what the facts have decided comes first, and the command is judged by that.
            let settled = self.settled(&job, &facts, command, by).await?;
            let is_answer = settled.is_none();
            let next = match settled {
                Some(next) => next,
                None => match machine::decide(&job, &facts, command, by, self.clock.now()) {
                    Ok(Verdict::Next(next)) => *next,
                    Ok(Verdict::AlreadyApplied) => return Ok(Record { job, facts }),
                    Err(rejection) => return Err(Error::Rejected { id, rejection }),
                },
            };
            match self.store.decide(&next).await {
                Ok(()) => {
                    self.after_decision(&job, &next).await;
                    if is_answer {
                        return Ok(Record { job: next, facts });
                    }
                }
                Err(StoreError::Conflict(_)) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(u64::from(tries.min(8)) * 3)).await;
                }
                Err(error) => return Err(not_found(error)),
            }
        }
    }

    /// The terminal record that the facts alone lead to, if they do; it names the error that did it.
    async fn settled(
        &self,
        job: &Job,
        facts: &Facts,
        command: &Command,
        by: &Actor,
    ) -> Result<Option<Job>, Error> {
        let decide = |settle: &Command| match machine::decide(job, facts, settle, by, self.clock.now()) {
            Ok(Verdict::Next(next)) => Some(*next),
            _ => None,
        };
        if let Command::Settle(Some(_)) = command {
            return Ok(decide(command));
        }
        match decide(&Command::Settle(None)) {
            Some(next) if next.status == Status::Failed => {
                let culprit =
                    self.store.errors(job.id, &PageRequest::first(1)).await?.rows.into_iter().next();
                Ok(decide(&Command::Settle(culprit)))
            }
            next => Ok(next),
        }
    }

    async fn after_decision(&self, before: &Job, after: &Job) {
        tracing::info!(job = %after.id, from = %before.status, to = %after.status, revision = after.revision, "decided");
        if after.status.is_terminal()
            && let Err(error) = self.store.propagate(after).await
        {
            // The decision stands. The store keeps the job due until a sweep has propagated it.
            tracing::warn!(job = %after.id, %error, "a decision is not propagated yet; the sweeper will do it");
        }
    }

    fn show(&self, record: &Record) -> Snapshot {
        Snapshot::new(record, &self.noun, self.clock.now())
    }
}

fn not_found(error: StoreError) -> Error {
    match error {
        StoreError::NotFound(id) => Error::NotFound(id),
        StoreError::Rejected { id, rejection } => Error::Rejected { id, rejection },
        other => Error::Store(other),
    }
}
