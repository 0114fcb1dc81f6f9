//! What a person may do to their own jobs, and only that.

use std::sync::Arc;

use futures::{Stream, future::try_join_all};

use super::{Cancelled, Tracker};
use crate::{
    Actor, Command, Consistency, Created, Damaged, Error, Facts, HistoryEntry, ItemError, Job, JobId,
    JobState, NewJob, OwnerId, Page, PageRequest, Rejection, Snapshot, Status, StoreError, Token,
};

/// The jobs of one owner, and what an owner may do to them. A job of somebody else is [`Error::NotFound`].
#[derive(Clone, Debug)]
pub struct OwnedJobs {
    pub(super) tracker: Tracker,
    pub(super) owner: OwnerId,
}

impl OwnedJobs {
    /// Creates a job: in `Uploading` if it starts with a file, else in `Uploaded`. With an idempotency key,
    /// the same request again gives the same job.
    ///
    /// # Errors
    /// [`Error::KeyReused`] for another job under a key that was used; [`Error::InvalidText`] for a text
    /// that is empty or too long.
    pub async fn create(&self, new: NewJob) -> Result<Snapshot, Error> {
        let tracker = &self.tracker;
        let id = (tracker.ids.0)(tracker.clock.now());
        let mut job = new.into_job(id, self.owner.clone(), &tracker.policy, Actor::OWNER)?;
        job.noun = tracker.noun.as_deref().map(str::to_owned);
        match tracker.store.create(&job).await? {
            Created::New => Ok(tracker.show(&JobState::new(job, Facts::default()))),
            Created::Existing(existing) if !existing.is_same_request(&job) => Err(Error::KeyReused),
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
        self.tracker.snapshot_as(id, Some(&self.owner), None).await
    }

    /// The job as it is to be shown to somebody who has seen the state that `seen` stands for: never an
    /// older one.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn snapshot_after(&self, id: JobId, seen: &Token) -> Result<Snapshot, Error> {
        self.tracker.snapshot_as(id, Some(&self.owner), Some(seen)).await
    }

    /// Snapshots from now on: the newest at once, then whenever something people can see has changed,
    /// never an older one; ends after a terminal one. One read of the store serves all watchers of a job
    /// in a process.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn watch(&self, id: JobId) -> Result<impl Stream<Item = Arc<Snapshot>> + Send + use<>, Error> {
        self.tracker.watch_as(id, Some(&self.owner), None).await
    }

    /// [`watch`](Self::watch) for somebody who has seen the state that `seen` stands for: the first
    /// snapshot is not an older one.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn watch_after(
        &self,
        id: JobId,
        seen: Option<&Token>,
    ) -> Result<impl Stream<Item = Arc<Snapshot>> + Send + use<>, Error> {
        self.tracker.watch_as(id, Some(&self.owner), seen).await
    }

    /// The owner's jobs, newest first. A job that is not in Processing is shown as it was decided last: what
    /// is counted later (a batch that comes after the end) shows in its own [`snapshot`](Self::snapshot),
    /// whose version may be higher. So a row's version is not to be compared with a snapshot's. One that cannot be read hides no other: see [`Page::damaged`].
    /// With a status, a page may hold fewer jobs than its limit and still name a next one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list(&self, status: Option<Status>, page: &PageRequest) -> Result<Page<Snapshot>, Error> {
        let tracker = &self.tracker;
        let jobs = tracker.store.list(&self.owner, status, page).await?;
        let rows = try_join_all(jobs.rows.into_iter().map(|job| self.row(job))).await?;
        let mut listed = Page { rows: Vec::new(), next: jobs.next, damaged: jobs.damaged };
        for row in rows {
            match row {
                Row::Shown(snapshot) => listed.rows.push(*snapshot),
                Row::Damaged(damaged) => listed.damaged.push(damaged),
                Row::Gone => {}
            }
        }
        Ok(listed)
    }

    /// A job of a list as it is to be shown. Terminal jobs carry their counters; those of the few that run
    /// are read.
    async fn row(&self, job: Job) -> Result<Row, Error> {
        let tracker = &self.tracker;
        if job.status != Status::Processing {
            let state = JobState::new(job, Facts::default());
            return Ok(Row::Shown(Box::new(tracker.show(&state))));
        }
        match tracker.read(job.id, Consistency::Eventual, None).await {
            Ok(state) => Ok(Row::Shown(Box::new(tracker.show(&state)))),
            Err(Error::NotFound(_)) => Ok(Row::Gone),
            Err(Error::Store(StoreError::Corrupt { subject, why })) => {
                Ok(Row::Damaged(Damaged { subject, why }))
            }
            Err(error) => Err(error),
        }
    }

    /// Erases a job that is over, with its errors and everything else that belongs to it.
    ///
    /// # Errors
    /// [`Error::Rejected`] with [`Rejection::NotOver`] while it is not over; [`Error::NotFound`], also if it
    /// was erased before; [`Error::Store`], and then some of it may be gone and the call can be repeated.
    pub async fn erase(&self, id: JobId) -> Result<(), Error> {
        // A terminal status never changes: nothing can happen between this read and the erasure. Of a job
        // that is over nothing but its own record has to be readable.
        let status = self.owned(id).await?.status;
        let status =
            if status.is_terminal() { status } else { self.apply(id, &Command::Reconcile).await?.status };
        if !status.is_terminal() {
            return Err(Error::Rejected { id, rejection: Rejection::NotOver { status } });
        }
        self.tracker.erase(id).await
    }

    /// How many jobs of the owner are not over; counting ends at `at_most`. Some stores look at the newest
    /// 5,000 jobs only: see [`StatusStore::count_open`](crate::StatusStore::count_open).
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn count_open(&self, at_most: usize) -> Result<usize, Error> {
        Ok(self.tracker.store.count_open(&self.owner, at_most).await?)
    }

    /// Every decision about the job, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn history(&self, id: JobId) -> Result<Vec<HistoryEntry>, Error> {
        Ok(self.owned(id).await?.history)
    }

    /// What failed, by batch and item.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, Error> {
        self.owned(id).await?;
        self.tracker.errors(id, page).await
    }

    async fn owned(&self, id: JobId) -> Result<Job, Error> {
        let job = self.tracker.head(id).await?;
        if job.owner == self.owner { Ok(job) } else { Err(Error::NotFound(id)) }
    }

    async fn apply(&self, id: JobId, command: &Command) -> Result<Snapshot, Error> {
        let tracker = &self.tracker;
        tracker.apply(id, command, &Actor::OWNER, Some(&self.owner)).await.map(|r| tracker.show(&r))
    }
}

/// What becomes of a job in a list.
enum Row {
    Shown(Box<Snapshot>),
    Damaged(Damaged),
    /// It was there when the list was read, and is not any more.
    Gone,
}
