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

/// What the model cannot derive, found by random search over both sets of the kit in `benches/eta`, all regimes together.
struct Constants {
    /// Prior variance of ln d, ...
    prior_variance: f64,
    /// ... and its weight in batches.
    prior_weight: f64,
    /// Variances by which a change of speed must stand out before it is believed, ...
    doubt: f64,
    /// ... waves of batches that must be through before, ...
    settle_in: f64,
    /// ... and how far beyond what the squares show a step may be taken to have gone.
    leap: f64,
    /// Weight in the mean of a batch in flight.
    censored: f64,
    /// Share of the slowest batch's excess over the mean that comes on top of a balanced finish, and the quantile at which the last of those in
    /// flight is expected.
    straggle: f64,
    /// P(the slowest is slower still) while batches queue.
    slowest: f64,
    /// Share of its age that a batch far over its time still needs.
    linger: f64,
    /// Age of a batch in flight where starts are not tracked, in mean durations, ...
    age_share: f64,
    /// ... and the multiple of the silence since the last fact that comes on top.
    silence: f64,
    /// The interval's lower factor, ...
    low: f64,
    /// ... the one when nothing queues any more, ...
    low_tail: f64,
    /// ... and ln of the upper one, by the spread of durations.
    high: f64,
}

const K: Constants = Constants {
    prior_variance: 0.056,
    prior_weight: 17.0,
    doubt: 15.0,
    settle_in: 4.5,
    leap: 1.45,
    censored: 0.18,
    straggle: 0.48,
    slowest: 0.065,
    linger: 0.25,
    age_share: 0.73,
    silence: 2.1,
    low: 0.74,
    low_tail: 0.15,
    high: 1.4,
};

/// The time remaining; `None` where it cannot be known: no total yet, nothing finished or in flight, nothing left.
pub fn remaining(work: &Work) -> Option<Remaining> {
    let left = work.total?.checked_sub(work.counts.settled()).filter(|left| *left > 0)?;
    let left = count(left);
    let since_start = |at: Duration| seconds_of(at.saturating_sub(work.started)).max(1e-3);
    let (elapsed, last) = (since_start(work.now), since_start(work.last.min(work.now)));
    let flying = work.in_flight.map(|f| (count(f.batches), seconds_of(f.age) / count(f.batches.max(1))));
    let seen = Durations::seen(&work.moments).or_else(|| Durations::guessed(flying?))?;
    let n = seen.batches;
    // The batches in flight: known, or by Little's law.
    let (in_flight, age) = flying.unwrap_or_else(|| {
        let age = K.age_share * seen.mean + K.silence * (elapsed - last);
        ((seen.busy / last + 0.5).round().max(1.0), age)
    });
    let average = ((seen.busy + in_flight * age) / elapsed).max(0.05);
    let speed = if n / average > K.settle_in {
        Speed::of_late(work, &seen, last)
    } else {
        Speed { step: 0.0, batches: n }
    };
    // The mean duration, corrected by those in flight, of which only the age is known.
    let log_age = ln(age.max(1e-4));
    let spread = Spread::of(seen.variance);
    let finished = Mean::of_log((seen.log_mean + speed.step).max(-7.0));
    let censored = in_flight * K.censored;
    let expected = spread.expected_beyond(&finished, age, log_age);
    let residual = expected - age;
    let duration = (finished.mean * speed.batches + censored * expected) / (speed.batches + censored);
    let duration = duration.max(1e-3);
    // The number of workers: the batches in flight so far and now, as geometric means, five to three.
    let fourth_root = (in_flight.max(1.0) / average).sqrt().sqrt();
    let workers = (average * fourth_root * fourth_root.sqrt()).max(0.05);

    // When the last of those in flight ends.
    let tail = Spread::of(seen.tail_variance);
    let ending = in_flight.min(left);
    let flying_done = || {
        if ending <= 0.0 {
            return (elapsed - last - duration / workers).max(0.02 * duration);
        }
        let beyond = normal_above(tail.deviations(&Mean::of(duration), log_age)).max(1e-9);
        let slowest = duration * tail.times_mean(K.straggle * beyond / ending) - age;
        slowest.max(K.linger * (age - duration)).max(0.02 * duration)
    };
    // Whatever queues behind them, spread over the workers, and the slowest of the last wave.
    let queued = left - ending;
    let seconds = if queued > 0.0 {
        let wave = workers.min(left).max(1.0);
        // Half of 1 + the squared coefficient of variation, eᵛ − 1, to the second order.
        let balanced = f64::midpoint(1.0, (tail.variance * (1.0 + tail.variance / 2.0)).min(1.0));
        let excess = (tail.times_mean(K.slowest / wave) - balanced).max(0.0) * (1.0 - 1.0 / wave);
        let work_left = queued * size_of_the_rest(work, left) * duration + ending * residual;
        let queue_done = work_left / workers + K.straggle * duration * excess;
        // Seven deviations, as far as a tail reaches here, are less than eight times a mean with this variance: then it is not looked at.
        let far = 8.0 * duration;
        if tail.variance < 0.09 && ending > 0.0 && age < far && far < queue_done {
            queue_done
        } else {
            queue_done.max(flying_done())
        }
    } else {
        flying_done()
    };

    let first = 0.5 / (n * n);
    let low = if queued > 0.0 { K.low } else { K.low_tail } * (1.0 - first).max(0.1);
    let high = exp((K.high * spread.deviation.min(1.6) + first).clamp(0.02, 3.0));
    let span = |factor: f64| millis(factor * (seconds + 1.0) - 1.0);
    Some(Remaining { low: span(low), estimate: millis(seconds), high: span(high) })
}

