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

/// What the model cannot derive. Found by random search over both sets of the kit in `benches/eta`, all regimes together.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    /// Prior variance of ln d, ...
    pub prior_variance: f64,
    /// ... and its weight in batches.
    pub prior_weight: f64,
    /// Significance (in variances) that a change of speed needs before it is believed.
    pub doubt: f64,
    /// Waves of batches that must be through before a change is believed.
    pub settle_in: f64,
    /// Weight in the mean of a batch in flight, whose duration is only known to exceed its age.
    pub censored: f64,
    /// Share of the slowest batch's excess over the mean that comes on top of a balanced finish.
    pub straggle: f64,
    /// Quantile of the slowest of the batches in flight.
    pub slowest: f64,
    /// Quantile of the slowest when nothing queues any more.
    pub tail: f64,
    /// ln of the interval's lower factor: constant, ...
    pub low: f64,
    /// ... by how coarse batches are against what remains, ...
    pub low_grain: f64,
    /// ... and by how far ahead it looks.
    pub low_ahead: f64,
    /// The same for the upper factor.
    pub high: f64,
    /// By the spread of durations, ...
    pub high_spread: f64,
    /// ... by how far ahead, ...
    pub high_ahead: f64,
    /// ... and while less than a few waves are through.
    pub high_early: f64,
    /// Lower bound where nothing queues any more.
    pub low_tail: f64,
    /// Weight of now against the last fact in the busy share.
    pub mix: f64,
}

/// The constants that are used.
pub const CONSTANTS: Constants = Constants {
    prior_variance: 0.223,
    prior_weight: 2.5,
    doubt: 15.0,
    settle_in: 1.5,
    censored: 0.10,
    straggle: 0.9,
    slowest: 0.75,
    tail: 0.52,
    low: -0.40,
    low_grain: -2.16,
    low_ahead: -0.16,
    high: 0.10,
    high_spread: 1.45,
    high_ahead: -0.15,
    high_early: 0.65,
    low_tail: -0.45,
    mix: 0.0,
};

/// The time remaining; `None` where it cannot be known: no total yet, nothing finished, nothing left.
pub fn remaining(work: &Work) -> Option<Remaining> {
    remaining_by(work, &CONSTANTS)
}

