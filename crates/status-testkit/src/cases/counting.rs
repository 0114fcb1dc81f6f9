//! Counting: each batch once, whatever is reported, together with what, and how large.

use std::time::Duration;

use futures::future::join_all;
use status_core::{
    BatchIndex, BatchReport, Begin, Clock, Decision, Effect, ItemError, Outcome, PageRequest, Rejection,
    Status, Sum, Totals, clock,
};

use crate::kit::{Kit, batch, done, effects, failed, rejection, splitter, tolerant, totals};

pub(super) async fn every_batch_counts_once(kit: Kit) {
    let id = kit.processing(3).await;
    let mut effects = Vec::new();
    for index in [1, 1, 0, 1, 0] {
        effects.extend(kit.tracker.report(id, vec![done(index)]).await.expect("recorded").effects);
    }
    let expected = [
        (batch(1), Effect::Counted),
        (batch(1), Effect::Duplicate),
        (batch(0), Effect::Counted),
        (batch(1), Effect::Duplicate),
        (batch(0), Effect::Duplicate),
    ];
    assert_eq!(effects, expected);
    let progress = kit.snapshot(id).await.progress;
    assert_eq!((progress.batches.completed, progress.items.processed), (2, 20));
    assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("asked"), Begin::AlreadyCompleted);
    assert_eq!(kit.tracker.begin(id, batch(2)).await.expect("asked"), Begin::Work);
}

pub(super) async fn a_late_batch_counts_and_moves_nothing(kit: Kit) {
    let id = kit.processing(3).await;
    kit.complete(id, [0]).await;
    kit.jobs.cancel(id, None).await.expect("requested");
    let over = Begin::Over(Status::Cancelled);
    assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("confirmed"), over);
    let late = kit.tracker.report(id, vec![done(2)]).await.expect("late is no error");
    assert_eq!((effects(&late), late.late), (vec![Effect::Counted], Some(Status::Cancelled)));
    let snapshot = kit.snapshot(id).await;
    assert_eq!(snapshot.status, Status::Cancelled);
    assert_eq!((snapshot.progress.batches.completed, snapshot.progress.items.processed), (2, 20));
    // Nothing had been reported of these before the end.
    let id = kit.processing(600).await;
    kit.jobs.cancel(id, None).await.expect("requested");
    assert_eq!(kit.tracker.begin(id, batch(0)).await.expect("confirmed"), over);
    let late = kit.tracker.report(id, vec![done(300)]).await.expect("late is no error");
    assert_eq!((effects(&late), late.late), (vec![Effect::Counted], Some(Status::Cancelled)));
}

pub(super) async fn a_failed_batch_that_succeeds_moves_to_completed(kit: Kit) {
    let id = kit.processing_with(tolerant(), 3).await;
    kit.fail(id, [0, 1]).await;
    let version = kit.snapshot(id).await.version;
    let corrected = kit.tracker.report(id, vec![done(0)]).await.expect("recorded");
    assert_eq!(effects(&corrected), [Effect::Corrected]);
    let back = kit.tracker.report(id, vec![failed(0)]).await.expect("recorded");
    assert_eq!(effects(&back), [Effect::Duplicate]);
    let snapshot = kit.snapshot(id).await;
    assert!(snapshot.version > version, "a correction is a change");
    let progress = snapshot.progress;
    assert_eq!((progress.batches.completed, progress.batches.failed), (1, 1));
    assert_eq!((progress.items.processed, progress.items.failed), (10, 10));
    let errors = kit.errors(id).await;
    assert!(!errors.is_empty(), "those of batch 1");
    assert!(errors.iter().all(|e| e.batch == batch(1)), "a batch that succeeded has none: {errors:?}");
}

