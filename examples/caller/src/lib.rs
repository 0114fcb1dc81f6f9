//! Works on batches: asks the tracker whether to, normalises the rows, writes the leads, and reports what
//! came of the batch. Any of it may happen twice: leads are upserted, and a batch counts once.

use std::{
    collections::HashMap,
    error::Error as StdError,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use leads::{BatchMessage, Lead, LeadTable, NormaliseError, Normaliser};
use status_core::{
    BatchIndex, BatchReport, Begin, Clock, Effect, Error, ItemError, JobId, OwnerId, Rejection, Settled,
    SystemClock, Tracker,
};

/// Works on batches.
#[derive(Clone, Debug)]
pub struct Caller {
    tracker: Tracker,
    normaliser: Arc<dyn Normaliser>,
    leads: Arc<dyn LeadTable>,
    max_receives: u32,
}

/// A message as the queue delivers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The batch.
    pub message: BatchMessage,
    /// How often it has been delivered, this time included.
    pub receives: u32,
}

/// What is to become of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handled {
    /// It can be deleted.
    Done,
    /// It is to be delivered again: working on it failed, or what is stored of it or of its job is damaged. For
    /// damage it is the answer on the last try, too: nothing can be recorded.
    Retry,
    /// It is to be delivered again, and that is no fault of its own: the store did not answer. A queue that
    /// can does not count it as a try.
    Later,
}

/// What came of reporting.
enum Recorded {
    /// All is recorded or can be forgotten, but for these batches, which are to be delivered again.
    AllBut(Vec<BatchIndex>),
    /// All of it is to be delivered again, and this is the answer to it.
    Nothing(Handled),
}

/// What becomes of a message whose job the store told nothing of, or took nothing for.
fn again(error: &Error) -> Handled {
    if error.may_pass() { Handled::Later } else { Handled::Retry }
}

impl Caller {
    /// A caller that gives a batch up when it is received for the `max_receives`th time and fails.
    pub fn new(
        tracker: Tracker,
        normaliser: Arc<dyn Normaliser>,
        leads: Arc<dyn LeadTable>,
        max_receives: u32,
    ) -> Self {
        Self { tracker, normaliser, leads, max_receives: max_receives.max(1) }
    }