/// With other constants.
#[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
pub fn remaining_by(work: &Work, k: &Constants) -> Option<Remaining> {
    let left = work.total?.checked_sub(work.counts.settled()).filter(|left| *left > 0)? as f64;
    let sum = |sum| work.moments.get(sum) as f64;
    let n = sum(Sum::Samples);
    if n < 1.0 {
        return None;
    }
    let elapsed = work.now.saturating_sub(work.started).as_secs_f64().max(1e-3);
    let last = work.last.saturating_sub(work.started).as_secs_f64().clamp(1e-3, elapsed);
    let busy = sum(Sum::Duration) / 1e3;
    // The durations: ln d is normal with mean and variance as seen, the variance drawn towards a prior.
    let (mean, ln_mean) = (busy / n, sum(Sum::LnDuration) / n / 1e3);
    let of_logs = (sum(Sum::LnDurationSquared) / n / 1e6 - ln_mean * ln_mean).max(0.0);
    let of_moments = (sum(Sum::DurationSquared) / n / 1e6 / (mean * mean)).max(1.0).ln();
    let shrunk = |v: f64| ((n * v + k.prior_weight * k.prior_variance) / (n + k.prior_weight)).clamp(4e-4, 3.0);
    let variance = shrunk(of_logs.min(of_moments) * n / (n - 1.0).max(1.0));
    let spread = variance.sqrt();
    let robust = mean.min((ln_mean + of_logs.min(of_moments) / 2.0).exp() / 1e3);
    // The batches in flight: known, or by Little's law.
    let (in_flight, age) = match work.in_flight {
        Some(flying) if flying.batches > 0 => {
            let batches = flying.batches as f64;
            (batches.min(left), flying.age.as_secs_f64() / batches)
        }
        Some(_) => (0.0, 0.0),
        None => {
            let through = busy / (last + k.mix * (elapsed - last));
            ((through + 0.5).round().clamp(1.0, left), 0.5 * mean)
        }
    };
    let queued = left - in_flight;
    let average = ((busy + in_flight * age) / elapsed).max(0.05);
    // Forward decay: batches weigh by when they finished. A change of speed is believed as far as it is significant.
    let t0 = work.started.as_millis() as f64;
    let weights = sum(Sum::Time) - n * t0;
    let (mut shift, mut effective) = (0.0, n);
    if weights > 0.0 {
        let squares = (sum(Sum::TimeSquared) - 2.0 * t0 * sum(Sum::Time) + n * t0 * t0).max(1.0);
        let recent = (sum(Sum::TimeLnDuration) - t0 * sum(Sum::LnDuration)) / weights / 1e3 - ln_mean;
        effective = (weights * weights / squares).clamp(1.0, n);
        let chance = k.doubt * (variance * (1.0 / effective - 1.0 / n).max(0.0) + 1e-4);
        let settled_in = ((n / average - k.settle_in) / 2.0).clamp(0.0, 1.0);
        let belief = (1.0 - chance / (recent * recent).max(1e-12)).max(0.0) * settled_in;
        effective = n * (1.0 - belief) + effective * belief;
        shift = belief * recent;
    }
    // The mean duration, corrected by those in flight, of which only the age is known.
    let seen = robust * shift.exp();
    let mut duration = seen.max(1e-3);
    let censored = in_flight * k.censored;
    for _ in 0..4 {
        let expected = expected_beyond(duration, age, variance, spread);
        duration = ((seen * effective + censored * expected) / (effective + censored)).max(1e-3);
    }
    let residual = expected_beyond(duration, age, variance, spread) - age;
    let slowest_excess = |batches: f64| {
        let slowest = (spread * quantile((1.0 - k.slowest / batches).clamp(0.02, 1.0 - 1e-9)) - variance / 2.0).exp();
        let balanced = (1.0 + variance.min(1.5).exp_m1().min(1.0)) / 2.0;
        k.straggle * duration * (slowest - balanced).max(0.0) * (1.0 - 1.0 / batches)
    };
    let workers = if work.in_flight.is_some() { (average * in_flight.max(0.5)).sqrt() } else { (average * in_flight).sqrt() };
    let seconds = if queued > 0.0 {
        (queued * duration + in_flight * residual) / workers.max(0.05) + slowest_excess(workers.min(left).max(1.0))
    } else {
        let z = ((age.max(1e-4) / duration).ln() + variance / 2.0) / spread;
        let beyond = normal_above(z).max(1e-9);
        let slowest = (1.0 - k.tail * beyond / in_flight).clamp(1e-12, 1.0 - 1e-12);
        let tail = if z > 5.0 {
            0.3 * spread * age
        } else {
            (duration * (spread * quantile(slowest) - variance / 2.0).exp() - age).max(0.0)
        };
        tail.min(residual + slowest_excess(in_flight)).max(0.2 * (age - duration)).max(0.02 * duration)
    };
    let grain = duration / (seconds + duration);
    let ahead = (seconds.max(0.1) / elapsed).ln().clamp(-3.0, 2.0);
    let early = (-n / average / 3.0).exp();
    let bounded = spread.min(1.6);
    let low = k.low + if queued > 0.0 { 0.0 } else { k.low_tail } + k.low_grain * bounded * grain + k.low_ahead * ahead - 0.6 / (n * n);
    let high = k.high + k.high_spread * bounded + k.high_ahead * ahead + k.high_early * early + 0.4 / (n * n);
    let span = |ln: f64| Duration::from_secs_f64((ln.exp() * (seconds + 1.0) - 1.0).clamp(0.0, 1e9));
    Some(Remaining {
        low: span(low.clamp(-3.0, -0.02)),
        estimate: Duration::from_secs_f64(seconds.clamp(0.0, 1e9)),
        high: span(high.clamp(0.02, 3.0)),
    })
}

/// E[d | d > age] of a lognormal duration with this mean.
fn expected_beyond(mean: f64, age: f64, variance: f64, spread: f64) -> f64 {
    let z = ((age.max(1e-4) / mean).ln() + variance / 2.0) / spread;
    if z > 5.0 {
        return age * (1.0 + 0.3 * spread);
    }
    (mean * normal_above(z - spread) / normal_above(z).max(1e-12)).max(age)
}

/// P(Z > z) of a standard normal, to seven digits of its own size (Numerical Recipes, 3rd ed., §6.2.2, Chebyshev fit).
fn normal_above(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let series = [
        0.170_872_77, -0.822_152_23, 1.488_515_87, -1.135_203_98, 0.278_868_07, -0.186_288_06, 0.096_784_18, 0.374_091_96,
        1.000_023_68, -1.265_512_23,
    ];
    let exponent = series.into_iter().reduce(|sum, next| sum * t + next).unwrap_or(0.0);
    let above = t * (exponent - x * x).exp() / 2.0;
    if z >= 0.0 { above } else { 1.0 - above }
}

/// The quantile of a standard normal, to 4.5e-4 (Abramowitz and Stegun, 26.2.23).
fn quantile(p: f64) -> f64 {
    let t = (-2.0 * p.min(1.0 - p).ln()).sqrt();
    let above = t - (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    if p < 0.5 { -above } else { above }
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
