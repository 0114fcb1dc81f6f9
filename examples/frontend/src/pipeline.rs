//! The pipeline inside the process: a bounded queue between the splitter and the callers.

use std::{error::Error as StdError, io::ErrorKind, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use caller::{Caller, Delivery, Handled};
use futures::StreamExt;
use leads::{
    BatchMessage, Lead, LeadPage, LeadQuery, LeadTable, NormaliseError, Normalised, Normaliser, RawLead,
    TableError, read::ReadError,
};
use splitter::{BatchQueue, QueueError, SplitError, Splitter};
use status_core::{Actor, Error, Failure, JobId, OwnerId, Snapshot, Stage, StoreError, Timestamp, Tracker};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// So many batches wait; a splitter that is faster than the callers waits too, and memory stays flat.
const QUEUE: usize = 64;
/// So many files are split at once.
const SPLITTERS: usize = 4;
/// What a batch may take.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// How long what failed waits before it is tried again, then twice, three times, … as long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The most times as long.
const LONGEST_RETRY: u32 = 8;
/// How long after its feed broke off a job is watched again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often splitting is tried while it fails for reasons that may pass. That the store does not answer is
/// none of them: the file is split once it does.
const SPLIT_TRIES: u32 = 3;

/// Where callers get their batches.
pub(crate) type Deliveries = Arc<Mutex<mpsc::Receiver<BatchMessage>>>;

/// A queue in memory.
pub(crate) fn queue() -> (Arc<dyn BatchQueue>, Deliveries) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Arc::new(MemoryQueue(sender)), Arc::new(Mutex::new(receiver)))
}

#[derive(Debug)]
struct MemoryQueue(mpsc::Sender<BatchMessage>);

#[async_trait]
impl BatchQueue for MemoryQueue {
    async fn send(&self, batches: Vec<BatchMessage>) -> Result<(), QueueError> {
        for batch in batches {
            self.0.send(batch).await.map_err(|error| QueueError(error.to_string().into()))?;
        }
        Ok(())
    }
}

/// Splits files that have arrived.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    splitter: Splitter,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Pipeline {
    pub(crate) fn new(splitter: Splitter, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { splitter, slots: Arc::new(Semaphore::new(SPLITTERS)), tasks, shutdown }
    }

    /// Splits the file of `job` in the background. The file is kept until the job is over: should this process end before, the
    /// next one splits it again.
    pub(crate) fn split(&self, job: JobId, file_name: String, path: PathBuf) {
        let this = self.clone();
        self.spawn(async move {
            let slot = this.slots.acquire().await;
            this.split_with_retries(job, &file_name, &path).await;
            drop(slot);
            this.until_over(job).await;
            if let Err(error) = tokio::fs::remove_file(&path).await {
                tracing::warn!(%job, error = &error as &dyn StdError, "an upload could not be removed");
            }
        });
    }

    /// Does something in the background, until shutdown.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { shutdown.run_until_cancelled(work).await });
    }

    /// Waits until the job is known to be over, or to be gone.
    async fn until_over(&self, job: JobId) {
        loop {
            match self.splitter.tracker().watch(job).await {
                Ok(snapshots) => {
                    let is_over =
                        |over, snapshot: Arc<Snapshot>| async move { over || snapshot.status.is_terminal() };
                    if snapshots.fold(false, is_over).await {
                        return;
                    }
                }
                Err(Error::NotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(%job, error = &error as &dyn StdError, "a job cannot be watched; trying again");
                }
            }
            tokio::time::sleep(WATCH_AGAIN_AFTER).await;
        }
    }

    async fn split_with_retries(&self, job: JobId, file_name: &str, path: &PathBuf) {
        let mut failures = 0;
        for tried in 1.. {
            let split = self.splitter.count_and_split(job, file_name, || std::fs::File::open(path)).await;
            let error = match split {
                Ok(split) => return tracing::info!(%job, ?split, "split"),
                // Sent twice at once: the other one has been through with it.
                Err(SplitError::Read(ReadError::Io(error))) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => error,
            };
            tracing::warn!(%job, tried, error = &error as &dyn StdError, "splitting failed");
            failures += u32::from(!matches!(&error, SplitError::Tracker(error) if may_pass(error)));
            if failures == SPLIT_TRIES {
                break;
            }
            tokio::time::sleep(pause(tried)).await;
        }
        let message = "The file could not be split. Please try again.";
        self.fail(job, Failure::new(Stage::Split, "split-failed", message, true)).await;
    }

    /// Fails the job, unless it is over.
    pub(crate) async fn fail(&self, job: JobId, failure: Failure) {
        for tried in 1.. {
            match self.splitter.tracker().fail(job, failure.clone(), &Actor::named("splitter")).await {
                Ok(_) | Err(Error::NotFound(_) | Error::Rejected { .. }) => return,
                Err(error) if may_pass(&error) => {
                    tracing::warn!(%job, tried, error = &error as &dyn StdError, "a job could not be failed; trying again");
                    tokio::time::sleep(pause(tried)).await;
                }
                Err(error) => {
                    return tracing::error!(%job, error = &error as &dyn StdError, "a job could not be failed; the sweeper will");
                }
            }
        }
    }
}

