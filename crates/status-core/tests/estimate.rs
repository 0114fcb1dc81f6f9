//! What holds of the estimate for any history.

use std::time::Duration;

use proptest::prelude::*;
use status_core::{
    Moments,
    estimate::{self, InFlight, Remaining, Work},
};

#[derive(Clone, Debug)]
struct History {
    /// When each batch finished, how long it took, and how many items it had.
    batches: Vec<(u64, u64, u64)>,
    left: u64,
    started: u64,
    silent: u64,
    in_flight: Option<(u64, u64)>,
    items_left: Option<u64>,
}

impl History {
    fn work(&self) -> Work {
        let mut work = Work { started: Duration::from_millis(self.started), ..Work::default() };
        let mut last = self.started;
        for (finished, took, items) in &self.batches {
            let finished = self.started + finished;
            work.moments.add(&Moments::sample(finished, Duration::from_millis(*took)));
            work.counts.completed += 1;
            work.counts.items_processed += items;
            last = last.max(finished);
        }
        work.total = Some(work.counts.completed + self.left);
        work.total_items = self.items_left.map(|left| work.counts.items_processed + left);
        work.last = Duration::from_millis(last);
        work.now = Duration::from_millis(last + self.silent);
        work.in_flight = self
            .in_flight
            .map(|(batches, age)| InFlight { batches, age: Duration::from_millis(age * batches) });
        work
    }
}

