//! What has happened to a job's batches, as sums: counters and the estimator's moments. Parts of a job's facts
//! can be added up in any order and grouping (a commutative monoid), so that stores may keep as many parts as they like.
//!
//! The sums are those of one report of each batch: of the one that completed it, or else of one that failed it.
//! Where several reports of a batch differ in their numbers, which one counts depends on which came first.

use serde::{Deserialize, Serialize};

use crate::{BatchIndex, BatchOutcome, BatchReport, Effect, JobId, Moments, Timestamp};

/// How many batches and items were settled, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Batches that completed.
    pub completed: u64,
    /// Batches that failed and have not completed since.
    pub failed: u64,
    /// Items that are in the results.
    pub items_processed: u64,
    /// Items that are not: of failed batches, and single ones of completed batches.
    pub items_failed: u64,
}

impl Counts {
    /// Batches that came out one way or the other.
    pub fn settled(&self) -> u64 {
        self.completed + self.failed
    }

    /// Grows by one with every batch that fails and by two with every one that completes, so it grows with every fact,
    /// also when a failed batch completes later.
    pub fn version(&self) -> u64 {
        2 * self.completed + self.failed
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
            items_processed: self.items_processed.saturating_add(other.items_processed),
            items_failed: self.items_failed.saturating_add(other.items_failed),
        }
    }

    fn count(&mut self, report: &BatchReport, effect: Effect, failed_before: u64) {
        if effect == Effect::Corrected {
            self.failed = self.failed.saturating_sub(1);
            self.items_failed = self.items_failed.saturating_sub(failed_before);
        }
        match report.outcome() {
            BatchOutcome::Completed { processed, failed } => {
                self.completed += 1;
                self.items_processed = self.items_processed.saturating_add(processed);
                self.items_failed = self.items_failed.saturating_add(failed);
            }
            BatchOutcome::Failed { items } => {
                self.failed += 1;
                self.items_failed = self.items_failed.saturating_add(items);
            }
        }
    }
}

/// All that is known of a job's batches.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Facts {
    /// The counters, of the batches the job has.
    pub counts: Counts,
    /// The counters of batches at or past the total, which the job does not have: see
    /// [`set_aside`](Self::set_aside). Their items are counted with the others.
    pub stray: Counts,
    /// The estimator's sums over the batches that completed.
    pub moments: Moments,
    /// When a batch was last heard of.
    pub last_at: Option<Timestamp>,
    /// The highest batch that was settled.
    pub highest: Option<BatchIndex>,
    /// When the batches in flight were begun, where the job tracks starts: those that were begun and are not
    /// settled. A batch that stands as failed is not among them when it is begun again, since it can fail
    /// again without a trace. A worker that crashed leaves its start behind until the batch is begun again or
    /// settled: good enough for an estimate, never for a decision.
    pub running: Vec<Timestamp>,
    /// Whether a part of the facts is missing here since it cannot be read: every number is a lower bound
    /// then, and the job completes only if all its batches are among what can be read. See
    /// [`JobState::with_damaged`](crate::JobState).
    pub is_incomplete: bool,
}

impl Facts {
    /// Adds what `report`, recorded at `at`, did to its batch of job `id`.
    ///
    /// Of a batch that is corrected, `failed_before` is the number of items that its failed attempt counted:
    /// that many are taken back. The store has to know it, since the report may say another number, and
    /// what would be taken back then are failed items of other batches.
    pub fn add(
        &mut self,
        id: JobId,
        report: &BatchReport,
        effect: Effect,
        failed_before: u64,
        at: Timestamp,
    ) {
        if !effect.is_change() {
            return;
        }
        self.counts.count(report, effect, failed_before);
        self.moments.add(&Moments::of(id, report, at));
        self.last_at = self.last_at.max(Some(at));
        self.highest = self.highest.max(Some(report.batch()));
    }

    /// Takes this many completed and failed batches, which are at or past the total, out of the counters.
    ///
    /// A batch past the total that is reported before the job is sealed, or in the very moment of it,
    /// has counted. It must not stand for one of the job's own batches, or the job would complete with
    /// one of them missing.
    pub fn set_aside(&mut self, completed: u64, failed: u64) {
        self.counts.completed = self.counts.completed.saturating_sub(completed);
        self.counts.failed = self.counts.failed.saturating_sub(failed);
        self.stray.completed += completed;
        self.stray.failed += failed;
    }

    /// Grows with every fact.
    pub fn version(&self) -> u64 {
        self.counts.version() + self.stray.version()
    }

    /// Adds the facts of another part of the same job.
    pub fn merge(&mut self, other: &Self) {
        self.counts = self.counts.plus(other.counts);
        self.stray = self.stray.plus(other.stray);
        self.moments.add(&other.moments);
        self.last_at = self.last_at.max(other.last_at);
        self.highest = self.highest.max(other.highest);
        self.running.extend_from_slice(&other.running);
        self.is_incomplete |= other.is_incomplete;
    }
}
