//! Random histories against a model: one record, a map of batches, and the pure machine. The model never
//! merges, never retries and never races, so whatever a store does, it has to come out the same.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{
    prelude::{Just, Strategy, prop, prop_oneof},
    test_runner::{Config, TestCaseError, TestRunner},
};
use status_core::{
    Actor, BatchOutcome, BatchReport, BatchState, Clock, Command, Counts, Decision, Facts, ItemError, Job,
    JobId, Outcome, Policy, Settled, Status, StatusStore, Timestamp, Tolerance, Totals, Verdict, machine,
};

use crate::kit::{Kit, batch, done, failed, gave_up, run, splitter, totals};

/// Batches of the model's jobs: on both sides of the edges that stores may have.
const BATCHES: [u64; 6] = [0, 1, 255, 256, 257, 511];

/// One step of a history.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// The owner confirms the upload.
    FinishUpload,
    /// The splitter starts, with the total or without.
    Start(Option<u64>),
    /// The splitter seals the job with this total; before its swap a worker's report arrives.
    SealDuring(u64, BatchReport),
    /// Workers report batches together.
    Report(Vec<BatchReport>),
    /// A worker reports and dies before it can decide.
    ReportAndDie(BatchReport),
    /// A worker asks for batches.
    Begin(Vec<u64>),
    /// The owner cancels.
    Cancel,
    /// Somebody gives up.
    Fail,
    /// The sweeper runs.
    Sweep,
    /// Time passes.
    Wait(Duration),
}