    /// Works on what was delivered together, within `time_left`, and says for each message what is to
    /// become of it.
    ///
    /// A delivery may hold one batch twice, batches of several jobs, and batches that a job does not
    /// have. A batch is worked on once, whatever the number of its messages, and no message changes the
    /// answer for another batch's.
    pub async fn handle(&self, deliveries: &[Delivery], time_left: Duration) -> Vec<Handled> {
        let mut jobs: HashMap<JobId, Vec<usize>> = HashMap::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            jobs.entry(delivery.message.job_id).or_default().push(index);
        }
        let mut handled = vec![Handled::Retry; deliveries.len()];
        let jobs = jobs.into_iter().map(async |(job, indices)| {
            let batches: Vec<_> = indices.iter().map(|index| &deliveries[*index]).collect();
            (self.handle_job(job, &batches, time_left).await, indices)
        });
        for (results, indices) in join_all(jobs).await {
            for (index, result) in indices.into_iter().zip(results) {
                handled[index] = result;
            }
        }
        handled
    }

    async fn handle_job(&self, job: JobId, deliveries: &[&Delivery], time_left: Duration) -> Vec<Handled> {
        let all = |handled| vec![handled; deliveries.len()];
        let batches: Vec<_> = deliveries.iter().map(|delivery| delivery.message.batch).collect();
        let assignment = match self.tracker.begin_all(job, &batches).await {
            Ok(assignment) => assignment,
            Err(Error::NotFound(_)) => {
                tracing::warn!(%job, "batches of a job that is not known any more are dropped");
                return all(Handled::Done);
            }
            Err(error) => {
                tracing::warn!(%job, error = &error as &dyn StdError, "batches could not be begun; they will be delivered again");
                return all(again(&error));
            }
        };
        let assigned = deliveries.iter().zip(&assignment.batches);
        for (delivery, begin) in assigned.clone() {
            let batch = delivery.message.batch;
            match begin {
                Begin::OutOfRange { total } => {
                    tracing::error!(%job, %batch, total, "a batch that the job does not have is dropped");
                }
                Begin::Damaged => {
                    tracing::error!(%job, %batch, "a batch cannot be begun, since what is stored of it is damaged");
                }
                Begin::Work | Begin::AlreadyCompleted | Begin::Over(_) | Begin::Repeated => {}
            }
        }
        let is_damaged = |delivery: &Delivery| {
            let mut damaged = assigned.clone().filter(|(_, begin)| matches!(begin, Begin::Damaged));
            damaged.any(|(of, _)| of.message.batch == delivery.message.batch)
        };
        let owner = &assignment.job.owner;
        let work = assigned
            .clone()
            .filter(|(_, begin)| matches!(begin, Begin::Work))
            .map(async |(delivery, _)| (delivery.message.batch, self.work(delivery, owner, time_left).await));
        let worked: HashMap<_, _> = join_all(work).await.into_iter().collect();

        // A batch that failed is given up by the message that was received for the last time. Another
        // message of it still has tries left, and its success would correct the failure.
        let is_settled = |delivery: &Delivery, report: &BatchReport| {
            report.settles_as() == Settled::Completed || delivery.receives >= self.max_receives
        };
        let reports = worked.values().filter(|report| {
            let mut messages = deliveries.iter().filter(|delivery| delivery.message.batch == report.batch());
            messages.any(|delivery| is_settled(delivery, report))
        });
        let reported = self.report(job, reports.cloned().collect()).await;
        let answer = |delivery: &&Delivery| match worked.get(&delivery.message.batch) {
            Some(report) if is_settled(delivery, report) => match &reported {
                Recorded::AllBut(damaged) if damaged.contains(&delivery.message.batch) => Handled::Retry,
                Recorded::AllBut(_) => Handled::Done,
                Recorded::Nothing(handled) => *handled,
            },
            Some(_) => Handled::Retry,
            // It cannot be worked on before the store is repaired.
            None if is_damaged(delivery) => Handled::Retry,
            // There was nothing to work on.
            None => Handled::Done,
        };
        deliveries.iter().map(answer).collect()
    }

    /// Reports what came of batches of one job.
    async fn report(&self, job: JobId, reports: Vec<BatchReport>) -> Recorded {
        let mut damaged = Vec::new();
        if reports.is_empty() {
            return Recorded::AllBut(damaged);
        }
        match self.tracker.report(job, reports).await {
            Ok(reported) => {
                if let Some(status) = reported.late {
                    tracing::info!(%job, %status, "batches came after the job's end; they count");
                }
                for (batch, effect) in reported.effects {
                    match effect {
                        Effect::OutOfRange => {
                            tracing::error!(%job, %batch, "a batch that the job does not have is dropped");
                        }
                        Effect::Damaged => {
                            tracing::error!(%job, %batch, "a batch cannot be recorded: its record is damaged");
                            damaged.push(batch);
                        }
                        Effect::Counted | Effect::Corrected | Effect::Duplicate => {}
                    }
                }
                Recorded::AllBut(damaged)
            }
            // Erased, or sealed with a lower total, while they were worked on: neither ever passes.
            Err(
                error @ (Error::NotFound(_)
                | Error::Rejected { rejection: Rejection::BatchOutOfRange { .. }, .. }),
            ) => {
                tracing::error!(%job, error = &error as &dyn StdError, "batches that the job does not have are dropped");
                Recorded::AllBut(damaged)
            }
            Err(error) => {
                tracing::warn!(%job, error = &error as &dyn StdError, "batches could not be reported; they will be delivered again");
                Recorded::Nothing(again(&error))
            }
        }
    }

    /// Works on a batch. A report that it failed is to be made only if the batch is given up.
    async fn work(&self, delivery: &Delivery, owner: &OwnerId, time_left: Duration) -> BatchReport {
        let Delivery { message, receives } = delivery;
        let (job, batch, items) = (message.job_id, message.batch, message.leads.len() as u64);
        let begun = Instant::now();
        let report = match self.normalise(message, owner, time_left).await {
            Ok(errors) => {
                let failed = errors.len() as u64;
                BatchReport::completed(batch, items.saturating_sub(failed), failed).with_errors(errors)
            }
            Err(error) => {
                tracing::warn!(%job, %batch, receives, %error, "a batch failed");
                let rows = (message.first_row..).take(message.leads.len());
                let errors: Vec<_> =
                    rows.map(|row| ItemError::new(batch, Some(row), error.code, &error.message)).collect();
                let report = BatchReport::failed(batch, items, error.code, &error.message);
                // Without rows the error is the batch's own.
                if errors.is_empty() { report } else { report.with_errors(errors) }
            }
        };
        report.took(begun.elapsed())
    }

    /// Writes the batch's leads; gives the rows that are none.
    async fn normalise(
        &self,
        message: &BatchMessage,
        owner: &OwnerId,
        time_left: Duration,
    ) -> Result<Vec<ItemError>, NormaliseError> {
        let results = self.normaliser.normalise(&message.leads, time_left).await?;
        let mut leads: Vec<(u64, Lead)> = Vec::with_capacity(results.len());
        let mut errors = Vec::new();
        for (row, result) in (message.first_row..).zip(results) {
            match result {
                Ok(lead) => leads.push((row, lead.tidied())),
                Err(why) => errors.push(ItemError::new(message.batch, Some(row), "lead-unusable", &why)),
            }
        }
        let now = SystemClock.now();
        self.leads.upsert(owner, message.job_id, &leads, now).await.map_err(|error| {
            tracing::warn!(job = %message.job_id, error = &error as &dyn StdError, "leads could not be written");
            NormaliseError { code: "leads-not-written", message: "The leads could not be written to the database.".into() }
        })?;
        Ok(errors)
    }
}
