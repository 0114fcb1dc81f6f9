//! One job in memory: its record, two bits for each batch, the sums, and whom to wake.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Due, Effect, ErrorsPosition, Facts, ItemError, Job, JobState,
    Page, PageRequest, Settled, StoreError, Timestamp, Written,
    chunk::{self, Settlements},
};
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) job: Job,
    pub(crate) changes: watch::Sender<u64>,
    /// From when a sweeper should look; `None` once the end is propagated.
    due: Option<Timestamp>,
    facts: Facts,
    chunks: BTreeMap<u64, Settlements>,
    starts: HashMap<BatchIndex, Timestamp>,
    /// The items that were counted of batches that stand as failed.
    failed: HashMap<BatchIndex, u64>,
    errors: BTreeMap<BatchIndex, Vec<ItemError>>,
    errors_kept: u64,
}

impl Entry {
    pub(crate) fn new(job: Job) -> Self {
        Self {
            changes: watch::Sender::new(job.revision),
            due: Some(job.due_at()),
            job,
            facts: Facts::default(),
            chunks: BTreeMap::new(),
            starts: HashMap::new(),
            failed: HashMap::new(),
            errors: BTreeMap::new(),
            errors_kept: 0,
        }
    }

    pub(crate) fn state(&self) -> JobState {
        let mut facts = self.facts_of_its_batches();
        facts.running = self.starts.values().copied().collect();
        facts.running.sort_unstable();
        JobState::new(self.job.clone(), facts)
    }

    pub(crate) fn decide(&mut self, next: &Job) -> Result<(), StoreError> {
        if self.job == *next {
            return Ok(());
        }
        if self.job.revision + 1 != next.revision {
            return Err(StoreError::Conflict(next.id));
        }
        self.job = next.clone();
        self.due = Some(next.due_at());
        self.announce();
        Ok(())
    }

    /// A terminal job is not due any more: there is nowhere else to carry its end.
    pub(crate) fn propagate(&mut self) {
        if self.job.status.is_terminal() {
            self.due = None;
        }
    }

    pub(crate) fn due(&self, now: Timestamp) -> Option<Due> {
        self.due.filter(|at| *at <= now).map(|at| Due::new(self.job.id, at))
    }

    pub(crate) fn postpone(&mut self, due: &Due, until: Timestamp) -> bool {
        let is_ours = self.due == Some(due.at);
        if is_ours {
            self.due = Some(until);
        }
        is_ours
    }

    pub(crate) fn begin(&mut self, batches: &[BatchIndex], at: Timestamp) -> Begun {
        let batches: BTreeSet<_> = batches.iter().copied().collect();
        let settled: Vec<_> = batches.into_iter().map(|batch| (batch, self.settled(batch))).collect();
        if self.job.notes_starts() {
            let open = settled.iter().filter(|(batch, settled)| settled.is_none() && self.has(*batch));
            let open: Vec<_> = open.map(|(batch, _)| (*batch, at)).collect();
            self.starts.extend(open);
        }
        Begun::new(self.job.clone(), settled, self.may_decide())
    }

    pub(crate) fn report(&mut self, reports: &[BatchReport], at: Timestamp) -> Written {
        let effects = reports.iter().map(|report| (report.batch(), self.report_one(report, at))).collect();
        self.announce();
        Written::new(effects, self.may_decide(), Some(self.job.status))
    }

    pub(crate) fn errors(&self, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        let from: ErrorsPosition = page.position()?.unwrap_or_default();
        let first = BatchIndex::new(from.batch).map_err(|_| StoreError::InvalidCursor)?;
        let mut rows = Vec::new();
        for (batch, errors) in self.errors.range(first..) {
            let skip = if *batch == first { from.place } else { 0 };
            for (place, error) in errors.iter().enumerate().skip(skip) {
                if rows.len() == page.limit {
                    let listed = from.listed.saturating_add(rows.len() as u64);
                    let next = ErrorsPosition { batch: batch.get(), place, listed };
                    return Ok(Page::new(rows, Some(next.to_string())));
                }
                rows.push(error.clone());
            }
        }
        Ok(Page::new(rows, None))
    }

    pub(crate) fn batches(&self, which: BatchState, from: u64, limit: usize) -> Vec<BatchIndex> {
        let seen = self.facts.highest.map_or(0, |highest| highest.get() + 1);
        let batches = (from..self.job.total().unwrap_or(seen)).filter_map(|i| BatchIndex::new(i).ok());
        batches.filter(|batch| which.holds(self.settled(*batch))).take(limit).collect()
    }

    fn report_one(&mut self, report: &BatchReport, at: Timestamp) -> Effect {
        let batch = report.batch();
        if !self.has(batch) {
            return Effect::OutOfRange;
        }
        let effect = report.effect(self.settled(batch));
        if !effect.is_change() {
            return effect;
        }
        let chunk = self.chunks.entry(chunk::number_of(batch)).or_default();
        chunk.set(chunk::place_of(batch), report.settles_as());
        self.starts.remove(&batch);
        let failed_before = self.failed.remove(&batch).unwrap_or(0);
        if report.settles_as() == Settled::Failed {
            self.failed.insert(batch, report.items());
        }
        self.facts.add(self.job.id, report, effect, failed_before, at);
        // What a batch failed with is replaced by what it completed with.
        let replaced = self.errors.remove(&batch).map_or(0, |errors| errors.len() as u64);
        self.errors_kept -= replaced;
        let room = self.job.policy.max_errors.saturating_sub(self.errors_kept);
        let mut errors = report.errors().to_vec();
        errors.sort_by(|a, b| (a.item, &a.code).cmp(&(b.item, &b.code)));
        errors.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if !errors.is_empty() {
            self.errors_kept += errors.len() as u64;
            self.errors.insert(batch, errors);
        }
        effect
    }

    fn settled(&self, batch: BatchIndex) -> Option<Settled> {
        self.chunks.get(&chunk::number_of(batch))?.get(chunk::place_of(batch))
    }

    fn has(&self, batch: BatchIndex) -> bool {
        self.job.total().is_none_or(|total| batch.get() < total)
    }

    /// The facts, those of batches past the total set aside.
    fn facts_of_its_batches(&self) -> Facts {
        let mut facts = self.facts.clone();
        let total = self.job.total().filter(|total| facts.highest.is_some_and(|h| h.get() >= *total));
        if let Some(total) = total {
            for (number, chunk) in self.chunks.range(total / chunk::SIZE..) {
                let (_, stray) = chunk.split_at(chunk::size_of(*number, total));
                facts.set_aside(stray.completed, stray.failed);
            }
        }
        facts
    }

    fn may_decide(&self) -> bool {
        self.job.is_decided_by(&self.facts_of_its_batches().counts)
    }

    fn announce(&self) {
        self.changes.send_replace(self.job.revision + self.facts.version());
    }
}
