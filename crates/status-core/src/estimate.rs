//! The time remaining: from the moments, the counters and the time now, with an interval; stateless, free of I/O and of
//! allocation.
//!
//! # The model
//! - Durations of batches are lognormal. Mean and variance come from the moments, the variance drawn towards a prior while there
//!   is little to see.
//! - *Forward decay* (Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009): batches also weigh by the square of when they finished. Where
//!   that mean of ln d differs from the plain one by more than chance, the recent speed is believed.
//! - *Little's law* (1961): rate × mean duration = batches in flight, where starts are not tracked.
//! - The batches in flight are *censored*: their durations are known to exceed their ages. What queues behind them is spread over the
//!   workers; the slowest of them comes on top, as a quantile of the maximum of so many lognormal durations.
//! - *Silence*: with nothing in flight and nothing heard, the wait grows with the wait so far (Lindy's law).
//!
//! The interval's factors are linear in the spread and in how far ahead it looks, fitted for 80 % coverage.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Counts, Moments, Sum, moments};

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

/// What the model cannot derive, found by random search over both sets of the kit in `benches/eta`, all regimes together.
struct Constants {
    /// Prior variance of ln d, ...
    prior_variance: f64,
    /// ... and its weight in batches.
    prior_weight: f64,
    /// Variances by which a change of speed must stand out before it is believed, ...
    doubt: f64,
    /// ... and waves of batches that must be through before.
    settle_in: f64,
    /// Weight in the mean of a batch in flight.
    censored: f64,
    /// Share of the slowest batch's excess over the mean that comes on top of a balanced finish.
    straggle: f64,
    /// P(the slowest is slower still) while batches queue, ...
    slowest: f64,
    /// ... and when nothing queues any more.
    tail: f64,
    /// Age of a batch in flight where starts are not tracked, in mean durations, ...
    age_share: f64,
    /// ... and the multiple of the silence since the last fact that comes on top.
    silence: f64,
    /// How far the batches in flight now, rather than their average so far, tell the number of workers.
    present: f64,
    /// Share of a silence, with nothing in flight, that is still to come.
    lindy: f64,
    /// ln of the interval's lower factor: constant, ...
    low: f64,
    /// ... by ln(ahead / elapsed), ...
    low_ahead: f64,
    /// ... and when nothing queues any more.
    low_tail: f64,
    /// ln of the upper factor: by the spread of durations, ...
    high_spread: f64,
    /// ... and by ln(ahead / elapsed).
    high_ahead: f64,
}

const K: Constants = Constants {
    prior_variance: 0.0817,
    prior_weight: 4.77,
    doubt: 11.8,
    settle_in: 4.59,
    censored: 0.155,
    straggle: 0.561,
    slowest: 0.0899,
    tail: 0.513,
    age_share: 0.706,
    silence: 1.81,
    present: 0.19,
    lindy: 1.09,
    low: -0.359,
    low_ahead: 0.453,
    low_tail: -0.782,
    high_spread: 1.46,
    high_ahead: -0.14,
};

