//! Workers over a store that fails: whatever is lost, repeated or late, in the end every batch has counted
//! once and the job is completed.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, future::join_all};
use status_core::{
    BatchIndex, BatchOutcome, BatchReport, BatchState, Begin, Clock, Effect, Error, ItemError, JobId,
    Snapshot, Status, StatusStore, Sum, Tracker,
};

use crate::{
    faults::{Fault, Faults, Faulty},
    kit::{Kit, batch, done, splitter, tolerant, totals},
    layer::{Answer, Layered, after},
};

/// Batches of the job.
const TOTAL: u64 = 300;
/// A message comes at most this often.
const DELIVERIES: u64 = 1_000;

/// A batch that is handed to a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The job.
    pub id: JobId,
    /// The batch.
    pub batch: BatchIndex,
    /// A number that no other delivery has.
    pub number: u64,
    /// How often the message has come before.
    pub before: u64,
}

impl Delivery {
    /// What working on the batch comes to this time: now and then items fail, each time for another reason,
    /// and some batches fail when they come for the first time.
    pub fn work(&self) -> BatchReport {
        let index = self.batch.get();
        let message = format!("Delivery {} says so.", self.number);
        let error = |item| ItemError::new(self.batch, Some(index * 10 + item), "no-name", &message);
        match (index % 25, self.before) {
            (3 | 11, _) => BatchReport::completed(self.batch, 8, 2).with_errors([error(0), error(1)]),
            (7, 0) => BatchReport::failed(self.batch, 10, "x", "x").with_errors([error(0)]),
            _ => done(index),
        }
    }
}

/// What works on batches that are delivered at least once.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Handles a delivery. `true` acknowledges it; otherwise the message comes again.
    async fn deliver(&self, tracker: &Tracker, delivery: Delivery) -> bool;
}

/// A worker that does as the tracker's documentation says: it acknowledges what was recorded, and nothing
/// of which it does not know that.
#[derive(Clone, Copy, Debug, Default)]
pub struct CarefulWorker;

#[async_trait]
impl Worker for CarefulWorker {
    async fn deliver(&self, tracker: &Tracker, delivery: Delivery) -> bool {
        let Delivery { id, batch, .. } = delivery;
        match tracker.begin(id, batch).await {
            Ok(Begin::Work) => {
                let report = delivery.work();
                let failed = matches!(report.outcome(), BatchOutcome::Failed { .. });
                // What failed is delivered again, as a queue would.
                tracker.report(id, vec![report]).await.is_ok() && !failed
            }
            Ok(Begin::AlreadyCompleted | Begin::Over(_)) => true,
            Ok(other) => panic!("a batch of the job, alone in its delivery, is {other:?}"),
            Err(_) => false,
        }
    }
}

/// Has careful workers work off a job over the store that `open` opens, with faults by `seed`.
///
/// # Panics
/// If a batch counted not at all or twice, errors are listed of another attempt than the one that counted,
/// a poller or a watcher was sent back, or the job is not completed in the end.
pub async fn get_through<S: StatusStore>(seed: u64, open: impl AsyncFn(Arc<dyn Clock>) -> Arc<S>) {
    get_through_with(seed, open, CarefulWorker).await;
}

/// [`get_through`] with other workers: yours, as the case may be.
///
/// # Panics
/// As [`get_through`], which is what happens to workers that are not careful.
pub async fn get_through_with<S: StatusStore>(
    seed: u64,
    open: impl AsyncFn(Arc<dyn Clock>) -> Arc<S>,
    worker: impl Worker,
) {
    let sound = Kit::open(async |clock| open(clock).await).await;
    let counted = Arc::new(AtomicU64::new(0));
    let tally = counted.clone();
    let told = sound.behind(after(move |_, answer| {
        if let Ok(Answer::Report(written)) = &answer {
            let new = written.effects.iter().filter(|(_, effect)| *effect == Effect::Counted).count();
            tally.fetch_add(new as u64, Ordering::Relaxed);
        }
        answer
    }));
    let faulty = Arc::new(Layered::new(told.store.clone(), Faulty::new(Faults::default(), seed)));
    let _printed = PrintedOnPanic(seed, faulty.clone());
    let kit = Kit::over(faulty.clone(), sound.clock.clone());
    let id = sound.create(tolerant()).await;
    until_it_works(async || kit.tracker.start(id, None, &splitter()).await).await;

    let polling = tokio::spawn(poll(kit.clone(), id));
    let watching = tokio::spawn(watch(kit.clone(), id));
    let (worker, number) = (Arc::new(worker), Arc::new(AtomicU64::new(0)));
    let working = join_all((0..8).map(|lane| {
        let (tracker, worker, number) = (kit.tracker.clone(), worker.clone(), number.clone());
        tokio::spawn(async move {
            // Two workers share half of the batches; the others come to one of them alone.
            for index in (lane / 2..TOTAL).step_by(4).filter(|index| lane % 2 == 0 || index % 8 < 4) {
                for before in 0..DELIVERIES {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let delivery = Delivery { id, batch: batch(index), number, before };
                    if worker.deliver(&tracker, delivery).await {
                        break;
                    }
                }
            }
        })
    }));
    let sealing = until_it_works(async || kit.tracker.seal(id, totals(TOTAL), &splitter()).await);
    let (worked, _) = futures::join!(working, sealing);
    for worked in worked {
        worked.expect("no worker panicked");
    }

    let snapshot = until_it_works(async || kit.tracker.snapshot_now(id).await).await;
    let missing = sound.store.batches(id, BatchState::Unsettled, 0, 10).await.expect("known");
    assert_eq!(snapshot.status, Status::Completed, "seed {seed}: batches {missing:?} are not settled");
    polling.await.expect("no poller was sent back");
    // A feed takes its time after a failure, and nobody waits for it here.
    watching.abort();
    let watched = watching.await;
    assert!(watched.is_ok() || watched.is_err_and(|error| error.is_cancelled()), "a watcher was sent back");
    check(&sound, id, seed).await;
    assert_eq!(counted.load(Ordering::Relaxed), TOTAL, "seed {seed}: each batch was counted in one answer");
    let injected = faulty.layer().counts();
    for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Throttled, Fault::Repeated, Fault::StaleRead]
    {
        assert!(injected.keys().any(|(_, other)| *other == fault), "seed {seed}: {fault} never happened");
    }
}

