//! Each rule is needed: without it, a promise is broken.

use crate::{check::breaks, mechanisms::ALONE, model::Protocol, rules::*};

/// Two batches in one chunk, two workers.
const TWO: Protocol = Protocol { batches: 2, capacity: 2, workers: 2, faults: 0, ..ALONE };
/// The same, and the first failure fails the job.
const FAILING: Protocol = Protocol { tolerance: Some(0), ..TWO };
/// Three batches in chunks of two, sealed by one splitter while one worker works.
const SEALED: Protocol = Protocol { batches: 3, workers: 1, splitters: 1, ..TWO };
/// One batch, of which items may have errors.
const ERRORS: Protocol = Protocol { batches: 1, errors: 2, ..TWO };

#[test]
fn without_its_condition_a_write_counts_a_batch_twice() {
    breaks(COUNTED_ONCE, Rule::WritesAreGuarded, Protocol { faults: 1, ..TWO });
}

#[test]
fn without_its_condition_a_write_fails_a_completed_batch() {
    breaks(NEVER_BACK, Rule::WritesAreGuarded, Protocol { faults: 1, tolerance: Some(1), ..TWO });
}

#[test]
fn without_a_comparison_a_swap_undoes_the_end() {
    breaks(FINAL, Rule::SwapsCompare, Protocol { cancel: true, ..TWO });
}

#[test]
fn without_a_comparison_a_sweeper_undoes_the_end() {
    breaks(FINAL, Rule::SweepersSwap, Protocol { sweeps: 1, ..TWO });
}

#[test]
fn a_worker_that_gives_up_after_a_lost_swap_leaves_the_job_undecided() {
    breaks(OVER, Rule::LostSwapsAreRepeated, Protocol { cancel: true, ..TWO });
}

#[test]
fn a_decision_from_eventual_reads_misses_the_last_batch() {
    breaks(OVER, Rule::DecisionsReadStrongly, TWO);
}

#[test]
fn a_cancel_that_comes_before_the_facts_loses_work_that_was_done() {
    breaks(FACTS_FIRST, Rule::FactsComeFirst, Protocol { batches: 1, cancel: true, faults: 1, ..TWO });
}

#[test]
fn without_the_mark_the_last_chunk_does_not_know_that_it_is_full() {
    breaks(OVER, Rule::LastChunkIsMarked, SEALED);
}

#[test]
fn a_mark_before_the_swap_refuses_batches_of_a_job_that_is_not_sealed() {
    breaks(ACCEPTED, Rule::HeadBeforeMark, Protocol { workers: 2, strays: 1, ..SEALED });
}

#[test]
fn without_the_look_after_the_seal_a_batch_settled_before_the_mark_is_the_last_in_vain() {
    breaks(OVER, Rule::SealLooks, SEALED);
}

#[test]
fn a_splitter_that_does_not_repeat_its_seal_leaves_it_half_done() {
    breaks(OVER, Rule::SealIsRepeated, Protocol { faults: 1, ..SEALED });
}

#[test]
fn a_shortcut_that_does_not_read_the_highest_chunk_misses_the_end() {
    breaks(OVER, Rule::HighestChunkIsRead, Protocol { batches: 4, ..TWO });
}

#[test]
fn a_chunk_past_the_last_one_hides_the_end_from_a_shortcut_that_takes_it_for_open() {
    breaks(OVER, Rule::StraysHideNoEnd, Protocol { splitters: 1, strays: 1, faults: 1, ..TWO });
}

#[test]
fn a_batch_past_the_total_that_is_counted_stands_for_one_that_is_missing() {
    breaks(WHOLE, Rule::StraysAreMasked, Protocol { workers: 2, strays: 1, ..SEALED });
}

#[test]
fn a_worker_that_does_not_look_before_it_makes_a_chunk_counts_a_batch_past_the_total() {
    breaks(PAST, Rule::ChecksComeFirst, Protocol { batches: 2, strays: 1, ..SEALED });
}

#[test]
fn a_worker_that_does_not_look_after_it_made_a_chunk_leaves_one_past_the_last_open() {
    breaks(CLOSED, Rule::MakersLookAgain, Protocol { batches: 2, strays: 1, ..SEALED });
}

#[test]
fn a_seal_that_does_not_close_leaves_a_chunk_past_the_last_one_open() {
    breaks(CLOSED, Rule::SealCloses, Protocol { batches: 2, strays: 1, ..SEALED });
}

#[test]
fn a_duplicate_that_does_not_look_leaves_what_a_crashed_worker_left() {
    breaks(OVER, Rule::DuplicatesLook, Protocol { faults: 1, ..TWO });
}

#[test]
fn a_failing_duplicate_that_does_not_look_leaves_what_a_crashed_worker_left() {
    breaks(FAILED, Rule::FailingDuplicatesLook, Protocol { faults: 1, ..FAILING });
}

#[test]
fn a_failure_within_the_share_of_its_chunk_may_be_the_one_too_many() {
    let two_chunks = Protocol { batches: 6, capacity: 3, tolerance: Some(2), ..TWO };
    breaks(FAILED, Rule::EveryFailureLooks, two_chunks);
}

#[test]
fn compaction_of_a_chunk_that_is_not_full_makes_up_batches() {
    breaks(WHOLE, Rule::FullChunksAreCompacted, Protocol { compaction: true, ..TWO });
}

#[test]
fn a_compacted_chunk_that_is_told_its_capacity_counts_again() {
    let cut = Protocol { batches: 1, strays: 1, compaction: true, faults: 1, ..SEALED };
    breaks(COUNTED_ONCE, Rule::CompactedChunksStayClosed, cut);
}

#[test]
fn errors_that_come_after_the_outcome_are_lost_in_a_crash() {
    breaks(LISTED_ONCE_QUIET, Rule::ErrorsComeFirst, Protocol { faults: 1, ..ERRORS });
}

#[test]
fn an_attempt_that_does_not_adopt_earlier_errors_counts_others_than_are_listed() {
    breaks(LISTED_ONCE_QUIET, Rule::ErrorsAreAdopted, Protocol { attempts: 1, faults: 1, ..ERRORS });
}

#[test]
fn without_its_name_errors_are_listed_of_an_attempt_that_never_counted() {
    breaks(LISTED_ONCE_QUIET, Rule::CountedErrorsAreListed, Protocol { faults: 1, ..ERRORS });
}

#[test]
fn a_name_that_outlives_a_correction_lists_errors_of_an_attempt_that_never_counted() {
    let corrected = Protocol { workers: 3, faults: 2, tolerance: Some(1), ..ERRORS };
    breaks(LISTED_ONCE_QUIET, Rule::CorrectionsNameTheirs, corrected);
}

#[test]
fn a_job_that_is_not_due_before_its_end_is_told_never_tells_it() {
    breaks(TOLD, Rule::DueUntilTold, Protocol { propagation: true, ..TWO });
}

#[test]
fn a_worker_that_takes_a_failed_batch_for_completed_leaves_it_undone() {
    breaks(WORKED_ON, Rule::FailedBatchesAreWorkedAgain, Protocol { tolerance: Some(1), faults: 1, ..TWO });
}

#[test]
fn a_worker_that_does_not_look_before_it_begins_leaves_what_a_crashed_worker_left() {
    breaks(OVER, Rule::BeginLooks, Protocol { faults: 1, ..TWO });
}

#[test]
fn a_worker_that_trusts_an_old_head_leaves_what_a_crashed_worker_left() {
    breaks(OVER, Rule::BeginKnowsTheCapacity, Protocol { batches: 1, faults: 1, ..SEALED });
}
