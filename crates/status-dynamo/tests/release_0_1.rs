//! A table that release 0.1 wrote is read and moved on. `data/release-0.1.0.json` has its items as that
//! release wrote them on 1 November 2026: jobs in every state, chunks compacted and not, starts, errors.

mod common;

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use status_core::{
    Actor, BatchIndex, BatchReport, Begin, FileInfo, JobId, ManualClock, NewJob, OwnedJobs, OwnerId,
    PageRequest, Status, Totals, Tracker,
};

const TABLE: &str = include_str!("data/release-0.1.0.json");
/// Two minutes after the table was written.
const NOW: i64 = 1_793_491_200_000 + 120_000;

struct Release {
    ids: HashMap<String, JobId>,
    tracker: Tracker,
    jobs: OwnedJobs,
    clock: Arc<ManualClock>,
}

impl Release {
    async fn open() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let client = common::client(&common::embedded().await);
        let (store, name) = common::table_of(client.clone(), clock.clone()).await;
        let table: Value = serde_json::from_str(TABLE).expect("JSON");
        for item in table["items"].as_array().expect("items") {
            let item = item.as_object().expect("an item");
            let item = item.iter().map(|(name, value)| (name.clone(), attribute(value))).collect();
            let put = client.put_item().table_name(&name).set_item(Some(item));
            put.send().await.expect("written");
        }
        let tracker = Tracker::new(store).with_clock(clock.clone());
        let jobs = tracker.owned_by(OwnerId::new("alice").expect("a name"));
        let ids = table["jobs"].as_object().expect("names").iter();
        let id = |id: &Value| id.as_str().expect("text").parse().expect("an id");
        Self { ids: ids.map(|(name, text)| (name.clone(), id(text))).collect(), tracker, jobs, clock }
    }

    async fn report(&self, id: JobId, report: BatchReport) {
        self.tracker.report(id, vec![report]).await.expect("reported");
    }

    async fn status(&self, name: &str) -> Status {
        self.jobs.snapshot(self.ids[name]).await.expect("readable").status
    }

    /// The batches and items of the errors that are listed.
    async fn errors(&self, name: &str) -> Vec<(u64, Option<u64>)> {
        let page = self.jobs.errors(self.ids[name], &PageRequest::first(100)).await.expect("listed");
        assert_eq!(page.damaged, []);
        page.rows.iter().map(|error| (error.batch.get(), error.item)).collect()
    }
}

/// A value in DynamoDB's own JSON.
fn attribute(value: &Value) -> AttributeValue {
    let (kind, value) = value.as_object().and_then(|value| value.iter().next()).expect("a value");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    match kind.as_str() {
        "S" => AttributeValue::S(text(value)),
        "N" => AttributeValue::N(text(value)),
        "SS" => AttributeValue::Ss(value.as_array().expect("a set").iter().map(text).collect()),
        other => panic!("{other}"),
    }
}

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

fn done(index: u64) -> BatchReport {
    BatchReport::completed(batch(index), 10, 0)
}

#[tokio::test]
async fn every_job_of_the_last_release_is_read() {
    let release = Release::open().await;
    let listed = release.jobs.list(None, &PageRequest::first(20)).await.expect("listed");
    assert_eq!((listed.rows.len(), listed.damaged), (8, vec![]));
    for (name, status) in [
        ("uploading", Status::Uploading),
        ("uploaded", Status::Uploaded),
        ("streaming", Status::Processing),
        ("processing", Status::Processing),
        ("cancelling", Status::Processing),
        ("completed", Status::Completed),
        ("failed", Status::Failed),
    ] {
        let job = release.jobs.snapshot(release.ids[name]).await.expect("readable");
        assert_eq!((job.status, job.title), (status, format!("{name}.csv")));
    }
    let running = release.jobs.snapshot(release.ids["processing"]).await.expect("readable").progress;
    assert_eq!((running.batches.completed, running.batches.failed), (258, 1));
    assert_eq!((running.items.processed, running.items.failed), (255 * 10 + 9 + 9 + 10, 12));
    assert_eq!(running.batches.running, Some(1));
    assert_eq!(release.errors("processing").await, [(7, Some(73)), (256, None), (257, Some(2_573))]);
    assert_eq!(release.errors("completed").await, [(1, None), (2, Some(23))]);
}

#[tokio::test]
async fn every_job_of_the_last_release_moves_on() {
    let release = Release::open().await;
    let id = |name: &str| release.ids[name];
    assert_eq!(release.status("undecided").await, Status::Completed, "a poll decides it");

    release.jobs.finish_upload(id("uploading")).await.expect("uploaded");
    let splitter = Actor::named("splitter");
    for name in ["uploading", "uploaded"] {
        let totals = Some(Totals { batches: 1, items: None });
        release.tracker.start(id(name), totals, &splitter).await.expect("started");
        release.report(id(name), done(0)).await;
        assert_eq!(release.status(name).await, Status::Completed, "{name}");
    }

    let totals = Totals { batches: 3, items: None };
    release.tracker.seal(id("streaming"), totals, &splitter).await.expect("sealed");
    assert_eq!(release.status("streaming").await, Status::Completed);

    let begun = release.tracker.begin(id("cancelling"), batch(1)).await.expect("begun");
    assert_eq!(begun, Begin::Over(Status::Cancelled));

    // What failed is corrected, what completed stays, and the rest is done.
    let processing = id("processing");
    assert_eq!(release.tracker.begin(processing, batch(7)).await.expect("begun"), Begin::AlreadyCompleted);
    assert_eq!(release.tracker.begin(processing, batch(256)).await.expect("begun"), Begin::Work);
    for index in [7, 256, 256, 259].into_iter().chain(260..300) {
        release.report(processing, done(index)).await;
    }
    let done = release.jobs.snapshot(processing).await.expect("readable");
    assert_eq!(done.status, Status::Completed);
    assert_eq!((done.progress.batches.completed, done.progress.batches.failed), (300, 0));
    assert_eq!((done.progress.items.processed, done.progress.items.failed), (2_998, 2));
    assert_eq!(release.errors("processing").await, [(7, Some(73)), (257, Some(2_573))]);
}

#[tokio::test]
async fn a_key_of_the_last_release_gives_its_job() {
    let release = Release::open().await;
    let again = |size| {
        let file = FileInfo::new("uploaded.csv", size, "text/csv").expect("a file");
        NewJob::new(file).with_key("key of uploaded")
    };
    let found = release.jobs.create(again(2_000)).await.expect("found");
    assert_eq!(found.id, release.ids["uploaded"]);
    let other = release.jobs.create(again(1)).await;
    assert!(matches!(other, Err(status_core::Error::KeyReused)), "{other:?}");
}

#[tokio::test]
async fn the_sweeper_ends_what_the_last_release_left() {
    let release = Release::open().await;
    release.clock.advance(Duration::from_secs(13 * 3_600));
    let swept = release.tracker.sweep().await.expect("swept");
    assert_eq!((swept.completed, swept.failed, swept.cancelled, swept.errors), (1, 4, 1, 0), "{swept:?}");
    release.clock.advance(Duration::from_secs(91 * 86_400));
    let listed = release.jobs.list(None, &PageRequest::first(20)).await.expect("listed");
    assert_eq!(listed.rows.len(), 0, "their retention is over");
}
