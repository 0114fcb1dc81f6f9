//! Workers: each gets deliveries of several messages, of several jobs, some of them twice.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use status_core::{
    Assignment, BatchIndex, BatchReport, Begin, Effect, Error, ItemError, JobId, Rejection, Reported, Settled,
};
use tokio::time::sleep;

use super::Actor;
use crate::{
    invariant::Invariant,
    queue::Message,
    scenario::{Plan, Trouble},
    world::{Batch, Process},
};

/// How often a worker repeats a report itself before it leaves the message to the queue.
const TRIES: u32 = 2;

/// A worker.
#[derive(Debug)]
pub(super) struct Worker;

#[async_trait]
impl Actor for Worker {
    async fn live(&self, process: &Process) {
        let world = &process.world;
        while !world.is_over() {
            process.pause(Duration::from_millis(400)).await;
            let most = world.random.within(1..=world.scenario.delivery);
            let mut jobs: BTreeMap<JobId, Vec<Message<Batch>>> = BTreeMap::new();
            for message in world.batches.receive(most) {
                jobs.entry(message.body.id).or_default().push(message);
            }
            for (id, messages) in jobs {
                Delivery { process, id, plan: &world.scenario.jobs[messages[0].body.plan] }
                    .work_through(&messages)
                    .await;
            }
        }
    }
}

/// The messages of one delivery that are about one job.
struct Delivery<'a> {
    process: &'a Process,
    id: JobId,
    plan: &'a Plan,
}