pub(super) async fn batches_add_up_to_the_total(kit: Kit) {
    let id = kit.processing_with(tolerant(), 4).await;
    for report in [done(0), failed(1), failed(1), failed(2), done(1), done(3)] {
        kit.tracker.report(id, vec![report]).await.expect("recorded");
        let batches = kit.snapshot(id).await.progress.batches;
        assert_eq!(batches.completed + batches.failed + batches.pending.expect("sealed"), 4);
    }
    // Of jobs as long as jobs get, too.
    for last in [BatchIndex::MAX - 256, BatchIndex::MAX - 1, BatchIndex::MAX] {
        let id = kit.processing(last + 1).await;
        kit.complete(id, [last]).await;
        let batches = kit.snapshot(id).await.progress.batches;
        assert_eq!((batches.completed, batches.pending), (1, Some(last)));
    }
}

pub(super) async fn several_outcomes_in_one_call_are_as_one_by_one(kit: Kit) {
    let id = kit.processing_with(tolerant(), 600).await;
    kit.complete(id, [300]).await;
    kit.fail(id, [301]).await;
    let reports = vec![done(299), done(300), done(301), failed(302), done(0), failed(599), done(0)];
    let reported = kit.tracker.report(id, reports).await.expect("recorded");
    let expected = [
        (batch(299), Effect::Counted),
        (batch(300), Effect::Duplicate),
        (batch(301), Effect::Corrected),
        (batch(302), Effect::Counted),
        (batch(0), Effect::Counted),
        (batch(599), Effect::Counted),
        (batch(0), Effect::Duplicate),
    ];
    assert_eq!(reported.effects, expected, "in the order of the reports");
    let progress = kit.snapshot(id).await.progress;
    assert_eq!((progress.batches.completed, progress.batches.failed), (4, 2));
    assert_eq!((progress.items.processed, progress.items.failed), (40, 20));
}

pub(super) async fn of_two_reports_of_one_batch_in_one_call_the_success_counts(kit: Kit) {
    let id = kit.processing_with(tolerant(), 600).await;
    let reports = vec![failed(0), done(1), done(0), failed(1), failed(300), failed(300), done(2)];
    let reported = kit.tracker.report(id, reports.clone()).await.expect("recorded");
    let expected = [
        (batch(0), Effect::Duplicate),
        (batch(1), Effect::Counted),
        (batch(0), Effect::Counted),
        (batch(1), Effect::Duplicate),
        (batch(300), Effect::Counted),
        (batch(300), Effect::Duplicate),
        (batch(2), Effect::Counted),
    ];
    assert_eq!(reported.effects, expected, "one for each report, in the order given");
    let progress = kit.snapshot(id).await.progress;
    assert_eq!((progress.batches.completed, progress.batches.failed), (3, 1));
    assert_eq!(kit.errors(id).await.len(), 1, "of batch 300 alone");
    let again = kit.tracker.report(id, reports).await.expect("recorded");
    assert_eq!(effects(&again), [Effect::Duplicate; 7]);
}

pub(super) async fn a_batch_past_the_total_is_an_error(kit: Kit) {
    for (total, past) in [(3, 3), (3, 300), (300, 300), (256, 256)] {
        let id = kit.processing(total).await;
        let expected = Rejection::BatchOutOfRange { batch: batch(past), total };
        assert_eq!(rejection(kit.tracker.begin(id, batch(past)).await), expected);
        assert_eq!(rejection(kit.tracker.report(id, vec![done(past)]).await), expected);
        let all_past = vec![done(past), failed(past + 1), done(past)];
        assert_eq!(rejection(kit.tracker.report(id, all_past).await), expected);
        let progress = kit.snapshot(id).await.progress;
        assert_eq!((progress.batches.completed, progress.items.processed), (0, 0), "{past} of {total}");
    }
}

pub(super) async fn a_report_past_the_total_takes_no_other_with_it(kit: Kit) {
    for total in [255, 256, 257, 300] {
        let id = kit.processing_with(tolerant(), total).await;
        let reports = vec![done(total), done(0), failed(9_999), failed(total - 1), done(total)];
        let reported = kit.tracker.report(id, reports).await.expect("two of them count");
        let expected = [
            (batch(total), Effect::OutOfRange),
            (batch(0), Effect::Counted),
            (batch(9_999), Effect::OutOfRange),
            (batch(total - 1), Effect::Counted),
            (batch(total), Effect::OutOfRange),
        ];
        assert_eq!(reported.effects, expected, "of {total}");
        let counts = kit.state(id).await.facts.counts;
        assert_eq!((counts.completed, counts.failed), (1, 1), "of {total}");
        assert_eq!((counts.items_processed, counts.items_failed), (10, 10), "of {total}");
        assert_eq!(kit.errors(id).await.len(), 1, "nothing of the others is listed");
    }
}

