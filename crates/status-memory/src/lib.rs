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
    BatchIndex, BatchReport, Begun, Clock, Consistency, Created, ItemError, Job, JobId, OwnerId, Page,
    PageRequest, Record, Recorded, Status, StatusStore, StoreError, SystemClock, Timestamp,
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
        if entry.job.expires_at().is_some_and(|at| at <= self.clock.now()) {
            return None;
        }
        Some(f(entry))
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
        self.shard(job.id).entry(job.id).or_insert_with(|| Entry::new(job.clone()));
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

    async fn read(&self, id: JobId, _: Consistency) -> Result<Option<Record>, StoreError> {
        Ok(self.with(id, |entry| entry.record()))
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        let decided = self.with(next.id, |entry| entry.decide(next)).ok_or(StoreError::NotFound(next.id))?;
        if let Some(at) = next.expires_at().filter(|_| decided.is_ok()) {
            self.index().expires(next.id, at);
        }
        decided
    }

    async fn propagate(&self, _: &Job) -> Result<(), StoreError> {
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

    async fn record(
        &self,
        id: JobId,
        reports: &[BatchReport],
        at: Timestamp,
    ) -> Result<Recorded, StoreError> {
        self.with(id, |entry| entry.record_all(reports, at)).ok_or(StoreError::NotFound(id))?
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        self.with(id, |entry| entry.errors(page)).unwrap_or(Ok(Page { rows: Vec::new(), next: None }))
    }

    async fn unsettled(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<BatchIndex>, StoreError> {
        self.with(id, |entry| entry.unsettled(from, limit)).ok_or(StoreError::NotFound(id))
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let after =
            page.cursor.as_deref().map(str::parse).transpose().map_err(|_| StoreError::InvalidCursor)?;
        let ids = self.index().of_owner(owner, after);
        let mut rows = Vec::new();
        for id in ids {
            let job = self.with(id, |entry| entry.job.clone());
            let Some(job) = job.filter(|job| status.is_none_or(|status| job.status == status)) else {
                continue;
            };
            if rows.len() == page.limit {
                return Ok(Page { next: rows.last().map(|job: &Job| job.id.to_string()), rows });
            }
            rows.push(job);
        }
        Ok(Page { rows, next: None })
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<JobId>, StoreError> {
        let after: Option<JobId> =
            page.cursor.as_deref().map(str::parse).transpose().map_err(|_| StoreError::InvalidCursor)?;
        let mut rows = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let due = shard.values().filter(|e| e.job.due_at().is_some_and(|at| at <= now)).map(|e| e.job.id);
            rows.extend(due.filter(|id| after.is_none_or(|after| *id > after)));
        }
        rows.sort_unstable();
        let more = rows.len() > page.limit;
        rows.truncate(page.limit);
        Ok(Page { next: rows.last().filter(|_| more).map(JobId::to_string), rows })
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
