//! The pipeline inside the process: files are split, and workers take their batches from the queue.

use std::{
    collections::HashSet,
    error::Error as StdError,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use caller::{Caller, Delivery, Handled};
use futures::StreamExt;
use leads::{
    Lead, LeadPage, LeadQuery, LeadTable, NormaliseError, Normalised, Normaliser, RawLead, TableError,
};
use splitter::{SplitError, Splitter};
use status_core::{Actor, Error, Failure, JobId, OwnerId, Snapshot, Stage, Timestamp, Tracker};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    MAX_RECEIVES,
    queue::{Queue, Rooms},
    reading::{Reader, Upload},
    uploads,
};

/// So many files are split at once: of all owners, and of one. A file is being split until the workers are through with its
/// last batches. Most of them lie on the disk meanwhile, so that these may be many.
const SPLITTERS: usize = 256;
const SPLITTERS_OF_ONE: usize = 2;
/// So many of them are read at once: of all owners, and of one. A file is read in seconds, or given up.
const READERS: usize = 4;
const READERS_OF_ONE: usize = 1;
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

/// Splits files that have arrived.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    tracker: Tracker,
    queue: Queue,
    batch_size: u32,
    reader: Reader,
    splitting: Arc<Places>,
    reading: Arc<Places>,
    /// The jobs whose files are being split, or were, until they are over.
    taken: Arc<Mutex<HashSet<JobId>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Places that owners share, of whom none has all.
#[derive(Debug)]
struct Places {
    all: Semaphore,
    of_one: Rooms<OwnerId>,
}

impl Places {
    fn new(all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self { all: Semaphore::new(all), of_one: Rooms::new(of_one) })
    }

    /// Does something once there is a place for this owner.
    async fn hold<T>(&self, owner: &OwnerId, work: impl Future<Output = T>) -> T {
        let _of_one = self.of_one.enter(owner.clone()).await;
        let _place = self.all.acquire().await;
        work.await
    }
}

impl Pipeline {
    pub(crate) fn new(
        tracker: Tracker,
        queue: Queue,
        batch_size: u32,
        reader: Reader,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let splitting = Places::new(SPLITTERS, SPLITTERS_OF_ONE);
        let reading = Places::new(READERS, READERS_OF_ONE);
        Self {
            tracker,
            queue,
            batch_size,
            reader,
            splitting,
            reading,
            taken: Arc::default(),
            tasks,
            shutdown,
        }
    }

    /// Splits the file of `job` in the background, once however often it is asked to. The file is kept until the job is over:
    /// should this process end before, the next one splits it again.
    pub(crate) fn split(&self, job: JobId, file_name: String, path: PathBuf) {
        if !self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(job) {
            return;
        }
        let this = self.clone();
        self.spawn(async move {
            let split = async {
                let Some(owner) = this.owner_of(job).await else { return };
                let upload = Upload { job, file_name: &file_name, path: &path };
                this.splitting.hold(&owner, this.split_with_retries(&owner, &upload)).await;
            };
            // A job may end while its file waits for its turn.
            tokio::select! {
                () = this.until_over(job) => {}
                () = split => this.until_over(job).await,
            }
            uploads::remove(&path);
            this.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
        });
    }

