//! Each mechanism alone within large bounds, and all of them together within small ones. Seconds are those of
//! one processor.

use crate::{
    check::{holds, loses_nothing},
    model::Protocol,
};

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
    attempts: 2,
    cancel: false,
    sweeps: 0,
    compaction: false,
    propagation: false,
    head_first: false,
    after_end: false,
    step_by_step: false,
    without: None,
};

/// All mechanisms together: failures and their tolerance, the shortcut, compaction, errors of items, the seal by a
/// splitter, a cancel, a sweep, and an end that is told; three batches, of which the last chunk has one.
const ALL: Protocol = Protocol {
    batches: 3,
    workers: 2,
    splitters: 1,
    faults: 1,
    tolerance: Some(1),
    errors: 1,
    cancel: true,
    sweeps: 1,
    compaction: true,
    propagation: true,
    after_end: true,
    ..ALONE
};

#[test]
fn outcomes_and_the_shortcut() {
    holds("outcomes, shortcut", ALONE);
}

#[test]
fn failures_and_tolerance() {
    holds("failures", Protocol { tolerance: Some(1), ..ALONE });
}

#[test]
fn the_seal() {
    holds("seal", Protocol { capacity: 4, splitters: 2, ..ALONE });
}

#[test]
fn compaction() {
    holds("compaction", Protocol { compaction: true, ..ALONE });
}

#[test]
fn a_cancel() {
    holds("cancel", Protocol { cancel: true, ..ALONE });
}

/// One sweep: 1,846,802 states in 24 seconds.
#[test]
fn sweeps_and_an_end_that_is_told() {
    let told = Protocol { sweeps: 1, propagation: true, after_end: true, ..ALONE };
    holds("sweeps, propagation", told);
}

/// Attempts that differ in whether an item had an error.
const ERRORS: Protocol = Protocol { errors: 1, tolerance: Some(1), after_end: true, ..ALONE };

/// Five batches: 3,076,603 states in 37 seconds.
#[test]
fn errors_of_items() {
    holds("errors", Protocol { batches: 5, ..ERRORS });
}

/// 12,334,102 states in 195 seconds.
#[test]
#[ignore = "three minutes: run it with `--test protocol -- --ignored`"]
fn errors_of_the_items_of_six_batches() {
    holds("errors of six batches", ERRORS);
}

/// Attempts that differ in how many items had one, three batches: 405,502 states in 4 seconds.
#[test]
fn several_errors_of_items() {
    holds("several errors", Protocol { batches: 3, errors: 2, ..ERRORS });
}

/// Six batches, and a seventh in a chunk of its own: 12,719,435 states in 135 seconds.
#[test]
fn batches_past_the_total() {
    holds("strays, a chunk of their own", Protocol { strays: 1, splitters: 1, ..ALONE });
}

/// Three batches, and a fourth that the last chunk has no room for: 1,126,317 states in 8 seconds.
#[test]
fn batches_past_the_total_in_the_last_chunk() {
    let strays = Protocol { batches: 3, strays: 1, splitters: 1, compaction: true, ..ALONE };
    holds("strays", strays);
}

/// 14,243,483 states in 106 seconds. With a third worker the search was not done after 84.
#[test]
fn all_together() {
    holds("all together", ALL);
}

/// One batch less, but one worker and one fault more: 4,774,189 states in 40 seconds.
#[test]
fn all_together_in_one_chunk() {
    holds("all together, one chunk", Protocol { batches: 2, workers: 3, faults: 2, ..ALL });
}

/// A query promises no order in which it reads its items.
#[test]
fn all_together_with_the_head_read_first() {
    holds("all together, head first", Protocol { batches: 2, head_first: true, ..ALL });
}

#[test]
fn steps_that_are_left_out_make_no_difference() {
    let two = Protocol { batches: 2, errors: 0, ..ALL };
    loses_nothing("all but the seal", Protocol { splitters: 0, ..two });
    loses_nothing("one worker", Protocol { workers: 1, ..two });
    let sealed = Protocol { tolerance: None, cancel: false, sweeps: 0, ..two };
    loses_nothing("two chunks", Protocol { batches: 3, propagation: false, ..sealed });
    loses_nothing("strays", Protocol { strays: 1, ..sealed });
    let errors = Protocol { batches: 1, workers: 2, errors: 2, tolerance: Some(1), ..ALONE };
    loses_nothing("errors", errors);
}
