//! Works on batches: asks the tracker whether to, normalises the rows, writes the leads, and records what became of the
//! batch. Any of it may happen twice: leads are upserted, and a batch counts once.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use leads::{BatchMessage, Lead, LeadTable, NormaliseError, Normaliser};
use status_core::{
    BatchReport, Begin, Beginning, Clock, Error, ItemError, JobId, Rejection, SystemClock, Tracker,
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
    /// It is to be delivered again.
    Retry,
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

    /// Works on what was delivered together, within `time_left`; says for each message what is to become of it.
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
        let beginning = match self.tracker.begin_all(job, &batches).await {
            Ok(beginning) => beginning,
            Err(Error::NotFound(_)) => {
                tracing::warn!(%job, "batches of a job that is not known any more are dropped");
                return all(Handled::Done);
            }
            Err(Error::Rejected { rejection: rejection @ Rejection::BatchOutOfRange { .. }, .. })
                if deliveries.len() == 1 =>
            {
                tracing::error!(%job, %rejection, "a batch the job does not have is dropped");
                return all(Handled::Done);
            }
            Err(Error::Rejected { .. }) => return self.one_by_one(job, deliveries, time_left).await,
            Err(error) => {
                tracing::warn!(%job, %error, "the job cannot be read; its batches will be delivered again");
                return all(Handled::Retry);
            }
        };
        let Beginning { job: job_record, batches } = beginning;
        let worked = deliveries.iter().zip(batches).map(async |(delivery, begin)| match begin {
            Begin::Work => self.work(delivery, &job_record.owner, time_left).await,
            Begin::AlreadyCompleted | Begin::Over(_) => Worked::Skipped,
        });
        let mut handled = Vec::with_capacity(deliveries.len());
        let mut reports = Vec::new();
        for worked in join_all(worked).await {
            handled.push(if matches!(worked, Worked::Again) { Handled::Retry } else { Handled::Done });
            if let Worked::Through(report) = worked {
                reports.push(report);
            }
        }
        if reports.is_empty() {
            return handled;
        }
        match self.tracker.record(job, reports).await {
            Ok(recorded) => {
                if let Some(status) = recorded.late {
                    tracing::info!(%job, %status, "batches came after the job's end; they count");
                }
                handled
            }
            Err(error) => {
                tracing::warn!(%job, %error, "batches could not be recorded; they will be delivered again");
                all(Handled::Retry)
            }
        }
    }

    /// One message that cannot be must not take the others with it.
    async fn one_by_one(&self, job: JobId, deliveries: &[&Delivery], time_left: Duration) -> Vec<Handled> {
        let mut handled = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            handled.extend(Box::pin(self.handle_job(job, &[delivery], time_left)).await);
        }
        handled
    }

    async fn work(&self, delivery: &Delivery, owner: &status_core::OwnerId, time_left: Duration) -> Worked {
        let Delivery { message, receives } = delivery;
        let begun = Instant::now();
        let failed = match self.normalise(message, owner, time_left).await {
            Ok(errors) => {
                let failed = errors.len() as u64;
                let processed = (message.leads.len() as u64).saturating_sub(failed);
                let report = BatchReport::completed(message.batch, processed, failed).with_errors(errors);
                return Worked::Through(report.took(begun.elapsed()));
            }
            Err(error) => error,
        };
        let (job, batch) = (message.job_id, message.batch);
        tracing::warn!(%job, %batch, receives, error = %failed, "a batch failed");
        if *receives < self.max_receives {
            return Worked::Again;
        }
        let items = message.leads.len() as u64;
        let rows = message.first_row..message.first_row + items;
        let errors = rows.map(|row| ItemError::new(batch, Some(row), failed.code, &failed.message));
        let mut report = BatchReport::failed(batch, items, failed.code, &failed.message);
        report.errors.clear();
        Worked::Through(report.with_errors(errors).took(begun.elapsed()))
    }

    /// Writes the batch's leads; gives the rows that are none.
    async fn normalise(
        &self,
        message: &BatchMessage,
        owner: &status_core::OwnerId,
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
            tracing::warn!(job = %message.job_id, %error, source = ?error.source, "leads could not be written");
            NormaliseError { code: "leads-not-written", message: "The leads could not be written to the database.".into() }
        })?;
        Ok(errors)
    }
}

/// What became of one delivery.
enum Worked {
    /// There was nothing to do.
    Skipped,
    /// It is through, one way or the other.
    Through(BatchReport),
    /// It failed and is to come again.
    Again,
}
