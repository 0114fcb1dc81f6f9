//! Random histories against a model: one record, a map of batches, and the pure machine. The model never merges, never
//! retries and never races, so whatever a store does, it has to come out the same.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{
    prelude::{Just, Strategy, prop, prop_oneof},
    test_runner::{Config, TestCaseError, TestRunner},
};
use status_core::{
    Actor, BatchOutcome, BatchReport, Clock, Command, Counts, Decision, Facts, Failure, Job, JobId, Policy,
    Settled, Stage, StatusStore, Tolerance, Verdict, machine,
};

use crate::kit::{Kit, batch, done, failed, run, splitter, totals};

/// Batches of the model's jobs: on both sides of the edges that stores may have.
const BATCHES: [u64; 6] = [0, 1, 255, 256, 257, 511];

/// One step of a history.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// The owner confirms the upload.
    FinishUpload,
    /// The splitter starts, with the total or without.
    Start(Option<u64>),
    /// Workers report batches together.
    Report(Vec<BatchReport>),
    /// A worker reports and dies before it can decide.
    ReportAndDie(BatchReport),
    /// A worker asks for a batch.
    Begin(u64),
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
        (index(), 0..4_u8).prop_map(|(index, kind)| match kind {
            0 => failed(index),
            1 => BatchReport::completed(batch(index), 8, 2).took(Duration::from_secs(2)),
            _ => done(index),
        })
    };
    let total = || prop::sample::select(&[0_u64, 2, 256, 258, 512][..]);
    prop_oneof![
        1 => Just(Step::FinishUpload),
        2 => prop::option::of(total()).prop_map(Step::Start),
        8 => prop::collection::vec(report(), 1..5).prop_map(Step::Report),
        2 => report().prop_map(Step::ReportAndDie),
        2 => index().prop_map(Step::Begin),
        1 => Just(Step::Cancel),
        1 => Just(Step::Fail),
        1 => Just(Step::Sweep),
        2 => prop::sample::select(&[1_u64, 31, 150, 50_000][..]).prop_map(|s| Step::Wait(Duration::from_secs(s))),
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
    let job = kit.state(id).await.job;
    let mut model = Model { due: job.due_at(), job, batches: BTreeMap::new(), last: None };
    for (number, step) in history.iter().enumerate() {
        take(&kit, id, step).await;
        model.take(step, kit.clock.now());
        let snapshot = kit.tracker.snapshot(id).await.map_err(|error| format!("step {number}: {error}"))?;
        let state = kit.state(id).await;
        let told: Vec<Decision> = state.job.history.iter().map(|h| h.to).collect();
        let seen =
            (snapshot.status, snapshot.outcome, state.facts.counts, snapshot.version, told, state.job.frozen);
        let expected = model.seen();
        if seen != expected {
            return Err(format!(
                "after step {number}, {step:?}:\n  the store says {seen:?}\n  the machine   {expected:?}"
            ));
        }
    }
    Ok(())
}

async fn take(kit: &Kit, id: JobId, step: &Step) {
    match step {
        Step::FinishUpload => drop(kit.jobs.finish_upload(id).await),
        Step::Start(total) => drop(kit.tracker.start(id, total.map(totals), &splitter()).await),
        Step::Report(reports) => drop(kit.tracker.report(id, reports.clone()).await),
        Step::ReportAndDie(report) => {
            drop(kit.store.report(id, std::slice::from_ref(report), kit.clock.now()).await);
        }
        Step::Begin(index) => drop(kit.tracker.begin(id, batch(*index)).await),
        Step::Cancel => drop(kit.jobs.cancel(id, None).await),
        Step::Fail => drop(kit.tracker.fail(id, failure(), &splitter()).await),
        Step::Sweep => drop(kit.tracker.sweep().await),
        Step::Wait(time) => kit.clock.advance(*time),
    }
}

fn failure() -> Failure {
    Failure::new(Stage::Process, "given-up", "Given up.", false)
}

/// The job as the rules say it is.
struct Model {
    job: Job,
    batches: BTreeMap<u64, BatchOutcome>,
    last: Option<status_core::Timestamp>,
    /// From when a sweeper looks.
    due: status_core::Timestamp,
}

type Seen = (status_core::Status, Option<status_core::Outcome>, Counts, u64, Vec<Decision>, Option<Counts>);

impl Model {
    fn seen(&self) -> Seen {
        let counts = self.facts().counts;
        let told = self.job.history.iter().map(|h| h.to).collect();
        (
            self.job.status,
            self.job.outcome,
            counts,
            self.job.revision + counts.version(),
            told,
            self.job.frozen,
        )
    }

    fn take(&mut self, step: &Step, now: status_core::Timestamp) {
        match step {
            Step::FinishUpload => self.command(&Command::FinishUpload, now),
            Step::Start(total) => self.command(&Command::Start(total.map(totals)), now),
            Step::Report(reports) => {
                let mut reports = reports.clone();
                reports.sort_by_key(|r| (r.batch(), r.settles_as()));
                reports.dedup_by_key(|r| r.batch());
                self.report(&reports, now);
            }
            Step::ReportAndDie(report) => self.report(std::slice::from_ref(report), now),
            Step::Begin(_) => {
                if !self.job.status.is_terminal() {
                    self.command(&Command::Start(None), now);
                }
                self.command(&Command::ConfirmCancel, now);
            }
            Step::Cancel => self.command(&Command::Cancel(None), now),
            Step::Fail => self.command(&Command::Fail(failure()), now),
            Step::Sweep => {
                if self.due <= now && !self.job.status.is_terminal() {
                    let before = self.job.revision;
                    self.command(&Command::Expire, now);
                    if self.job.revision == before {
                        self.due = self.job.next_look(now);
                    }
                }
            }
            Step::Wait(_) => {}
        }
        self.command(&Command::Reconcile, now);
    }

    fn command(&mut self, command: &Command, now: status_core::Timestamp) {
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
        self.due = next.due_at();
        self.job = next;
    }

    fn report(&mut self, reports: &[BatchReport], now: status_core::Timestamp) {
        for report in reports {
            let number = report.batch().get();
            if self.job.total().is_some_and(|total| number >= total) {
                continue;
            }
            let before = self.batches.get(&number);
            let is_news = match (before, report.settles_as()) {
                (None, _) | (Some(BatchOutcome::Failed { .. }), Settled::Completed) => true,
                (Some(_), _) => false,
            };
            if is_news {
                self.batches.insert(number, report.outcome());
                self.last = Some(now);
            }
        }
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        facts.last_at = self.last;
        for (index, outcome) in &self.batches {
            facts.highest = Some(batch(*index));
            match outcome {
                BatchOutcome::Completed { processed, failed } => {
                    facts.counts.completed += 1;
                    facts.counts.items_processed += processed;
                    facts.counts.items_failed += failed;
                }
                BatchOutcome::Failed { items } => {
                    facts.counts.failed += 1;
                    facts.counts.items_failed += items;
                }
            }
        }
        facts
    }
}
