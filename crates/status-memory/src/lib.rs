//! A [`StatusStore`] in the memory of one process: for tests, demos and small servers.
//!
//! Jobs are spread over locks, a batch is two bits, and whoever waits for a change is woken by it. The store is
//! bounded: terminal jobs are forgotten when their retention is over or room is needed, oldest first; a store full of live
//! jobs refuses new ones.
//!
//! ```
//! use std::sync::Arc;
//! use status_core::Tracker;
//! use status_memory::MemoryStore;
//!
//! let tracker = Tracker::new(Arc::new(MemoryStore::default()));
//! ```

mod entry;
mod index;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Clock, Consistency, Created, Due, ItemError, Job, JobId,
    JobState, OwnerId, Page, PageRequest, Status, StatusStore, StoreError, SystemClock, Timestamp, Written,
};

use crate::{entry::Entry, index::Index};

const SHARDS: usize = 64;

/// The store. Share it as an `Arc`.
#[derive(Debug)]
pub struct MemoryStore {
    shards: Box<[Mutex<HashMap<JobId, Entry>>]>,
    spread: RandomState,
    index: Mutex<Index>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryStore {
    /// Room for 10,000 jobs, on the system's clock.
    fn default() -> Self {
        Self::new(10_000, Arc::new(SystemClock))
    }
}

impl MemoryStore {
    /// A store with room for `capacity` jobs that forgets by `clock`.
    pub fn new(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            spread: RandomState::new(),
            index: Mutex::new(Index::new(capacity)),
            clock,
        }
    }

    fn shard(&self, id: JobId) -> MutexGuard<'_, HashMap<JobId, Entry>> {
        let shard = usize::try_from(self.spread.hash_one(id) % SHARDS as u64).unwrap_or(0);
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` on the job's entry, unless there is none or its retention is over.
    fn with<T>(&self, id: JobId, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut shard = self.shard(id);
        let entry = shard.get_mut(&id)?;
        (entry.job.expires_at() > self.clock.now()).then(|| f(entry))
    }

    fn forget(&self, jobs: Vec<JobId>) {
        for id in jobs {
            self.shard(id).remove(&id);
        }
    }
}

#[async_trait]
impl StatusStore for MemoryStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        // The entry first, the index second: whoever finds the job by the index finds the entry too.
        let known = {
            let mut shard = self.shard(job.id);
            shard.entry(job.id).or_insert_with(|| Entry::new(job.clone())).job.clone()
        };
        if !known.is_same_request(job) {
            return Ok(Created::Existing(Box::new(known)));
        }
        let (admitted, forgotten) = self.index().admit(job, self.clock.now());
        self.forget(forgotten);
        match admitted {
            Ok(id) if id == job.id => Ok(Created::New),
            Ok(id) => {
                self.forget(vec![job.id]);
                let existing = self.with(id, |entry| entry.job.clone()).ok_or(StoreError::NotFound(id))?;
                Ok(Created::Existing(Box::new(existing)))
            }
            Err(error) => {
                self.forget(vec![job.id]);
                Err(error)
            }
        }
    }

    async fn job(&self, id: JobId, _: Consistency) -> Result<Option<Job>, StoreError> {
        Ok(self.with(id, |entry| entry.job.clone()))
    }

    async fn read(&self, id: JobId, _: Consistency) -> Result<Option<JobState>, StoreError> {
        Ok(self.with(id, |entry| entry.state()))
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        self.with(next.id, |entry| entry.decide(next)).ok_or(StoreError::NotFound(next.id))??;
        if next.status.is_terminal() {
            self.index().is_over(next);
        }
        Ok(())
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        self.with(job.id, Entry::propagate);
        Ok(())
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        Ok(self.with(id, |entry| entry.begin(batches, at)))
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        self.with(id, |entry| entry.report(reports, at)).ok_or(StoreError::NotFound(id))
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        self.with(id, |entry| entry.errors(page)).unwrap_or_else(|| Ok(Page::new(Vec::new(), None)))
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        self.with(id, |entry| entry.batches(which, from, limit)).ok_or(StoreError::NotFound(id))
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let ids = self.index().of_owner(owner, page.position()?);
        let mut rows = Vec::new();
        for id in ids {
            let job = self.with(id, |entry| entry.job.clone());
            let Some(job) = job.filter(|job| status.is_none_or(|status| job.status == status)) else {
                continue;
            };
            if rows.len() == page.limit {
                let next = rows.last().map(|job: &Job| job.id.to_string());
                return Ok(Page::new(rows, next));
            }
            rows.push(job);
        }
        Ok(Page::new(rows, None))
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        let after: Option<JobId> = page.position()?;
        let (mut rows, today) = (Vec::new(), self.clock.now());
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = shard.values().filter(|entry| entry.job.expires_at() > today);
            let due = kept.filter_map(|entry| entry.due(now));
            rows.extend(due.filter(|due| after.is_none_or(|after| due.id > after)));
        }
        rows.sort_unstable_by_key(|due| due.id);
        let more = rows.len() > page.limit;
        rows.truncate(page.limit);
        let next = rows.last().filter(|_| more).map(|due| due.id.to_string());
        Ok(Page::new(rows, next))
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        Ok(self.with(due.id, |entry| entry.postpone(due, until)).unwrap_or(false))
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        self.index().remove(id);
        self.forget(vec![id]);
        Ok(())
    }

    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        let forgotten = self.index().forget_expired(now);
        let count = forgotten.len() as u64;
        self.forget(forgotten);
        Ok(count)
    }

    async fn changed(&self, id: JobId, version: u64, at_most: Duration) {
        let changed = async {
            // A job that is gone does not change again.
            let Some(mut changes) = self.with(id, |entry| entry.changes.subscribe()) else {
                return std::future::pending().await;
            };
            if changes.wait_for(|now| *now != version).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(at_most, changed).await;
    }
}
