//! The pipeline inside the process: a bounded queue between the splitter and the callers.

use std::{io::ErrorKind, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use caller::{Caller, Delivery, Handled};
use futures::StreamExt;
use leads::{BatchMessage, NormaliseError, Normalised, Normaliser, RawLead, read::ReadError};

use splitter::{BatchQueue, QueueError, SplitError, Splitter};
use status_core::{Actor, Error, Failure, JobId, Snapshot, Stage};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// So many batches wait; a splitter that is faster than the callers waits too, and memory stays flat.
const QUEUE: usize = 64;
/// So many files are split at once.
const SPLITTERS: usize = 4;
/// What a batch may take.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// How long a batch that failed waits before it is tried again, and then twice as long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long after its feed broke off a job is watched again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often splitting is tried while it fails for reasons that may pass.
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
        self.tasks.spawn(async move {
            let splitting = async {
                let slot = this.slots.acquire().await;
                this.split_with_retries(job, &file_name, &path).await;
                drop(slot);
                this.until_over(job).await;
                if let Err(error) = tokio::fs::remove_file(&path).await {
                    tracing::warn!(%job, %error, "an upload could not be removed");
                }
            };
            this.shutdown.run_until_cancelled(splitting).await;
        });
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
                Err(error) => tracing::warn!(%job, %error, "a job cannot be watched; trying again"),
            }
            tokio::time::sleep(WATCH_AGAIN_AFTER).await;
        }
    }

    async fn split_with_retries(&self, job: JobId, file_name: &str, path: &PathBuf) {
        for tried in 1.. {
            let split = self.splitter.count_and_split(job, file_name, || std::fs::File::open(path)).await;
            let error = match split {
                Ok(split) => return tracing::info!(%job, ?split, "split"),
                // Sent twice at once: the other one has been through with it.
                Err(SplitError::Read(ReadError::Io(error))) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => error,
            };
            tracing::warn!(%job, tried, %error, "splitting failed");
            if tried < SPLIT_TRIES {
                tokio::time::sleep(RETRY_AFTER * tried).await;
                continue;
            }
            let message = "The file could not be split. Please try again.";
            let failure = Failure::new(Stage::Split, "split-failed", message, true);
            if let Err(error) = self.splitter.tracker().fail(job, failure, &Actor::named("splitter")).await {
                tracing::error!(%job, %error, "a job whose file cannot be split could not be failed; the sweeper will");
            }
            return;
        }
    }
}

/// A worker: takes batches until shutdown, and ends what it has begun.
pub(crate) async fn work(caller: Caller, deliveries: Deliveries, shutdown: CancellationToken) {
    let next = async || deliveries.lock().await.recv().await;
    while let Some(Some(message)) = shutdown.run_until_cancelled(next()).await {
        let mut delivery = Delivery { message, receives: 1 };
        while caller.handle(std::slice::from_ref(&delivery), TIME_LIMIT).await == [Handled::Retry] {
            let pause = tokio::time::sleep(RETRY_AFTER * delivery.receives.min(8));
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return;
            }
            delivery.receives += 1;
        }
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