    /// Does something in the background, until shutdown.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { shutdown.run_until_cancelled(work).await });
    }

    /// Whose job it is; nobody's if that cannot be read.
    async fn owner_of(&self, job: JobId) -> Option<OwnerId> {
        for tried in 1.. {
            match self.tracker.job(job).await {
                Ok(job) => return Some(job.owner),
                Err(error) => {
                    tracing::warn!(%job, tried, error = &error as &dyn StdError, "the owner of a job cannot be read");
                    if !error.may_pass() {
                        break;
                    }
                }
            }
            tokio::time::sleep(pause(tried)).await;
        }
        None
    }

    /// Waits until the job is known to be over, or to be gone.
    async fn until_over(&self, job: JobId) {
        loop {
            match self.tracker.watch(job).await {
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

    async fn split_with_retries(&self, owner: &OwnerId, upload: &Upload<'_>) {
        let job = upload.job;
        let splitter = Splitter::new(self.tracker.clone(), self.queue.of(owner.clone()), self.batch_size);
        let mut failures = 0;
        for tried in 1.. {
            let read = |size, stages| self.reading.hold(owner, self.reader.read(upload, size, stages));
            let error = match splitter.split_spooled(job, read).await {
                Ok(split) => {
                    tracing::info!(%job, ?split, "split");
                    return self.queue.drained(job).await;
                }
                Err(SplitError::Unread(error)) if is_gone(error.as_ref()) => {
                    return self.fail(job, file_gone()).await;
                }
                Err(error) => error,
            };
            tracing::warn!(%job, tried, error = &error as &dyn StdError, "splitting failed");
            failures += u32::from(!matches!(&error, SplitError::Tracker(error) if error.may_pass()));
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
            match self.tracker.fail(job, failure.clone(), &Actor::named("splitter")).await {
                Ok(_) | Err(Error::NotFound(_) | Error::Rejected { .. }) => return,
                Err(error) if error.may_pass() => {
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

fn is_gone(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Nobody can ever split what is not there.
pub(crate) fn file_gone() -> Failure {
    let message = "The uploaded file is not there any more. Please upload it again.";
    Failure::new(Stage::Split, "file-gone", message, true)
}

/// How long to wait after the `tried`th try.
pub(crate) fn pause(tried: u32) -> Duration {
    RETRY_AFTER * tried.min(LONGEST_RETRY)
}

/// A worker: takes batches until shutdown, and ends what it has begun. It waits for none: what is to be tried again
/// comes back later, and others are worked on meanwhile.
pub(crate) async fn work(caller: Caller, queue: Queue, tasks: TaskTracker, shutdown: CancellationToken) {
    while let Some(mut queued) = shutdown.run_until_cancelled(queue.next()).await {
        let handled = caller.handle(std::slice::from_ref(&queued.delivery), TIME_LIMIT).await;
        let Delivery { message, receives } = &mut queued.delivery;
        match handled[..] {
            [Handled::Retry] if *receives < MAX_RECEIVES => *receives += 1,
            // Had it only failed, it would be recorded as failed. The job's deadline ends it.
            [Handled::Retry] => {
                let (job, batch) = (message.job_id, message.batch);
                tracing::error!(%job, %batch, "a batch is dropped: what is stored of it, or of its job, is damaged");
                continue;
            }
            [Handled::Later] => {}
            _ => continue,
        }
        queued.tried += 1;
        let (queue, shutdown) = (queue.clone(), shutdown.clone());
        let again = async move {
            tokio::time::sleep(pause(queued.tried)).await;
            queue.put(queued);
        };
        tasks.spawn(async move { shutdown.run_until_cancelled(again).await });
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

    /// A job may want them while the store does not answer, but not if it is damaged: nothing can be recorded of it.
    async fn is_wanted(&self, job: JobId) -> bool {
        match self.tracker.job(job).await {
            Ok(job) => !job.status.is_terminal() && job.cancel_requested.is_none(),
            Err(error) => error.may_pass(),
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
    use std::{
        collections::HashSet,
        sync::atomic::{AtomicU32, Ordering},
    };

    use leads::{BatchMessage, MemoryLeads};
    use splitter::BatchQueue;
    use status_core::{
        BatchIndex, Begun, Effect, Facts, Job, JobState, MockStatusStore, NewJob, OwnerId, Policy, Status,
        StoreError, Tracker, Written,
    };
    use tokio::{sync::mpsc, time::Instant};

    use super::*;
    use crate::queue::QUEUE;

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
        let (tracker, shutdown) = (Tracker::new(Arc::new(store)), CancellationToken::new());
        let pipeline = Pipeline::new(tracker, Queue::new(1), 10, Reader::Here, TaskTracker::new(), shutdown);
        let begun = tokio::time::Instant::now();
        pipeline.until_over(id).await;
        assert!(begun.elapsed() >= WATCH_AGAIN_AFTER, "{:?}", begun.elapsed());
    }

    const DAMAGED: u128 = 1;
    const DAMAGED_BATCHES: u128 = 2;
    const DAMAGED_REPORTS: u128 = 3;
    const UNREACHABLE: u128 = 4;
    const SOUND: u128 = 5;

    fn id(number: u128) -> JobId {
        JobId::from_parts(Timestamp::UNIX_EPOCH, number)
    }

    fn processing(id: JobId) -> Job {
        let owner = OwnerId::new("alice").expect("a name");
        let new = NewJob::titled("leads.csv").into_job(id, owner, &Policy::default(), Actor::OWNER);
        let mut job = new.expect("a job");
        job.status = Status::Processing;
        job
    }

    fn corrupt() -> StoreError {
        StoreError::Corrupt { subject: "a job".into(), why: "a test".into() }
    }

    fn unavailable() -> StoreError {
        StoreError::Unavailable { operation: "begin", subject: "a job".into(), source: "a test".into() }
    }

    fn batch(number: u128, batch: u64) -> BatchMessage {
        let leads = vec![RawLead::from_pairs([("Email", "ann@example.com")])];
        let batch = BatchIndex::new(batch).expect("in range");
        BatchMessage { job_id: id(number), batch, file_name: "leads.csv".into(), first_row: 1, leads }
    }

    /// Does nothing, well.
    #[derive(Debug)]
    struct Easy;

    #[async_trait]
    impl Normaliser for Easy {
        async fn normalise(&self, rows: &[RawLead], _: Duration) -> Result<Vec<Normalised>, NormaliseError> {
            Ok(rows.iter().map(|_| Ok(Lead::default())).collect())
        }
    }

    /// One worker, over a store that is damaged in three ways, and that does not answer for one job in the first
    /// minute; and what it was asked.
    struct Worker {
        queue: Arc<dyn BatchQueue>,
        begun: Arc<std::sync::Mutex<Vec<(JobId, BatchIndex)>>>,
        reported: mpsc::UnboundedReceiver<(JobId, Instant)>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    }

    impl Worker {
        fn start() -> Self {
            let begun = Arc::new(std::sync::Mutex::new(Vec::new()));
            let (report, reported) = mpsc::unbounded_channel();
            let (asked, started, mut store) = (begun.clone(), Instant::now(), MockStatusStore::new());
            store.expect_begin().returning(move |job, batches, _| {
                asked.lock().expect("unpoisoned").extend(batches.iter().map(|batch| (job, *batch)));
                let settled = batches.iter().map(|batch| (*batch, None)).collect();
                let begun = Begun::new(processing(job), settled, false);
                match job {
                    job if job == id(DAMAGED) => Err(corrupt()),
                    job if job == id(DAMAGED_BATCHES) => Ok(Some(begun.with_damaged(batches.to_vec()))),
                    job if job == id(UNREACHABLE) && started.elapsed() < Duration::from_secs(60) => {
                        Err(unavailable())
                    }
                    _ => Ok(Some(begun)),
                }
            });
            store.expect_report().returning(move |job, reports, _| {
                if job == id(DAMAGED_REPORTS) {
                    return Err(corrupt());
                }
                report.send((job, Instant::now())).expect("somebody looks");
                let effects = reports.iter().map(|report| (report.batch(), Effect::Counted)).collect();
                Ok(Written::new(effects, false, None))
            });
            let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
            let tracker = Tracker::new(Arc::new(store));
            let caller = Caller::new(tracker, Arc::new(Easy), Arc::new(MemoryLeads::default()), MAX_RECEIVES);
            let queue = Queue::new(1);
            tasks.spawn(work(caller, queue.clone(), tasks.clone(), shutdown.clone()));
            let queue = queue.of(OwnerId::new("alice").expect("a name"));
            Self { queue, begun, reported, tasks, shutdown }
        }

        fn begun(&self, job: JobId) -> Vec<BatchIndex> {
            let begun = self.begun.lock().expect("unpoisoned");
            begun.iter().filter(|(of, _)| *of == job).map(|(_, batch)| *batch).collect()
        }

        async fn end(self) {
            self.shutdown.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_meets_damage_is_dropped_after_its_tries_and_no_other_job_waits_for_it() {
        let mut worker = Worker::start();
        let damaged = [DAMAGED, DAMAGED_BATCHES, DAMAGED_REPORTS];
        let started = Instant::now();
        worker.queue.send(damaged.map(|job| batch(job, 0)).into()).await.expect("sent");
        worker.queue.send(vec![batch(SOUND, 0)]).await.expect("sent");
        assert_eq!(worker.reported.recv().await, Some((id(SOUND), started)), "at once");
        // The clock is moved past every pause there is.
        tokio::time::sleep(Duration::from_secs(600)).await;
        for job in damaged {
            assert_eq!(worker.begun(id(job)).len(), MAX_RECEIVES as usize, "{job}");
        }
        worker.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn batches_the_store_does_not_answer_for_are_tried_until_it_does_and_hold_up_their_own_splitter_alone()
     {
        let mut worker = Worker::start();
        let (queue, many, started) = (worker.queue.clone(), 3 * QUEUE as u64, Instant::now());
        let splitter = tokio::spawn(async move {
            for number in 0..many {
                queue.send(vec![batch(UNREACHABLE, number)]).await.expect("sent");
            }
        });
        // All that its room takes is under way.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let sent = Instant::now();
        worker.queue.send(vec![batch(SOUND, 0)]).await.expect("sent");
        assert_eq!(worker.reported.recv().await, Some((id(SOUND), sent)), "at once");
        let begun: HashSet<_> = worker.begun(id(UNREACHABLE)).into_iter().collect();
        assert_eq!(begun.len(), QUEUE + 1, "no more of it is in memory");
        for _ in 0..many {
            let (job, at) = worker.reported.recv().await.expect("tried again");
            assert_eq!(job, id(UNREACHABLE));
            assert!(at - started >= Duration::from_secs(60));
        }
        splitter.await.expect("no panic");
        let tries = worker.begun(id(UNREACHABLE)).iter().filter(|batch| batch.get() == 0).count();
        assert!(tries > MAX_RECEIVES as usize, "{tries}");
        worker.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_to_be_tried_again_does_not_keep_the_process_from_ending() {
        let worker = Worker::start();
        worker.queue.send(vec![batch(UNREACHABLE, 0)]).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let stopped = Instant::now();
        worker.end().await;
        assert_eq!(stopped.elapsed(), Duration::ZERO);
    }

    /// A table that is locked for good.
    #[derive(Debug)]
    struct Locked;

    #[async_trait]
    impl LeadTable for Locked {
        async fn upsert(
            &self,
            _: &OwnerId,
            _: JobId,
            _: &[(u64, Lead)],
            _: Timestamp,
        ) -> Result<(), TableError> {
            Err(TableError { operation: "writing", source: "a test".into(), may_pass: true })
        }

        async fn page(&self, _: &OwnerId, _: &LeadQuery) -> Result<LeadPage, TableError> {
            Err(TableError { operation: "reading", source: "a test".into(), may_pass: true })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_job_wants_no_leads() {
        let mut store = MockStatusStore::new();
        store.expect_job().returning(|_, _| Err(corrupt()));
        let table = Patient::new(Arc::new(Locked), Tracker::new(Arc::new(store)));
        let (owner, started) = (OwnerId::new("alice").expect("a name"), Instant::now());
        let written = table.upsert(&owner, id(DAMAGED), &[], Timestamp::now()).await;
        assert!(written.is_err());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
