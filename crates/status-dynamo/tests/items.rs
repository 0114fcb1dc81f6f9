//! What is in the table, read and written past the store: expiries, damage, sizes.

mod common;

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use status_core::{
    Actor, BatchIndex, BatchReport, BatchState, Clock, Error, FileInfo, ItemError, Job, JobId, ManualClock,
    NewJob, OwnedJobs, OwnerId, PageRequest, Policy, Status, StatusStore, StoreError, SystemClock, Tolerance,
    Totals, Tracker,
};
use status_dynamo::{DynamoStore, layout};

type Item = HashMap<String, AttributeValue>;

/// A store on an engine of its own, and ways past it.
struct Table {
    client: Client,
    name: String,
    clock: Arc<ManualClock>,
    store: Arc<DynamoStore>,
    tracker: Tracker,
}

impl Table {
    async fn open() -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
        let client = common::client(&common::embedded().await);
        let (store, name) = common::table_of(client.clone(), clock.clone()).await;
        let tracker = Tracker::new(store.clone()).with_clock(clock.clone());
        Self { client, name, clock, store, tracker }
    }

    fn jobs(&self) -> OwnedJobs {
        self.tracker.owned_by(OwnerId::new("alice").expect("a name"))
    }

    /// Three jobs of three batches, one after the other.
    async fn three_jobs(&self) -> Vec<JobId> {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(self.job(Policy::default(), 3).await);
            self.clock.advance(Duration::from_secs(1));
        }
        ids
    }

    async fn job(&self, policy: Policy, batches: u64) -> JobId {
        let new = NewJob::new(FileInfo::new("leads.csv", 2_000, "text/csv").expect("a file"));
        let id = self.jobs().create(new.with_policy(policy)).await.expect("created").id;
        let totals = Totals { batches, items: None };
        self.tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("started");
        id
    }

    async fn items(&self) -> Vec<Item> {
        let scan = self.client.scan().table_name(&self.name).consistent_read(true);
        let pages = scan.into_paginator().items().send();
        pages.collect::<Result<_, _>>().await.expect("scanned")
    }

    async fn item(&self, key: Item) -> Item {
        let got = self.client.get_item().table_name(&self.name).set_key(Some(key)).send().await;
        got.expect("read").item.expect("it is there")
    }

    async fn put(&self, item: Item) {
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item));
        put.send().await.expect("written");
    }

    async fn set(&self, key: Item, name: &str, value: AttributeValue) {
        let mut item = self.item(key).await;
        item.insert(name.into(), value);
        self.put(item).await;
    }

    /// Every item has an expiry.
    async fn all_expire(&self) {
        for item in self.items().await {
            assert!(item.contains_key("ttl_at"), "an item without expiry: {item:?}");
        }
    }
}

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

