//! What a splitter makes of jobs that others have moved on in the meantime.

use std::{
    io::{self, Cursor, Read},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use leads::BatchMessage;
use rust_xlsxwriter::Workbook;
use splitter::{BatchQueue, Batcher, QueueError, Split, SplitError, Splitter, Spool};
use status_core::{
    Actor, BatchIndex, BatchReport, Begin, Failure, FileInfo, JobId, NewJob, OwnerId, Stage, Status,
    Timestamp, Totals, Tracker,
};
use status_memory::MemoryStore;

/// A queue that keeps what it was sent.
#[derive(Debug, Default)]
struct Sent(Mutex<Vec<BatchMessage>>);

impl Sent {
    fn batches(&self) -> Vec<u64> {
        self.0.lock().expect("unpoisoned").iter().map(|message| message.batch.get()).collect()
    }
}

#[async_trait]
impl BatchQueue for Sent {
    async fn send(&self, batches: Vec<BatchMessage>) -> Result<(), QueueError> {
        self.0.lock().expect("unpoisoned").extend(batches);
        Ok(())
    }
}

struct Import {
    tracker: Tracker,
    queue: Arc<Sent>,
    splitter: Splitter,
    job: JobId,
}

/// An import that waits for its file, ten leads in a batch.
async fn import() -> Import {
    let tracker = Tracker::new(Arc::new(MemoryStore::default()));
    let queue = Arc::new(Sent::default());
    let splitter = Splitter::new(tracker.clone(), queue.clone(), 10);
    let file = FileInfo::new("leads.csv", 1_000, "text/csv").expect("a file");
    let jobs = tracker.owned_by(OwnerId::new("alice").expect("a name"));
    let job = jobs.create(NewJob::new(file)).await.expect("created").id;
    Import { tracker, queue, splitter, job }
}

fn csv(rows: usize) -> Cursor<Vec<u8>> {
    let rows = (0..rows).map(|n| format!("Ann{n},ann{n}@example.com\n"));
    Cursor::new(format!("Name,Email\n{}", rows.collect::<String>()).into_bytes())
}

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("small")
}

/// Splits a file that is read as a whole first.
async fn split_spooled(splitter: &Splitter, job: JobId, file: Cursor<Vec<u8>>) -> Result<Split, SplitError> {
    let read = |size, stages| {
        let spool = tempfile::tempfile().expect("a file");
        Spool::fill(spool, Batcher::new(job, "leads.csv", size), file, stages)
    };
    splitter.split_spooled(job, read).await
}

const TOTALS: Totals = Totals { batches: 3, items: Some(25) };

#[tokio::test]
async fn a_job_that_a_worker_has_started_is_split_and_sealed() {
    for spooled in [false, true] {
        let Import { tracker, queue, splitter, job } = import().await;
        // A splitter that died had sent the first batch and not said that it starts.
        assert_eq!(tracker.begin(job, batch(0)).await.expect("begun"), Begin::Work);
        let first = BatchReport::completed(batch(0), 10, 0);
        tracker.report(job, vec![first]).await.expect("reported");
        assert_eq!(tracker.job(job).await.expect("there").status, Status::Processing);
        let split = if spooled {
            split_spooled(&splitter, job, csv(25)).await
        } else {
            splitter.split(job, "leads.csv", csv(25)).await
        };
        assert_eq!(split.expect("split"), Split::Sealed(TOTALS));
        assert_eq!(queue.batches(), [0, 1, 2]);
        let rest = [batch(1), batch(2)].map(|batch| BatchReport::completed(batch, 10, 0)).into();
        tracker.report(job, rest).await.expect("reported");
        let done = tracker.snapshot(job).await.expect("there");
        assert_eq!((done.status, done.progress.batches.total), (Status::Completed, Some(3)));
    }
}

#[tokio::test]
async fn an_event_that_comes_again_after_the_seal_sends_nothing() {
    let Import { queue, splitter, job, .. } = import().await;
    assert_eq!(splitter.split(job, "leads.csv", csv(25)).await.expect("split"), Split::Sealed(TOTALS));
    assert_eq!(splitter.split(job, "leads.csv", csv(25)).await.expect("split"), Split::NothingToDo);
    assert_eq!(queue.batches(), [0, 1, 2]);
}

#[tokio::test]
async fn a_job_that_is_not_there_has_nothing_to_split() {
    let Import { queue, splitter, .. } = import().await;
    let other = JobId::new(Timestamp::now());
    assert_eq!(splitter.split(other, "leads.csv", csv(25)).await.expect("split"), Split::NothingToDo);
    let read = async |_, _| panic!("nothing is read");
    assert_eq!(splitter.split_spooled(other, read).await.expect("split"), Split::NothingToDo);
    assert!(queue.batches().is_empty());
}

/// A file during whose reading something happens to the job.
struct Meanwhile<F>(Cursor<Vec<u8>>, Option<F>);

impl<F: FnOnce()> Read for Meanwhile<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        if read == 0
            && let Some(happens) = self.1.take()
        {
            happens();
        }
        Ok(read)
    }
}

