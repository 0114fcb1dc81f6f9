//! Deliveries as a queue makes them: one batch in several messages, several jobs, batches that a job does
//! not have, a store that does not answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use caller::{
    Caller, Delivery,
    Handled::{self, Done, Later, Retry},
};
use leads::{BatchMessage, Lead, MemoryLeads, NormaliseError, Normalised, Normaliser, RawLead};
use status_core::{
    Actor, BatchIndex, Begun, Effect, JobId, MockStatusStore, NewJob, OwnerId, Policy, Settled, Snapshot,
    Status, StatusStore, StoreError, SystemClock, Timestamp, Tolerance, Totals, Tracker, Written,
};
use status_memory::MemoryStore;

/// The last receive.
const LAST: u32 = 3;

/// Counts how often each e-mail address was asked for, and refuses some.
#[derive(Debug, Default)]
struct Counting {
    asked: Mutex<HashMap<String, usize>>,
    refused: Mutex<Vec<String>>,
}

#[async_trait]
impl Normaliser for Counting {
    async fn normalise(&self, rows: &[RawLead], _: Duration) -> Result<Vec<Normalised>, NormaliseError> {
        let email = rows[0].iter().next().expect("a column").1.to_owned();
        *self.asked.lock().expect("unpoisoned").entry(email.clone()).or_default() += 1;
        if self.refused.lock().expect("unpoisoned").contains(&email) {
            return Err(NormaliseError { code: "refused", message: "Refused.".into() });
        }
        Ok(vec![Ok(Lead { email, ..Lead::default() })])
    }
}

struct Stage {
    tracker: Tracker,
    normaliser: Arc<Counting>,
    caller: Caller,
}

impl Stage {
    fn over(store: Arc<dyn StatusStore>) -> Self {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Batches(1);
        policy.track_starts = true;
        let tracker = Tracker::new(store).with_policy(policy);
        let normaliser = Arc::new(Counting::default());
        let leads = Arc::new(MemoryLeads::default());
        let caller = Caller::new(tracker.clone(), normaliser.clone(), leads, LAST);
        Self { tracker, normaliser, caller }
    }

    fn in_memory() -> Self {
        Self::over(Arc::new(MemoryStore::new(100, Arc::new(SystemClock))))
    }

    /// A job of this many batches, one lead each.
    async fn job(&self, batches: u64) -> JobId {
        let owner = OwnerId::new("ann").expect("a good name");
        let job = self.tracker.owned_by(owner).create(NewJob::titled("leads")).await.expect("created");
        let totals = Totals { batches, items: Some(batches) };
        self.tracker.start(job.id, Some(totals), &Actor::named("splitter")).await.expect("started");
        job.id
    }

    async fn handle(&self, deliveries: &[Delivery]) -> Vec<Handled> {
        self.caller.handle(deliveries, Duration::from_secs(60)).await
    }

    async fn snapshot(&self, job: JobId) -> Snapshot {
        self.tracker.snapshot_now(job).await.expect("there")
    }

    fn refuse(&self, job: JobId, batch: u64) {
        self.normaliser.refused.lock().expect("unpoisoned").push(email(job, batch));
    }

    fn accept_all(&self) {
        self.normaliser.refused.lock().expect("unpoisoned").clear();
    }

    fn asked(&self, job: JobId, batch: u64) -> usize {
        self.normaliser.asked.lock().expect("unpoisoned").get(&email(job, batch)).copied().unwrap_or(0)
    }
}

fn email(job: JobId, batch: u64) -> String {
    format!("{batch}@{job}.example")
}

/// A batch of one lead, received for the `receives`th time.
fn message(job: JobId, batch: u64, receives: u32) -> Delivery {
    let leads = vec![RawLead::from_pairs([("Email", email(job, batch).as_str())])];
    let index = BatchIndex::new(batch).expect("in range");
    let message =
        BatchMessage { job_id: job, batch: index, file_name: "f.csv".into(), first_row: batch + 1, leads };
    Delivery { message, receives }
}

fn counts(snapshot: &Snapshot) -> (u64, u64) {
    (snapshot.progress.batches.completed, snapshot.progress.batches.failed)
}

#[tokio::test]
async fn a_batch_is_worked_on_once_for_all_its_messages_in_a_delivery() {
    let stage = Stage::in_memory();
    let job = stage.job(2).await;
    let delivery = [(0, 1), (0, 1), (1, 1), (0, 2), (1, 1)].map(|(batch, n)| message(job, batch, n));
    assert_eq!(stage.handle(&delivery).await, [Done; 5]);
    assert_eq!((stage.asked(job, 0), stage.asked(job, 1)), (1, 1));
    let snapshot = stage.snapshot(job).await;
    assert_eq!((counts(&snapshot), snapshot.status), ((2, 0), Status::Completed));
    assert_eq!(stage.handle(&delivery).await, [Done; 5]);
    assert_eq!((stage.asked(job, 0), stage.asked(job, 1)), (1, 1));
}

