//! Cuts a lead file into batches and sends them to the queue. Delivered twice, or killed half-way and delivered again, it
//! changes nothing but what was missing: a job remembers how its file was cut, and a batch counts once.

mod batcher;
mod spool;
#[cfg(feature = "aws")]
mod sqs;

use std::{
    io::{self, Read, Write},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use leads::{
    BatchMessage,
    read::{self, Found, ReadError, Stop},
};
use status_core::{
    Actor, BoxError, Error, Failure, Job, JobId, Rejection, Stage, Timestamp, Totals, Tracker,
};
use tokio::{
    sync::{mpsc, watch},
    time,
};

pub use batcher::{Batcher, MAX_MESSAGE_BYTES};
pub use spool::{Spool, Unread, cut};
#[cfg(feature = "aws")]
pub use sqs::SqsQueue;

/// So many batches are sent together: SQS takes ten messages a request.
pub const BATCHES_PER_SEND: usize = 10;
/// How often the splitter looks whether the job is still wanted.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where batches wait for a caller.
#[async_trait]
pub trait BatchQueue: std::fmt::Debug + Send + Sync + 'static {
    /// Sends at most [`BATCHES_PER_SEND`] batches; a batch may arrive more than once.
    ///
    /// # Errors
    /// If any of them may not have been sent.
    async fn send(&self, batches: Vec<BatchMessage>) -> Result<(), QueueError>;
}

/// The queue did not take a batch.
#[derive(Debug, thiserror::Error)]
#[error("the queue did not take the batches")]
pub struct QueueError(#[source] pub BoxError);

/// Cuts files.
#[derive(Clone, Debug)]
pub struct Splitter {
    tracker: Tracker,
    queue: Arc<dyn BatchQueue>,
    batch_size: u32,
    actor: Actor,
}

/// What came of splitting a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// All batches are sent and the job is sealed.
    Sealed(Totals),
    /// It was sealed before (which is completed, should its splitter have died meanwhile), or is over:
    /// nothing was sent.
    NothingToDo,
    /// The job ended while the file was being cut.
    Stopped,
    /// The file cannot be read; the job has failed and says why.
    Unreadable,
}

