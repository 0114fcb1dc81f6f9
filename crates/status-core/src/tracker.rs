//! The façade over a store: what splitters, workers, sweepers and web servers call. It turns intents into decisions by
//! the machine and has the store swap them in; it keeps nothing between calls.

mod owned;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::Stream;

use crate::{
    Actor, BatchIndex, BatchReport, BatchState, Clock, Command, Consistency, Damaged, Due, Effect, Error,
    ErrorsPosition, Failure, ItemError, Job, JobId, JobState, OwnerId, Page, PageRequest, Policy, Rejection,
    Settled, Snapshot, Status, StatusStore, StoreError, SystemClock, Timestamp, Token, Totals, Verdict,
    clock, machine, text, watch::Feeds,
};

pub use owned::OwnedJobs;

/// How many swaps one command tries: because somebody else's came first, or since the facts decide
/// before the command. A job sees at most seven decisions, so a store that needs more is at fault.
const TRIES: u32 = 32;
/// How long a sweeper has a job to itself, to look at it and decide.
const LEASE: Duration = Duration::from_secs(60);

/// Keeps track of jobs: cheap to clone, safe to share.
///
/// A tracker acts for the service: it may do anything to any job. What a person may do to their own jobs, and only
/// that, is [`OwnedJobs`].
#[derive(Clone, Debug)]
pub struct Tracker {
    pub(crate) store: Arc<dyn StatusStore>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    ids: Ids,
    noun: Option<Arc<str>>,
    pub(crate) feeds: Arc<Feeds>,
}

/// Where new jobs get the random bits of their ids.
#[derive(Clone)]
struct Ids(Arc<dyn Fn(Timestamp) -> JobId + Send + Sync>);

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ids")
    }
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
    /// The same batch stands earlier in this delivery: do with this message what comes of that one.
    Repeated,
    /// The job has no such batch: acknowledge the message and do nothing. It cannot ever succeed.
    OutOfRange {
        /// The job's batches are below this.
        total: u64,
    },
    /// What is stored of the batch cannot be read: keep the message, so that it is delivered again. Work
    /// on it could not be recorded.
    Damaged,
}

/// What a worker is told before it begins several batches.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Assignment {
    /// The job: whose it is, for one.
    pub job: Job,
    /// What to do with each batch, in the order asked for.
    pub batches: Vec<Begin>,
}

/// What became of reports.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Reported {
    /// One for each report, in the order given. When an answer was lost on the way, a report that
    /// counted may say [`Effect::Duplicate`].
    pub effects: Vec<(BatchIndex, Effect)>,
    /// The terminal status the job is known to have had already: the worker was late.
    pub late: Option<Status>,
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

impl Tracker {
    /// A tracker over `store` with the default policy and the system's clock.
    pub fn new(store: Arc<dyn StatusStore>) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            policy: Policy::default(),
            ids: Ids(Arc::new(JobId::new)),
            noun: None,
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

    /// The same with another source of ids: for tests that must be repeatable. An id that can be guessed
    /// protects nothing.
    #[must_use]
    pub fn with_ids(mut self, ids: impl Fn(Timestamp) -> JobId + Send + Sync + 'static) -> Self {
        self.ids = Ids(Arc::new(ids));
        self
    }

    /// The same with another word for items in labels: "Leads" gives "Leads Processing". The jobs that
    /// it creates keep their word, whichever tracker shows them later.
    #[must_use]
    pub fn with_noun(mut self, noun: &str) -> Self {
        self.noun = Some(text::bounded(noun, 40).into());
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
        self.apply(id, &Command::FinishUpload, by, None).await.map(|state| self.show(&state))
    }

