//! One job in memory: its record, two bits for each batch, the sums, and whom to wake.

use std::collections::{BTreeMap, HashMap};

use status_core::{
    BatchIndex, BatchReport, Begun, Effect, Facts, ItemError, Job, Page, PageRequest, Record, Recorded,
    Rejection, Settled, Status, StoreError, Timestamp,
};
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) job: Job,
    pub(crate) changes: watch::Sender<u64>,
    facts: Facts,
    batches: Batches,
    starts: HashMap<BatchIndex, Timestamp>,
    errors: BTreeMap<(BatchIndex, Option<u64>, String), ItemError>,
}

impl Entry {
    pub(crate) fn new(job: Job) -> Self {
        let changes = watch::Sender::new(job.revision);
        Self {
            job,
            changes,
            facts: Facts::default(),
            batches: Batches::default(),
            starts: HashMap::new(),
            errors: BTreeMap::new(),
        }
    }

    pub(crate) fn record(&self) -> Record {
        let running = self.starts.values().copied().collect();
        Record::new(self.job.clone(), Facts { running, ..self.facts.clone() })
    }

    pub(crate) fn decide(&mut self, next: &Job) -> Result<(), StoreError> {
        if self.job == *next {
            return Ok(());
        }
        if self.job.revision + 1 != next.revision {
            return Err(StoreError::Conflict(next.id));
        }
        self.job = next.clone();
        self.announce();
        Ok(())
    }

    pub(crate) fn begin(&mut self, batches: &[BatchIndex], at: Timestamp) -> Begun {
        let settled: Vec<_> = batches.iter().map(|batch| self.batches.get(*batch)).collect();
        let job = &self.job;
        if job.policy.track_starts && job.status == Status::Processing && job.cancel_requested.is_none() {
            let open = batches
                .iter()
                .zip(&settled)
                .filter(|(b, s)| **s != Some(Settled::Completed) && self.has(**b));
            let open: Vec<_> = open.map(|(batch, _)| (*batch, at)).collect();
            self.starts.extend(open);
        }
        Begun { job: self.job.clone(), settled, may_be_settled: self.may_be_settled() }
    }

    pub(crate) fn record_all(
        &mut self,
        reports: &[BatchReport],
        at: Timestamp,
    ) -> Result<Recorded, StoreError> {
        if let Some(report) = reports.iter().find(|report| !self.has(report.batch)) {
            let (batch, total) = (report.batch, self.job.total().unwrap_or(0));
            return Err(StoreError::Rejected {
                id: self.job.id,
                rejection: Rejection::BatchOutOfRange { batch, total },
            });
        }
        let late = Some(self.job.status).filter(|status| status.is_terminal());
        let effects = reports.iter().map(|report| self.record_one(report, at)).collect();
        self.announce();
        Ok(Recorded { effects, may_be_settled: self.may_be_settled(), late })
    }

    pub(crate) fn errors(&self, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        let skip = page
            .cursor
            .as_deref()
            .map_or(Ok(0), str::parse::<usize>)
            .map_err(|_| StoreError::InvalidCursor)?;
        let rows: Vec<_> = self.errors.values().skip(skip).take(page.limit).cloned().collect();
        let next = skip.saturating_add(rows.len());
        Ok(Page { next: (next < self.errors.len()).then(|| next.to_string()), rows })
    }

    pub(crate) fn unsettled(&self, from: u64, limit: usize) -> Vec<BatchIndex> {
        let end = self.job.total().or(self.facts.highest.map(BatchIndex::get)).unwrap_or(0);
        let open = (from..end)
            .filter_map(|i| BatchIndex::new(i).ok())
            .filter(|batch| self.batches.get(*batch).is_none());
        open.take(limit).collect()
    }

    fn record_one(&mut self, report: &BatchReport, at: Timestamp) -> Effect {
        let effect = report.effect(self.batches.get(report.batch));
        if effect == Effect::Duplicate {
            return effect;
        }
        self.batches.set(report.batch, report.settles_as());
        self.starts.remove(&report.batch);
        self.facts.add(self.job.id, report, effect, at);
        if effect == Effect::Corrected {
            self.errors.retain(|(batch, ..), _| *batch != report.batch);
        }
        for error in &report.errors {
            if u64::try_from(self.errors.len()).is_ok_and(|kept| kept >= self.job.policy.max_errors) {
                break;
            }
            self.errors.insert((error.batch, error.item, error.code.clone()), error.clone());
        }
        effect
    }

    fn has(&self, batch: BatchIndex) -> bool {
        self.job.total().is_none_or(|total| batch.get() < total)
    }

    /// Whether the facts may decide the job.
    fn may_be_settled(&self) -> bool {
        let counts = &self.facts.counts;
        let all = self.job.total().is_some_and(|total| counts.settled() >= total);
        self.job.status == Status::Processing && (all || counts.failed > 0)
    }

    fn announce(&self) {
        self.changes.send_replace(self.job.revision + self.facts.counts.version());
    }
}

/// Two bits a batch, in pages of 64, so that a high index costs no more than a low one.
#[derive(Debug, Default)]
struct Batches(HashMap<u64, (u64, u64)>);

impl Batches {
    fn get(&self, batch: BatchIndex) -> Option<Settled> {
        let (completed, failed) = self.0.get(&(batch.get() / 64))?;
        let bit = 1 << (batch.get() % 64);
        if completed & bit != 0 {
            Some(Settled::Completed)
        } else if failed & bit != 0 {
            Some(Settled::Failed)
        } else {
            None
        }
    }

    fn set(&mut self, batch: BatchIndex, settled: Settled) {
        let (completed, failed) = self.0.entry(batch.get() / 64).or_default();
        let bit = 1 << (batch.get() % 64);
        match settled {
            Settled::Completed => {
                *completed |= bit;
                *failed &= !bit;
            }
            Settled::Failed => *failed |= bit,
        }
    }
}
