//! What a job tolerates and how long it waits: settled when the job is created, kept in its record.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rules of one job. The defaults suit an import that a person waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Policy {
    /// How many failed batches the job survives.
    pub tolerance: Tolerance,
    /// Nothing heard for longer than this, nor for longer than the job's own batches make likely
    /// ([`Health::Stalled`](crate::Health)): the job is shown as stalled. Sweepers look at it as often.
    /// Two minutes.
    #[serde(with = "millis")]
    pub stall_after: Duration,
    /// A cancel request that no worker saw within this time is confirmed by the sweeper. Thirty seconds.
    #[serde(with = "millis")]
    pub cancel_grace: Duration,
    /// An upload not heard of for this long has failed. One hour.
    #[serde(with = "millis")]
    pub upload_timeout: Duration,
    /// Uploaded or processing, and nothing heard for this long: the job has failed. Twelve hours.
    #[serde(with = "millis")]
    pub processing_timeout: Duration,
    /// However active it is, a job that is not over this long after its creation has failed. Thirty days;
    /// at most [`Policy::MAX_DEADLINE`].
    #[serde(with = "millis")]
    pub deadline: Duration,
    /// How long the record outlives the terminal decision. Ninety days; at least
    /// [`Policy::MIN_RETENTION`], at most [`Policy::MAX_RETENTION`].
    #[serde(with = "millis")]
    pub retention: Duration,
    /// Whether the start of each batch is recorded too: a better estimate and "8 running", for one more write
    /// (shared by all batches of one delivery). Off, since only whoever writes the workers knows whether they take several batches at once; where they
    /// do, it is worth turning on.
    pub track_starts: bool,
    /// At most this many errors of items are kept and listed for a job, and of each batch at most
    /// [`ItemError::MAX_PER_BATCH`](crate::ItemError::MAX_PER_BATCH). 10,000.
    pub max_errors: u64,
}

impl Policy {
    /// The longest [`deadline`](Policy::deadline): what a store writes for a running job may expire after
    /// that. 366 days.
    pub const MAX_DEADLINE: Duration = Duration::from_secs(366 * 24 * 3_600);
    /// How long after its deadline a job is surely over, if sweepers run at all. 30 days.
    pub const SWEPT_WITHIN: Duration = Duration::from_secs(30 * 24 * 3_600);
    /// The shortest [`retention`](Policy::retention): an hour. The worker of the last batch, and whoever
    /// watches the job, have to see its end.
    pub const MIN_RETENTION: Duration = Duration::from_secs(3_600);
    /// The longest [`retention`](Policy::retention): ten years.
    pub const MAX_RETENTION: Duration = Duration::from_secs(3_653 * 24 * 3_600);

    /// The rules with what is beyond its bound set to the bound.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.deadline = self.deadline.min(Self::MAX_DEADLINE);
        self.retention = self.retention.clamp(Self::MIN_RETENTION, Self::MAX_RETENTION);
        self
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tolerance: Tolerance::None,
            stall_after: Duration::from_secs(120),
            cancel_grace: Duration::from_secs(30),
            upload_timeout: Duration::from_secs(3_600),
            processing_timeout: Duration::from_secs(12 * 3_600),
            deadline: Duration::from_secs(30 * 24 * 3_600),
            retention: Duration::from_secs(90 * 24 * 3_600),
            track_starts: false,
            max_errors: 10_000,
        }
    }
}

/// How many failed batches a job survives. One more, and it fails at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// The first failed batch fails the job.
    #[default]
    None,
    /// So many batches may fail.
    Batches(u64),
    /// So many percent of all batches may fail, rounded down. While the total is unknown nothing is past it.
    Percent(u8),
}

impl Tolerance {
    /// Whether `failed` batches are more than tolerated, of `total` if known.
    pub fn is_exceeded(self, failed: u64, total: Option<u64>) -> bool {
        match (self, total) {
            (Self::None, _) => failed > 0,
            (Self::Batches(most), _) => failed > most,
            (Self::Percent(_), None) => false,
            (Self::Percent(share), Some(total)) => {
                u128::from(failed) * 100 > u128::from(share.min(100)) * u128::from(total)
            }
        }
    }

    /// Whether the failures of a whole job of `parts` parts can be more than tolerated, judged by one part
    /// with `failed` of them; with `None` the number of parts is unknown.
    ///
    /// If all failures together are past the tolerance, at least one part holds more than its share
    /// (the pigeonhole principle; Cormode, Muthukrishnan, Yi: "Algorithms for distributed functional
    /// monitoring", SODA 2008). So somebody who looks at every part in turn finds out. The one whose
    /// failure was too many may have written another part: a failing batch has to look in any case.
    pub fn may_be_exceeded(self, failed: u64, parts: Option<u64>, total: Option<u64>) -> bool {
        match parts {
            Some(parts) => self.is_exceeded(failed.saturating_mul(parts.max(1)), total),
            None => failed > 0 && self.is_exceeded(u64::MAX, total),
        }
    }
}

/// Durations as whole milliseconds.
mod millis {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_is_exceeded_by_one_more_than_it_allows() {
        for (tolerance, failed, total, expected) in [
            (Tolerance::None, 0, None, false),
            (Tolerance::None, 1, None, true),
            (Tolerance::Batches(2), 2, Some(3), false),
            (Tolerance::Batches(2), 3, None, true),
            (Tolerance::Percent(10), 1, Some(10), false),
            (Tolerance::Percent(10), 1, Some(9), true),
            (Tolerance::Percent(10), 9, None, false),
            (Tolerance::Percent(100), 9, Some(9), false),
            (Tolerance::Percent(255), u64::MAX, Some(u64::MAX), false),
        ] {
            assert_eq!(tolerance.is_exceeded(failed, total), expected, "{tolerance:?} {failed}/{total:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn where_all_parts_together_exceed_the_tolerance_one_of_them_says_so(
            failed in proptest::collection::vec(0_u64..9, 1..6),
            total in proptest::option::of(0_u64..60),
            share in 0_u8..=100,
            most in 0_u64..30,
        ) {
            let (all, parts) = (failed.iter().sum(), Some(failed.len() as u64));
            for tolerance in [Tolerance::None, Tolerance::Batches(most), Tolerance::Percent(share)] {
                for parts in [parts, None] {
                    let said = failed.iter().any(|f| tolerance.may_be_exceeded(*f, parts, total));
                    assert!(said || !tolerance.is_exceeded(all, total), "{tolerance:?}: {failed:?} of {total:?}");
                }
            }
        }
    }

    #[test]
    fn a_part_below_its_share_does_not_look() {
        let ten = Tolerance::Batches(10);
        assert!(!ten.may_be_exceeded(2, Some(5), Some(1_000)));
        assert!(ten.may_be_exceeded(3, Some(5), Some(1_000)));
        assert!(
            !Tolerance::Percent(5).may_be_exceeded(9, None, None),
            "nothing is past a share of an unknown total"
        );
    }
}
