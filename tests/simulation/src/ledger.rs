//! What is known of each job from outside: what was acknowledged, what was reported, what people
//! were shown. What can be judged at once is judged here; the rest is judged at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use status_core::{
    BatchIndex, BatchReport, Clock, Damaged, Decision, Effect, Error, HistoryEntry, Job, JobId, Settled,
    Snapshot, Status, StoreError, Timestamp, clock,
};

use crate::{
    dynamo,
    history::History,
    invariant::{Invariant, Verdict},
    scenario::Plan,
    time::VirtualTime,
    words::Words,
};

/// The books of all jobs of a run.
#[derive(Debug)]
pub struct Ledger {
    time: VirtualTime,
    history: Arc<History>,
    verdict: Arc<Verdict>,
    plans: Vec<Plan>,
    /// How far apart two clocks may be.
    skew: Duration,
    books: Mutex<BTreeMap<JobId, Book>>,
    keys: Mutex<BTreeMap<(String, String), JobId>>,
    /// How often workers were told what.
    effects: Mutex<BTreeMap<&'static str, u64>>,
    /// The plans whose owners have got what they came for.
    served: Mutex<BTreeSet<usize>>,
}

/// What is known of one job.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The plan it was created by, once its creation was acknowledged.
    pub plan: Option<usize>,
    /// Whether somebody began to erase it. A request that comes late may make it again, so that
    /// what is known of it does not hold from then on.
    pub erasing: bool,
    /// The least status that was acknowledged.
    pub at_least: Option<Status>,
    /// Whether the seal was acknowledged.
    pub is_sealed: bool,
    /// Whether the request to cancel was answered with a cancelled job.
    pub is_cancelled: bool,
    /// What was reported of each batch, in the order in which it was sent.
    pub attempts: BTreeMap<u64, Vec<Attempt>>,
    /// When the reports that changed something were sent, and when that was acknowledged.
    pub heard: Vec<(Timestamp, Timestamp)>,
    /// The longest history that was seen.
    pub history: Vec<HistoryEntry>,
    end: Option<Status>,
    /// What was shown with each token.
    tokens: BTreeMap<String, String>,
}

/// One worker's report of one batch.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it says.
    pub report: BatchReport,
    /// When it was sent. It may be long on its way, and is of this time all the same.
    pub sent: Timestamp,
    /// What the worker was told.
    pub told: Option<Effect>,
}

/// What a strongly consistent read has to show at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    status: Option<Status>,
    completed: u64,
    settled: u64,
    is_sealed: bool,
}

impl Book {
    /// The job's batches that a worker was told are completed, or settled one way or the other.
    pub fn acknowledged(&self, total: u64, completed: bool) -> BTreeSet<u64> {
        let batches = self.attempts.range(..total).filter(|(_, attempts)| {
            attempts.iter().any(|attempt| {
                let told = attempt.told.is_some_and(|told| told != Effect::OutOfRange);
                told && (!completed || attempt.report.settles_as() == Settled::Completed)
            })
        });
        batches.map(|(batch, _)| *batch).collect()
    }
}

impl Ledger {
    /// The empty ledger of a run.
    pub fn new(
        time: VirtualTime,
        history: Arc<History>,
        verdict: Arc<Verdict>,
        plans: Vec<Plan>,
        skew: Duration,
    ) -> Self {
        let (books, keys, effects, served) = Default::default();
        Self { time, history, verdict, plans, skew: 2 * skew, books, keys, effects, served }
    }

    /// The owner of this plan's job has got what they came for.
    pub fn served(&self, number: usize) {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Whether all owners have got what they came for.
    pub fn is_everybody_served(&self) -> bool {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).len() == self.plans.len()
    }

    /// Whether another plan has the same key.
    pub fn has_rival(&self, number: usize) -> bool {
        let key_of = |plan: &Plan| (plan.owner, plan.new.idempotency_key.clone());
        let key = key_of(&self.plans[number]);
        key.1.is_some() && self.plans.iter().filter(|plan| key_of(plan) == key).count() > 1
    }

    /// What is known of all jobs whose creation was acknowledged.
    pub fn known(&self) -> Vec<(JobId, Book)> {
        self.books().iter().filter(|(_, book)| book.plan.is_some()).map(|(id, b)| (*id, b.clone())).collect()
    }

    /// Looks something up about a job, or notes it.
    pub fn of<T>(&self, id: JobId, look: impl FnOnce(&mut Book) -> T) -> T {
        look(self.books().entry(id).or_default())
    }

