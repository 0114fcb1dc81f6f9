//! The time remaining: from the moments, the counters and the time now, with an interval; stateless, free of I/O and of
//! allocation.
//!
//! # The model
//! - Durations of batches are lognormal. Their variance is drawn towards a prior while there is little to see. Two measures of it are kept: from
//!   the moments of ln d and from those of d. The smaller one tells the mean, since outliers do not move it; the larger one tells the tail, since
//!   outliers are what one waits for.
//! - *Forward decay* (Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009): batches also weigh by when they finished, and by its square. Where that mean
//!   of ln d differs from the plain one by more than chance, the speed has changed; a *step* is then read off the three means (see `Speed`).
//! - *Little's law* (1961): rate × mean duration = batches in flight, where starts are not tracked.
//! - The batches in flight are *censored*: their durations are known to exceed their ages. What queues behind them is spread over the
//!   workers; the slowest of them comes on top, as a quantile of the maximum of so many lognormal durations.
//! - *Silence*: with nothing in flight and nothing heard, the wait grows with the wait so far (Lindy's law).
//!
//! The interval's factors are fitted for 80 % coverage.

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

/// What the model cannot derive, found by random search over both sets of the kit in `benches/eta` and the jobs of other kinds of `others.py`, all
/// together.
struct Constants {
    /// Prior variance of ln d, ...
    prior_variance: f64,
    /// ... and its weight in batches.
    prior_weight: f64,
    /// How far the mean goes from the smaller variance to that of ln d, where that is larger: durations of several kinds have a larger mean.
    mixed: f64,
    /// Variances by which a change of speed must stand out before it is believed, ...
    doubt: f64,
    /// ... waves of batches that must be through before, ...
    settle_in: f64,
    /// ... and how far beyond what the squares show a step may be taken to have gone.
    leap: f64,
    /// Weight in the mean of a batch in flight, ...
    censored: f64,
    /// ... and what it still needs at least, in its age times the deviation of ln d.
    overdue: f64,
    /// Share of the slowest batch's excess over the mean that comes on top of a balanced finish, and of P(d > age) at which the last of those in
    /// flight is expected.
    straggle: f64,
    /// P(the slowest is slower still) while batches queue.
    slowest: f64,
    /// Age of a batch in flight where starts are not tracked, in mean durations, ...
    age_share: f64,
    /// ... and the multiple of the silence since the last fact that comes on top.
    silence: f64,
    /// By how many deviations of ln d the fourth roots of the interval's factors differ from one: of the lower one, ...
    low: f64,
    /// ... of the lower one when nothing queues any more, ...
    low_tail: f64,
    /// ... and of the upper one.
    high: f64,
}

const K: Constants = Constants {
    prior_variance: 0.1,
    prior_weight: 32.0,
    mixed: 0.37,
    doubt: 21.0,
    settle_in: 4.3,
    leap: 1.7,
    censored: 0.175,
    overdue: 0.41,
    straggle: 0.52,
    slowest: 0.068,
    age_share: 0.77,
    silence: 2.4,
    low: 0.36,
    low_tail: 1.1,
    high: 0.355,
};