/// Whether the same may succeed later: the store is busy, full or cannot be reached.
fn may_pass(error: &Error) -> bool {
    matches!(
        error,
        Error::Store(StoreError::Throttled { .. } | StoreError::Unavailable { .. } | StoreError::Conflict(_))
    )
}

/// How long to wait after the `tried`th try.
fn pause(tried: u32) -> Duration {
    RETRY_AFTER * tried.min(LONGEST_RETRY)
}

/// A worker: takes batches until shutdown, and ends what it has begun.
pub(crate) async fn work(caller: Caller, deliveries: Deliveries, shutdown: CancellationToken) {
    let next = async || deliveries.lock().await.recv().await;
    while let Some(Some(message)) = shutdown.run_until_cancelled(next()).await {
        let mut delivery = Delivery { message, receives: 1 };
        for tried in 1.. {
            match caller.handle(std::slice::from_ref(&delivery), TIME_LIMIT).await[..] {
                [Handled::Retry] => delivery.receives += 1,
                [Handled::Later] => {}
                _ => break,
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(pause(tried))).await.is_none() {
                return;
            }
        }
    }
}

/// A table that is written to until it takes the leads, as long as their job wants them. A batch is not
/// normalised again, and does not fail, because the table is locked, full or cannot be reached.
#[derive(Debug)]
pub(crate) struct Patient {
    inner: Arc<dyn LeadTable>,
    tracker: Tracker,
}

impl Patient {
    pub(crate) fn new(inner: Arc<dyn LeadTable>, tracker: Tracker) -> Self {
        Self { inner, tracker }
    }

    /// A job that cannot be read may want them.
    async fn is_wanted(&self, job: JobId) -> bool {
        match self.tracker.job(job).await {
            Ok(job) => !job.status.is_terminal() && job.cancel_requested.is_none(),
            Err(error) => !matches!(error, Error::NotFound(_)),
        }
    }
}

#[async_trait]
impl LeadTable for Patient {
    async fn upsert(
        &self,
        owner: &OwnerId,
        job: JobId,
        leads: &[(u64, Lead)],
        at: Timestamp,
    ) -> Result<(), TableError> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.inner.upsert(owner, job, leads, at).await {
                Err(error) if error.may_pass && self.is_wanted(job).await => {
                    tracing::warn!(%job, tried, error = &error as &dyn StdError, "leads could not be written; trying again");
                }
                written => return written,
            }
            tokio::time::sleep(pause(tried)).await;
        }
    }

    async fn page(&self, owner: &OwnerId, query: &LeadQuery) -> Result<LeadPage, TableError> {
        self.inner.page(owner, query).await
    }
}

/// A normaliser that takes its time, so that people can watch it work.
#[derive(Debug)]
pub(crate) struct Delayed<N> {
    inner: N,
    delay: Duration,
}

impl<N> Delayed<N> {
    pub(crate) fn new(inner: N, delay: Duration) -> Self {
        Self { inner, delay }
    }
}

#[async_trait]
impl<N: Normaliser> Normaliser for Delayed<N> {
    async fn normalise(
        &self,
        rows: &[RawLead],
        time_left: Duration,
    ) -> Result<Vec<Normalised>, NormaliseError> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.inner.normalise(rows, time_left).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use status_core::{
        Facts, JobState, MockStatusStore, NewJob, OwnerId, Policy, Status, StoreError, Tracker,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_that_cannot_be_watched_is_not_over() {
        let owner = OwnerId::new("alice").expect("a name");
        let id = JobId::new(status_core::Timestamp::now());
        let new = NewJob::titled("leads.csv").into_job(id, owner, &Policy::default(), Actor::OWNER);
        let mut job = new.expect("a job");
        job.status = Status::Completed;
        let (reads, mut store) = (AtomicU32::new(0), MockStatusStore::new());
        store.expect_read().returning(move |id, _| {
            if reads.fetch_add(1, Ordering::SeqCst) < 6 {
                let subject = format!("job {id}");
                return Err(StoreError::Unavailable { operation: "read", subject, source: "a test".into() });
            }
            Ok(Some(JobState::new(job.clone(), Facts::default())))
        });
        store.expect_changed().returning(|_, _, _| ());
        let splitter = Splitter::new(Tracker::new(Arc::new(store)), queue().0, 10);
        let pipeline = Pipeline::new(splitter, TaskTracker::new(), CancellationToken::new());
        let begun = tokio::time::Instant::now();
        pipeline.until_over(id).await;
        assert!(begun.elapsed() >= WATCH_AGAIN_AFTER, "{:?}", begun.elapsed());
    }
}