/// The time remaining; `None` where it cannot be known: no total yet, nothing finished or in flight, nothing left.
#[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
pub fn remaining(work: &Work) -> Option<Remaining> {
    let left = work.total?.checked_sub(work.counts.settled()).filter(|left| *left > 0)? as f64;
    let elapsed = work.now.saturating_sub(work.started).as_secs_f64().max(1e-3);
    let last = work.last.saturating_sub(work.started).as_secs_f64().clamp(1e-3, elapsed);
    let flying = work
        .in_flight
        .map(|flying| (flying.batches as f64, flying.age.as_secs_f64() / flying.batches.max(1) as f64));
    let seen = Durations::seen(&work.moments).or_else(|| Durations::guessed(flying?))?;
    let Durations { batches: n, mean, variance, busy, .. } = seen;
    let spread = variance.sqrt();
    // The batches in flight: known, or by Little's law.
    let (in_flight, age) = match flying {
        Some((batches, age)) => (batches.min(left), age),
        None => {
            ((busy / last + 0.5).round().clamp(1.0, left), K.age_share * mean + K.silence * (elapsed - last))
        }
    };
    let average = ((busy + in_flight * age) / elapsed).max(0.05);
    // A change of speed is believed as far as it is significant.
    let recent = Recent::since(&work.moments, work.started);
    let (mut shift, mut effective) = (0.0, n);
    if recent.weights > 0.0 && n / average > K.settle_in {
        let change = recent.logs / recent.weights / 1e3 - seen.ln_mean;
        let few = (recent.weights * recent.weights / recent.squares.max(1.0)).clamp(1.0, n);
        let chance = K.doubt * (variance * (1.0 / few - 1.0 / n).max(0.0) + 1e-4);
        let belief = (1.0 - chance / (change * change).max(1e-12)).max(0.0);
        effective = n * (1.0 - belief) + few * belief;
        shift = belief * change;
    }
    // The mean duration, corrected by those in flight, of which only the age is known.
    let finished = seen.robust_mean * shift.exp();
    let mut duration = finished.max(1e-3);
    for _ in 0..2 {
        let expected = expected_beyond(duration, age, variance, spread);
        let censored = in_flight * K.censored;
        duration = ((finished * effective + censored * expected) / (effective + censored)).max(1e-3);
    }
    let residual = expected_beyond(duration, age, variance, spread) - age;
    let workers = (average.powf(1.0 - K.present) * in_flight.max(1.0).powf(K.present)).max(0.05);
    let slowest_excess = |batches: f64| {
        let slowest =
            (spread * quantile((1.0 - K.slowest / batches).clamp(0.02, 1.0 - 1e-9)) - variance / 2.0).exp();
        let balanced = (1.0 + variance.min(1.5).exp_m1().min(1.0)) / 2.0;
        K.straggle * duration * (slowest - balanced).max(0.0) * (1.0 - 1.0 / batches)
    };
    // When the last of those in flight ends, whatever queues behind them.
    let flying_done = if in_flight > 0.0 {
        let beyond = normal_above(deviation(duration, age, variance, spread)).max(1e-9);
        let slowest = (1.0 - K.tail * beyond / in_flight).clamp(1e-12, 1.0 - 1e-12);
        let slowest = duration * (spread * quantile(slowest) - variance / 2.0).exp() - age;
        slowest.max(0.28 * (age - duration)).max(0.02 * duration)
    } else {
        let silence = elapsed - last - duration / workers;
        (K.lindy * silence).max(0.02 * duration)
    };
    let queued = (left - in_flight) * seen.size_of_the_rest(work);
    let seconds = if queued > 0.0 {
        let balanced =
            (queued * duration + in_flight * residual) / workers + slowest_excess(workers.min(left).max(1.0));
        balanced.max(if in_flight > 0.0 { K.slowest * flying_done } else { flying_done })
    } else {
        flying_done
    };
    let ahead = (seconds.max(0.1) / elapsed).ln().clamp(-3.0, 2.0);
    let first = 0.5 / (n * n);
    let low = K.low + if queued > 0.0 { 0.0 } else { K.low_tail } + K.low_ahead * ahead - first;
    let high = K.high_spread * spread.min(1.6) + K.high_ahead * ahead + first;
    let span = |ln: f64| Duration::from_secs_f64((ln.exp() * (seconds + 1.0) - 1.0).clamp(0.0, 1e9));
    Some(Remaining {
        low: span(low.clamp(-3.0, -0.02)),
        estimate: span(0.0),
        high: span(high.clamp(0.02, 3.0)),
    })
}

/// What is known of the durations of batches.
struct Durations {
    batches: f64,
    /// In seconds.
    busy: f64,
    mean: f64,
    /// Of ln d in milliseconds.
    ln_mean: f64,
    variance: f64,
    /// The mean, unless outliers make it larger than the lognormal's.
    robust_mean: f64,
    mean_items: f64,
    /// The exponent in duration ∝ items^exponent.
    by_items: f64,
}