/// The time remaining; `None` where it cannot be known: no total yet, nothing finished or in flight, nothing left.
pub fn remaining(work: &Work) -> Option<Remaining> {
    let left = work.total?.checked_sub(work.counts.settled()).filter(|left| *left > 0)?;
    let left = count(left);
    let started = seconds_of(work.started);
    let since_start = |at: Duration| at_least(1e-3, seconds_of(at) - started);
    let elapsed = since_start(work.now);
    let last = at_most(elapsed, since_start(work.last));
    let flying = work.in_flight.map(|f| (count(f.batches), seconds_of(f.age) / count(f.batches.max(1))));
    let seen = Durations::seen(&work.moments).or_else(|| Durations::guessed(flying?))?;
    let n = seen.batches;
    // The batches in flight: known, or by Little's law.
    let (in_flight, age) = flying.unwrap_or_else(|| {
        let age = K.age_share * seen.mean + K.silence * (elapsed - last);
        ((seen.busy / last + 1.0).floor(), age)
    });
    let average = at_least(0.05, (seen.busy + in_flight * age) / elapsed);
    let (finished, evidence) = if n > K.settle_in * average {
        let speed = Speed::of_late(work, &seen, started, last);
        (seen.typical * speed.factor, speed.batches)
    } else {
        (seen.typical, n)
    };
    // What those in flight still need: what is missing to the mean, and once they are overdue a share of their age, since durations have long tails.
    let deviation = seen.variance.sqrt();
    let residual = at_least(K.overdue * deviation * age, finished - age);
    let censored = in_flight * K.censored;
    let duration = (finished * evidence + censored * (age + residual)) / (evidence + censored);
    // The number of workers: the average of the batches in flight, drawn towards those in flight now; (now / average)^⅜ as a Padé approximant, which
    // does not leave 5/11 to 11/5.
    let now = at_least(1.0, in_flight);
    let workers = average * (11.0 * now + 5.0 * average) / (5.0 * now + 11.0 * average);

    // When the last of those in flight ends.
    let tail = Tail::of(seen.tail_variance);
    let ending = at_most(left, in_flight);
    let flying_done = || {
        let soon = 0.02 * duration;
        if ending <= 0.0 {
            return at_least(soon, elapsed - last - duration / workers);
        }
        let beyond = tail.beyond(at_least(1e-4, age) / duration);
        let slowest = duration * tail.quantile(beyond - 2.0 * ln(K.straggle / ending)) - age;
        at_least(soon, slowest)
    };
    // Whatever queues behind them, spread over the workers, and the slowest of the last wave.
    let queued = left - ending;
    let seconds = if queued > 0.0 {
        let wave = at_least(1.0, at_most(left, workers));
        // Half of 1 + the squared coefficient of variation, eᵛ − 1, to the second order.
        let balanced = f64::midpoint(1.0, at_most(1.0, tail.variance * (1.0 + tail.variance / 2.0)));
        let excess =
            at_least(0.0, tail.quantile(-2.0 * ln(K.slowest / wave)) - balanced) * (1.0 - 1.0 / wave);
        let work_left = queued * size_of_the_rest(work, left) * duration + ending * residual;
        let queue_done = work_left / workers + K.straggle * duration * excess;
        // Where those in flight surely end before what queues, they need not be looked at.
        if queue_done > duration * tail.bound() && age <= 1.5 * duration && ending > 0.0 && ending <= 32.0 {
            queue_done
        } else {
            at_least(queue_done, flying_done())
        }
    } else {
        flying_done()
    };

    let widened = |by: f64| {
        let root = 1.0 + by * deviation;
        (root * root) * (root * root)
    };
    let low = if queued > 0.0 { K.low } else { K.low_tail };
    let bound = |factor: f64| millis((seconds + 1.0) * factor - 1.0);
    Some(Remaining {
        low: bound(1.0 / widened(low)),
        estimate: millis(seconds),
        high: bound(widened(K.high)),
    })
}

/// How long a batch of this job may take before its silence is unlikely; `None` while too few are known.
///
/// Durations are taken as lognormal, as everywhere here, so the quantile is e^(mean + k·deviation) of ln d.
pub(crate) fn longest_likely(moments: &Moments) -> Option<Duration> {
    let sum = |sum| float(moments.get(sum));
    let n = sum(Sum::Samples);
    if n < SILENCE_SAMPLES {
        return None;
    }
    let mean = sum(Sum::LnDuration) / n / 1e3;
    let variance = at_least(0.0, sum(Sum::LnDurationSquared) / n / 1e6 - mean * mean);
    let ms = (mean + SILENCE_DEVIATIONS * variance.sqrt()).exp();
    Some(millis(at_most(SILENCE_LONGEST, ms / 1e3)))
}

/// Batches from which on their own durations say what silence is likely: the deviation of fewer is a guess.
const SILENCE_SAMPLES: f64 = 5.0;
/// The quantile of the normal distribution at 99.9%: of a thousand batches one takes longer.
const SILENCE_DEVIATIONS: f64 = 3.09;
/// No silence of more than a day is likely, whatever outliers say. In seconds.
const SILENCE_LONGEST: f64 = 86_400.0;

/// The larger one; `floor` where the other is not a number. One instruction, unlike [`f64::max`].
fn at_least(floor: f64, x: f64) -> f64 {
    if x > floor { x } else { floor }
}

/// The smaller one; `ceiling` where the other is not a number.
fn at_most(ceiling: f64, x: f64) -> f64 {
    if x < ceiling { x } else { ceiling }
}

fn seconds_of(duration: Duration) -> f64 {
    count(duration.as_secs()) + f64::from(duration.subsec_nanos()) * 1e-9
}

#[expect(clippy::cast_possible_truncation, reason = "bounded")]
fn millis(seconds: f64) -> Duration {
    // Rounded up: what remains is never nothing.
    Duration::from_millis((at_most(1e12, at_least(0.0, seconds * 1e3)) as i64).cast_unsigned() + 1)
}

