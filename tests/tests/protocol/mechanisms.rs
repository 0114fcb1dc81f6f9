//! Each mechanism alone within large bounds, and all of them together within small ones.

use crate::{check::holds, model::Protocol};

/// Six batches in chunks of two, three workers, two faults; nothing but outcomes.
pub(crate) const ALONE: Protocol = Protocol {
    batches: 6,
    strays: 0,
    capacity: 2,
    workers: 3,
    splitters: 0,
    faults: 2,
    tolerance: None,
    errors: 0,
    cancel: false,
    sweeps: 0,
    compaction: false,
    shortcut: true,
    propagation: false,
    head_first: false,
    after_end: false,
    without: None,
};

#[test]
fn outcomes_and_the_shortcut() {
    holds("outcomes, shortcut", ALONE);
}

#[test]
fn failures_and_tolerance() {
    holds("failures", Protocol { batches: 4, workers: 2, tolerance: Some(1), ..ALONE });
}

#[test]
fn the_seal() {
    holds("seal", Protocol { batches: 5, workers: 2, splitters: 2, ..ALONE });
}

#[test]
fn compaction() {
    holds("compaction", Protocol { compaction: true, ..ALONE });
}

#[test]
fn a_cancel() {
    holds("cancel", Protocol { batches: 4, workers: 2, cancel: true, ..ALONE });
}

#[test]
fn sweeps_and_an_end_that_is_told() {
    holds("sweeps, propagation", Protocol { batches: 4, workers: 2, sweeps: 2, propagation: true, ..ALONE });
}

#[test]
fn errors_of_items() {
    let errors = Protocol { batches: 2, workers: 3, errors: 2, tolerance: Some(1), after_end: true, ..ALONE };
    holds("errors", errors);
}

#[test]
fn batches_past_the_total() {
    let strays = Protocol { batches: 3, strays: 1, workers: 2, splitters: 1, compaction: true, ..ALONE };
    holds("strays", strays);
}

#[test]
fn all_together_but_the_seal() {
    let all = Protocol {
        batches: 2,
        workers: 2,
        faults: 1,
        tolerance: Some(1),
        cancel: true,
        sweeps: 1,
        compaction: true,
        propagation: true,
        ..ALONE
    };
    holds("all together, but the seal", all);
}

#[test]
fn the_seal_with_a_cancel_and_a_sweep() {
    let seal = Protocol {
        batches: 2,
        workers: 2,
        splitters: 1,
        faults: 1,
        cancel: true,
        sweeps: 1,
        propagation: true,
        ..ALONE
    };
    holds("seal, cancel, sweep", seal);
}
