//! What is found by something else than its id: an owner's jobs, idempotency keys, what may be forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use status_core::{Job, JobId, OwnerId, StoreError, Timestamp};

#[derive(Debug)]
pub(crate) struct Index {
    capacity: usize,
    owners: HashMap<OwnerId, BTreeSet<JobId>>,
    jobs: HashMap<JobId, (OwnerId, Option<String>)>,
    keys: HashMap<(OwnerId, String), JobId>,
    terminal: BTreeMap<(Timestamp, JobId), ()>,
}

impl Index {
    pub(crate) fn new(capacity: usize) -> Self {
        let (owners, jobs, keys, terminal) = Default::default();
        Self { capacity, owners, jobs, keys, terminal }
    }

    /// Enters `job`, or names the job that has its key; with it the jobs that were forgotten to make room.
    pub(crate) fn admit(&mut self, job: &Job, now: Timestamp) -> (Result<JobId, StoreError>, Vec<JobId>) {
        let mut forgotten = self.forget_expired(now);
        let key = job.idempotency_key.clone().map(|key| (job.owner.clone(), key));
        if let Some(id) = key.as_ref().and_then(|key| self.keys.get(key)) {
            return (Ok(*id), forgotten);
        }
        if self.jobs.len() >= self.capacity && !self.jobs.contains_key(&job.id) {
            let Some(((_, oldest), ())) = self.terminal.pop_first() else {
                return (Err(StoreError::Full(self.jobs.len())), forgotten);
            };
            self.remove(oldest);
            forgotten.push(oldest);
        }
        if let Some(key) = key {
            self.keys.insert(key, job.id);
        }
        self.owners.entry(job.owner.clone()).or_default().insert(job.id);
        self.jobs.insert(job.id, (job.owner.clone(), job.idempotency_key.clone()));
        (Ok(job.id), forgotten)
    }

    /// Notes that `id` is terminal and may be forgotten from `at` on.
    pub(crate) fn expires(&mut self, id: JobId, at: Timestamp) {
        if self.jobs.contains_key(&id) {
            self.terminal.insert((at, id), ());
        }
    }

    /// The owner's jobs, newest first, those older than `after`.
    pub(crate) fn of_owner(&self, owner: &OwnerId, after: Option<JobId>) -> Vec<JobId> {
        let Some(jobs) = self.owners.get(owner) else { return Vec::new() };
        match after {
            Some(after) => jobs.range(..after).rev().copied().collect(),
            None => jobs.iter().rev().copied().collect(),
        }
    }

    fn forget_expired(&mut self, now: Timestamp) -> Vec<JobId> {
        let mut forgotten = Vec::new();
        while let Some(first) = self.terminal.first_entry().filter(|e| e.key().0 <= now) {
            let (_, id) = *first.key();
            first.remove();
            self.remove(id);
            forgotten.push(id);
        }
        forgotten
    }

    fn remove(&mut self, id: JobId) {
        let Some((owner, key)) = self.jobs.remove(&id) else { return };
        if let Some(jobs) = self.owners.get_mut(&owner) {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.owners.remove(&owner);
            }
        }
        if let Some(key) = key {
            self.keys.remove(&(owner, key));
        }
    }
}