pub(super) async fn nothing_that_is_reported_makes_a_job_unreadable(kit: Kit) {
    let id = kit.processing_with(tolerant(), 400).await;
    let huge = |index| BatchReport::completed(batch(index), u64::MAX, u64::MAX).took(Duration::MAX);
    kit.tracker.report(id, vec![huge(0), huge(1)]).await.expect("recorded");
    kit.tracker.report(id, vec![huge(0), huge(300)]).await.expect("recorded");
    let (giant, line) = ("é\u{0}\n".repeat(100_000), "x".repeat(5_000));
    let failure = BatchReport::failed(batch(2), u64::MAX, &giant, &giant).took(Duration::MAX);
    kit.tracker.report(id, vec![failure]).await.expect("recorded");
    let errors = (0..2_000).map(|item| {
        ItemError::new(batch(3), Some(item), &giant, &line)
            .at_line(u64::MAX)
            .with_input("x".repeat(ItemError::MAX_INPUT - 96))
    });
    let many = BatchReport::completed(batch(3), 0, 2_000).with_errors(errors);
    kit.tracker.report(id, vec![many]).await.expect("two thousand errors are recorded");
    kit.tracker.stage(id, &giant, &splitter()).await.expect("kept");
    kit.jobs.cancel(id, Some(giant.clone())).await.expect("requested");

    let snapshot = kit.snapshot(id).await;
    let (batches, items) = (snapshot.progress.batches, snapshot.progress.items);
    assert_eq!((batches.completed, batches.failed), (4, 1));
    let expected = (3 * BatchReport::MAX_ITEMS, BatchReport::MAX_ITEMS + 2_000);
    assert_eq!((items.processed, items.failed), expected);
    let errors = kit.errors(id).await;
    assert_eq!(errors.len(), 1 + ItemError::MAX_PER_BATCH);
    assert!(errors.iter().all(|e| e.message.len() <= ItemError::MAX_MESSAGE && e.code.len() <= 64));
    let listed = kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed");
    assert_eq!((listed.rows.len(), listed.damaged.len()), (1, 0), "its owner's list is readable");
    assert!(matches!(kit.tracker.begin(id, batch(9)).await, Ok(Begin::Over(_))), "it goes on");
}

pub(super) async fn a_correction_with_other_items_stays_readable(kit: Kit) {
    let id = kit.processing_with(tolerant(), 2).await;
    let given_up = BatchReport::failed(batch(0), 0, "unread", "The file could not be read.");
    kit.tracker.report(id, vec![given_up]).await.expect("recorded");
    kit.complete(id, [0]).await;
    let progress = kit.snapshot(id).await.progress;
    assert_eq!((progress.batches.completed, progress.batches.failed), (1, 0));
    assert_eq!((progress.items.processed, progress.items.failed), (10, 0), "never below zero");
    assert_eq!(kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 1);
    kit.complete(id, [1]).await;
    assert_eq!(kit.snapshot(id).await.status, Status::Completed);
}

pub(super) async fn a_correction_takes_back_what_was_counted(kit: Kit) {
    for (items, other) in [(0, 1), (0, 257), (25, 1), (10, 300)] {
        let given_up = BatchReport::failed(batch(0), items, "unread", "The file could not be read.");
        let partly = BatchReport::completed(batch(other), 5, 5);
        // Each batch's own reports keep their order.
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2]] {
            let id = kit.streaming_with(tolerant()).await;
            let reports = [given_up.clone(), partly.clone(), done(0)];
            for report in order.map(|place| reports[place].clone()) {
                kit.tracker.report(id, vec![report]).await.expect("recorded");
            }
            kit.complete(id, (1..=other).filter(|index| *index != other)).await;
            let totals = Totals { batches: other + 1, items: None };
            let snapshot = kit.tracker.seal(id, totals, &splitter()).await.expect("sealed");
            let counted = (snapshot.progress.items.processed, snapshot.progress.items.failed);
            assert_eq!(counted, (10 * other + 5, 5), "{items} items, then {other}, in order {order:?}");
            assert_eq!(snapshot.outcome, Some(Outcome::Partial), "in order {order:?}");
        }
    }
}