/// Batch `index` with nine items processed and one that failed.
fn with_an_error(index: u64) -> BatchReport {
    let error = ItemError::new(batch(index), Some(index * 10), "lead-unusable", "No e-mail address.");
    BatchReport::completed(batch(index), 9, 1).with_errors([error])
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

#[tokio::test]
async fn every_item_expires_from_its_first_write_on() {
    let table = Table::open().await;
    let mut policy = Policy::default();
    policy.track_starts = true;
    policy.tolerance = Tolerance::Batches(9);
    let new = NewJob::new(FileInfo::new("keyed.csv", 1, "text/csv").expect("a file")).with_key("k");
    table.jobs().create(new).await.expect("created");
    let id = table.job(policy, 600).await;
    table.tracker.begin_all(id, &[batch(0), batch(300)]).await.expect("begun");
    table.tracker.report(id, vec![with_an_error(1)]).await.expect("reported");
    let failed = BatchReport::failed(batch(2), 10, "llm-refused", "The model refused.");
    table.tracker.report(id, vec![failed]).await.expect("reported");
    table.all_expire().await;

    // After the end: late errors, a chunk that nobody had written, the start of a batch by a worker that
    // has not heard of the end.
    table.jobs().cancel(id, None).await.expect("requested");
    table.tracker.begin(id, batch(3)).await.expect("confirmed");
    table.tracker.report(id, vec![with_an_error(4), with_an_error(599)]).await.expect("late, and counted");
    table.all_expire().await;
    let retention =
        table.store.job(id, status_core::Consistency::Strong).await.expect("read").expect("there");
    let ttl = layout::seconds(retention.expires_at());
    for number in [0, 2] {
        assert_eq!(
            table.item(layout::chunk_key(id, number)).await.get("ttl_at"),
            Some(&ttl),
            "chunk {number}"
        );
    }
}

#[tokio::test]
async fn nothing_is_left_of_reports_of_a_job_that_does_not_exist() {
    let table = Table::open().await;
    let nowhere = JobId::new(table.clock.now());
    for report in [with_an_error(0), BatchReport::completed(batch(1), 10, 0)] {
        let refused = table.tracker.report(nowhere, vec![report]).await;
        assert!(matches!(refused, Err(status_core::Error::NotFound(_))), "{refused:?}");
    }
    assert_eq!(table.items().await, Vec::<Item>::new());
}

#[tokio::test]
async fn a_key_that_was_claimed_for_a_job_that_never_came_expires_and_is_taken_over() {
    let table = Table::open().await;
    let new = || NewJob::new(FileInfo::new("leads.csv", 1, "text/csv").expect("a file")).with_key("k");
    let first = table.jobs().create(new()).await.expect("created").id;
    // As its creator would have left it that died between the two writes.
    let delete = table.client.delete_item().table_name(&table.name);
    delete.set_key(Some(layout::head_key(first))).send().await.expect("deleted");
    table.all_expire().await;
    let second = table.jobs().create(new()).await.expect("taken over").id;
    assert_ne!(second, first);
    assert_eq!(table.jobs().create(new()).await.expect("found").id, second);
    // What bars the first one expires, too, and is shown to nobody.
    table.all_expire().await;
    let gone = table.store.read(first, status_core::Consistency::Strong).await.expect("an answer");
    assert_eq!(gone, None);
}

#[tokio::test]
async fn of_two_creations_with_one_key_the_slower_one_learns_of_the_other() {
    let table = Table::open().await;
    let owner = OwnerId::new("alice").expect("a name");
    let job = |name: &str| -> Job {
        let new = NewJob::new(FileInfo::new(name, 1, "text/csv").expect("a file")).with_key("k");
        let id = JobId::new(table.clock.now());
        new.into_job(id, owner.clone(), &Policy::default(), Actor::OWNER).expect("a job")
    };
    let (slow, fast) = (job("slow.csv"), job("fast.csv"));
    // The slow one has claimed the key, and not created its job yet.
    table.store.create(&slow).await.expect("created");
    let delete = table.client.delete_item().table_name(&table.name);
    delete.set_key(Some(layout::head_key(slow.id))).send().await.expect("deleted");
    assert_eq!(table.store.create(&fast).await.expect("created"), status_core::Created::New);
    // Now the slow one goes on.
    let status_core::Created::Existing(there) = table.store.create(&slow).await.expect("answered") else {
        panic!("both were told that they created the job");
    };
    assert_eq!((there.id, there.title.as_str()), (fast.id, "fast.csv"));
    assert_eq!(table.store.create(&fast).await.expect("repeated"), status_core::Created::New);
}

#[tokio::test]
async fn a_job_of_a_newer_layout_hides_no_other() {
    let table = Table::open().await;
    let ids = table.three_jobs().await;
    table.set(layout::head_key(ids[1]), "sv", number(99)).await;
    let listed = table.jobs().list(None, &PageRequest::first(10)).await.expect("listed");
    let shown: Vec<_> = listed.rows.iter().map(|job| job.id).collect();
    assert_eq!(shown, [ids[2], ids[0]]);
    assert_eq!(listed.damaged.len(), 1);
    assert!(listed.damaged[0].why.contains("update this program"), "{:?}", listed.damaged);
    let refused = table.jobs().snapshot(ids[1]).await.expect_err("it cannot be read");
    assert!(refused.to_string().contains("update this program"), "{refused}");
    table.set(layout::head_key(ids[1]), "sv", number(1)).await;
    table.set(layout::head_key(ids[1]), "job", AttributeValue::S("{".into())).await;
    let listed = table.jobs().list(None, &PageRequest::first(10)).await.expect("listed");
    assert_eq!((listed.rows.len(), listed.damaged.len()), (2, 1));

    // Nor does a running one whose chunk cannot be read.
    table.tracker.report(ids[0], vec![with_an_error(0)]).await.expect("reported");
    table.set(layout::chunk_key(ids[0], 0), "c", number(7)).await;
    let listed = table.jobs().list(None, &PageRequest::first(10)).await.expect("listed");
    assert_eq!((listed.rows.len(), listed.damaged.len()), (2, 1));
    assert_eq!(listed.rows.iter().filter(|job| job.damaged).count(), 1, "it is listed, with what is left");
}

#[tokio::test]
async fn damaged_errors_are_shown_as_damaged_and_block_no_decision() {
    let table = Table::open().await;
    let mut tolerant = Policy::default();
    tolerant.tolerance = Tolerance::Batches(1);
    let id = table.job(tolerant, 3).await;
    for index in 0..2 {
        let failed = BatchReport::failed(batch(index), 10, "llm-refused", "The model refused.");
        if index == 1 {
            let settled = status_core::Settled::Failed;
            table
                .set(layout::errors_key(id, batch(0), settled, 1), "rows", AttributeValue::S("no".into()))
                .await;
        }
        table.tracker.report(id, vec![failed]).await.expect("reported, and decided");
    }
    let snapshot = table.tracker.snapshot_now(id).await.expect("readable");
    assert_eq!(snapshot.status, Status::Failed);
    let errors = table.jobs().errors(id, &PageRequest::first(10)).await.expect("listed");
    assert_eq!((errors.rows.len(), errors.damaged.len()), (1, 1));
    assert_eq!(errors.rows[0].batch, batch(1));
}

#[tokio::test]
async fn an_alien_key_among_the_due_jobs_does_not_stop_the_sweep() {
    let table = Table::open().await;
    let id = table.job(Policy::default(), 1).await;
    for pk in ["", "zzz#not a job"] {
        let mut alien = table.item(layout::head_key(id)).await;
        alien.insert("pk".into(), AttributeValue::S(format!("alien{pk}")));
        alien.insert("due".into(), number(u64::from(!pk.is_empty())));
        table.put(alien).await;
    }
    table.clock.advance(Duration::from_secs(20 * 3_600));
    let swept = table.tracker.sweep().await.expect("swept");
    assert_eq!((swept.failed, swept.errors), (1, 2), "{swept:?}");
    let mut page = PageRequest::first(1);
    for _ in 0..2 {
        let due = table.store.due(table.clock.now(), &page).await.expect("listed");
        assert_eq!((due.rows.len(), due.damaged.len()), (0, 1), "page by page");
        page.cursor = due.next;
    }
}

/// Whether chunk 1 cannot be read.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Corrupt { subject, .. }) if subject.contains("chunk#00001"))
}

