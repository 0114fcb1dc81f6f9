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
    /// Nothing heard for longer than this: the job is shown as stalled. Two minutes.
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
    /// How long the record outlives the terminal decision. Ninety days.
    #[serde(with = "millis")]
    pub retention: Duration,
    /// Whether the start of each batch is recorded too: a better estimate and "8 running", for one more write
    /// (shared by all batches of one delivery). Off, since only whoever writes the workers knows whether they take several batches at once; where they
    /// do, it is worth turning on.
    pub track_starts: bool,
    /// At most so many row errors are kept for a job. 10,000.
    pub max_errors: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tolerance: Tolerance::None,
            stall_after: Duration::from_secs(120),
            cancel_grace: Duration::from_secs(30),
            upload_timeout: Duration::from_secs(3_600),
            processing_timeout: Duration::from_secs(12 * 3_600),
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
}