impl Durations {
    #[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
    fn seen(moments: &Moments) -> Option<Self> {
        let sum = |sum| moments.get(sum) as f64;
        let n = sum(Sum::Samples);
        if n < 1.0 {
            return None;
        }
        let busy = sum(Sum::Duration) / 1e3;
        let (mean, ln_mean, ln_items) =
            (busy / n, sum(Sum::LnDuration) / n / 1e3, sum(Sum::LnItems) / n / 1e3);
        let of_logs = (sum(Sum::LnDurationSquared) / n / 1e6 - ln_mean * ln_mean).max(0.0);
        let of_moments = (sum(Sum::DurationSquared) / n / 1e6 / (mean * mean)).max(1.0).ln();
        let raw = of_logs.min(of_moments);
        let variance =
            (n * raw * n / (n - 1.0).max(1.0) + K.prior_weight * K.prior_variance) / (n + K.prior_weight);
        let covariance = sum(Sum::LnDurationLnItems) / n / 1e6 - ln_mean * ln_items;
        let items_variance = (sum(Sum::LnItemsSquared) / n / 1e6 - ln_items * ln_items).max(0.0);
        Some(Self {
            batches: n,
            busy,
            mean,
            ln_mean,
            variance: variance.clamp(4e-4, 3.0),
            robust_mean: mean.min((ln_mean + raw / 2.0).exp() / 1e3),
            mean_items: sum(Sum::Items) / n,
            // Two batches' worth of belief that twice the items take twice the time.
            by_items: ((n * covariance + 2.0) / (n * items_variance + 2.0)).clamp(0.0, 1.2),
        })
    }

    /// Nothing has finished: a batch takes about as long again as those in flight have taken (Lindy's law).
    fn guessed((batches, age): (f64, f64)) -> Option<Self> {
        (batches > 0.0 && age > 0.0).then(|| Self {
            batches: 1.0,
            busy: 0.0,
            mean: age,
            ln_mean: (age * 1e3).ln(),
            variance: K.prior_variance,
            robust_mean: age,
            mean_items: 0.0,
            by_items: 0.0,
        })
    }

    /// How long a batch of those that are left takes, by its items, against one of those that have finished.
    #[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
    fn size_of_the_rest(&self, work: &Work) -> f64 {
        let done = work.counts.items_processed.saturating_add(work.counts.items_failed);
        let rest = work.total_items.and_then(|all| all.checked_sub(done)).filter(|rest| *rest > 0);
        let batches = work.total.map_or(0, |total| total.saturating_sub(work.counts.settled()));
        match rest {
            Some(rest) if self.mean_items > 0.0 && batches > 0 => {
                (rest as f64 / batches as f64 / self.mean_items).powf(self.by_items).clamp(0.02, 50.0)
            }
            _ => 1.0,
        }
    }
}

/// The batches weighed by the square of when they finished after the start of processing.
struct Recent {
    /// Σw
    weights: f64,
    /// Σw²
    squares: f64,
    /// Σ w · ln d
    logs: f64,
}

impl Recent {
    /// The moments about the start of processing, from those about the job's creation: exact, in integers.
    #[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
    fn since(moments: &Moments, started: Duration) -> Self {
        // 2²⁵ ticks are 38 days, beyond which moments do not tell times apart.
        let s = i128::try_from(started.as_millis() / u128::from(moments::TICK_MS))
            .map_or(1 << 25, |s| s.min(1 << 25));
        let m = |sum| moments.get(sum);
        let n = m(Sum::Samples);
        let (t1, t2, t3, t4) = (m(Sum::Time), m(Sum::TimeSquared), m(Sum::TimeCubed), m(Sum::TimeFourth));
        let weights = t2 - 2 * s * t1 + n * s * s;
        let squares = t4 - 4 * s * t3 + 6 * s * s * t2 - 4 * s * s * s * t1 + n * s * s * s * s;
        let logs =
            m(Sum::TimeSquaredLnDuration) - 2 * s * m(Sum::TimeLnDuration) + s * s * m(Sum::LnDuration);
        Self { weights: weights as f64, squares: squares as f64, logs: logs as f64 }
    }
}

/// How far ln(age) is above the mean of ln d, in standard deviations.
fn deviation(mean: f64, age: f64, variance: f64, spread: f64) -> f64 {
    ((age.max(1e-4) / mean).ln() + variance / 2.0) / spread
}

/// E[d | d > age] of a lognormal duration with this mean.
fn expected_beyond(mean: f64, age: f64, variance: f64, spread: f64) -> f64 {
    let z = deviation(mean, age, variance, spread);
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
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let exponent = series.into_iter().reduce(|sum, next| sum * t + next).unwrap_or(0.0);
    let above = t * (exponent - x * x).exp() / 2.0;
    if z >= 0.0 { above } else { 1.0 - above }
}

/// The quantile of a standard normal, to 4.5e-4 (Abramowitz and Stegun, 26.2.23).
fn quantile(p: f64) -> f64 {
    let t = (-2.0 * p.min(1.0 - p).ln()).sqrt();
    let above = t
        - (2.515_517 + t * (0.802_853 + t * 0.010_328))
            / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
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