/// Why splitting did not come to an end: try again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The file stopped coming.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file was not read.
    #[error("the file was not read")]
    Unread(#[source] BoxError),
    /// What was read of it cannot be read again.
    #[error("the batches that were kept cannot be read")]
    Spool(#[from] io::Error),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The tracker.
    #[error(transparent)]
    Tracker(#[from] Error),
    /// The reader panicked.
    #[error("reading the file panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Splitter {
    /// A splitter that puts `batch_size` rows into a batch, fewer where a message would grow too large.
    ///
    /// A job that was cut before is cut as it was then.
    pub fn new(tracker: Tracker, queue: Arc<dyn BatchQueue>, batch_size: u32) -> Self {
        Self { tracker, queue, batch_size, actor: Actor::named("splitter") }
    }

    /// The tracker it tells how far it is.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Reads `file` and sends its rows in batches, in one pass; starts the job before and seals it after. For queues that
    /// keep what they were sent: a job that is sealed has no batch to send.
    ///
    /// # Errors
    /// [`SplitError`] if it may work another time; a file that never will fails the job instead.
    pub async fn split(
        &self,
        job: JobId,
        file_name: &str,
        file: impl Read + Send + 'static,
    ) -> Result<Split, SplitError> {
        match self.open_job(job).await? {
            None => return Ok(Split::NothingToDo),
            Some(Job { totals: Some(totals), .. }) => {
                // Sealing takes several steps. The splitter that took the first may have died before
                // the last, and without them nobody notices that the last batch has settled.
                stopped(self.tracker.seal(job, totals, &self.actor).await)?;
                return Ok(Split::NothingToDo);
            }
            Some(_) => {}
        }
        let Some(size) = self.start(job).await? else { return Ok(Split::Stopped) };
        match self.send(Batcher::new(job, file_name, size), file).await? {
            Some(Ok(totals)) => self.seal(job, totals).await,
            Some(Err(error)) => self.unreadable(job, error).await,
            None => Ok(Split::Stopped),
        }
    }

    /// Has the file read as a whole by `read`, so that the total is known from the start, then sends its batches. For queues
    /// that hold the splitter back, and forget: whatever has settled before is not worked on again.
    ///
    /// `read` is given how many rows make a batch, and where to say what is being read. It is dropped when the job ends.
    ///
    /// # Errors
    /// As [`split`](Self::split).
    pub async fn split_spooled<F>(
        &self,
        job: JobId,
        read: impl FnOnce(u32, watch::Sender<String>) -> F,
    ) -> Result<Split, SplitError>
    where
        F: Future<Output = Result<Spool, Unread>>,
    {
        if self.open_job(job).await?.is_none() {
            return Ok(Split::NothingToDo);
        }
        let Some(size) = self.start(job).await? else { return Ok(Split::Stopped) };
        let (stage, stages) = watch::channel(String::new());
        let spool = match self.while_wanted(job, stages, read(size, stage)).await? {
            None => return Ok(Split::Stopped),
            Some(Ok(spool)) => spool,
            Some(Err(Unread::Failed(error))) => return Err(SplitError::Unread(error)),
            Some(Err(Unread::Refused { code, message })) => return self.refused(job, &code, &message).await,
        };
        let totals = spool.totals;
        match self.seal(job, totals).await? {
            Split::Sealed(_) => {}
            otherwise => return Ok(otherwise),
        }
        // A queue that holds back takes them one by one: many files wait, and each has little in memory.
        let (events, received) = mpsc::channel(1);
        let send = move |batch| events.blocking_send(Event::Batches(vec![batch])).map_err(|_| Stop);
        let sender = tokio::task::spawn_blocking(move || spool.send(send));
        let sent = self.send_all(job, received).await;
        sender.await??;
        Ok(match sent? {
            Sent::All => Split::Sealed(totals),
            Sent::Stopped => Split::Stopped,
        })
    }

    /// Waits for what is being read as long as the job wants it, and tells the job what it is; `None` if it does not.
    async fn while_wanted<T>(
        &self,
        job: JobId,
        mut stages: watch::Receiver<String>,
        reading: impl Future<Output = T>,
    ) -> Result<Option<T>, SplitError> {
        let mut reading = pin!(reading);
        loop {
            if let Ok(read) = time::timeout(LOOK_EVERY, &mut reading).await {
                return Ok(Some(read));
            }
            if self.open_job(job).await?.is_none_or(|job| job.cancel_requested.is_some()) {
                return Ok(None);
            }
            let stage = stages.borrow_and_update().clone();
            if !stage.is_empty() && stopped(self.tracker.stage(job, &stage, &self.actor).await)?.is_none() {
                return Ok(None);
            }
        }
    }

    /// The job, if it is not over. The tracker says that there is no such job only after a strongly
    /// consistent read, so the event of a new job is never dropped.
    async fn open_job(&self, id: JobId) -> Result<Option<Job>, SplitError> {
        match self.tracker.job(id).await {
            Ok(job) => Ok(Some(job).filter(|job| !job.status.is_terminal())),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts the job; by how many rows it is cut, however this splitter is set up, or `None` if it is over.
    async fn start(&self, job: JobId) -> Result<Option<u32>, SplitError> {
        if stopped(self.tracker.start(job, None, &self.actor).await)?.is_none() {
            return Ok(None);
        }
        Ok(stopped(self.tracker.batch_size(job, self.batch_size, &self.actor).await)?)
    }

    /// Sends every batch of the file; `None` if the job ended before.
    async fn send(
        &self,
        batcher: Batcher,
        file: impl Read + Send + 'static,
    ) -> Result<Option<Result<Totals, ReadError>>, SplitError> {
        let (events, received) = mpsc::channel(4);
        let job = batcher.job();
        let reader = tokio::task::spawn_blocking(move || read_into(file, batcher, &events));
        let sent = self.send_all(job, received).await;
        // The reader ends by itself when nobody receives any more.
        match (reader.await?, sent?) {
            (_, Sent::Stopped) => Ok(None),
            (read, Sent::All) => Ok(Some(read)),
        }
    }

    /// Tells the job its totals. Where it cannot have these, it never will: it fails, and says why.
    async fn seal(&self, job: JobId, totals: Totals) -> Result<Split, SplitError> {
        match stopped(self.tracker.seal(job, totals, &self.actor).await) {
            Ok(Some(_)) => Ok(Split::Sealed(totals)),
            Ok(None) => Ok(Split::Stopped),
            Err(Error::Rejected { rejection, .. }) => {
                tracing::error!(%job, %rejection, "a file that the job cannot have");
                let failure = Failure::new(Stage::Split, "wrong-total", &sentence(&rejection), false);
                stopped(self.tracker.fail(job, failure, &self.actor).await)?;
                Ok(Split::Unreadable)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn unreadable(&self, job: JobId, error: ReadError) -> Result<Split, SplitError> {
        if error.is_retryable() {
            return Err(error.into());
        }
        self.refused(job, error.code(), &error.to_string()).await
    }

    /// Fails a job whose file nobody can read.
    async fn refused(&self, job: JobId, code: &str, message: &str) -> Result<Split, SplitError> {
        tracing::info!(%job, code, "the file cannot be read");
        let failure = Failure::new(Stage::Split, code, message, false);
        stopped(self.tracker.fail(job, failure, &self.actor).await)?;
        Ok(Split::Unreadable)
    }

    async fn send_all(&self, job: JobId, mut received: mpsc::Receiver<Event>) -> Result<Sent, SplitError> {
        let mut looked = Instant::now();
        while let Some(event) = received.recv().await {
            match event {
                Event::Stage(stage) => {
                    if stopped(self.tracker.stage(job, &stage, &self.actor).await)?.is_none() {
                        return Ok(Sent::Stopped);
                    }
                }
                Event::Batches(batches) => self.queue.send(batches).await?,
            }
            if looked.elapsed() >= LOOK_EVERY {
                if self.open_job(job).await?.is_none_or(|job| job.cancel_requested.is_some()) {
                    return Ok(Sent::Stopped);
                }
                looked = Instant::now();
            }
        }
        Ok(Sent::All)
    }
}

/// Prints the messages that `file` would be cut into, one JSON object a line.
///
/// # Errors
/// [`ReadError`] if the file cannot be read, or the output not be written.
pub fn preview(file: impl Read, file_name: &str, batch_size: u32, out: impl Write) -> Result<(), ReadError> {
    let no_job = JobId::from_parts(Timestamp::UNIX_EPOCH, 0);
    cut(file, Batcher::new(no_job, file_name, batch_size), out, &mut |_| Ok(())).map(drop)
}

enum Event {
    Stage(String),
    Batches(Vec<BatchMessage>),
}

enum Sent {
    All,
    Stopped,
}

fn read_into(
    file: impl Read,
    mut batcher: Batcher,
    events: &mpsc::Sender<Event>,
) -> Result<Totals, ReadError> {
    let mut full = Vec::with_capacity(BATCHES_PER_SEND);
    let send = |event| events.blocking_send(event).map_err(|_| Stop);
    read::read(file, &mut |found| match found {
        Found::Stage(stage) => send(Event::Stage(stage)),
        Found::Row(row) => {
            full.extend(batcher.push(row));
            if full.len() == BATCHES_PER_SEND {
                send(Event::Batches(std::mem::take(&mut full)))
            } else {
                Ok(())
            }
        }
    })?;
    let (last, totals) = batcher.finish();
    full.extend(last);
    if !full.is_empty() {
        send(Event::Batches(full)).map_err(|Stop| ReadError::Stopped)?;
    }
    Ok(totals)
}

fn sentence(rejection: &Rejection) -> String {
    let text = rejection.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// A job that ended in the meantime is not an error: there is nothing left to do for it.
fn stopped<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Rejected { rejection: Rejection::Contradiction { .. }, .. } | Error::NotFound(_)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
