//! The end by facts: the last batch, too many failures, the seal, and whoever finds that nobody decided.

use status_core::{
    BatchReport, Begin, Command, Effect, Outcome, Policy, Rejection, Stage, Status, Tolerance,
};

use crate::kit::{Kit, batch, done, effects, failed, rejection, splitter, tolerant, totals};

pub(super) async fn the_last_batch_decides(kit: Kit) {
    for total in [1, 2, 256, 257] {
        let id = kit.processing(total).await;
        kit.complete(id, (0..total - 1).rev()).await;
        assert_eq!(kit.state(id).await.job.status, Status::Processing);
        kit.complete(id, [total - 1]).await;
        let job = kit.state(id).await.job;
        assert_eq!((job.status, job.outcome), (Status::Completed, Some(Outcome::Succeeded)), "{total}");
        assert_eq!(job.frozen.map(|f| f.completed), Some(total), "the counters are frozen into the head");
    }
}

pub(super) async fn redelivery_alone_decides(kit: Kit) {
    let id = kit.processing(2).await;
    kit.complete(id, [0]).await;
    kit.report_and_die(id, done(1)).await;
    assert_eq!(kit.state(id).await.job.status, Status::Processing);
    assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("asked"), Begin::AlreadyCompleted);
    assert_eq!(kit.state(id).await.job.status, Status::Completed);
}

pub(super) async fn a_late_duplicate_alone_decides(kit: Kit) {
    let id = kit.processing(2).await;
    kit.complete(id, [0]).await;
    kit.report_and_die(id, done(1)).await;
    kit.complete(id, [0]).await;
    assert_eq!(kit.state(id).await.job.status, Status::Completed);
}

pub(super) async fn a_read_alone_decides(kit: Kit) {
    let id = kit.processing(1).await;
    kit.report_and_die(id, done(0)).await;
    assert_eq!(kit.tracker.snapshot_now(id).await.expect("read").status, Status::Completed);
    assert_eq!(kit.state(id).await.job.status, Status::Completed);
}

pub(super) async fn a_poll_alone_decides(kit: Kit) {
    let id = kit.processing(1).await;
    kit.report_and_die(id, done(0)).await;
    assert_eq!(kit.jobs.snapshot(id).await.expect("read").status, Status::Completed);
    assert_eq!(kit.state(id).await.job.status, Status::Completed);
}

pub(super) async fn a_sweep_alone_decides(kit: Kit) {
    let id = kit.processing(1).await;
    kit.report_and_die(id, done(0)).await;
    kit.wait(121);
    assert_eq!(kit.tracker.sweep().await.expect("swept").completed, 1);
    assert_eq!(kit.state(id).await.job.status, Status::Completed);
}

pub(super) async fn a_failure_nobody_decided_is_decided(kit: Kit) {
    let id = kit.processing(3).await;
    kit.report_and_die(id, failed(1)).await;
    kit.complete(id, [0]).await;
    let snapshot = kit.snapshot(id).await;
    assert_eq!(snapshot.status, Status::Failed);
    let message = snapshot.failure.expect("a failure").message;
    assert!(message.contains("atch 1") && message.contains("The model refused."), "{message}");
}

pub(super) async fn a_failure_whose_answer_was_lost_decides_when_it_comes_again(kit: Kit) {
    for total in [Some(3), Some(600), None] {
        let id = kit.streaming_with(Policy::default()).await;
        if let Some(total) = total {
            kit.tracker.seal(id, totals(total), &splitter()).await.expect("sealed");
        }
        for _ in 0..2 {
            kit.report_and_die(id, failed(1)).await;
        }
        assert_eq!(kit.state(id).await.job.status, Status::Processing, "nobody has decided");
        kit.fail(id, [1]).await;
        assert_eq!(kit.state(id).await.job.status, Status::Failed, "of {total:?}");
    }
}

pub(super) async fn nothing_completes_before_the_seal(kit: Kit) {
    let id = kit.streaming_with(Policy::default()).await;
    kit.complete(id, [0, 1]).await;
    let snapshot = kit.snapshot(id).await;
    assert_eq!(snapshot.status, Status::Processing);
    assert_eq!((snapshot.progress.fraction, snapshot.progress.batches.pending), (None, None));
    kit.tracker.seal(id, totals(3), &splitter()).await.expect("sealed");
    assert_eq!(kit.snapshot(id).await.status, Status::Processing);
    kit.complete(id, [2]).await;
    assert_eq!(kit.state(id).await.job.status, Status::Completed);
}

