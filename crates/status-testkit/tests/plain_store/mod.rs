//! A backend to copy: the simplest that keeps the whole contract. One lock around one map.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Clock, Consistency, Created, Due, Effect, ErrorsPosition,
    Facts, ItemError, Job, JobId, JobState, OwnerId, Page, PageRequest, Settled, Status, StatusStore,
    StoreError, Timestamp, Written,
};

/// Where the data are: what a file or a server is to others. Clones are the same place.
pub(crate) type Place = Arc<Mutex<BTreeMap<JobId, Entry>>>;

/// The store. Any number of them may share a place.
#[derive(Debug)]
pub(crate) struct PlainStore {
    jobs: Place,
    clock: Arc<dyn Clock>,
}

/// All that is known of a job.
#[derive(Debug)]
pub(crate) struct Entry {
    job: Job,
    /// From when a sweeper should look; `None` once the end is propagated.
    due: Option<Timestamp>,
    /// The report of each batch that counted last.
    counted: BTreeMap<BatchIndex, BatchReport>,
    /// The sums over all that counted.
    facts: Facts,
    /// When batches in flight were begun.
    starts: BTreeMap<BatchIndex, Timestamp>,
}

impl PlainStore {
    pub(crate) fn new(jobs: Place, clock: Arc<dyn Clock>) -> Self {
        Self { jobs, clock }
    }

    /// The jobs that have not expired; the others are forgotten by the way.
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Entry>> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        jobs.retain(|_, entry| entry.job.expires_at() > now);
        jobs
    }

    /// The result of `f` on the job's entry, if there is one.
    fn with<T>(&self, id: JobId, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.jobs().get_mut(&id).map(f)
    }
}

impl Entry {
    fn new(job: Job) -> Self {
        let due = Some(job.due_at());
        let (counted, facts, starts) = Default::default();
        Self { job, due, counted, facts, starts }
    }

    fn has(&self, batch: BatchIndex) -> bool {
        self.job.total().is_none_or(|total| batch.get() < total)
    }

    fn settled(&self, batch: BatchIndex) -> Option<Settled> {
        self.counted.get(&batch).map(BatchReport::settles_as)
    }

    fn facts(&self) -> Facts {
        let mut facts = self.facts.clone();
        // A batch past the total that was reported before the seal must not stand for one of the job's own.
        for (_, stray) in self.counted.iter().rev().take_while(|(batch, _)| !self.has(**batch)) {
            match stray.settles_as() {
                Settled::Completed => facts.set_aside(1, 0),
                Settled::Failed => facts.set_aside(0, 1),
            }
        }
        facts.running = self.starts.values().copied().collect();
        facts
    }

    fn may_decide(&self) -> bool {
        self.job.is_decided_by(&self.facts().counts)
    }

    fn report(&mut self, report: &BatchReport, at: Timestamp) -> Effect {
        let batch = report.batch();
        if !self.has(batch) {
            return Effect::OutOfRange;
        }
        let effect = report.effect(self.settled(batch));
        if effect.is_change() {
            self.starts.remove(&batch);
            let failed_before = self.counted.get(&batch).map_or(0, BatchReport::items);
            self.facts.add(self.job.id, report, effect, failed_before, at);
            self.counted.insert(batch, report.clone());
        }
        effect
    }

    /// The errors of the attempts that counted, as many as are listed, and where each of them stands.
    fn errors(&self) -> impl Iterator<Item = (ErrorsPosition, &ItemError)> {
        let all = self.counted.values().flat_map(|report| report.errors().iter().enumerate());
        let listed = all.zip(0..self.job.policy.max_errors);
        listed.map(|((place, error), listed)| {
            let batch = error.batch.get();
            (ErrorsPosition { batch, place, listed }, error)
        })
    }
}

/// The rows from where the page begins, cut to its limit; `position` is where a row stands in the list.
fn page<T, P>(rows: Vec<T>, limit: usize, position: impl Fn(&T) -> P) -> Page<T>
where
    P: std::fmt::Display,
{
    let more = rows.len() > limit;
    let rows: Vec<_> = rows.into_iter().take(limit).collect();
    let next = rows.last().filter(|_| more).map(|last| position(last).to_string());
    Page::new(rows, next)
}