/// Splits a file, and has `happens` happen to the job before it is read to its end.
async fn split_while<F>(
    import: &Import,
    file: Cursor<Vec<u8>>,
    happens: impl FnOnce(Tracker, JobId) -> F + Send + 'static,
) -> Split
where
    F: Future<Output = ()> + Send,
{
    let (tracker, job) = (import.tracker.clone(), import.job);
    let runtime = tokio::runtime::Handle::current();
    let happens = move || runtime.block_on(happens(tracker, job));
    let split: Result<_, SplitError> =
        import.splitter.split(job, "leads.csv", Meanwhile(file, Some(happens))).await;
    split.expect("no error: it would be delivered again")
}

/// A workbook: it is read in full before the splitter says which worksheet it is at.
fn workbook() -> Cursor<Vec<u8>> {
    let mut book = Workbook::new();
    for _ in 0..2 {
        let sheet = book.add_worksheet();
        sheet.write_row(0, 0, ["Name", "Email"]).expect("written");
        sheet.write_row(1, 0, ["Ada Lovelace", "ada@example.com"]).expect("written");
    }
    Cursor::new(book.save_to_buffer().expect("a workbook"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_ends_or_is_erased_while_its_file_is_read_is_no_error() {
    for file in [csv(25), workbook()] {
        let ended = import().await;
        let split = split_while(&ended, file.clone(), async |tracker, job| {
            let failure = Failure::new(Stage::Split, "given-up", "Given up.", false);
            tracker.fail(job, failure, &Actor::OPERATOR).await.expect("failed");
        });
        assert_eq!(split.await, Split::Stopped);
        let erased = import().await;
        let erase = async |tracker: Tracker, job| tracker.erase(job).await.expect("erased");
        assert_eq!(split_while(&erased, file, erase).await, Split::Stopped);
    }
}

/// Trying again would not help: somebody reported a batch that this file does not have.
#[tokio::test]
async fn a_file_that_does_not_fit_its_job_fails_it_in_words() {
    for spooled in [false, true] {
        let Import { tracker, splitter, job, .. } = import().await;
        tracker.start(job, None, &Actor::named("splitter")).await.expect("started");
        let stray = BatchReport::completed(batch(50), 10, 0);
        tracker.report(job, vec![stray]).await.expect("reported");
        let split = if spooled {
            split_spooled(&splitter, job, csv(25)).await
        } else {
            splitter.split(job, "leads.csv", csv(25)).await
        };
        assert_eq!(split.expect("decided"), Split::Unreadable);
        let failure = tracker.job(job).await.expect("there").failure.expect("it failed");
        assert_eq!((failure.code.as_str(), failure.stage), ("wrong-total", Stage::Split));
        assert_eq!(failure.message, "Batch 50 is settled, so the total cannot be 3.");
    }
}

/// Deployed anew between two deliveries of one event, with another size of batches.
#[tokio::test]
async fn a_splitter_that_comes_back_with_another_batch_size_loses_no_row() {
    for spooled in [false, true] {
        let Import { tracker, queue, job, .. } = import().await;
        tracker.start(job, None, &Actor::named("splitter")).await.expect("started");
        let mut rows = std::collections::BTreeSet::new();
        for (size, cut_off) in [(5, true), (10, false)] {
            let to: Arc<dyn BatchQueue> = if cut_off { Arc::new(Once(queue.clone())) } else { queue.clone() };
            let splitter = Splitter::new(tracker.clone(), to, size);
            let split = if spooled {
                split_spooled(&splitter, job, csv(100)).await
            } else {
                splitter.split(job, "leads.csv", csv(100)).await
            };
            assert_eq!(split.is_err(), cut_off, "{split:?}");
            let sent = std::mem::take(&mut *queue.0.lock().expect("unpoisoned"));
            for message in sent {
                if tracker.begin(job, message.batch).await.expect("begun") == Begin::Work {
                    let worked = message.leads.len() as u64;
                    rows.extend(message.first_row..message.first_row + worked);
                    let report = BatchReport::completed(message.batch, worked, 0);
                    tracker.report(job, vec![report]).await.expect("reported");
                }
            }
            // Where there is a spool, batches are sent one by one.
            let sent_first = if spooled { 5 } else { 50 };
            assert_eq!(
                rows.len(),
                if cut_off { sent_first } else { 100 },
                "batches of {size}, spooled: {spooled}"
            );
        }
        let job = tracker.job(job).await.expect("there");
        assert_eq!((job.status, job.batch_size), (Status::Completed, Some(5)), "spooled: {spooled}");
    }
}

/// A queue that takes what is sent first, and then nothing.
#[derive(Debug)]
struct Once(Arc<Sent>);

#[async_trait]
impl BatchQueue for Once {
    async fn send(&self, batches: Vec<BatchMessage>) -> Result<(), QueueError> {
        if !self.0.batches().is_empty() {
            return Err(QueueError("it is gone".into()));
        }
        self.0.send(batches).await
    }
}
