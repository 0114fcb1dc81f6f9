//! What CI simulates, and what the simulation itself promises.

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use simulation::{backend, faults::Tally, history::Detail, simulate};

/// How many runs each store has to pass here: about a minute for all on two cores.
const OVER_DYNAMODB: u64 = 1_500;
const IN_MEMORY: u64 = 8_000;
const OVER_SQLITE: u64 = 1_500;

/// How many runs are repeated, request for request.
const REPEATED: u64 = 30;

#[test]
fn what_must_hold_holds_over_dynamodb_whatever_goes_wrong() {
    all_hold("dynamodb", OVER_DYNAMODB);
}

#[test]
fn what_must_hold_holds_in_memory_whatever_goes_wrong() {
    all_hold("memory", IN_MEMORY);
}

#[test]
fn what_must_hold_holds_over_sqlite_whatever_goes_wrong() {
    all_hold("sqlite", OVER_SQLITE);
}

/// Simulates all seeds, until one is violated, and sees to it that every fault has met every
/// operation: for what is rare there are as many seeds again, and once more.
fn all_hold(store: &str, seeds: u64) {
    let tally = Mutex::new(Tally::default());
    for first in [1, seeds + 1, 2 * seeds + 1] {
        hold_in(first..first + seeds, store, &tally);
        if tally.lock().expect("nobody panicked").empty_cells().is_empty() {
            return;
        }
    }
    let tally = tally.into_inner().expect("nobody panicked");
    panic!("{} never met\n{tally}", tally.empty_cells().join(", "));
}

fn hold_in(seeds: Range<u64>, store: &str, tally: &Mutex<Tally>) {
    let (next, violated) = (AtomicU64::new(seeds.start), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let run = simulate(seed, store, Detail::Steps).expect("a store");
                    tally.lock().expect("nobody panicked").add(&run.tally);
                    if let Some(violation) = run.violation {
                        next.store(seeds.end, Ordering::Relaxed);
                        violated.lock().expect("nobody panicked").get_or_insert((seed, violation));
                    }
                }
            });
        }
    });
    if let Some((seed, violation)) = violated.into_inner().expect("nobody panicked") {
        panic!(
            "seed {seed}, {violation}\ncargo xtask simulate --store {store} --from {seed} --seeds 1 replays it"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for store in backend::NAMES {
        for seed in 1..=REPEATED {
            let run = || simulate(seed, store, Detail::Lines).expect("a store").history;
            let (first, second) = (run(), run());
            let differ = first.iter().zip(&second).find(|(first, second)| first != second);
            assert_eq!(differ, None, "seed {seed} over {store}");
            assert_eq!(first.len(), second.len(), "seed {seed} over {store}");
            // Counting steps instead of writing them down changes nothing.
            let steps = simulate(seed, store, Detail::Steps).expect("a store");
            assert_eq!(steps.history, [""; 0]);
            assert!(first.last().is_some_and(|last| last.trim_start().starts_with(&steps.steps.to_string())));
        }
    }
}