    /// Processing begins: with a known total, or with `None` to [`seal`](Self::seal) it later. Idempotent. Implies that
    /// the upload is finished.
    ///
    /// # Errors
    /// [`Error::Rejected`] on a failed or cancelled job, and as [`seal`](Self::seal) says.
    pub async fn start(&self, id: JobId, totals: Option<Totals>, by: &Actor) -> Result<Snapshot, Error> {
        let state = self.apply(id, &Command::Start(totals), by, None).await?;
        if totals.is_none() {
            return Ok(self.show(&state));
        }
        // Sealing takes three steps: write the total to the head, write the last part's size, then read
        // the job again. A worker that settles the last batch before the second step is found by the
        // third; one that settles it after the second sees the size and reads the job itself. So all
        // three are repeated with the command.
        self.store.propagate(&state.job).await?;
        self.reconcile(id).await.map(|state| self.show(&state))
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

    /// The most items in a batch of the job: `size`, or, if its input was cut before, what it was cut by then.
    ///
    /// A splitter asks this before it cuts. One that comes back after a crash may have been deployed anew with
    /// another size meanwhile, and batches that have settled are never worked on again.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn batch_size(&self, id: JobId, size: u32, by: &Actor) -> Result<u32, Error> {
        let state = self.apply(id, &Command::BatchSize(size), by, None).await?;
        Ok(state.job.batch_size.unwrap_or(size))
    }

    /// Whether a worker is to work on `batch`. Confirms a requested cancel; starts a job that nobody has
    /// started; decides the job if its last batch settled.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Rejected`] for a batch past the total.
    pub async fn begin(&self, id: JobId, batch: BatchIndex) -> Result<Begin, Error> {
        match self.begin_all(id, &[batch]).await?.batches[..] {
            [Begin::OutOfRange { total }] => Err(out_of_range(id, batch, total)),
            [begin] => Ok(begin),
            _ => Err(StoreError::Incomplete { operation: "begin", id, batch }.into()),
        }
    }