/// Every batch has counted once, and the errors that are listed are those that were counted.
async fn check(kit: &Kit, id: JobId, seed: u64) {
    let facts = kit.state(id).await.facts;
    let with_errors = (0..TOTAL).filter(|index| matches!(index % 25, 3 | 11)).count() as u64;
    let counts = (facts.counts.completed, facts.counts.failed);
    assert_eq!(counts, (TOTAL, 0), "seed {seed}");
    let items = (facts.counts.items_processed, facts.counts.items_failed);
    assert_eq!(items, (10 * TOTAL - 2 * with_errors, 2 * with_errors), "seed {seed}");
    assert_eq!(facts.moments.get(Sum::Samples), i128::from(TOTAL - with_errors), "seed {seed}");
    let errors = kit.errors(id).await;
    assert_eq!(errors.len() as u64, facts.counts.items_failed, "seed {seed}: listed as counted");
    for of_batch in errors.chunk_by(|one, other| one.batch == other.batch) {
        let [one, other] = of_batch else { panic!("seed {seed}: two errors, not {of_batch:?}") };
        assert_eq!(one.message, other.message, "seed {seed}: both are of one attempt");
    }
}

/// Polls until the job is over; each time it says what it has seen.
async fn poll(kit: Kit, id: JobId) {
    let mut last: Option<Snapshot> = None;
    while last.as_ref().is_none_or(|last| !last.status.is_terminal()) {
        let polled = match &last {
            None => kit.jobs.snapshot(id).await,
            Some(last) => kit.jobs.snapshot_after(id, &last.token()).await,
        };
        last = goes_on(last, polled);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Watches until the job is over; when the stream ends before, it watches again.
async fn watch(kit: Kit, id: JobId) {
    let mut last: Option<Snapshot> = None;
    while last.as_ref().is_none_or(|last| !last.status.is_terminal()) {
        let token = last.as_ref().map(Snapshot::token);
        match kit.jobs.watch_after(id, token.as_ref()).await {
            Ok(watched) => {
                let mut watched = std::pin::pin!(watched);
                while let Some(snapshot) = watched.next().await {
                    last = goes_on(last, Ok((*snapshot).clone()));
                }
            }
            Err(error) => last = goes_on(last, Err(error)),
        }
    }
}

/// The newest of what was seen. Nobody is sent back, or told that the job does not exist.
fn goes_on(last: Option<Snapshot>, next: Result<Snapshot, Error>) -> Option<Snapshot> {
    match (last, next) {
        (_, Err(Error::NotFound(id))) => panic!("job {id} is there"),
        (last, Err(_)) => last,
        (Some(last), Ok(next)) => {
            assert!(next.covers(&last.token()), "sent back from {last:?} to {next:?}");
            Some(next)
        }
        (None, Ok(next)) => Some(next),
    }
}

async fn until_it_works<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    for _ in 0..1_000 {
        if let Ok(value) = call().await {
            return value;
        }
    }
    panic!("it never worked");
}

/// What was injected, told when something comes out wrong.
struct PrintedOnPanic(u64, Arc<Layered<Faulty>>);

impl Drop for PrintedOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("Seed {} injected:", self.0);
            for ((method, fault), count) in self.1.layer().counts() {
                eprintln!("  {count:5} × {method}: {fault}");
            }
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delivery {} of batch {}", self.number, self.batch)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use status_core::StoreError;
    use status_memory::MemoryStore;

    use super::*;
    use crate::kit::run;

    /// Takes a write whose answer it did not get for done: its request may have been lost.
    struct TakesUnavailableForDone;

    #[async_trait]
    impl Worker for TakesUnavailableForDone {
        async fn deliver(&self, tracker: &Tracker, delivery: Delivery) -> bool {
            match tracker.report(delivery.id, vec![delivery.work()]).await {
                Err(Error::Store(StoreError::Unavailable { .. })) | Ok(_) => true,
                Err(_) => false,
            }
        }
    }

    /// Acknowledges first, and works then.
    struct AcknowledgesFirst;

    #[async_trait]
    impl Worker for AcknowledgesFirst {
        async fn deliver(&self, tracker: &Tracker, delivery: Delivery) -> bool {
            let _ = tracker.report(delivery.id, vec![delivery.work()]).await;
            true
        }
    }

    /// What a worker is caught by.
    fn caught(worker: impl Worker) -> String {
        let open = async |clock: Arc<dyn Clock>| Arc::new(MemoryStore::new(9, clock));
        let through = std::panic::AssertUnwindSafe(get_through_with(1, open, worker)).catch_unwind();
        let panic = run(through).expect_err("a worker like this does not get through");
        panic.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_worker_that_takes_unavailable_for_done_is_found() {
        let why = caught(TakesUnavailableForDone);
        assert!(why.contains("are not settled") && why.contains("BatchIndex("), "{why}");
    }

    #[test]
    fn a_worker_that_acknowledges_first_is_found() {
        let why = caught(AcknowledgesFirst);
        assert!(why.contains("are not settled"), "{why}");
    }
}
