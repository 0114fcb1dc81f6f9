//! The trait: each method is one task for a reader or for the writer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::Connection;
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Consistency, Created, Due, ItemError, Job, JobId, JobState,
    OwnerId, Page, PageRequest, Status, StatusStore, StoreError, Timestamp, Written,
};

use crate::{SqliteStore, batches, errors, failure::Failure, jobs, lists, vacuum};

/// Expired jobs that are deleted in one transaction.
const PURGED_AT_ONCE: usize = 100;

#[async_trait]
impl StatusStore for SqliteStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        let (job, now) = (job.clone(), self.now());
        self.write_by("create", job.id, move |connection| jobs::create(connection, &job, now)).await
    }

    async fn job(&self, id: JobId, _: Consistency) -> Result<Option<Job>, StoreError> {
        let now = self.now();
        let found = self.read_by("read", jobs::named(id), move |connection| jobs::find(connection, id, now));
        Ok(found.await?.map(|stored| Arc::unwrap_or_clone(stored.job)))
    }

    async fn read(&self, id: JobId, _: Consistency) -> Result<Option<JobState>, StoreError> {
        let now = self.now();
        self.read_by("read", jobs::named(id), move |connection| batches::read(connection, id, now)).await
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        let (next, now) = (next.clone(), self.now());
        self.write_by("decide", next.id, move |connection| jobs::decide(connection, &next, now)).await
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        let job = job.clone();
        self.write_by("propagate", job.id, move |connection| jobs::propagate(connection, &job)).await
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        let now = self.now();
        let mut batches = batches.to_vec();
        batches.sort_unstable();
        batches.dedup();
        let asked = batches.clone();
        let look = move |connection: &Connection| batches::look(connection, id, &asked, now);
        let begun = self.read_by("begin", jobs::named(id), look).await?;
        // Most jobs do not track starts: beginning a batch of them waits for no disk.
        if begun.as_ref().is_none_or(|begun| batches::starting(begun).next().is_none()) {
            return Ok(begun);
        }
        self.write_by("begin", id, move |connection| batches::begin(connection, id, &batches, at, now)).await
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        let (reports, now) = (reports.to_vec(), self.now());
        self.write_by("report", id, move |connection| batches::report(connection, id, &reports, at, now))
            .await
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        let (page, now) = (page.clone(), self.now());
        let from = page.position()?.unwrap_or_default();
        let list = move |connection: &Connection| errors::list(connection, id, from, &page, now);
        self.read_by("list errors", jobs::named(id), list).await
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        let now = self.now();
        let list = move |connection: &Connection| batches::list(connection, id, which, from, limit, now);
        self.read_by("list batches", jobs::named(id), list).await
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let (of, page, now) = (owner.clone(), page.clone(), self.now());
        let list = move |connection: &Connection| lists::of_owner(connection, &of, status, &page, now);
        self.read_by("list", || format!("jobs of {owner}"), list).await
    }

    async fn due(&self, until: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        let (page, now) = (page.clone(), self.now());
        let list = move |connection: &Connection| lists::due(connection, until, &page, now);
        self.read_by("list", || "jobs that are due".into(), list).await
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        let (due, now) = (*due, self.now());
        self.write_by("postpone", due.id, move |connection| jobs::postpone(connection, &due, until, now))
            .await
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        self.write_by("erase", id, move |connection| jobs::erase(connection, id)).await
    }

    /// Deletes what has expired, and gives space back to the file system where a quarter of the
    /// file is free; both in small transactions, between which others write.
    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        let subject = |failure: Failure| failure.of("purge", "expired jobs".into());
        let writer = &self.handle.writer;
        let mut purged = 0;
        loop {
            let step = move |connection: &Connection| jobs::purge(connection, now, PURGED_AT_ONCE);
            let deleted = writer.write(None, step).await.map_err(subject)?;
            purged += deleted as u64;
            if deleted < PURGED_AT_ONCE {
                break;
            }
        }
        while purged > 0 && writer.write(None, vacuum::step).await.map_err(subject)? {}
        Ok(purged)
    }

    async fn count_open(&self, owner: &OwnerId, at_most: usize) -> Result<usize, StoreError> {
        let (of, now) = (owner.clone(), self.now());
        let count = move |connection: &Connection| lists::count_open(connection, &of, at_most, now);
        self.read_by("count", || format!("jobs of {owner}"), count).await
    }

    async fn changed_since(
        &self,
        owner: &OwnerId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let (of, now) = (owner.clone(), self.now());
        let list = move |connection: &Connection| lists::changed(connection, &of, since, limit, now);
        self.read_by("list", || format!("jobs of {owner}"), list).await
    }

    async fn last_completed(
        &self,
        owner: &OwnerId,
        kind: &str,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let (of, kind, now) = (owner.clone(), kind.to_owned(), self.now());
        let list = move |connection: &Connection| lists::completed(connection, &of, &kind, limit, now);
        self.read_by("list", || format!("jobs of {owner}"), list).await
    }

    async fn list_open(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
        let (page, now) = (page.clone(), self.now());
        let list = move |connection: &Connection| lists::open(connection, &page, now);
        self.read_by("list", || "open jobs".into(), list).await
    }

    async fn changed(&self, id: JobId, version: u64, at_most: Duration) {
        let changed = async {
            let mut watching = self.handle.watchers.subscribe(id);
            self.handle.writer.watch();
            // Other jobs, and other processes, wake us too.
            while let Ok(Some(state)) = self.read(id, Consistency::Eventual).await {
                if state.version() != version {
                    return;
                }
                watching.changed().await;
            }
            // A job that is gone does not change again.
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(at_most, changed).await;
    }
}