pub(super) async fn what_was_heard_last_stays_the_last(kit: Kit) {
    let id = kit.processing(600).await;
    let at = |seconds| clock::after(kit.clock.now(), Duration::from_secs(seconds));
    for (index, seconds) in [(0, 100), (1, 0), (300, 50), (2, 40), (301, 3)] {
        kit.store.report(id, &[done(index)], at(seconds)).await.expect("recorded");
        let last = kit.state(id).await.facts.last_at.expect("something was heard");
        assert!((at(99)..=at(100)).contains(&last), "batch {index} at {seconds} s makes it {last}");
    }
    let shown = kit.snapshot(id).await.updated_at;
    assert!((at(99)..=at(100)).contains(&shown), "{shown}");
    kit.wait(200);
    kit.jobs.cancel(id, None).await.expect("requested");
    kit.clock.set(kit.clock.now().as_millisecond() - 150_000);
    let before = kit.state(id).await.job;
    kit.tracker.begin(id, batch(9)).await.expect("confirmed by a worker whose clock is behind");
    let after = kit.state(id).await.job;
    assert_eq!(after.status, Status::Cancelled);
    assert!(after.updated_at >= before.updated_at && after.history.is_sorted_by_key(|h| h.at));
}

pub(super) async fn the_version_only_grows(kit: Kit) {
    let id = kit.create(tolerant()).await;
    let mut versions = vec![kit.snapshot(id).await.version];
    kit.jobs.upload_progress(id, 10).await.expect("kept");
    versions.push(kit.snapshot(id).await.version);
    kit.tracker.start(id, Some(totals(260)), &splitter()).await.expect("started");
    versions.push(kit.snapshot(id).await.version);
    for index in 0..260 {
        kit.complete(id, [index]).await;
        versions.push(kit.snapshot(id).await.version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    kit.complete(id, [1]).await;
    assert_eq!(kit.snapshot(id).await.version, versions[versions.len() - 1], "a duplicate is no change");
}

pub(super) async fn many_workers_count_exactly(kit: Kit) {
    const TOTAL: u64 = 600;
    let id = kit.processing(TOTAL).await;
    let counted: Vec<_> = join_all((0..16_u64).map(|worker| {
        let kit = kit.clone();
        tokio::spawn(async move {
            let mut counted = 0;
            for step in (worker..2 * TOTAL).step_by(16) {
                let index = (step * 7 + worker / 8) % TOTAL;
                let reported = kit.tracker.report(id, vec![done(index)]).await.expect("recorded");
                counted += effects(&reported).iter().filter(|e| **e == Effect::Counted).count();
            }
            // Whatever that left out.
            for index in (worker..TOTAL).step_by(16) {
                let reported = kit.tracker.report(id, vec![done(index)]).await.expect("recorded");
                counted += effects(&reported).iter().filter(|e| **e == Effect::Counted).count();
            }
            counted
        })
    }))
    .await;
    let counted: usize = counted.into_iter().map(|c| c.expect("no worker panicked")).sum();
    assert_eq!(counted as u64, TOTAL, "each batch was counted by exactly one worker");
    let state = kit.state(id).await;
    assert_eq!(state.job.status, Status::Completed);
    let counts = state.facts.counts;
    assert_eq!((counts.completed, counts.items_processed), (TOTAL, TOTAL * 10));
    assert_eq!(state.facts.moments.get(Sum::Samples), i128::from(TOTAL));
    let ends = state.job.history.iter().filter(|h| h.to == Decision::Completed).count();
    assert_eq!(ends, 1, "decided once");
}