/// What is known of the durations of batches.
struct Durations {
    batches: f64,
    /// In seconds: all of them, ...
    busy: f64,
    /// ... and their mean.
    mean: f64,
    /// Of ln d in milliseconds.
    ln_mean: f64,
    /// Of ln d, outliers aside, ...
    variance: f64,
    /// ... and with them.
    tail_variance: f64,
    /// In seconds: the mean, unless outliers make it larger than the lognormal's.
    typical: f64,
}

impl Durations {
    fn seen(moments: &Moments) -> Option<Self> {
        let sum = |sum| float(moments.get(sum));
        let n = sum(Sum::Samples);
        if n < 1.0 {
            return None;
        }
        let per = 1.0 / n;
        let busy = sum(Sum::Duration) * 1e-3;
        let mean = busy * per;
        let ln_mean = sum(Sum::LnDuration) * (per * 1e-3);
        let of_logs = at_least(0.0, sum(Sum::LnDurationSquared) * (per * 1e-6) - ln_mean * ln_mean);
        let of_moments = ln(at_least(1.0, sum(Sum::DurationSquared) * (per * 1e-6) / (mean * mean)));
        let raw = at_most(of_logs, of_moments);
        let mixed = raw + K.mixed * (of_logs - raw);
        let weight = 1.0 / (n + K.prior_weight);
        let unbiased = n * raw * n / at_least(1.0, n - 1.0);
        let variance = at_most(3.0, at_least(4e-4, (unbiased + K.prior_weight * K.prior_variance) * weight));
        let excess = (at_least(of_logs, of_moments) - raw) * n * weight;
        Some(Self {
            batches: n,
            busy,
            mean,
            ln_mean,
            variance,
            tail_variance: at_most(4.0, variance + excess),
            typical: at_least(1e-3, at_most(mean, exp(ln_mean + 0.5 * mixed - LN_1000))),
        })
    }

    /// Nothing has finished: a batch takes about as long again as those in flight have taken (Lindy's law).
    fn guessed((batches, age): (f64, f64)) -> Option<Self> {
        (batches > 0.0 && age > 0.0).then_some(Self {
            batches: 1.0,
            busy: 0.0,
            mean: age,
            ln_mean: 0.0,
            variance: K.prior_variance,
            tail_variance: K.prior_variance,
            typical: age,
        })
    }
}

/// How large a batch of those that are left is, by its items, against one of those that are settled; where both are known.
fn size_of_the_rest(work: &Work, left: f64) -> f64 {
    let done = work.counts.items_processed.saturating_add(work.counts.items_failed);
    match work.total_items.and_then(|all| all.checked_sub(done)) {
        Some(rest) if rest > 0 && done > 0 => {
            let size = count(rest) * count(work.counts.settled()) / (left * count(done));
            at_most(50.0, at_least(0.02, size))
        }
        _ => 1.0,
    }
}

/// How much longer batches take of late than on average.
struct Speed {
    /// So many times as long.
    factor: f64,
    /// So many batches' worth of evidence there is for it.
    batches: f64,
}

impl Speed {
    /// Were ln d `a` up to the share τ of the time and `b` after it, at a steady rate, the means that weigh batches by 1, t and t² would be a + (b − a)
    /// (1 − τ), a + (b − a)(1 − τ²) and a + (b − a)(1 − τ³). Their differences from the first, δ₁ and δ₂, give 1 + τ = δ₂/δ₁ and b = a's mean +
    /// δ₁/(1 − τ): the step. It is believed as far as δ₂ is more than chance, and taken to be δ₂ at least.
    ///
    /// t counts from the start of processing, to which moments about the job's creation are moved. Σt²/T², with the time T of the last batch, is no
    /// more than the effective number of batches, (Σt²)²/Σt⁴, and needs no more sums.
    fn of_late(work: &Work, seen: &Durations, started: f64, last: f64) -> Self {
        let (started, last) = (started * TICKS_PER_SECOND, last * TICKS_PER_SECOND);
        let sum = |sum| float(work.moments.get(sum));
        let moved = |zeroth: f64, first: f64, second: f64| {
            (first - started * zeroth, second - started * (2.0 * first - started * zeroth))
        };
        let (weights, squares) = moved(seen.batches, sum(Sum::Time), sum(Sum::TimeSquared));
        let logs = (sum(Sum::LnDuration), sum(Sum::TimeLnDuration), sum(Sum::TimeSquaredLnDuration));
        let (logs_by_time, logs_by_square) = moved(logs.0, logs.1, logs.2);
        let unchanged = Self { factor: 1.0, batches: seen.batches };
        let few = squares / (last * last);
        if weights <= 0.0 || few <= 1.0 {
            return unchanged;
        }
        let few = at_most(seen.batches, few);
        let by_square = logs_by_square / squares * 1e-3 - seen.ln_mean;
        let squared = by_square * by_square;
        let chance = K.doubt * (seen.variance * (1.0 / few - 1.0 / seen.batches) + 1e-4);
        if squared <= chance {
            return unchanged;
        }
        let belief = 1.0 - chance / squared;
        let by_time = logs_by_time / weights * 1e-3 - seen.ln_mean;
        let growth = by_square / by_time;
        let at = at_most(0.999, at_least(0.0, growth - 1.0));
        // δ₁/(1 − τ) in units of δ₂.
        let step = by_square * at_least(1.0, at_most(K.leap, 1.0 / (growth * (1.0 - at))));
        Self { factor: exp(belief * step), batches: seen.batches * (1.0 - belief) + few * belief }
    }
}