/// Checks `histories` random histories of at most `steps` steps against the store that `open` opens.
///
/// # Panics
/// If one of them comes out otherwise than the machine says, with the shortest such history.
pub fn check<S: StatusStore>(histories: u32, steps: usize, open: impl AsyncFn(Arc<dyn Clock>) -> Arc<S>) {
    let config = Config { cases: histories, failure_persistence: None, ..Config::default() };
    let tolerance =
        prop_oneof![Just(Tolerance::None), Just(Tolerance::Batches(1)), Just(Tolerance::Percent(50))];
    let histories = (tolerance, prop::bool::ANY, prop::collection::vec(step(), 1..=steps));
    let checked = TestRunner::new(config).run(&histories, |(tolerance, track_starts, history)| {
        run(replay(tolerance, track_starts, &history, async |clock| open(clock).await))
            .map_err(TestCaseError::fail)
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let index = || prop::sample::select(&BATCHES[..]);
    let report = || {
        (index(), 0..6_u64).prop_map(|(index, kind)| match kind {
            0 => failed(index),
            // A worker that does not know how many items the batch has.
            5 => BatchReport::failed(batch(index), 0, "unread", "The batch could not be read."),
            // Items that failed, each time for another reason.
            1 | 2 => BatchReport::completed(batch(index), 10 - kind, kind)
                .took(Duration::from_secs(2))
                .with_errors((0..kind).map(|item| {
                    ItemError::new(batch(index), Some(index * 10 + item), "bad", &format!("Attempt {kind}."))
                })),
            _ => done(index),
        })
    };
    let total = || prop::sample::select(&[0_u64, 2, 256, 258, 512][..]);
    let waits = [1_u64, 31, 150, 50_000];
    prop_oneof![
        1 => Just(Step::FinishUpload),
        2 => prop::option::of(total()).prop_map(Step::Start),
        1 => (total(), report()).prop_map(|(total, report)| Step::SealDuring(total, report)),
        8 => prop::collection::vec(report(), 1..5).prop_map(Step::Report),
        2 => report().prop_map(Step::ReportAndDie),
        2 => prop::collection::vec(index(), 1..4).prop_map(Step::Begin),
        1 => Just(Step::Cancel),
        1 => Just(Step::Fail),
        1 => Just(Step::Sweep),
        2 => prop::sample::select(waits.to_vec()).prop_map(|s| Step::Wait(Duration::from_secs(s))),
    ]
}

async fn replay<S: StatusStore>(
    tolerance: Tolerance,
    track_starts: bool,
    history: &[Step],
    open: impl AsyncFnOnce(Arc<dyn Clock>) -> Arc<S>,
) -> Result<(), String> {
    let kit = Kit::open(open).await;
    let mut policy = Policy::default();
    policy.tolerance = tolerance;
    policy.track_starts = track_starts;
    let id = kit.create(policy).await;
    let mut model = Model::new(kit.state(id).await.job);
    for (number, step) in history.iter().enumerate() {
        take(&kit, id, step).await;
        model.take(step, kit.clock.now());
        let snapshot = kit.tracker.snapshot(id).await.map_err(|error| format!("step {number}: {error}"))?;
        let state = kit.state(id).await;
        let seen = Seen {
            status: snapshot.status,
            outcome: snapshot.outcome,
            counts: state.facts.counts,
            version: snapshot.version,
            told: state.job.history.iter().map(|h| h.to).collect(),
            frozen: state.job.frozen,
            running: state.facts.running.len(),
        };
        differs(&format!("after step {number}, {step:?}"), &seen, &model.seen())?;
    }
    differs("at the end, as listed", &listed(&kit, id).await, &model.listed(kit.clock.now()))
}

fn differs<T: PartialEq + std::fmt::Debug>(when: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{when}:\n  the store says {seen:?}\n  the machine   {expected:?}"))
}

async fn take(kit: &Kit, id: JobId, step: &Step) {
    match step {
        Step::FinishUpload => drop(kit.jobs.finish_upload(id).await),
        Step::Start(total) => drop(kit.tracker.start(id, total.map(totals), &splitter()).await),
        Step::SealDuring(total, report) => seal_during(kit, id, totals(*total), report).await,
        Step::Report(reports) => drop(kit.tracker.report(id, reports.clone()).await),
        Step::ReportAndDie(report) => {
            drop(kit.store.report(id, std::slice::from_ref(report), kit.clock.now()).await);
        }
        Step::Begin(batches) => {
            let batches: Vec<_> = batches.iter().map(|index| batch(*index)).collect();
            drop(kit.tracker.begin_all(id, &batches).await);
        }
        Step::Cancel => drop(kit.jobs.cancel(id, None).await),
        Step::Fail => drop(kit.tracker.fail(id, gave_up(), &splitter()).await),
        Step::Sweep => drop(kit.tracker.sweep().await),
        Step::Wait(time) => kit.clock.advance(*time),
    }
}

/// What the tracker's `seal` does, with a report between its read and its swap.
async fn seal_during(kit: &Kit, id: JobId, totals: Totals, report: &BatchReport) {
    let state = kit.state(id).await;
    let command = Command::Start(Some(totals));
    let decided = machine::decide(&state.job, &state.facts, &command, &splitter(), kit.clock.now());
    drop(kit.store.report(id, std::slice::from_ref(report), kit.clock.now()).await);
    if let Ok(Verdict::Next(next)) = decided {
        kit.store.decide(&next).await.expect("nobody else has decided");
        kit.store.propagate(&next).await.expect("propagated");
    }
}

/// What a store lists: batches by how they stand, errors, whether the job is due.
type Listed = (BTreeMap<u64, BatchState>, Vec<ItemError>, bool);

async fn listed(kit: &Kit, id: JobId) -> Listed {
    let mut batches = BTreeMap::new();
    for which in [BatchState::Completed, BatchState::Failed] {
        let listed = kit.store.batches(id, which, 0, 1_000).await.expect("listed");
        batches.extend(listed.into_iter().map(|batch| (batch.get(), which)));
    }
    for index in BATCHES {
        let unsettled = kit.store.batches(id, BatchState::Unsettled, index, 1).await.expect("listed");
        if unsettled == [batch(index)] {
            batches.insert(index, BatchState::Unsettled);
        }
    }
    (batches, kit.errors(id).await, kit.due().await.contains(&id))
}

/// The job as the rules say it is.
struct Model {
    job: Job,
    /// The report that counted, of each batch.
    batches: BTreeMap<u64, BatchReport>,
    /// Batches that were begun and are not settled.
    running: BTreeMap<u64, Timestamp>,
    last: Option<Timestamp>,
    /// From when a sweeper looks; `None` once the end is propagated, which the tracker does at once.
    due: Option<Timestamp>,
}

#[derive(PartialEq, Debug)]
struct Seen {
    status: Status,
    outcome: Option<Outcome>,
    counts: Counts,
    version: u64,
    told: Vec<Decision>,
    frozen: Option<Counts>,
    running: usize,
}

impl Model {
    fn new(job: Job) -> Self {
        let due = Some(job.due_at());
        Self { job, batches: BTreeMap::new(), running: BTreeMap::new(), last: None, due }
    }

    fn seen(&self) -> Seen {
        let facts = self.facts();
        Seen {
            status: self.job.status,
            outcome: self.job.outcome,
            counts: facts.counts,
            version: self.job.revision + facts.version(),
            told: self.job.history.iter().map(|h| h.to).collect(),
            frozen: self.job.frozen,
            running: self.running.len(),
        }
    }

    fn listed(&self, now: Timestamp) -> Listed {
        let highest = self.batches.last_key_value().map_or(0, |(index, _)| index + 1);
        let total = self.job.total().unwrap_or(highest);
        let all = self.batches.keys().copied().chain(BATCHES).filter(|index| *index < total);
        let stands = |index: &u64| match self.batches.get(index).map(BatchReport::settles_as) {
            None => BatchState::Unsettled,
            Some(Settled::Completed) => BatchState::Completed,
            Some(Settled::Failed) => BatchState::Failed,
        };
        let errors = self.batches.values().flat_map(|report| report.errors().iter().cloned());
        let due = self.due.is_some_and(|due| due <= now);
        (all.map(|index| (index, stands(&index))).collect(), errors.collect(), due)
    }

    fn take(&mut self, step: &Step, now: Timestamp) {
        match step {
            Step::FinishUpload => self.command(&Command::FinishUpload, now),
            Step::Start(total) => self.command(&Command::Start(total.map(totals)), now),
            Step::SealDuring(total, report) => {
                let command = Command::Start(Some(totals(*total)));
                let decided = machine::decide(&self.job, &self.facts(), &command, &splitter(), now);
                self.report(std::slice::from_ref(report), now);
                if let Ok(Verdict::Next(next)) = decided {
                    self.swap(*next);
                }
            }
            Step::Report(reports) => {
                let mut reports = reports.clone();
                reports.sort_by_key(|r| (r.batch(), r.settles_as()));
                reports.dedup_by_key(|r| r.batch());
                self.report(&reports, now);
            }
            Step::ReportAndDie(report) => self.report(std::slice::from_ref(report), now),
            Step::Begin(batches) => {
                if self.job.notes_starts() {
                    let open = batches.iter().filter(|index| {
                        !self.batches.contains_key(index) && self.job.total().is_none_or(|t| **index < t)
                    });
                    let open: Vec<_> = open.map(|index| (*index, now)).collect();
                    self.running.extend(open);
                }
                if !self.job.status.is_terminal() {
                    self.command(&Command::Start(None), now);
                }
                self.command(&Command::ConfirmCancel, now);
            }
            Step::Cancel => self.command(&Command::Cancel(None), now),
            Step::Fail => self.command(&Command::Fail(gave_up()), now),
            Step::Sweep => {
                if self.due.is_some_and(|due| due <= now) {
                    let before = self.job.revision;
                    self.command(&Command::Expire, now);
                    if self.job.revision == before {
                        self.due = Some(self.job.next_look(now));
                    }
                }
            }
            Step::Wait(_) => {}
        }
        self.command(&Command::Reconcile, now);
    }

    fn command(&mut self, command: &Command, now: Timestamp) {
        match machine::decide(&self.job, &self.facts(), command, &Actor::WORKER, now) {
            Ok(Verdict::Next(next)) => self.swap(*next),
            Ok(Verdict::Reconciled(next)) => {
                self.swap(*next);
                self.command(command, now);
            }
            Ok(Verdict::AlreadyApplied) | Err(_) => {}
        }
    }

    fn swap(&mut self, next: Job) {
        self.due = Some(next.due_at()).filter(|_| !next.status.is_terminal());
        self.job = next;
    }

    fn report(&mut self, reports: &[BatchReport], now: Timestamp) {
        for report in reports {
            let number = report.batch().get();
            if self.job.total().is_some_and(|total| number >= total) {
                continue;
            }
            let before = self.batches.get(&number).map(BatchReport::settles_as);
            let is_news = match (before, report.settles_as()) {
                (None, _) | (Some(Settled::Failed), Settled::Completed) => true,
                (Some(_), _) => false,
            };
            if is_news {
                self.running.remove(&number);
                self.batches.insert(number, report.clone());
                self.last = Some(now);
            }
        }
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        facts.last_at = self.last;
        let total = self.job.total().unwrap_or(u64::MAX);
        for (index, report) in &self.batches {
            facts.highest = Some(report.batch());
            let counts = if *index < total { &mut facts.counts } else { &mut facts.stray };
            match report.settles_as() {
                Settled::Completed => counts.completed += 1,
                Settled::Failed => counts.failed += 1,
            }
            let failed = match report.outcome() {
                BatchOutcome::Completed { failed, .. } => failed,
                BatchOutcome::Failed { items } => items,
            };
            facts.counts.items_processed += report.items() - failed;
            facts.counts.items_failed += failed;
        }
        facts
    }
}