impl Delivery<'_> {
    async fn work_through(&self, messages: &[Message<Batch>]) {
        let batches: Vec<_> = messages.iter().map(|message| index(message.body)).collect();
        let begun = self.process.tracker.begin_all(self.id, &batches).await;
        let begun = self.process.said(self.id, "begin_all", begun.map_err(|e| self.unless_refused(e)));
        let Ok(assignment) = begun else {
            // A job that is not there has no work; everything else comes again.
            if matches!(begun, Err(Error::NotFound(_))) {
                self.delete(messages);
            }
            return;
        };
        self.check(&batches, &assignment);
        let mut reports = Vec::new();
        let mut done = Vec::new();
        for (message, begin) in messages.iter().zip(&assignment.batches) {
            if *begin == Begin::Work {
                match self.work(message).await {
                    Some(report) => reports.push((message.clone(), report)),
                    None => continue,
                }
            } else if *begin != Begin::Repeated {
                done.push(message.clone());
            }
        }
        self.delete(&done);
        // Some workers report each batch by itself.
        let at_a_time = if self.process.world.random.per_mille(300) { 1 } else { reports.len().max(1) };
        for part in reports.chunks(at_a_time) {
            self.report(part).await;
        }
    }

    /// Works on a batch. `None` if it fails and is to be tried again.
    async fn work(&self, message: &Message<Batch>) -> Option<BatchReport> {
        let (world, batch) = (&self.process.world, index(message.body));
        let random = &world.random;
        let took = Duration::from_millis(random.within(1..=self.plan.work.as_millis() as u64));
        sleep(took).await;
        if !world.is_quiet() && random.per_mille(world.scenario.deaths_per_mille) {
            self.process.die().await;
        }
        let Trouble { fails_per_mille, errors_per_mille, most_errors, input, is_wild } = self.plan.trouble;
        let items = if is_wild { random.one_of(&[0, 1, 7, u64::MAX]) } else { self.plan.items };
        // What tells the errors of this attempt from those of others.
        let attempt = format!("attempt {:08x}", random.within(0..=u64::from(u32::MAX)));
        if random.per_mille(fails_per_mille) {
            let is_last = message.receives >= world.scenario.last_receive;
            return is_last.then(|| BatchReport::failed(batch, items, "gave-up", &attempt));
        }
        let failed = match random.per_mille(errors_per_mille) {
            true => random.one_of(&[1, most_errors, most_errors.div_ceil(2)]).min(items),
            false => 0,
        };
        let errors = (0..failed).map(|n| {
            let item = batch.get() * self.plan.items + n;
            let error = ItemError::new(batch, Some(item), "bad-item", &attempt).at_line(item + 1);
            if input > 0 { error.with_input("x".repeat(input)) } else { error }
        });
        let report = BatchReport::completed(batch, items - failed, failed);
        Some(report.with_errors(errors).took(took))
    }

    async fn report(&self, part: &[(Message<Batch>, BatchReport)]) {
        let ledger = &self.process.world.ledger;
        let reports: Vec<_> = part.iter().map(|(_, report)| report.clone()).collect();
        for report in &reports {
            ledger.reporting(self.id, report);
        }
        for _ in 0..TRIES {
            let was_sealed = ledger.of(self.id, |book| book.is_sealed);
            let told = self.process.tracker.report(self.id, reports.clone()).await;
            match self.process.said(self.id, "report", told) {
                Ok(reported) => {
                    self.take(&reports, &reported, was_sealed);
                    return self.delete(part.iter().filter(|(_, r)| self.is_done(r)).map(|(m, _)| m));
                }
                Err(Error::Rejected { rejection: Rejection::BatchOutOfRange { .. }, .. }) => {
                    for report in &reports {
                        ledger.told(self.id, report, Effect::OutOfRange, was_sealed);
                    }
                    return self.delete(part.iter().map(|(message, _)| message));
                }
                Err(error @ Error::Rejected { .. }) => return drop(self.unless_refused(error)),
                Err(Error::NotFound(_)) => return self.delete(part.iter().map(|(message, _)| message)),
                Err(_) => self.process.pause(Duration::from_millis(500)).await,
            }
        }
    }

    /// Whether nobody wants the batch to be tried again.
    fn is_done(&self, report: &BatchReport) -> bool {
        let world = &self.process.world;
        let is_redriven = world.random.per_mille(world.scenario.redrives_per_mille);
        report.settles_as() == Settled::Completed || world.is_quiet() || !is_redriven
    }

    /// Notes what became of reports.
    fn take(&self, reports: &[BatchReport], reported: &Reported, was_sealed: bool) {
        let world = &self.process.world;
        let asked: Vec<_> = reports.iter().map(BatchReport::batch).collect();
        let answered: Vec<_> = reported.effects.iter().map(|(batch, _)| *batch).collect();
        world.verdict.check(asked == answered, Invariant::EveryMessageAnswered, || {
            format!("{asked:?} of {} were reported, {answered:?} answered", self.id)
        });
        for (report, (_, effect)) in reports.iter().zip(&reported.effects) {
            world.ledger.told(self.id, report, *effect, was_sealed);
        }
        if let Some(status) = reported.late {
            world.ledger.ended(self.id, status);
        }
    }

    /// Checks what a worker was told before it began.
    fn check(&self, batches: &[BatchIndex], assignment: &Assignment) {
        let (world, id) = (&self.process.world, self.id);
        world.ledger.saw_job(&assignment.job);
        let wrong = batches.iter().zip(&assignment.batches).enumerate().find(|(place, (batch, begin))| {
            let is_repeated = batches[..*place].contains(batch);
            match begin {
                Begin::Repeated => !is_repeated,
                _ if is_repeated => true,
                Begin::Work => false,
                Begin::AlreadyCompleted => !world.ledger.may_be_completed(id, **batch),
                Begin::Over(status) => assignment.job.status != *status,
                // Nothing damages what is stored.
                Begin::Damaged => true,
                Begin::OutOfRange { total } => *total != self.plan.total || batch.get() < *total,
            }
        });
        let is_right = wrong.is_none() && batches.len() == assignment.batches.len();
        world.verdict.check(is_right, Invariant::EveryMessageAnswered, || {
            format!("{batches:?} of {id} were begun and answered {:?}", assignment.batches)
        });
    }

    /// No delivery is refused as a whole.
    fn unless_refused(&self, error: Error) -> Error {
        let is_refused = matches!(error, Error::Rejected { .. });
        self.process.world.verdict.check(!is_refused, Invariant::EveryMessageAnswered, || {
            format!("a whole delivery was refused: {error}")
        });
        error
    }

    fn delete<'m>(&self, messages: impl IntoIterator<Item = &'m Message<Batch>>) {
        for message in messages {
            self.process.world.batches.delete(message.receipt);
        }
    }
}

fn index(batch: Batch) -> BatchIndex {
    BatchIndex::new(batch.index).expect("a small number")
}