fn seconds_of(duration: Duration) -> f64 {
    count(duration.as_secs()) + f64::from(duration.subsec_nanos()) * 1e-9
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn millis(seconds: f64) -> Duration {
    // Rounded up: what remains is never nothing.
    Duration::from_millis((seconds.clamp(0.0, 1e9) * 1e3) as u64 + 1)
}

/// What is known of the durations of batches.
struct Durations {
    batches: f64,
    /// In seconds.
    busy: f64,
    mean: f64,
    /// Of ln d in milliseconds.
    ln_mean: f64,
    /// Of ln d, outliers aside, ...
    variance: f64,
    /// ... and with them.
    tail_variance: f64,
    /// ln of the mean, unless outliers make it larger than the lognormal's.
    log_mean: f64,
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
        let ln_mean = sum(Sum::LnDuration) * per * 1e-3;
        let of_logs = (sum(Sum::LnDurationSquared) * per * 1e-6 - ln_mean * ln_mean).max(0.0);
        let of_moments = ln((sum(Sum::DurationSquared) * per * 1e-6 / (mean * mean)).max(1.0));
        let raw = of_logs.min(of_moments);
        let unbiased = n * raw * n / (n - 1.0).max(1.0);
        let weight = 1.0 / (n + K.prior_weight);
        let variance = ((unbiased + K.prior_weight * K.prior_variance) * weight).clamp(4e-4, 3.0);
        let excess = (of_logs.max(of_moments) - raw) * n * weight;
        Some(Self {
            batches: n,
            busy,
            mean,
            ln_mean,
            variance,
            tail_variance: (variance + excess).min(4.0),
            log_mean: ln(mean).min(ln_mean + raw / 2.0 - LN_1000),
        })
    }

    /// Nothing has finished: a batch takes about as long again as those in flight have taken (Lindy's law).
    fn guessed((batches, age): (f64, f64)) -> Option<Self> {
        (batches > 0.0 && age > 0.0).then(|| Self {
            batches: 1.0,
            busy: 0.0,
            mean: age,
            ln_mean: ln(age) + LN_1000,
            variance: K.prior_variance,
            tail_variance: K.prior_variance,
            log_mean: ln(age),
        })
    }
}

/// How large a batch of those that are left is, by its items, against one of those that are settled; where both are known.
fn size_of_the_rest(work: &Work, left: f64) -> f64 {
    let done = work.counts.items_processed.saturating_add(work.counts.items_failed);
    match work.total_items.and_then(|all| all.checked_sub(done)) {
        Some(rest) if rest > 0 && done > 0 => {
            (count(rest) * count(work.counts.settled()) / (left * count(done))).clamp(0.02, 50.0)
        }
        _ => 1.0,
    }
}

/// How much longer batches take of late than on average.
struct Speed {
    /// What is to be added to the mean of ln d.
    step: f64,
    /// So many batches' worth of evidence there is for it.
    batches: f64,
}