#[tokio::test]
async fn batches_past_the_total_and_of_other_jobs_get_their_own_answers() {
    let stage = Stage::in_memory();
    let (one, other) = (stage.job(2).await, stage.job(1).await);
    let unknown = JobId::from_parts(Timestamp::now(), 7);
    stage.refuse(other, 0);
    let delivery = [
        message(one, 0, 1),
        message(one, 2, 1),
        message(other, 0, 1),
        message(unknown, 0, 1),
        message(one, 9_999_999, 1),
        message(one, 1, 1),
    ];
    assert_eq!(stage.handle(&delivery).await, [Done, Done, Retry, Done, Done, Done]);
    assert_eq!((stage.asked(one, 2), stage.asked(one, 9_999_999), stage.asked(unknown, 0)), (0, 0, 0));
    let snapshot = stage.snapshot(one).await;
    assert_eq!((counts(&snapshot), snapshot.status), ((2, 0), Status::Completed));
    assert_eq!(counts(&stage.snapshot(other).await), (0, 0));
}

#[tokio::test]
async fn a_failed_batch_is_given_up_by_the_message_that_came_for_the_last_time() {
    let stage = Stage::in_memory();
    let job = stage.job(3).await;
    stage.refuse(job, 0);
    let delivery = [message(job, 0, 1), message(job, 0, LAST), message(job, 1, LAST)];
    assert_eq!(stage.handle(&delivery).await, [Retry, Done, Done]);
    assert_eq!(stage.asked(job, 0), 1);
    assert_eq!(counts(&stage.snapshot(job).await), (1, 1));
    // The message that had tries left comes again, and the batch succeeds.
    stage.accept_all();
    assert_eq!(stage.handle(&[message(job, 0, 2)]).await, [Done]);
    assert_eq!(counts(&stage.snapshot(job).await), (2, 0));
}

#[tokio::test]
async fn what_failed_before_its_last_receive_comes_again_and_counts_as_nothing() {
    let stage = Stage::in_memory();
    let job = stage.job(2).await;
    stage.refuse(job, 0);
    let delivery = [message(job, 0, 1), message(job, 0, 2), message(job, 1, 1)];
    assert_eq!(stage.handle(&delivery).await, [Retry, Retry, Done]);
    assert_eq!(counts(&stage.snapshot(job).await), (1, 0));
}

#[tokio::test]
async fn a_batch_whose_record_is_damaged_comes_again_and_takes_no_other_with_it() {
    let id = JobId::new(Timestamp::now());
    let owner = OwnerId::new("ann").expect("a good name");
    let job = NewJob::titled("leads").into_job(id, owner, &Policy::default(), Actor::OWNER);
    let mut job = job.expect("a good title");
    job.status = Status::Processing;
    let index = |batch| BatchIndex::new(batch).expect("in range");
    let mut store = MockStatusStore::new();
    store.expect_begin().returning(move |_, _, _| {
        let settled = vec![(index(0), None), (index(1), None)];
        Ok(Some(Begun::new(job.clone(), settled, false).with_damaged(vec![index(2)])))
    });
    store.expect_report().times(1).returning(move |_, reports, _| {
        let effect = |batch| if batch == index(1) { Effect::Damaged } else { Effect::Counted };
        let effects = reports.iter().map(|report| (report.batch(), effect(report.batch()))).collect();
        Ok(Written::new(effects, false, None))
    });
    let stage = Stage::over(Arc::new(store));
    let delivery = [0, 1, 2, 2].map(|batch| message(id, batch, 1));
    assert_eq!(stage.handle(&delivery).await, [Done, Retry, Retry, Retry]);
    assert_eq!(stage.asked(id, 2), 0, "nothing could be recorded of it");
}

#[tokio::test]
async fn a_report_that_was_not_stored_brings_back_only_what_it_was_about() {
    let id = JobId::new(Timestamp::now());
    let owner = OwnerId::new("ann").expect("a good name");
    let job = NewJob::titled("leads").into_job(id, owner, &Policy::default(), Actor::OWNER);
    let mut job = job.expect("a good title");
    job.status = Status::Processing;
    let index = |batch| BatchIndex::new(batch).expect("in range");
    let mut store = MockStatusStore::new();
    store.expect_begin().returning(move |_, _, _| {
        let settled = vec![(index(0), Some(Settled::Completed)), (index(1), None)];
        Ok(Some(Begun::new(job.clone(), settled, false)))
    });
    store.expect_report().times(1).returning(|_, _, _| {
        let (operation, subject) = ("UpdateItem", "a chunk".to_owned());
        Err(StoreError::Unavailable { operation, subject, source: "the connection was lost".into() })
    });
    let stage = Stage::over(Arc::new(store));
    let delivery = [message(id, 0, 1), message(id, 1, LAST), message(id, 1, 1)];
    assert_eq!(stage.handle(&delivery).await, [Done, Later, Later]);
}