    /// It was acknowledged that the job is at least this far.
    pub fn reached(&self, id: JobId, status: Status) {
        self.of(id, |book| book.at_least = book.at_least.max(Some(status)));
    }

    /// The plan's creation was answered with this snapshot.
    pub fn created(&self, number: usize, snapshot: &Snapshot) {
        let (plan, id) = (&self.plans[number], snapshot.id);
        self.of(id, |book| book.plan = book.plan.or(Some(number)));
        self.history.note("ledger", || format!("{id} is job {}", plan.name));
        let is_asked_for = snapshot.title == plan.new.title
            && snapshot.file == plan.new.file
            && snapshot.kind == plan.new.kind;
        self.verdict.check(is_asked_for, Invariant::OneJobForAKey, || {
            format!("the creation of job {} was answered with another request's job: {snapshot:?}", plan.name)
        });
        if let Some(key) = &plan.new.idempotency_key {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            let first = *keys.entry((plan.owner.to_owned(), key.clone())).or_insert(id);
            drop(keys);
            let is_gone = self.is_gone(first);
            self.verdict.check(first == id || is_gone, Invariant::OneJobForAKey, || {
                format!("{key:?} of {} made {first} and {id}", plan.owner)
            });
        }
        self.saw(snapshot);
    }

    /// Somebody was shown this.
    pub fn saw(&self, snapshot: &Snapshot) {
        let (batches, id) = (&snapshot.progress.batches, snapshot.id);
        let check = |holds: bool, invariant, what: &str| {
            self.verdict.check(holds, invariant, || format!("{what}: {}", snapshot.words()));
        };
        let settled = batches.completed + batches.failed;
        if let Some(total) = batches.total {
            let adds_up = settled <= total && batches.pending == Some(total - settled);
            check(adds_up, Invariant::CountersMatch, "the batches do not add up to the total");
        }
        let is_done = snapshot.progress.fraction == Some(1.0);
        let (is_completed, is_failed) =
            (snapshot.status == Status::Completed, snapshot.status == Status::Failed);
        check(is_done == is_completed, Invariant::CountersMatch, "all is done if the job is completed");
        check(
            snapshot.outcome.is_some() == is_completed && snapshot.failure.is_some() == is_failed,
            Invariant::HistoryExplains,
            "the status has another's outcome",
        );
        self.check_token(snapshot);
        if snapshot.status.is_terminal() {
            self.ended(id, snapshot.status);
        }
    }

    /// Who has seen the state that a token stands for has seen this.
    fn check_token(&self, snapshot: &Snapshot) {
        let seen = visible(snapshot);
        let token = snapshot.token().to_string();
        let (first, erasing) = self.of(snapshot.id, |book| {
            (book.tokens.entry(token).or_insert_with(|| seen.clone()).clone(), book.erasing)
        });
        self.verdict.check(first == seen || erasing, Invariant::TokensTellApart, || {
            format!("{}\n    {first}\n    {seen}", snapshot.words())
        });
    }

    /// Somebody was shown this record.
    pub fn saw_job(&self, job: &Job) {
        self.saw_history(job.id, &job.history);
        if job.status.is_terminal() {
            self.ended(job.id, job.status);
        }
    }

    /// Somebody was shown this history: it is the beginning of every later one.
    pub fn saw_history(&self, id: JobId, seen: &[HistoryEntry]) {
        let mut books = self.books();
        let book = books.entry(id).or_default();
        if book.erasing {
            return;
        }
        let known = &mut book.history;
        let common = known.len().min(seen.len());
        let is_same = known[..common] == seen[..common];
        let what = if is_same { String::new() } else { format!("{id}: {known:?} became {seen:?}") };
        if seen.len() > known.len() {
            *known = seen.to_vec();
        }
        drop(books);
        self.verdict.check(is_same, Invariant::HistoryExplains, || what);
        let is_end = |entry: &HistoryEntry| {
            matches!(entry.to, Decision::Completed | Decision::Failed | Decision::Cancelled)
        };
        let ends = seen.iter().filter(|entry| is_end(entry)).count();
        let is_last = ends == 0 || seen.last().is_some_and(is_end);
        let is_ordered = seen.windows(2).all(|pair| pair[0].at <= pair[1].at);
        self.verdict.check(
            ends <= 1 && is_last && is_ordered && (1..=7).contains(&seen.len()),
            Invariant::HistoryExplains,
            || format!("{id}: {seen:?}"),
        );
    }

