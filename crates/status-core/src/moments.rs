//! The estimator's record: sums over the batches that completed, as exact integers.
//!
//! Each is a sum, so that concurrent workers only ever add, in any order, in the very write that records the batch
//! (ETA: "moments, not averages"). Times count from the job's creation, which its id carries; moments about one origin
//! convert to any other when read.
//!
//! # Range
//! DynamoDB keeps 38 significant digits and refuses more. With batches that take up to [`MAX_MS`] (about 34 years), finish within
//! 30 days of the job's creation (in units of 100 ms), and [`BatchIndex::MAX`](crate::BatchIndex::MAX) of them, every sum stays
//! below 10³⁸: the largest is Σd² with (10¹²)² · 10⁷ = 10³¹. What is beyond saturates, so that no outlier makes a write
//! fail.

use std::time::Duration;

use crate::{BatchOutcome, BatchReport, JobId, Timestamp};

/// The longest time that is told apart, in milliseconds.
pub const MAX_MS: u64 = 1_000_000_000_000;
/// The unit of the times at which batches finish, in milliseconds.
pub(crate) const TICK_MS: u64 = 100;
/// The latest such time that is told apart: 30 days after the job's creation.
const MAX_TICKS: u64 = 30 * 86_400 * 1_000 / TICK_MS;

/// Which sum: the index into [`Moments`], with the short name it has in storage.
macro_rules! sums {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The sums of the record. ln is in thousandths of a nat; times are in milliseconds, d: how long a batch took,
        /// t: when it finished (in units of 100 ms).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Sum { $($(#[$doc])* $variant),* }

        impl Sum {
            /// All sums in the order of [`Moments::values`].
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name of the sum in storage.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

sums! {
    /// Σ1: the batches whose duration is known.
    Samples = "n",
    /// Σd
    Duration = "d",
    /// Σd²
    DurationSquared = "e",
    /// Σ ln d
    LnDuration = "g",
    /// Σ (ln d)²
    LnDurationSquared = "h",
    /// Σt
    Time = "t",
    /// Σt²
    TimeSquared = "u",
    /// Σ t · ln d
    TimeLnDuration = "v",
    /// Σ t² · ln d
    TimeSquaredLnDuration = "y",
}

const SUMS: usize = Sum::ALL.len();

/// The sums of one job, or of one part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moments([i128; SUMS]);

impl Moments {
    /// What `report`, recorded at `at`, adds: nothing unless it completed its batch and says how long that took.
    pub fn of(id: JobId, report: &BatchReport, at: Timestamp) -> Self {
        match (report.outcome(), report.duration()) {
            (BatchOutcome::Completed { .. }, Some(took)) => Self::sample(id.age_ms(at), took),
            _ => Self::default(),
        }
    }

    /// One batch that took `took` and finished `finished_ms` after the job's creation.
    pub fn sample(finished_ms: u64, took: Duration) -> Self {
        let d = u64::try_from(took.as_millis()).unwrap_or(MAX_MS).clamp(1, MAX_MS);
        let t = i128::from((finished_ms / TICK_MS).min(MAX_TICKS));
        let ln_d = milli_ln(d);
        let d = i128::from(d);
        let mut sums = Self::default();
        for (sum, value) in [
            (Sum::Samples, 1),
            (Sum::Duration, d),
            (Sum::DurationSquared, d * d),
            (Sum::LnDuration, ln_d),
            (Sum::LnDurationSquared, ln_d * ln_d),
            (Sum::Time, t),
            (Sum::TimeSquared, t * t),
            (Sum::TimeLnDuration, t * ln_d),
            (Sum::TimeSquaredLnDuration, t * t * ln_d),
        ] {
            sums.set(sum, value);
        }
        sums
    }

    /// Adds the sums of other batches.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// One of the sums.
    pub fn get(&self, sum: Sum) -> i128 {
        self.0[sum as usize]
    }

    /// Sets one of the sums: for stores that read them back.
    pub fn set(&mut self, sum: Sum, value: i128) {
        self.0[sum as usize] = value;
    }

    /// Every sum that is not zero, by name: what a store has to add.
    pub fn values(&self) -> impl Iterator<Item = (Sum, i128)> + '_ {
        Sum::ALL.iter().map(|&sum| (sum, self.get(sum))).filter(|(_, value)| *value != 0)
    }
}

/// Thousandths of a nat: ln(max(x, 1)) · 1000, rounded.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "0 ≤ ln x < 44,362 for any u64"
)]
fn milli_ln(x: u64) -> i128 {
    ((x.max(1) as f64).ln() * 1000.0).round() as i128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchIndex;

    #[test]
    fn the_largest_job_stays_within_38_digits() {
        let one = Moments::sample(u64::MAX, Duration::MAX);
        for (sum, value) in one.values() {
            let all = value * i128::from(BatchIndex::MAX + 1);
            assert!(all < 10_i128.pow(38), "{sum:?}: {all}");
        }
    }

    #[test]
    fn names_in_storage_are_unique() {
        let mut names: Vec<_> = Sum::ALL.iter().map(|s| s.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Sum::ALL.len());
    }
}