#[async_trait]
impl StatusStore for PlainStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        let mut jobs = self.jobs();
        let has_key = |other: &&Entry| {
            let keys = (&other.job.idempotency_key, &job.idempotency_key);
            other.job.owner == job.owner && keys.1.is_some() && keys.0 == keys.1
        };
        let existing = jobs.values().find(has_key).or_else(|| jobs.get(&job.id));
        match existing {
            // The same creation again, after a lost answer.
            Some(entry) if entry.job.id == job.id && entry.job.is_same_request(job) => Ok(Created::New),
            Some(entry) => Ok(Created::Existing(Box::new(entry.job.clone()))),
            None => {
                jobs.insert(job.id, Entry::new(job.clone()));
                Ok(Created::New)
            }
        }
    }

    async fn job(&self, id: JobId, _: Consistency) -> Result<Option<Job>, StoreError> {
        Ok(self.with(id, |entry| entry.job.clone()))
    }

    async fn read(&self, id: JobId, _: Consistency) -> Result<Option<JobState>, StoreError> {
        Ok(self.with(id, |entry| JobState::new(entry.job.clone(), entry.facts())))
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        let swap = |entry: &mut Entry| {
            if entry.job == *next {
                return Ok(());
            }
            if entry.job.revision + 1 != next.revision {
                return Err(StoreError::Conflict(next.id));
            }
            entry.job = next.clone();
            entry.due = Some(next.due_at());
            Ok(())
        };
        self.with(next.id, swap).ok_or(StoreError::NotFound(next.id))?
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        // There is nowhere else to carry a decision to.
        self.with(job.id, |entry| {
            if entry.job.status.is_terminal() {
                entry.due = None;
            }
        });
        Ok(())
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        Ok(self.with(id, |entry| {
            let batches: BTreeSet<_> = batches.iter().copied().collect();
            let settled: Vec<_> = batches.into_iter().map(|batch| (batch, entry.settled(batch))).collect();
            for (batch, settled) in &settled {
                if entry.job.notes_starts() && settled.is_none() && entry.has(*batch) {
                    entry.starts.insert(*batch, at);
                }
            }
            Begun::new(entry.job.clone(), settled, entry.may_decide())
        }))
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        let report = |entry: &mut Entry| {
            let effects = reports.iter().map(|report| (report.batch(), entry.report(report, at))).collect();
            Written::new(effects, entry.may_decide(), Some(entry.job.status))
        };
        self.with(id, report).ok_or(StoreError::NotFound(id))
    }

    async fn errors(&self, id: JobId, request: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        let from: ErrorsPosition = request.position()?.unwrap_or_default();
        let list = |entry: &mut Entry| {
            let rest = entry.errors().skip_while(|(at, _)| (at.batch, at.place) < (from.batch, from.place));
            let mut rest = rest.peekable();
            let rows = rest.by_ref().take(request.limit).map(|(_, error)| error.clone()).collect();
            Page::new(rows, rest.peek().map(|(at, _)| at.to_string()))
        };
        Ok(self.with(id, list).unwrap_or_else(|| Page::new(Vec::new(), None)))
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        let list = |entry: &mut Entry| {
            let seen = entry.facts.highest.map_or(0, |highest| highest.get() + 1);
            let all = (from..entry.job.total().unwrap_or(seen)).filter_map(|i| BatchIndex::new(i).ok());
            all.filter(|batch| which.holds(entry.settled(*batch))).take(limit).collect()
        };
        self.with(id, list).ok_or(StoreError::NotFound(id))
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        request: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let after: Option<JobId> = request.position()?;
        let jobs = self.jobs();
        let newest_first = jobs.values().rev().map(|entry| &entry.job);
        let wanted = newest_first.filter(|job| {
            let in_status = status.is_none_or(|status| job.status == status);
            job.owner == *owner && in_status && after.is_none_or(|after| job.id < after)
        });
        Ok(page(wanted.cloned().collect(), request.limit, |job: &Job| job.id))
    }

    async fn due(&self, now: Timestamp, request: &PageRequest) -> Result<Page<Due>, StoreError> {
        let after: Option<JobId> = request.position()?;
        let jobs = self.jobs();
        let due = jobs.values().filter_map(|entry| {
            let at = entry.due.filter(|at| *at <= now)?;
            after.is_none_or(|after| entry.job.id > after).then(|| Due::new(entry.job.id, at))
        });
        Ok(page(due.collect(), request.limit, |due: &Due| due.id))
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        let moved = self.with(due.id, |entry| {
            let is_ours = entry.due == Some(due.at);
            if is_ours {
                entry.due = Some(until);
            }
            is_ours
        });
        Ok(moved.unwrap_or(false))
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        self.jobs().remove(&id);
        Ok(())
    }
}