    /// Somebody was told that the job is over.
    pub fn ended(&self, id: JobId, status: Status) {
        let mut books = self.books();
        let book = books.entry(id).or_default();
        if book.erasing {
            return;
        }
        let first = *book.end.get_or_insert(status);
        let is_cancelled = book.is_cancelled;
        drop(books);
        self.verdict
            .check(first == status, Invariant::OneEnd, || format!("{id} was {first} and is {status}"));
        self.verdict.check(!is_cancelled || status == Status::Cancelled, Invariant::CancelledStays, || {
            format!("{id} was cancelled and is {status}")
        });
    }

    /// A worker sends a report. Whatever comes back, it may count from now on.
    pub fn reporting(&self, id: JobId, report: &BatchReport) {
        let attempt = Attempt { report: report.clone(), sent: self.time.now(), told: None };
        self.of(id, |book| book.attempts.entry(report.batch().get()).or_default().push(attempt));
    }

    /// A worker was told what became of its report. `was_sealed` says whether the seal had been
    /// acknowledged when it was sent.
    pub fn told(&self, id: JobId, report: &BatchReport, effect: Effect, was_sealed: bool) {
        let batch = report.batch();
        self.count(effect);
        let mut books = self.books();
        let book = books.entry(id).or_default();
        let total = book.plan.map_or(u64::MAX, |number| self.plans[number].total);
        let attempts = book.attempts.entry(batch.get()).or_default();
        let before = attempts.iter().filter(|attempt| attempt.told == Some(effect)).count();
        if let Some(attempt) = attempts.iter_mut().rev().find(|attempt| attempt.report == *report)
            && !attempt.told.is_some_and(Effect::is_change)
        {
            attempt.told = Some(effect);
            if effect.is_change() {
                book.heard.push((attempt.sent, self.time.now()));
            }
        }
        drop(books);
        if self.is_gone(id) {
            return;
        }
        self.verdict.check(!effect.is_change() || before == 0, Invariant::CountedOnce, || {
            format!("batch {batch} of {id}: two workers were told {effect:?}")
        });
        let is_own = batch.get() < total;
        self.verdict.check(!is_own || effect != Effect::OutOfRange, Invariant::EveryMessageAnswered, || {
            format!("batch {batch} of {id}, which has {total}, was said to be out of range")
        });
        self.verdict.check(
            is_own || !was_sealed || !effect.is_change(),
            Invariant::OnlyItsOwnBatches,
            || format!("batch {batch} counted for {id}, which has {total} and was sealed before"),
        );
    }

    fn count(&self, effect: Effect) {
        let name = match effect {
            Effect::Counted => "counted",
            Effect::Corrected => "corrected",
            Effect::Duplicate => "duplicate",
            Effect::OutOfRange => "out of range",
            Effect::Damaged => "damaged",
        };
        *self.effects.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }

    /// How often workers were told what.
    pub fn effects(&self) -> BTreeMap<&'static str, u64> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the jobs ended whose end somebody was told of.
    pub fn ends(&self) -> Vec<Status> {
        self.books().values().filter_map(|book| book.end).collect()
    }

    /// Whether a worker can have completed this batch.
    pub fn may_be_completed(&self, id: JobId, batch: BatchIndex) -> bool {
        let is_completed = |attempt: &Attempt| attempt.report.settles_as() == Settled::Completed;
        self.of(id, |book| {
            book.attempts.get(&batch.get()).is_some_and(|attempts| attempts.iter().any(is_completed))
        })
    }

    /// What a strongly consistent read that begins now has to show at least.
    pub fn floor(&self, id: JobId) -> Floor {
        self.of(id, |book| {
            let total = book.plan.map_or(0, |number| self.plans[number].total);
            Floor {
                status: book.end.or(book.at_least),
                completed: book.acknowledged(total, true).len() as u64,
                settled: book.acknowledged(total, false).len() as u64,
                is_sealed: book.is_sealed,
            }
        })
    }

    /// Checks what a strongly consistent read showed.
    pub fn check_floor(&self, floor: Floor, snapshot: &Snapshot) {
        let batches = &snapshot.progress.batches;
        let sees = floor.status.is_none_or(|status| snapshot.status >= status)
            && batches.completed >= floor.completed
            && batches.completed + batches.failed >= floor.settled
            && (!floor.is_sealed || batches.total.is_some());
        let holds = sees || self.of(snapshot.id, |book| book.erasing);
        self.verdict.check(holds, Invariant::ReadsSeeWrites, || {
            format!("{floor:?} was there, {} read", snapshot.words())
        });
    }