pub(super) async fn the_seal_sees_what_settled_before(kit: Kit) {
    for total in [2, 256, 258] {
        let id = kit.streaming_with(Policy::default()).await;
        kit.complete(id, 0..total).await;
        kit.tracker.seal(id, totals(total), &splitter()).await.expect("sealed");
        assert_eq!(kit.state(id).await.job.status, Status::Completed, "{total}");
    }
}

pub(super) async fn a_seal_that_died_half_way_is_repeated(kit: Kit) {
    for total in [1, 256, 258] {
        let id = kit.streaming_with(Policy::default()).await;
        kit.complete(id, 0..total - 1).await;
        let sealed = kit.next(id, &Command::Start(Some(totals(total)))).await;
        kit.store.decide(&sealed).await.expect("swapped in; then the splitter dies");
        kit.report_and_die(id, done(total - 1)).await;
        kit.tracker.seal(id, totals(total), &splitter()).await.expect("its event comes again");
        assert_eq!(kit.state(id).await.job.status, Status::Completed, "{total}");
    }
}

pub(super) async fn sealing_twice_is_sealing_once(kit: Kit) {
    let id = kit.processing(3).await;
    kit.tracker.seal(id, totals(3), &splitter()).await.expect("the same total");
    let refused = rejection(kit.tracker.seal(id, totals(4), &splitter()).await);
    assert_eq!(refused, Rejection::TotalMismatch { sealed: 3, given: 4 });
    let streaming = kit.streaming_with(Policy::default()).await;
    kit.complete(streaming, [5]).await;
    let refused = rejection(kit.tracker.seal(streaming, totals(5), &splitter()).await);
    assert_eq!(refused, Rejection::TotalTooSmall { given: 5, seen: batch(5) });
}

pub(super) async fn zero_batches_complete_at_the_seal(kit: Kit) {
    let id = kit.processing(0).await;
    let snapshot = kit.snapshot(id).await;
    assert_eq!((snapshot.status, snapshot.outcome), (Status::Completed, Some(Outcome::Empty)));
    assert_eq!(snapshot.progress.fraction, Some(1.0));
}

pub(super) async fn a_batch_past_the_total_never_stands_for_one_of_the_jobs_own(kit: Kit) {
    for (total, strays) in [(2, [2, 4]), (2, [254, 300]), (256, [256, 700]), (258, [258, 510])] {
        let id = kit.streaming_with(tolerant()).await;
        kit.complete(id, 0..total - 2).await;
        // The splitter has read the job; before its swap come batches that the job will not have.
        let sealed = kit.next(id, &Command::Start(Some(totals(total)))).await;
        let [stray, failing] = strays;
        kit.report_and_die(id, done(stray)).await;
        kit.report_and_die(id, failed(failing)).await;
        kit.store.decide(&sealed).await.expect("swapped in");
        kit.store.propagate(&sealed).await.expect("propagated");
        let snapshot = kit.snapshot(id).await;
        assert_eq!(snapshot.status, Status::Processing, "{strays:?} of {total}");
        let batches = snapshot.progress.batches;
        assert_eq!((batches.completed, batches.failed, batches.pending), (total - 2, 0, Some(2)));
        kit.complete(id, [total - 2]).await;
        assert_eq!(
            kit.snapshot(id).await.status,
            Status::Processing,
            "{strays:?} of {total}: one is missing"
        );
        let before = kit.state(id).await.facts;
        for late in [done(stray), done(failing), done(failing + 1), failed(stray + 1)] {
            let expected = Rejection::BatchOutOfRange { batch: late.batch(), total };
            let refused = rejection(kit.tracker.report(id, vec![late]).await);
            assert_eq!(refused, expected, "beside {strays:?} of {total}");
        }
        assert_eq!(kit.state(id).await.facts, before, "nothing of them counts from the seal on");
        kit.complete(id, [total - 1]).await;
        let job = kit.state(id).await.job;
        assert_eq!(job.status, Status::Completed, "{strays:?} of {total}");
        assert_eq!(job.frozen.map(|f| (f.completed, f.failed)), Some((total, 0)));
    }
    // They may fill a chunk whose other batches are the job's own.
    let id = kit.streaming_with(tolerant()).await;
    kit.complete(id, 0..200).await;
    let sealed = kit.next(id, &Command::Start(Some(totals(200)))).await;
    kit.complete(id, 200..256).await;
    kit.store.decide(&sealed).await.expect("swapped in");
    kit.store.propagate(&sealed).await.expect("propagated");
    kit.tracker.sweep().await.expect("swept");
    kit.complete(id, [0]).await;
    let before = kit.state(id).await;
    assert_eq!((before.job.status, before.facts.counts.completed), (Status::Completed, 200));
    let again = kit.tracker.report(id, vec![done(10)]).await.expect("recorded");
    assert_eq!(effects(&again), [Effect::Duplicate]);
    assert_eq!(kit.state(id).await.facts, before.facts, "counted once");
}

