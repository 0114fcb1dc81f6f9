//! The time remaining: from the moments, the counters and the time now, with an interval; stateless and free of I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Counts, Moments, Sum};

/// What an estimate is made from: all of it is in one read of the job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Batches in all; without it there is no estimate.
    pub total: Option<u64>,
    /// Items in all, if known.
    pub total_items: Option<u64>,
    /// What is settled.
    pub counts: Counts,
    /// The sums over what completed.
    pub moments: Moments,
    /// From the job's creation to the start of processing.
    pub started: Duration,
    /// From the job's creation to the last fact.
    pub last: Duration,
    /// From the job's creation to now.
    pub now: Duration,
    /// The batches in flight, where starts are tracked.
    pub in_flight: Option<InFlight>,
}

/// The batches being worked on.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct InFlight {
    /// How many.
    pub batches: u64,
    /// How long they have been worked on, added up.
    pub age: Duration,
}

/// The time remaining, and the bounds it lies within four times out of five.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remaining {
    /// The middle.
    pub estimate: Duration,
    /// One time in ten it is less.
    pub low: Duration,
    /// One time in ten it is more.
    pub high: Duration,
}

/// The time remaining; `None` where it cannot be known: no total yet, nothing finished, nothing left.
#[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
pub fn remaining(work: &Work) -> Option<Remaining> {
    let left = work.total?.checked_sub(work.counts.settled()).filter(|left| *left > 0)? as f64;
    let n = work.moments.get(Sum::Samples) as f64;
    if n < 1.0 {
        return None;
    }
    let elapsed = work.now.saturating_sub(work.started).as_secs_f64().max(1e-3);
    let estimate = elapsed / n * left;
    let spread = (1.0 + 3.0 / n).min(4.0);
    let seconds = |s: f64| Duration::from_secs_f64(s.clamp(0.0, 1e9));
    Some(Remaining {
        estimate: seconds(estimate),
        low: seconds(estimate / spread / 1.5),
        high: seconds(estimate * spread * 1.5),
    })
}

/// The time remaining in words: rounded as people speak, and only as precise as the bounds allow.
pub fn text(remaining: &Remaining, stalled: bool) -> String {
    if stalled {
        return "No progress just now; the estimate is on hold".into();
    }
    let (low, high) = (remaining.low.as_secs(), remaining.high.as_secs());
    if high > 10 * low.max(6) {
        return if high < 120 { "less than 2 minutes left".into() } else { range(low, high) };
    }
    match in_words(remaining.estimate.as_secs()) {
        (0, _) => "less than a minute left".into(),
        (1, unit) => format!("about {} {unit} left", if unit == "hour" { "an" } else { "a" }),
        (count, unit) => format!("about {count} {unit}s left"),
    }
}

fn range(low: u64, high: u64) -> String {
    let ((low, low_unit), (high, high_unit)) = (in_words(low), in_words(high));
    let plural = |n: u64| if n == 1 { "" } else { "s" };
    match (low, low_unit == high_unit) {
        (0, _) => format!("up to {high} {high_unit}{} left", plural(high)),
        (_, true) => format!("{low}–{high} {high_unit}{} left", plural(high)),
        (_, false) => format!("{low} {low_unit}{} to {high} {high_unit}{} left", plural(low), plural(high)),
    }
}

/// A number people say, and its unit: minutes one by one up to ten, then by five; hours; days.
fn in_words(seconds: u64) -> (u64, &'static str) {
    let round = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..55 => (0, "minute"),
        55..600 => (round(60).max(1), "minute"),
        600..3_450 => (round(300) * 5, "minute"),
        3_450..129_600 => (round(3_600).max(1), "hour"),
        _ => (round(86_400), "day"),
    }
}