    /// [`begin`](Self::begin) for the batches of one delivery, with one read for all. Each batch gets its
    /// own answer; one that is named twice is worked on once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn begin_all(&self, id: JobId, batches: &[BatchIndex]) -> Result<Assignment, Error> {
        let mut distinct = batches.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let begun = self.store.begin(id, &distinct, self.clock.now()).await?.ok_or(Error::NotFound(id))?;
        let job = self.before_work(begun.job, begun.may_decide).await?;
        let settled: HashMap<_, _> = begun.settled.into_iter().collect();
        let damaged: HashSet<_> = begun.damaged.into_iter().collect();
        let mut named = HashSet::new();
        let answers = batches.iter().map(|batch| {
            let (settled, is_damaged) = (settled.get(batch), damaged.contains(batch));
            if settled.is_none() && !is_damaged {
                return Err(StoreError::Incomplete { operation: "begin", id, batch: *batch });
            }
            Ok(match (settled.copied().flatten(), job.total()) {
                _ if !named.insert(*batch) => Begin::Repeated,
                (_, Some(total)) if batch.get() >= total => Begin::OutOfRange { total },
                (Some(Settled::Completed), _) => Begin::AlreadyCompleted,
                _ if job.status.is_terminal() => Begin::Over(job.status),
                _ if is_damaged => Begin::Damaged,
                // A failed batch that comes again gets another chance.
                (Some(Settled::Failed) | None, _) => Begin::Work,
            })
        });
        let batches = answers.collect::<Result<_, StoreError>>()?;
        Ok(Assignment { job, batches })
    }

    /// Records what became of batches of one job; each counts once. Whoever settles the last one decides
    /// the job.
    ///
    /// A report that comes after the job's end counts, moves nothing, and is no error: see
    /// [`Reported::late`]. Of two reports of one batch in one call the success counts.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Rejected`] if all the batches are past the total, and
    /// [`StoreError::Corrupt`] if what is stored of all of them cannot be read (where only some are, their
    /// [`Effect`] says so, and the others count); [`Error::Store`], and then the call may be repeated:
    /// nothing counts twice.
    pub async fn report(&self, id: JobId, reports: Vec<BatchReport>) -> Result<Reported, Error> {
        let mut distinct = reports.clone();
        distinct.sort_by_key(|report| (report.batch(), report.settles_as()));
        distinct.dedup_by_key(|report| report.batch());
        let written = self.store.report(id, &distinct, self.clock.now()).await?;
        let unstarted = matches!(written.status, Some(Status::Uploading | Status::Uploaded));
        if written.may_decide || unstarted {
            self.reconcile(id).await?;
        }
        let effects = in_order(id, &reports, &distinct, written.effects)?;
        let all_are = |wanted| effects.iter().all(|(_, effect)| *effect == wanted);
        match effects.first() {
            Some((batch, Effect::OutOfRange)) if all_are(Effect::OutOfRange) => {
                let total = self.read(id, Consistency::Strong, None).await?.job.total().unwrap_or(0);
                return Err(out_of_range(id, *batch, total));
            }
            Some((batch, Effect::Damaged)) if all_are(Effect::Damaged) => {
                let (subject, why) =
                    (format!("batch {batch} of job {id}"), "what is stored of it cannot be read".into());
                return Err(StoreError::Corrupt { subject, why }.into());
            }
            _ => {}
        }
        Ok(Reported { effects, late: written.status.filter(|status| status.is_terminal()) })
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
        // Its fields are public, and it has to fit into the record.
        let failure = Failure::new(failure.stage, &failure.code, &failure.message, failure.retryable);
        self.apply(id, &Command::Fail(failure), by, None).await.map(|state| self.show(&state))
    }

    /// Looks at every job that is due. Completes jobs whose last worker crashed, confirms unanswered cancels
    /// and fails jobs past their deadline. Any process may run it, any number at once: each job is looked
    /// at by one of them.
    ///
    /// # Errors
    /// [`Error::Store`] if the due jobs cannot be listed.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let mut page = PageRequest::first(100);
        loop {
            let due = self.store.due(self.clock.now(), &page).await?;
            for damaged in due.damaged {
                tracing::warn!(subject = damaged.subject, why = damaged.why, "what is due cannot be read");
                swept.errors += 1;
            }
            for due in due.rows {
                if let Err(error) = self.sweep_one(due, &mut swept).await {
                    tracing::warn!(job = %due.id, %error, "the sweeper could not look at a job");
                    swept.errors += 1;
                }
            }
            match due.next {
                Some(next) => page.cursor = Some(next),
                None => break,
            }
        }
        self.store.purge(self.clock.now()).await?;
        Ok(swept)
    }

    /// The job as it is to be shown now; may be a moment old.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn snapshot(&self, id: JobId) -> Result<Snapshot, Error> {
        self.snapshot_as(id, None, None).await
    }

    /// The job with everything that was acknowledged before the call. Decides it, should it be undecided
    /// at its last batch.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn snapshot_now(&self, id: JobId) -> Result<Snapshot, Error> {
        self.reconcile(id).await.map(|state| self.show(&state))
    }

    /// The job's record: what was decided, without its batches' facts; may be a moment old.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn job(&self, id: JobId) -> Result<Job, Error> {
        self.head(id).await
    }

    /// Deletes a job with everything that belongs to it. Idempotent: a job that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Store`], and then the call can be repeated.
    pub async fn erase(&self, id: JobId) -> Result<(), Error> {
        Ok(self.store.erase(id).await?)
    }

    /// The jobs of all owners that are not over, in no order.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list_open(&self, page: &PageRequest) -> Result<Page<Job>, Error> {
        Ok(self.store.list_open(page).await?)
    }

    /// Snapshots from now on, until a terminal one: see [`OwnedJobs::watch`].
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn watch(&self, id: JobId) -> Result<impl Stream<Item = Arc<Snapshot>> + Send + use<>, Error> {
        self.watch_as(id, None, None).await
    }

    /// What failed, by batch and item.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, Error> {
        Ok(self.store.errors(id, page).await?)
    }

    /// The batches from `from` on that stand as `which`, in order, at most `limit`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`], also if how one of them stands cannot be read: those before it and
    /// after it can be asked for by themselves.
    pub async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, Error> {
        Ok(self.store.batches(id, which, from, limit).await?)
    }

    /// The owner and the snapshot of a job that is not behind what a token stands for.
    pub(crate) async fn view(
        &self,
        id: JobId,
        owner: Option<&OwnerId>,
        seen: Option<&Token>,
    ) -> Result<(OwnerId, Snapshot), Error> {
        let mut state = self.read(id, Consistency::Eventual, owner).await?;
        if seen.is_some_and(|seen| !self.show(&state).covers(seen)) {
            state = self.read(id, Consistency::Strong, owner).await?;
        }
        let state = self.reconciled(state).await?;
        let snapshot = self.show(&state);
        Ok((state.job.owner, snapshot))
    }

    pub(crate) async fn snapshot_as(
        &self,
        id: JobId,
        owner: Option<&OwnerId>,
        seen: Option<&Token>,
    ) -> Result<Snapshot, Error> {
        self.view(id, owner, seen).await.map(|(_, snapshot)| snapshot)
    }

    async fn cancel_as(
        &self,
        id: JobId,
        by: &Actor,
        reason: Option<String>,
        owner: Option<&OwnerId>,
    ) -> Result<Cancelled, Error> {
        let state = self.apply(id, &Command::Cancel(reason), by, owner).await?;
        let cancelled = state.job.status == Status::Cancelled;
        let snapshot = self.show(&state);
        Ok(if cancelled { Cancelled::Now(snapshot) } else { Cancelled::Requested(snapshot) })
    }

    /// The job as a worker finds it that is about to work: started, and over if that was asked or is so.
    async fn before_work(&self, job: Job, may_decide: bool) -> Result<Job, Error> {
        let id = job.id;
        let state = match job.status {
            Status::Uploading | Status::Uploaded => {
                match self.apply(id, &Command::Start(None), &Actor::WORKER, None).await {
                    Err(Error::Rejected { rejection: Rejection::Contradiction { .. }, .. }) => {
                        self.read(id, Consistency::Strong, None).await?
                    }
                    started => started?,
                }
            }
            Status::Processing if job.cancel_requested.is_some() => {
                match self.apply(id, &Command::ConfirmCancel, &Actor::WORKER, None).await {
                    Err(Error::Rejected { rejection: Rejection::NoCancelRequest { .. }, .. }) => {
                        self.read(id, Consistency::Strong, None).await?
                    }
                    confirmed => confirmed?,
                }
            }
            Status::Processing if may_decide => self.reconcile(id).await?,
            _ => return Ok(job),
        };
        Ok(state.job)
    }

    async fn sweep_one(&self, due: Due, swept: &mut Swept) -> Result<(), Error> {
        let now = self.clock.now();
        let leased = Due::new(due.id, clock::after(now, LEASE));
        if !self.store.postpone(&due, leased.at).await? {
            // Another sweeper looks at it, or it was decided about just now.
            return Ok(());
        }
        swept.looked_at += 1;
        let before = match self.read(due.id, Consistency::Strong, None).await {
            Err(Error::NotFound(_)) => return Ok(()),
            before => before?,
        };
        for Damaged { subject, why } in &before.damaged {
            tracing::warn!(job = %due.id, subject, why, "a part of a job cannot be read");
        }
        if before.job.status.is_terminal() {
            return Ok(self.store.propagate(&before.job).await?);
        }
        let after = self.apply(due.id, &Command::Expire, &Actor::SWEEPER, None).await?;
        match after.job.status {
            Status::Completed => swept.completed += 1,
            Status::Failed => swept.failed += 1,
            Status::Cancelled => swept.cancelled += 1,
            Status::Uploading | Status::Uploaded | Status::Processing => {
                if after.job.revision == before.job.revision {
                    self.store.postpone(&leased, after.job.next_look(now, after.facts.last_at)).await?;
                }
            }
        }
        Ok(())
    }

    /// Decides the job if its facts do.
    async fn reconcile(&self, id: JobId) -> Result<JobState, Error> {
        self.apply(id, &Command::Reconcile, &Actor::WORKER, None).await
    }

    /// The state itself, or the decided one if its facts decide it.
    async fn reconciled(&self, state: JobState) -> Result<JobState, Error> {
        let JobState { job, facts, .. } = &state;
        match machine::decide(job, facts, &Command::Reconcile, &Actor::WORKER, self.clock.now()) {
            Ok(Verdict::AlreadyApplied) | Err(_) => Ok(state),
            Ok(Verdict::Reconciled(_) | Verdict::Next(_)) => self.reconcile(job.id).await,
        }
    }

    /// The job and its facts. Only a strongly consistent read can tell that there is none.
    pub(crate) async fn read(
        &self,
        id: JobId,
        consistency: Consistency,
        owner: Option<&OwnerId>,
    ) -> Result<JobState, Error> {
        let mut state = self.store.read(id, consistency).await?;
        if state.is_none() && consistency == Consistency::Eventual {
            state = self.store.read(id, Consistency::Strong).await?;
        }
        let state = state.ok_or(Error::NotFound(id))?;
        match owner {
            Some(owner) if state.job.owner != *owner => Err(Error::NotFound(id)),
            _ => Ok(state),
        }
    }

    /// The job's record. Only a strongly consistent read can tell that there is none.
    pub(crate) async fn head(&self, id: JobId) -> Result<Job, Error> {
        match self.store.job(id, Consistency::Eventual).await? {
            Some(job) => Ok(job),
            None => self.store.job(id, Consistency::Strong).await?.ok_or(Error::NotFound(id)),
        }
    }

    /// Reads, decides and swaps until the decision holds.
    async fn apply(
        &self,
        id: JobId,
        command: &Command,
        by: &Actor,
        owner: Option<&OwnerId>,
    ) -> Result<JobState, Error> {
        for attempt in 1..=TRIES {
            // Before the read: what is heard while its answer is on the way is no silence.
            let now = self.clock.now();
            let JobState { job, facts, damaged } = self.read(id, Consistency::Strong, owner).await?;
            let decided = machine::decide(&job, &facts, command, by, now);
            let (next, is_answer) = match decided.map_err(|rejection| Error::Rejected { id, rejection })? {
                Verdict::AlreadyApplied => return Ok(JobState { job, facts, damaged }),
                // A seal may show that too many batches failed.
                Verdict::Next(next) => (self.with_culprit(*next).await, true),
                Verdict::Reconciled(next) => (self.with_culprit(*next).await, false),
            };
            match self.store.decide(&next).await {
                Ok(()) => {
                    self.after_decision(&job, &next).await;
                    if is_answer {
                        return Ok(JobState { job: next, facts, damaged });
                    }
                }
                Err(StoreError::Conflict(_)) => {
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(8)) * 3)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict(id).into())
    }

    /// The record of a job that failed by its facts, with the error of a failed batch, where that can be
    /// read.
    async fn with_culprit(&self, mut job: Job) -> Job {
        if machine::lacks_culprit(&job) {
            match self.culprit(job.id).await {
                Ok(Some(error)) => machine::name_culprit(&mut job, &error),
                Ok(None) => {}
                Err(error) => tracing::warn!(job = %job.id, %error, "the error to name cannot be read"),
            }
        }
        job
    }

    /// An error of the first batch that failed.
    async fn culprit(&self, id: JobId) -> Result<Option<ItemError>, StoreError> {
        let failed = self.store.batches(id, BatchState::Failed, 0, 1).await?;
        let Some(failed) = failed.first() else { return Ok(None) };
        let first = ErrorsPosition { batch: failed.get(), ..ErrorsPosition::default() };
        let page = PageRequest { limit: 1, cursor: Some(first.to_string()) };
        let errors = self.store.errors(id, &page).await?.rows;
        Ok(errors.into_iter().find(|error| error.batch == *failed))
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

    fn show(&self, state: &JobState) -> Snapshot {
        Snapshot::new(state, self.noun.as_deref().unwrap_or("Items"), self.clock.now())
    }
}

/// The effect of each of `reports`, of which only `distinct` were written: one of each batch, whose
/// `effects` these are. Further reports of its batch are duplicates of it.
fn in_order(
    id: JobId,
    reports: &[BatchReport],
    distinct: &[BatchReport],
    effects: Vec<(BatchIndex, Effect)>,
) -> Result<Vec<(BatchIndex, Effect)>, StoreError> {
    let effects: HashMap<_, _> = effects.into_iter().collect();
    let mut written: HashSet<_> =
        distinct.iter().map(|report| (report.batch(), report.settles_as())).collect();
    let in_order = reports.iter().map(|report| {
        let batch = report.batch();
        let effect = *effects.get(&batch).ok_or(StoreError::Incomplete { operation: "report", id, batch })?;
        let is_written = written.remove(&(batch, report.settles_as()));
        Ok((batch, if is_written || !effect.is_change() { effect } else { Effect::Duplicate }))
    });
    in_order.collect()
}

fn out_of_range(id: JobId, batch: BatchIndex, total: u64) -> Error {
    Error::Rejected { id, rejection: Rejection::BatchOutOfRange { batch, total } }
}
