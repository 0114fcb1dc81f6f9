//! What is found by something else than its id: an owner's jobs, idempotency keys, what may be forgotten.

use std::collections::{BTreeSet, HashMap};

use status_core::{Job, JobId, OwnerId, StoreError, Timestamp};

#[derive(Debug)]
pub(crate) struct Index {
    capacity: usize,
    owners: HashMap<OwnerId, BTreeSet<JobId>>,
    jobs: HashMap<JobId, Known>,
    keys: HashMap<(OwnerId, String), JobId>,
    /// All jobs by when they expire.
    expiring: BTreeSet<(Timestamp, JobId)>,
    /// Those that are over: what may be forgotten to make room.
    terminal: BTreeSet<(Timestamp, JobId)>,
}

#[derive(Debug)]
struct Known {
    owner: OwnerId,
    key: Option<String>,
    expires: Timestamp,
}

impl Index {
    pub(crate) fn new(capacity: usize) -> Self {
        let (owners, jobs, keys, expiring, terminal) = Default::default();
        Self { capacity, owners, jobs, keys, expiring, terminal }
    }

    /// Enters `job`, or names the job that has its key; with it the jobs that were forgotten to make room.
    pub(crate) fn admit(&mut self, job: &Job, now: Timestamp) -> (Result<JobId, StoreError>, Vec<JobId>) {
        let mut forgotten = self.forget_expired(now);
        let key = job.idempotency_key.clone().map(|key| (job.owner.clone(), key));
        if let Some(id) = key.as_ref().and_then(|key| self.keys.get(key)) {
            return (Ok(*id), forgotten);
        }
        if self.jobs.contains_key(&job.id) {
            return (Ok(job.id), forgotten);
        }
        if self.jobs.len() >= self.capacity {
            let Some((_, oldest)) = self.terminal.pop_first() else {
                return (Err(StoreError::Full(self.jobs.len())), forgotten);
            };
            self.remove(oldest);
            forgotten.push(oldest);
        }
        if let Some(key) = key {
            self.keys.insert(key, job.id);
        }
        let (owner, key, expires) = (job.owner.clone(), job.idempotency_key.clone(), job.expires_at());
        self.owners.entry(owner.clone()).or_default().insert(job.id);
        self.jobs.insert(job.id, Known { owner, key, expires });
        self.expiring.insert((expires, job.id));
        (Ok(job.id), forgotten)
    }

    /// Notes that a job is over: when it expires, and that it may be forgotten to make room.
    pub(crate) fn is_over(&mut self, job: &Job) {
        if let Some(known) = self.jobs.get_mut(&job.id) {
            self.expiring.remove(&(known.expires, job.id));
            known.expires = job.expires_at();
            self.expiring.insert((known.expires, job.id));
            self.terminal.insert((known.expires, job.id));
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

    pub(crate) fn forget_expired(&mut self, now: Timestamp) -> Vec<JobId> {
        let mut forgotten = Vec::new();
        while let Some((_, id)) = self.expiring.first().copied().filter(|(at, _)| *at <= now) {
            self.remove(id);
            forgotten.push(id);
        }
        forgotten
    }

    pub(crate) fn remove(&mut self, id: JobId) {
        let Some(Known { owner, key, expires }) = self.jobs.remove(&id) else { return };
        self.expiring.remove(&(expires, id));
        self.terminal.remove(&(expires, id));
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
