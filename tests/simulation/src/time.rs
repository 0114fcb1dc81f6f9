//! Virtual time: it stands still while anybody works and jumps to the next moment at which somebody
//! wakes up.
//!
//! Everything that asks for the time gets it from here: the product, the engine and the SDK. Each
//! process has a clock of its own that is wrong by a constant amount, as the clocks of real
//! machines are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_async::time::TimeSource;
use dynoxide::storage_backend;
use status_core::{Clock, Timestamp};
use tokio::time::Instant;

/// The moment at which every run begins, in milliseconds after 1970.
const BEGINNING_MS: i64 = 1_750_000_000_000;

/// The true time of a run.
#[derive(Clone, Copy, Debug)]
pub struct VirtualTime {
    start: Instant,
}

impl VirtualTime {
    /// Time that begins now. To be called in a runtime whose clock is paused.
    pub fn begin() -> Self {
        Self { start: Instant::now() }
    }

    /// How long the run has lasted.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The clock of a machine that is `skew_ms` milliseconds ahead, or behind where that is
    /// negative.
    pub fn skewed(&self, skew_ms: i64) -> SkewedClock {
        SkewedClock { time: *self, skew_ms }
    }

    fn now_ms(&self) -> i64 {
        BEGINNING_MS.saturating_add(i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

impl Clock for VirtualTime {
    fn now(&self) -> Timestamp {
        timestamp(self.now_ms())
    }
}

impl TimeSource for VirtualTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.now_ms().unsigned_abs())
    }
}

impl storage_backend::Clock for VirtualTime {
    fn now_unix_secs(&self) -> u64 {
        self.now_ms().unsigned_abs() / 1_000
    }

    #[expect(clippy::cast_precision_loss, reason = "the engine wants seconds as a float")]
    fn now_unix_secs_f64(&self) -> f64 {
        self.now_ms() as f64 / 1_000.0
    }
}

/// The clock of one machine.
#[derive(Clone, Copy, Debug)]
pub struct SkewedClock {
    time: VirtualTime,
    skew_ms: i64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        timestamp(self.time.now_ms().saturating_add(self.skew_ms))
    }
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}