impl Speed {
    /// Were ln d `a` up to the share τ of the time and `b` after it, at a steady rate, the means that weigh batches by 1, t and t² would be a + (b − a)
    /// (1 − τ), a + (b − a)(1 − τ²) and a + (b − a)(1 − τ³). Their differences from the first, δ₁ and δ₂, give 1 + τ = δ₂/δ₁ and b = a's mean +
    /// δ₁/(1 − τ): the step. It is believed as far as δ₂ is more than chance, and taken to be δ₂ at least.
    ///
    /// t counts from the start of processing; the moments about it follow from those about the job's creation exactly, in integers. Σt²/T²,
    /// with the time T of the last batch, is no more than the effective number of batches, (Σt²)²/Σt⁴, and needs no more sums.
    fn of_late(work: &Work, seen: &Durations, last: f64) -> Self {
        // 2²⁵ ticks are 38 days, beyond which moments do not tell times apart.
        let ticks = work.started.as_secs().saturating_mul(1_000 / moments::TICK_MS)
            + u64::from(work.started.subsec_millis()) / moments::TICK_MS;
        let s = i128::from(ticks.min(1 << 25));
        let m = |sum| work.moments.get(sum);
        let (n, t1, t2) = (m(Sum::Samples), m(Sum::Time), m(Sum::TimeSquared));
        let (logs, t1_logs, t2_logs) =
            (m(Sum::LnDuration), m(Sum::TimeLnDuration), m(Sum::TimeSquaredLnDuration));
        let weights = float(t1 - n * s);
        let squares = float(t2 - s * (2 * t1 - s * n));
        let unchanged = Self { step: 0.0, batches: seen.batches };
        if weights <= 0.0 || squares <= 0.0 {
            return unchanged;
        }
        let by_time = float(t1_logs - s * logs) / weights * 1e-3 - seen.ln_mean;
        let by_square = float(t2_logs - s * (2 * t1_logs - s * logs)) / squares * 1e-3 - seen.ln_mean;
        let last_ticks = (last * TICKS_PER_SECOND).max(1.0);
        let few = (squares / (last_ticks * last_ticks)).clamp(1.0, seen.batches);
        let chance = K.doubt * (seen.variance * (1.0 / few - 1.0 / seen.batches).max(0.0) + 1e-4);
        let belief = 1.0 - chance / (by_square * by_square).max(1e-12);
        if belief <= 0.0 {
            return unchanged;
        }
        let at = (by_square / by_time - 1.0).clamp(0.0, 1.0);
        let step = by_time / (1.0 - at).max(1e-3) / by_square;
        let step = by_square * if step > 1.0 { step.min(K.leap) } else { 1.0 };
        Self { step: belief * step, batches: seen.batches * (1.0 - belief) + few * belief }
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

/// A mean duration, with its logarithm.
struct Mean {
    mean: f64,
    log: f64,
}

impl Mean {
    fn of(mean: f64) -> Self {
        Self { mean, log: ln(mean) }
    }

    fn of_log(log: f64) -> Self {
        Self { mean: exp(log), log }
    }
}

/// How durations spread about their mean: lognormally.
struct Spread {
    /// Of ln d.
    variance: f64,
    /// Its root.
    deviation: f64,
}

impl Spread {
    fn of(variance: f64) -> Self {
        Self { variance, deviation: variance.sqrt() }
    }

    /// How far ln(age) is above the mean of ln d, in standard deviations, where durations have this mean.
    fn deviations(&self, mean: &Mean, log_age: f64) -> f64 {
        (log_age - mean.log + self.variance / 2.0) / self.deviation
    }

    /// E[d | d > age] where durations have this mean: mean · P(Z > z − σ) / P(Z > z), which is age · M(z − σ) / M(z) with Mills' ratio M.
    fn expected_beyond(&self, mean: &Mean, age: f64, log_age: f64) -> f64 {
        match self.deviations(mean, log_age) {
            ..-5.0 => mean.mean,
            z @ ..=5.0 => (age * mills(z - self.deviation) / mills(z)).max(age),
            _ => age * (1.0 + 0.3 * self.deviation),
        }
    }

    /// What a duration that is exceeded with this probability is to the mean.
    fn times_mean(&self, exceeded: f64) -> f64 {
        exp(self.deviation * upper_quantile(exceeded.clamp(1e-12, 0.98)) - self.variance / 2.0)
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

/// P(Z > z) of a standard normal.
fn normal_above(z: f64) -> f64 {
    let above = exp(-z * z / 2.0) * upper_mills(z.abs()) / ROOT_2_PI;
    if z >= 0.0 { above } else { 1.0 - above }
}

/// Mills' ratio of a standard normal, P(Z > z) / φ(z).
fn mills(z: f64) -> f64 {
    if z >= 0.0 { upper_mills(z) } else { ROOT_2_PI * exp(z * z / 2.0) - upper_mills(-z) }
}

/// [`mills`] of z ≥ 0, within 1.1 % (A. V. Boyd, *Inequalities for Mills' ratio*, 1959: the lower bound, exact at 0 and at ∞).
fn upper_mills(z: f64) -> f64 {
    std::f64::consts::PI / ((std::f64::consts::PI - 1.0) * z + (z * z + std::f64::consts::TAU).sqrt())
}

const ROOT_2_PI: f64 = 2.506_628_274_631_000_2;

/// The quantile of a standard normal that is exceeded with probability `p`, to 4.5e-4 (Abramowitz and Stegun, 26.2.23).
fn upper_quantile(p: f64) -> f64 {
    let t = (-2.0 * ln(p.min(1.0 - p))).sqrt();
    let above = t
        - (2.515_517 + t * (0.802_853 + t * 0.010_328))
            / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    if p < 0.5 { above } else { -above }
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