    /// Checks that one who was shown `before` may be shown `now`.
    pub fn check_order(&self, who: &str, before: &Snapshot, now: &Snapshot) {
        // What was past the total before there was one is set aside when there is.
        let is_sealed_between =
            before.progress.batches.total.is_none() && now.progress.batches.total.is_some();
        let (plan, erasing) = self.of(now.id, |book| (book.plan, book.erasing));
        let plan = plan.map(|number| &self.plans[number]);
        let set_aside = is_sealed_between && plan.is_none_or(|plan| plan.strays > 0);
        let grows = [
            before.version <= now.version,
            before.status <= now.status,
            !before.status.is_terminal() || before.status == now.status,
            set_aside || before.progress.batches.completed <= now.progress.batches.completed,
            set_aside || settled(before) <= settled(now),
            before.progress.items.processed <= now.progress.items.processed,
            before.progress.upload.bytes <= now.progress.upload.bytes,
            before.updated_at <= clock::after(now.updated_at, 6 * Self::OVERTAKING),
            before.progress.batches.total.is_none()
                || before.progress.batches.total == now.progress.batches.total,
            before.started_at.is_none() || before.started_at == now.started_at,
            before.cancel_requested.is_none() || before.cancel_requested == now.cancel_requested,
            now.covers(&before.token()),
        ];
        let broken = grows.iter().position(|grows| !grows).filter(|_| !erasing);
        self.verdict.check(broken.is_none(), Invariant::NeverBack, || {
            let (before, now) = (before.words(), now.words());
            format!("{who} was shown, by rule {broken:?},\n    {before}\n    and then\n    {now}")
        });
    }

    /// How much the time of the last report may go back when two of them overtake each other.
    const OVERTAKING: Duration = Duration::from_secs(1);

    /// Checks that nothing is damaged but what is somebody else's.
    pub fn check_readable(&self, damaged: &[Damaged]) {
        let is_readable = damaged.iter().all(|part| part.subject.contains(dynamo::STRANGER));
        self.verdict.check(is_readable, Invariant::NothingUnreadable, || format!("{damaged:?}"));
    }

    /// Judges an error that somebody got about a job. What faults explain is no violation while
    /// they last.
    pub fn check_error(&self, error: &Error, id: Option<JobId>, is_calm: bool) {
        let violated = |invariant| self.verdict.violated(invariant, &format!("{error:?}"));
        match error {
            Error::NotFound(missing) => {
                let id = id.unwrap_or(*missing);
                let is_gone = self.is_gone(id) || self.of(id, |book| book.plan.is_none());
                self.verdict.check(is_gone, Invariant::NoFalseNotFound, || format!("{error}"));
            }
            Error::Store(StoreError::Corrupt { .. }) => violated(Invariant::NothingUnreadable),
            Error::Store(StoreError::Incomplete { .. }) => violated(Invariant::EveryMessageAnswered),
            Error::Store(StoreError::Unavailable { .. } | StoreError::Throttled { .. }) if !is_calm => {}
            Error::Rejected { .. } => {}
            _ => violated(Invariant::WorksWhenQuiet),
        }
    }

    /// Whether the job may be missing: somebody erased it, or its retention may be over.
    pub fn is_gone(&self, id: JobId) -> bool {
        let (plan, erasing) = self.of(id, |book| (book.plan, book.erasing));
        let Some(plan) = plan.map(|number| &self.plans[number]) else { return erasing };
        let expires = clock::after(id.created_at(), plan.policy.retention);
        erasing || expires <= clock::after(self.time.now(), self.skew)
    }

    fn books(&self) -> MutexGuard<'_, BTreeMap<JobId, Book>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settled(snapshot: &Snapshot) -> u64 {
    snapshot.progress.batches.completed + snapshot.progress.batches.failed
}

/// What people see of a job.
fn visible(snapshot: &Snapshot) -> String {
    let Snapshot { status, outcome, stage, progress, health, cancel_requested, .. } = snapshot;
    let estimate = snapshot.estimate.as_ref().map(|estimate| &estimate.text);
    let cancel = cancel_requested.is_some();
    format!("{status} {outcome:?} {stage:?} {progress:?} {health:?} {estimate:?} {cancel}")
}