#[tokio::test]
async fn what_is_damaged_is_named_on_one_page_of_a_list() {
    let table = Table::open().await;
    let ids = table.three_jobs().await;
    table.set(layout::head_key(ids[1]), "sv", number(99)).await;
    let mut page = PageRequest::first(1);
    let mut named = Vec::new();
    loop {
        let listed = table.jobs().list(None, &page).await.expect("listed");
        named.push((listed.rows.len(), listed.damaged.len()));
        page.cursor = match listed.next {
            Some(next) => Some(next),
            None => break,
        };
    }
    assert_eq!(named.iter().fold((0, 0), |all, page| (all.0 + page.0, all.1 + page.1)), (2, 1), "{named:?}");
}

#[tokio::test]
async fn batches_beside_a_damaged_chunk_are_listed() {
    let table = Table::open().await;
    let id = table.job(Policy::default(), 600).await;
    for index in [3, 300, 599] {
        table.tracker.report(id, vec![BatchReport::completed(batch(index), 1, 0)]).await.expect("reported");
    }
    let mut stranger = layout::chunk_key(id, 1);
    stranger.insert("sk".into(), AttributeValue::S("stranger".into()));
    table.put(stranger).await;
    let completed = async |from, limit| table.tracker.batches(id, BatchState::Completed, from, limit).await;
    assert_eq!(completed(0, 9).await.expect("an item that is no chunk has no batches").len(), 3);
    table.set(layout::chunk_key(id, 1), "c", number(7)).await;
    assert_eq!(completed(0, 1).await.expect("before it"), [batch(3)]);
    assert_eq!(completed(512, 9).await.expect("after it"), [batch(599)]);
    let error = completed(0, 9).await.expect_err("nobody can tell");
    assert!(is_damage(&error), "{error:?}");
    // Also where nobody knows how many there are.
    let open = table.jobs().create(NewJob::titled("a")).await.expect("created").id;
    table.tracker.start(open, None, &Actor::named("splitter")).await.expect("started");
    for index in [3, 300] {
        table.tracker.report(open, vec![BatchReport::completed(batch(index), 1, 0)]).await.expect("reported");
    }
    table.set(layout::chunk_key(open, 1), "c", number(7)).await;
    let error = table.tracker.batches(open, BatchState::Completed, 0, 9).await.expect_err("nobody can tell");
    assert!(is_damage(&error), "{error:?}");
}