/// A sum as a floating-point number: quick where it fits into 64 bits, and by its halves, several times as fast as `as f64`, where not.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "estimates need no more than 53 bits"
)]
fn float(sum: i128) -> f64 {
    if let Ok(small) = i64::try_from(sum) {
        return small as f64;
    }
    let size = sum.unsigned_abs();
    let size = ((size >> 64) as u64 as f64) * 18_446_744_073_709_551_616.0 + (size as u64 as f64);
    if sum < 0 { -size } else { size }
}

/// A number as a floating-point one; signed ones convert in one instruction.
#[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
fn count(number: u64) -> f64 {
    number.min(u64::MAX / 2).cast_signed() as f64
}

/// How the longer durations spread: lognormally.
///
/// P(Z > z) of a standard normal is taken to be e^(−t²/2) with z = t − 1.2/t − 0.3: in form a shorter Abramowitz and Stegun 26.2.23, within 0.02 of
/// it from 10⁻⁵ to 0.1, where the slowest are, and it can be solved both ways.
struct Tail {
    /// Of ln d.
    variance: f64,
    /// Its root.
    deviation: f64,
}

impl Tail {
    fn of(variance: f64) -> Self {
        Self { variance, deviation: variance.sqrt() }
    }

    /// −2 ln P(d > age), with `age` in means.
    fn beyond(&self, age: f64) -> f64 {
        let y = (ln(age) + 0.5 * self.variance) / self.deviation + 0.3;
        let t = 0.5 * (y + (y * y + 4.8).sqrt());
        t * t
    }

    /// More than the slowest of 32 takes that are no older than one and a half means, in means: a parabola above [`Self::quantile`].
    fn bound(&self) -> f64 {
        2.0 + self.variance * (7.0 + 2.0 * self.variance)
    }

    /// The duration that is exceeded with probability e^(−t²/2), in means.
    fn quantile(&self, t_squared: f64) -> f64 {
        let z = t_squared.sqrt() * (1.0 - 1.2 / t_squared) - 0.3;
        exp(self.deviation * z - 0.5 * self.variance)
    }
}

const TICKS_PER_SECOND: f64 = 1_000.0 / moments::TICK_MS as f64;
const LN_1000: f64 = 6.907_755_278_982_137;

/// Single precision is more than an estimate needs, and takes half the time.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
fn exp(x: f64) -> f64 {
    f64::from((x as f32).exp())
}

/// As [`exp`].
#[expect(clippy::cast_possible_truncation, reason = "see there")]
fn ln(x: f64) -> f64 {
    f64::from((x as f32).ln())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_in_flight_end_within_the_bound() {
        for variance in (1..=400).map(|v| f64::from(v) / 100.0) {
            let tail = Tail::of(variance);
            let slowest = tail.quantile(tail.beyond(1.5) - 2.0 * ln(K.straggle / 32.0));
            assert!(slowest < tail.bound(), "{variance}: {slowest} > {}", tail.bound());
        }
    }

    #[test]
    fn the_quantile_is_that_of_a_normal_where_the_slowest_are() {
        let tail = Tail::of(1.0);
        for (p, z) in
            [(0.1, 1.281_55), (0.01, 2.326_35), (0.001, 3.090_23), (1e-4, 3.719_02), (1e-5, 4.264_89)]
        {
            let found = ln(tail.quantile(-2.0 * ln(p))) + 0.5;
            assert!((found - z).abs() < 0.02, "{p}: {found}, not {z}");
            // Solved the other way: z deviations above the mean of ln d.
            let beyond = tail.beyond(exp(z - 0.5)) / -2.0;
            assert!((beyond - ln(p)).abs() < 0.1, "{p}: {beyond}, not {}", ln(p));
        }
    }
}
