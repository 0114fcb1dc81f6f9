//! What a person may do to their own jobs, and only that.

use std::sync::Arc;

use futures::{Stream, future::try_join_all};

use super::{Cancelled, NewJob, Tracker};
use crate::{
    Actor, Command, Consistency, Created, Error, Facts, HistoryEntry, ItemError, Job, JobId, OwnerId, Page,
    PageRequest, Record, Snapshot, Status, text,
};

/// The jobs of one owner, and what an owner may do to them. A job of somebody else is [`Error::NotFound`].
#[derive(Clone, Debug)]
pub struct OwnedJobs {
    pub(super) tracker: Tracker,
    pub(super) owner: OwnerId,
}

impl OwnedJobs {
    /// Creates a job in `Uploading`. With an idempotency key, the same request again gives the same job.
    ///
    /// # Errors
    /// [`Error::KeyReused`] for another file under a key that was used; [`Error::InvalidText`] for a key of more than 255
    /// bytes.
    pub async fn create(&self, new: NewJob) -> Result<Snapshot, Error> {
        let tracker = &self.tracker;
        let policy = new.policy.unwrap_or_else(|| tracker.policy.clone());
        let id = JobId::new(tracker.clock.now());
        let mut job = Job::new(id, self.owner.clone(), new.file, policy, Actor::OWNER);
        job.idempotency_key =
            new.idempotency_key.map(|k| text::checked("Idempotency-Key", k, 255)).transpose()?;
        match tracker.store.create(&job).await? {
            Created::New => Ok(tracker.show(&Record::new(job, Facts::default()))),
            Created::Existing(existing) if existing.file != job.file => Err(Error::KeyReused),
            Created::Existing(existing) => self.snapshot(existing.id).await,
        }
    }

    /// So many bytes have arrived. A courtesy, kept at most every two seconds.
    ///
    /// # Errors
    /// [`Error::Rejected`] on a failed or cancelled job: the upload can stop.
    pub async fn upload_progress(&self, id: JobId, bytes: u64) -> Result<Snapshot, Error> {
        self.apply(id, &Command::UploadProgress(bytes)).await
    }

    /// The file has arrived. Idempotent; already so on any job that is further.
    ///
    /// # Errors
    /// [`Error::Rejected`] on a failed or cancelled job.
    pub async fn finish_upload(&self, id: JobId) -> Result<Snapshot, Error> {
        self.apply(id, &Command::FinishUpload).await
    }

    /// As [`Tracker::cancel`].
    ///
    /// # Errors
    /// [`Error::Rejected`] if it is completed or failed.
    pub async fn cancel(&self, id: JobId, reason: Option<String>) -> Result<Cancelled, Error> {
        self.tracker.cancel_as(id, &Actor::OWNER, reason, Some(&self.owner)).await
    }

    /// The job as it is to be shown now; may be a moment old.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn snapshot(&self, id: JobId) -> Result<Snapshot, Error> {
        self.tracker.snapshot_as(id, Some(&self.owner)).await
    }

    /// Snapshots from now on: the newest at once, then whenever something people can see has changed, the version never
    /// going back; ends after a terminal one. One read of the store serves all watchers of a job in a process.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn watch(&self, id: JobId) -> Result<impl Stream<Item = Arc<Snapshot>> + Send + use<>, Error> {
        self.tracker.watch_as(id, Some(&self.owner)).await
    }

    /// The owner's jobs, newest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list(&self, status: Option<Status>, page: &PageRequest) -> Result<Page<Snapshot>, Error> {
        let tracker = &self.tracker;
        let jobs = tracker.store.list(&self.owner, status, page).await?;
        // Terminal jobs carry their counters; those of the few that run are read.
        let shown = jobs.rows.into_iter().map(|job| async move {
            let running = job.status == Status::Processing;
            let read = if running { tracker.store.read(job.id, Consistency::Eventual).await? } else { None };
            let record = read.unwrap_or_else(|| Record::new(job, Facts::default()));
            Ok::<_, Error>(tracker.show(&record))
        });
        Ok(Page { rows: try_join_all(shown).await?, next: jobs.next })
    }

    /// Every decision about the job, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn history(&self, id: JobId) -> Result<Vec<HistoryEntry>, Error> {
        Ok(self.tracker.read(id, Consistency::Eventual, Some(&self.owner)).await?.job.history)
    }

    /// What failed, by batch and item.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, Error> {
        self.tracker.read(id, Consistency::Eventual, Some(&self.owner)).await?;
        self.tracker.errors(id, page).await
    }

    async fn apply(&self, id: JobId, command: &Command) -> Result<Snapshot, Error> {
        let tracker = &self.tracker;
        tracker.apply(id, command, &Actor::OWNER, Some(&self.owner)).await.map(|r| tracker.show(&r))
    }
}