pub(super) async fn by_default_the_first_failed_batch_fails_the_job(kit: Kit) {
    let id = kit.processing(3).await;
    kit.complete(id, [0]).await;
    kit.fail(id, [2]).await;
    let snapshot = kit.snapshot(id).await;
    assert_eq!(snapshot.status, Status::Failed);
    let failure = snapshot.failure.expect("a failure");
    assert_eq!((failure.code.as_str(), failure.stage), ("too-many-failed-batches", Stage::Process));
    let message = failure.message;
    assert!(message.contains("atch 2") && message.contains("The model refused."), "{message}");
    assert_eq!((snapshot.progress.batches.completed, snapshot.progress.batches.pending), (1, Some(1)));
}

pub(super) async fn items_that_do_not_add_up_make_the_job_partial(kit: Kit) {
    let report = |processed, failed| BatchReport::completed(batch(1), processed, failed);
    for (second, said) in [
        (report(10, 0), None),
        (report(4, 0), Some("6 of 20 items are missing: neither processed nor failed")),
        (
            report(3, 1),
            Some("0 batches and 1 items failed; 6 of 20 items are missing: neither processed nor failed"),
        ),
        (report(15, 0), Some("25 items were reported instead of 20")),
    ] {
        let id = kit.processing(2).await;
        kit.complete(id, [0]).await;
        kit.tracker.report(id, vec![second]).await.expect("recorded");
        let snapshot = kit.snapshot(id).await;
        let outcome = if said.is_some() { Outcome::Partial } else { Outcome::Succeeded };
        assert_eq!((snapshot.status, snapshot.outcome), (Status::Completed, Some(outcome)), "{said:?}");
        let last = kit.jobs.history(id).await.expect("found").pop().expect("an entry");
        assert_eq!(last.reason.as_deref(), said);
        assert!(snapshot.stage.is_none_or(|stage| said.is_some_and(|said| said.ends_with(&stage))));
    }
}

pub(super) async fn tolerated_failures_complete_the_job_partially(kit: Kit) {
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Batches(1);
    let id = kit.processing_with(policy.clone(), 3).await;
    kit.fail(id, [1]).await;
    assert_eq!(kit.snapshot(id).await.status, Status::Processing);
    kit.complete(id, [0, 2]).await;
    let snapshot = kit.snapshot(id).await;
    assert_eq!((snapshot.status, snapshot.outcome), (Status::Completed, Some(Outcome::Partial)));
    assert_eq!((snapshot.progress.batches.failed, snapshot.progress.items.failed), (1, 10));
    let id = kit.processing_with(policy, 3).await;
    kit.fail(id, [0, 1]).await;
    assert_eq!(kit.snapshot(id).await.status, Status::Failed);
}

pub(super) async fn one_failure_too_many_fails_the_job_at_once(kit: Kit) {
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Batches(3);
    for failing in [[0, 1, 2, 3], [0, 1, 300, 301], [0, 1, 2, 700], [0, 256, 512, 768]] {
        let id = kit.processing_with(policy.clone(), 1_000).await;
        for (index, last) in failing.into_iter().zip([false, false, false, true]) {
            kit.fail(id, [index]).await;
            let status = if last { Status::Failed } else { Status::Processing };
            assert_eq!(kit.state(id).await.job.status, status, "{index} of {failing:?}");
        }
    }
}

pub(super) async fn a_share_is_judged_when_the_total_is_known(kit: Kit) {
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Percent(50);
    let id = kit.streaming_with(policy.clone()).await;
    kit.fail(id, [0, 1]).await;
    assert_eq!(kit.snapshot(id).await.status, Status::Processing);
    kit.tracker.seal(id, totals(3), &splitter()).await.expect("sealed");
    let snapshot = kit.snapshot(id).await;
    assert_eq!(snapshot.status, Status::Failed, "two of three");
    let message = snapshot.failure.expect("a failure").message;
    assert!(message.contains("2 batches of 3") && message.contains("Batch 0"), "{message}");
    let again = kit.tracker.seal(id, totals(3), &splitter()).await.expect("the answer was lost");
    assert_eq!(again.version, snapshot.version, "the same seal again is the same as once");
    let refused = rejection(kit.tracker.seal(id, totals(4), &splitter()).await);
    assert_eq!(refused, Rejection::Contradiction { status: Status::Failed, wanted: Status::Processing });
    let id = kit.processing_with(policy, 4).await;
    kit.fail(id, [0, 1]).await;
    kit.complete(id, [2, 3]).await;
    assert_eq!(kit.snapshot(id).await.outcome, Some(Outcome::Partial), "two of four");
}