#[tokio::test]
async fn sums_that_disagreeing_reports_left_below_zero_stay_readable() {
    let table = Table::open().await;
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Percent(100);
    let id = table.job(policy, 3).await;
    table.tracker.report(id, vec![BatchReport::failed(batch(0), 0, "x", "x")]).await.expect("reported");
    table.tracker.report(id, vec![BatchReport::completed(batch(0), 10, 0)]).await.expect("reported");
    for index in [1, 2] {
        let huge = BatchReport::completed(batch(index), u64::MAX, u64::MAX);
        table.tracker.report(id, vec![huge]).await.expect("reported");
    }
    let snapshot = table.jobs().snapshot(id).await.expect("readable");
    assert_eq!(snapshot.status, Status::Completed);
    let items = snapshot.progress.items;
    assert_eq!((items.processed, items.failed), (10 + 2 * BatchReport::MAX_ITEMS, 0));
}

#[tokio::test]
async fn a_chunk_stays_within_one_write_unit() {
    let table = Table::open().await;
    let id = table.job(Policy::default(), 257).await;
    for index in 0..255 {
        let took = Duration::from_secs(3_000 + index);
        table.tracker.report(id, vec![with_an_error(index).took(took)]).await.expect("reported");
    }
    let size = layout::size_of(&table.item(layout::chunk_key(id, 0)).await);
    assert!((700..=1_024).contains(&size), "{size} bytes");
}

#[tokio::test]
async fn a_chunk_of_failures_says_what_each_batch_failed_with() {
    let table = Table::open().await;
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Percent(100);
    let id = table.job(policy, 257).await;
    for part in (0..255).collect::<Vec<_>>().chunks(32) {
        let failed =
            |index: &u64| BatchReport::failed(batch(*index), 10, "llm-refused", "The model refused.");
        table.tracker.report(id, part.iter().map(failed).collect()).await.expect("reported");
    }
    let size = layout::size_of(&table.item(layout::chunk_key(id, 0)).await);
    assert!((3 * 1_024..=4 * 1_024).contains(&size), "{size} bytes");
}