fn histories() -> impl Strategy<Value = History> {
    let long = 30 * 86_400_000_u64;
    let time = prop_oneof![0..60_000_u64, 0..10_000_000_u64, 0..long];
    let batch = (time.clone(), time.clone(), 0..1_000_u64);
    let in_flight = prop::option::of((0..200_u64, time.clone()));
    let batches = prop::collection::vec(batch, 0..60);
    (batches, 0..100_000_u64, time.clone(), time, in_flight, prop::option::of(0..10_000_000_u64)).prop_map(
        |(batches, left, started, silent, in_flight, items_left)| History {
            batches,
            left,
            started,
            silent,
            in_flight,
            items_left,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bounds_hold_and_zero_means_nothing_remains(history in histories()) {
        match estimate::remaining(&history.work()) {
            Some(Remaining { low, estimate, high }) => {
                prop_assert!(low <= estimate && estimate <= high, "{low:?} {estimate:?} {high:?}");
                prop_assert!(history.left > 0);
                prop_assert!(estimate > Duration::ZERO);
            }
            None => prop_assert!(history.left == 0 || history.batches.is_empty()),
        }
    }

    #[test]
    fn more_remaining_work_never_means_less_time(history in histories(), more in 1..1_000_u64) {
        let longer = History { left: history.left + more, items_left: None, ..history.clone() };
        let history = History { items_left: None, ..history };
        if let (Some(less), Some(more)) = (estimate::remaining(&history.work()), estimate::remaining(&longer.work())) {
            prop_assert!(less.estimate <= more.estimate + Duration::from_millis(1), "{:?} > {:?}", less.estimate, more.estimate);
        }
    }

    #[test]
    fn the_order_of_outcomes_changes_nothing(history in histories(), seed in any::<u64>()) {
        let mut shuffled = history.clone();
        let batches = shuffled.batches.len().max(1);
        shuffled.batches.rotate_left(usize::try_from(seed % batches as u64).expect("small"));
        shuffled.batches.reverse();
        prop_assert_eq!(estimate::remaining(&history.work()), estimate::remaining(&shuffled.work()));
    }

    #[test]
    fn the_text_is_for_people(history in histories()) {
        if let Some(remaining) = estimate::remaining(&history.work()) {
            let text = estimate::text(&remaining, false);
            prop_assert!(text.ends_with(" left") && text.len() < 60, "{}", text);
        }
    }
}

#[test]
fn a_steady_job_is_estimated_closely_wherever_it_starts() {
    for started in [0, 3_600_000] {
        // Four workers, ten seconds a batch, 60 of 120 done.
        let batches = (0..60).map(|n| ((n / 4 + 1) * 10_000 + n % 4 * 100, 10_000, 10)).collect();
        let history = History { batches, left: 60, started, silent: 0, in_flight: None, items_left: None };
        let remaining = estimate::remaining(&history.work()).expect("known").estimate.as_secs_f64();
        assert!((130.0..175.0).contains(&remaining), "{remaining}");
    }
}

#[test]
fn larger_batches_to_come_take_longer() {
    let batches: Vec<_> = (0..40)
        .map(|n| {
            (n * 5_000 + 5_000, if n % 2 == 0 { 5_000 } else { 10_000 }, if n % 2 == 0 { 10 } else { 20 })
        })
        .collect();
    let left = |items_left| {
        let history = History {
            batches: batches.clone(),
            left: 40,
            started: 0,
            silent: 0,
            in_flight: None,
            items_left,
        };
        estimate::remaining(&history.work()).expect("known").estimate
    };
    assert!(left(Some(1_200)) > left(Some(600)).mul_f64(1.5));
    assert!(left(Some(600)).abs_diff(left(None)) < Duration::from_secs(20));
}

#[test]
fn texts_are_as_precise_as_the_bounds() {
    let seconds = Duration::from_secs;
    let text = |low, estimate, high| {
        estimate::text(
            &Remaining { low: seconds(low), estimate: seconds(estimate), high: seconds(high) },
            false,
        )
    };
    assert_eq!(text(20, 40, 60), "less than a minute left");
    assert_eq!(text(50, 60, 90), "about a minute left");
    assert_eq!(text(100, 130, 200), "about 2 minutes left");
    assert_eq!(text(700, 1_000, 1_500), "about 15 minutes left");
    assert_eq!(text(3_000, 3_600, 4_500), "about an hour left");
    assert_eq!(text(6_000, 7_300, 9_000), "about 2 hours left");
    assert_eq!(text(100, 1_000, 7_200), "2 minutes to 2 hours left");
    assert_eq!(text(1, 20, 100), "less than 2 minutes left");
    let stalled = Remaining { low: seconds(1), estimate: seconds(2), high: seconds(3) };
    assert!(estimate::text(&stalled, true).contains("on hold"));
}

/// Jobs as they are met: with starts and without, steady and not, in the middle and at the end, and one that became slower.
fn usual() -> [(&'static str, History); 6] {
    let job = |took: fn(u64) -> u64, left, in_flight| History {
        batches: (0..60).map(|n| ((n / 4 + 1) * 10_000 + n % 4 * 100, took(n), 10)).collect(),
        left,
        started: 5_000,
        silent: 400,
        in_flight,
        items_left: Some(left * 10),
    };
    let steady = |n| 10_000 + n * 31;
    let varied = |n| 1_000 + n * 7_919 % 61 * 700;
    let slower = |n| if n > 40 { 30_000 } else { 10_000 + n * 31 };
    [
        ("steady, starts known", job(steady, 60, Some((4, 3_000)))),
        ("steady, starts unknown", job(steady, 60, None)),
        ("varied, starts known", job(varied, 60, Some((4, 3_000)))),
        ("varied, starts unknown", job(varied, 60, None)),
        ("slower of late", job(slower, 600, Some((4, 3_000)))),
        ("the last four", job(varied, 4, Some((4, 13_000)))),
    ]
}

#[test]
fn an_estimate_costs_less_than_a_microsecond() {
    for (name, history) in usual() {
        let work = history.work();
        let per_call = (0..20).map(|_| {
            let begun = std::time::Instant::now();
            for _ in 0..5_000 {
                std::hint::black_box(estimate::remaining(std::hint::black_box(&work)));
            }
            begun.elapsed() / 5_000
        });
        let fastest = per_call.min().expect("twenty");
        println!("{name:24}{fastest:?}");
        // An idle machine takes a fifth of it; one that runs other tests as well must not fail for that.
        let bound = if cfg!(debug_assertions) { Duration::from_micros(20) } else { Duration::from_micros(1) };
        assert!(fastest < bound, "{name}: {fastest:?}");
    }
}
