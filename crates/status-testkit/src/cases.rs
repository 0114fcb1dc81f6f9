//! One case for each rule. A case panics if the store breaks its rule.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all};
use status_core::{
    Actor, BatchReport, BatchState, Begin, Cancelled, Clock, Created, Decision, Effect, Error, Failure,
    Health, ItemError, JobId, NewJob, Outcome, PageRequest, Policy, Rejection, Stage, Status, StoreError,
    Tolerance,
};

use crate::kit::{Kit, all_pages, batch, done, effects, failed, file, owner, rejection, splitter, totals};

/// A case: runs on an empty store.
pub type Case = fn(Kit) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($(#[$doc:meta])* async fn $name:ident($kit:ident) $body:block)*) => {
        $($(#[$doc])* pub async fn $name($kit: Kit) $body)*

        /// Every case, by name.
        pub const ALL: &[(&str, Case)] = &[$((stringify!($name), |kit| Box::pin($name(kit)))),*];
    };
}

/// A `#[test]` for each case.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_each_case {
    ($open:expr) => {
        $crate::__for_each_case!(@tests $open;
            a_new_job_is_uploading a_key_gives_its_job_again a_key_is_its_owners_own creating_again_is_creating_once
            a_swap_needs_the_revision_it_was_made_from commands_say_at_least_this_far the_same_command_twice_is_once
            a_contradiction_names_both_statuses terminal_is_final upload_progress_is_a_courtesy
            every_batch_counts_once a_late_batch_counts_and_moves_nothing a_failed_batch_that_succeeds_moves_to_completed
            batches_add_up_to_the_total several_outcomes_in_one_call_are_as_one_by_one
            the_last_batch_decides redelivery_alone_decides a_late_duplicate_alone_decides a_read_alone_decides
            a_poll_alone_decides a_sweep_alone_decides a_failure_nobody_decided_is_decided
            nothing_completes_before_the_seal the_seal_sees_what_settled_before sealing_twice_is_sealing_once
            zero_batches_complete_at_the_seal a_batch_past_the_total_is_an_error
            cancelling_before_processing_is_at_once cancelling_in_processing_is_confirmed_by_a_worker
            an_unheard_cancel_is_confirmed_by_the_sweeper the_last_batch_beats_the_cancel cancelling_a_terminal_job_is_an_error
            by_default_the_first_failed_batch_fails_the_job tolerated_failures_complete_the_job_partially
            a_share_is_judged_when_the_total_is_known failed_items_are_listed_page_by_page errors_are_bounded
            silence_is_a_stall the_sweeper_fails_what_is_past_its_deadline the_sweeper_leaves_the_living_alone
            due_jobs_are_listed_page_by_page
            the_version_only_grows a_watcher_sees_progress_and_the_end the_history_is_complete_and_bounded
            retention_counts_from_the_terminal_decision a_completed_job_says_how a_terminal_job_keeps_what_was_done
            owners_see_only_their_own jobs_are_listed_newest_first starts_are_counted_once unsettled_batches_are_known
            what_is_not_there_is_not_found many_workers_count_exactly many_deciders_decide_once);
    };
    (@tests $open:expr; $($case:ident)*) => {
        $(#[test]
        fn $case() {
            $crate::run(async { $crate::cases::$case($crate::Kit::open($open).await).await });
        })*
    };
}

cases! {
    /// Created: in Uploading, with nothing done, at version 1.
    async fn a_new_job_is_uploading(kit) {
        let job = kit.jobs.create(NewJob::new(file("leads.csv"))).await.expect("created");
        assert_eq!((job.status, job.version), (Status::Uploading, 1));
        assert_eq!(job.progress.fraction, None);
        assert_eq!(kit.jobs.snapshot(job.id).await.expect("found"), job, "read back as it was answered");
    }

    /// A retried creation finds its job, and another file under the same key is refused.
    async fn a_key_gives_its_job_again(kit) {
        let new = NewJob::new(file("leads.csv")).with_key("k-1");
        let first = kit.jobs.create(new.clone()).await.expect("created");
        kit.jobs.finish_upload(first.id).await.expect("uploaded");
        let again = kit.jobs.create(new).await.expect("found again");
        assert_eq!((again.id, again.status), (first.id, Status::Uploaded));
        let other = kit.jobs.create(NewJob::new(file("other.csv")).with_key("k-1")).await;
        assert!(matches!(other, Err(Error::KeyReused)), "{other:?}");
        assert_ne!(kit.jobs.create(NewJob::new(file("leads.csv")).with_key("k-2")).await.expect("created").id, first.id);
    }

    /// Two owners may use the same key.
    async fn a_key_is_its_owners_own(kit) {
        let new = NewJob::new(file("leads.csv")).with_key("k-1");
        let alices = kit.jobs.create(new.clone()).await.expect("created").id;
        let bobs = kit.tracker.owned_by(owner("bob")).create(new).await.expect("created").id;
        assert_ne!(alices, bobs);
    }

    /// When the answer to a creation was lost, it is repeated.
    async fn creating_again_is_creating_once(kit) {
        let id = JobId::new(kit.clock.now());
        let new = NewJob::new(file("leads.csv"));
        let job = new.into_job(id, owner("alice"), &Policy::default(), Actor::OWNER).expect("a good job");
        for _ in 0..2 {
            assert_eq!(kit.store.create(&job).await.expect("created"), Created::New);
        }
    }

    /// Compare and swap: a decision made from a record that is not the newest is refused, and the same one twice is not.
    async fn a_swap_needs_the_revision_it_was_made_from(kit) {
        let id = kit.create(Policy::default()).await;
        let mut next = kit.state(id).await.job;
        next.revision += 1;
        next.stage = Some("one".into());
        for _ in 0..2 {
            kit.store.decide(&next).await.expect("the same swap succeeds twice");
        }
        let mut stale = next.clone();
        stale.stage = Some("two".into());
        assert!(matches!(kit.store.decide(&stale).await, Err(StoreError::Conflict(_))), "same revision, other record");
        stale.revision += 5;
        assert!(matches!(kit.store.decide(&stale).await, Err(StoreError::Conflict(_))), "a revision too far");
        assert_eq!(kit.state(id).await.job, next);
    }

    /// What is already so succeeds: the splitter often beats the browser's confirmation.
    async fn commands_say_at_least_this_far(kit) {
        let id = kit.create(Policy::default()).await;
        let started = kit.tracker.start(id, None, &splitter()).await.expect("starts from Uploading");
        assert_eq!(started.status, Status::Processing);
        let late = kit.jobs.finish_upload(id).await.expect("already applied");
        assert_eq!((late.status, late.version), (Status::Processing, started.version));
        kit.jobs.upload_progress(id, 5).await.expect("already applied");
        kit.tracker.seal(id, totals(0), &splitter()).await.expect("sealed");
        kit.jobs.finish_upload(id).await.expect("already applied on a completed job");
        kit.tracker.start(id, None, &splitter()).await.expect("already applied on a completed job");
    }

    /// Idempotent: neither the revision nor the history moves.
    async fn the_same_command_twice_is_once(kit) {
        let id = kit.create(Policy::default()).await;
        let mut revisions = Vec::new();
        for _ in 0..2 {
            kit.jobs.finish_upload(id).await.expect("uploaded");
            revisions.push(kit.state(id).await.job.revision);
        }
        for _ in 0..2 {
            kit.tracker.start(id, Some(totals(3)), &splitter()).await.expect("started");
            revisions.push(kit.state(id).await.job.revision);
        }
        for _ in 0..2 {
            kit.jobs.cancel(id, Some("wrong file".into())).await.expect("requested");
            revisions.push(kit.state(id).await.job.revision);
        }
        assert_eq!(revisions, [2, 2, 3, 3, 4, 4]);
        for _ in 0..2 {
            assert_eq!(kit.tracker.begin(id, batch(0)).await.expect("asked"), Begin::Over(Status::Cancelled));
        }
        assert!(matches!(kit.jobs.cancel(id, None).await, Ok(Cancelled::Now(_))), "cancelling again is no error");
        assert_eq!(kit.state(id).await.job.revision, 5);
    }

    /// Errors are typed and say what the job is and what it cannot become.
    async fn a_contradiction_names_both_statuses(kit) {
        let id = kit.processing(1).await;
        kit.complete(id, [0]).await;
        let failure = Failure::new(Stage::Process, "x", "x", false);
        let refused = rejection(kit.tracker.fail(id, failure.clone(), &splitter()).await);
        assert_eq!(refused, Rejection::Contradiction { status: Status::Completed, wanted: Status::Failed });
        let cancelled = kit.create(Policy::default()).await;
        kit.jobs.cancel(cancelled, None).await.expect("cancelled");
        let refused = rejection(kit.jobs.finish_upload(cancelled).await);
        assert_eq!(refused, Rejection::Contradiction { status: Status::Cancelled, wanted: Status::Uploaded });
        let refused = rejection(kit.tracker.start(cancelled, None, &splitter()).await);
        assert_eq!(refused, Rejection::Contradiction { status: Status::Cancelled, wanted: Status::Processing });
        let refused = rejection(kit.tracker.fail(cancelled, failure, &splitter()).await);
        assert_eq!(refused, Rejection::Contradiction { status: Status::Cancelled, wanted: Status::Failed });
    }

    /// Whatever comes after a terminal decision, it stands.
    async fn terminal_is_final(kit) {
        for end in [Status::Completed, Status::Failed, Status::Cancelled] {
            let id = kit.processing(2).await;
            match end {
                Status::Completed => kit.complete(id, [0, 1]).await,
                Status::Failed => kit.fail(id, [0]).await,
                _ => {
                    kit.jobs.cancel(id, None).await.expect("requested");
                    kit.tracker.begin(id, batch(0)).await.expect("confirmed");
                }
            }
            let before = kit.state(id).await.job;
            assert_eq!(before.status, end);
            let _ = kit.jobs.finish_upload(id).await;
            let _ = kit.tracker.start(id, Some(totals(2)), &splitter()).await;
            let _ = kit.jobs.cancel(id, None).await;
            let _ = kit.tracker.fail(id, Failure::new(Stage::Process, "x", "x", false), &splitter()).await;
            let _ = kit.tracker.report(id, vec![done(1)]).await;
            let _ = kit.tracker.begin(id, batch(1)).await;
            kit.wait(1_000_000);
            kit.tracker.sweep().await.expect("swept");
            assert_eq!(kit.state(id).await.job, before, "{end}");
        }
    }

    /// Bytes are kept at most every two seconds, never go back, and are all there once uploaded.
    async fn upload_progress_is_a_courtesy(kit) {
        let id = kit.create(Policy::default()).await;
        let mut seen = Vec::new();
        for (bytes, seconds) in [(100, 0), (200, 1), (300, 1), (50, 9)] {
            kit.wait(seconds);
            kit.jobs.upload_progress(id, bytes).await.expect("kept or not");
            seen.push(kit.state(id).await.job.uploaded_bytes);
        }
        assert_eq!(seen, [100, 100, 300, 300]);
        kit.jobs.finish_upload(id).await.expect("uploaded");
        assert_eq!(kit.state(id).await.job.uploaded_bytes, 2_000);
    }

    /// However often it is delivered.
    async fn every_batch_counts_once(kit) {
        let id = kit.processing(3).await;
        let mut effects = Vec::new();
        for index in [1, 1, 0, 1, 0] {
            let reported = kit.tracker.report(id, vec![done(index)]).await.expect("recorded");
            effects.extend(reported.effects);
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

    /// Facts always count; decisions are final; the worker is told.
    async fn a_late_batch_counts_and_moves_nothing(kit) {
        let id = kit.processing(3).await;
        kit.complete(id, [0]).await;
        kit.jobs.cancel(id, None).await.expect("requested");
        assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("confirmed"), Begin::Over(Status::Cancelled));
        let late = kit.tracker.report(id, vec![done(2)]).await.expect("late is no error");
        assert_eq!((effects(&late), late.late), (vec![Effect::Counted], Some(Status::Cancelled)));
        let snapshot = kit.snapshot(id).await;
        assert_eq!(snapshot.status, Status::Cancelled);
        assert_eq!((snapshot.progress.batches.completed, snapshot.progress.items.processed), (2, 20));
    }

    /// From failed to completed, never back.
    async fn a_failed_batch_that_succeeds_moves_to_completed(kit) {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Batches(5);
        let id = kit.processing_with(policy, 3).await;
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
        let errors = kit.tracker.errors(id, &PageRequest::first(10)).await.expect("listed").rows;
        assert!(errors.iter().all(|e| e.batch == batch(1)), "the errors of a batch that succeeded are gone: {errors:?}");
    }

    /// Completed, failed and pending, at every step.
    async fn batches_add_up_to_the_total(kit) {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Percent(100);
        let id = kit.processing_with(policy, 4).await;
        for report in [done(0), failed(1), failed(1), failed(2), done(1), done(3)] {
            kit.tracker.report(id, vec![report]).await.expect("recorded");
            let batches = kit.snapshot(id).await.progress.batches;
            assert_eq!(batches.completed + batches.failed + batches.pending.expect("sealed"), 4);
        }
    }

    /// A delivery of several batches, across whatever parts the store keeps, in one call.
    async fn several_outcomes_in_one_call_are_as_one_by_one(kit) {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Batches(9);
        let id = kit.processing_with(policy, 600).await;
        kit.complete(id, [300]).await;
        kit.fail(id, [301]).await;
        let reports = vec![done(299), done(300), done(301), failed(302), done(0), failed(599), done(0)];
        let recorded = kit.tracker.report(id, reports).await.expect("recorded");
        let expected = [
            (batch(299), Effect::Counted),
            (batch(300), Effect::Duplicate),
            (batch(301), Effect::Corrected),
            (batch(302), Effect::Counted),
            (batch(0), Effect::Counted),
            (batch(599), Effect::Counted),
            (batch(0), Effect::Duplicate),
        ];
        assert_eq!(recorded.effects, expected, "in the order of the reports");
        let progress = kit.snapshot(id).await.progress;
        assert_eq!((progress.batches.completed, progress.batches.failed), (4, 2));
        assert_eq!((progress.items.processed, progress.items.failed), (40, 20));
    }

    /// No coordinator: whoever settles the last batch.
    async fn the_last_batch_decides(kit) {
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

    /// The worker died between settling the last batch and deciding; its message comes again.
    async fn redelivery_alone_decides(kit) {
        let id = kit.processing(2).await;
        kit.complete(id, [0]).await;
        kit.report_and_die(id, done(1)).await;
        assert_eq!(kit.state(id).await.job.status, Status::Processing);
        assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("asked"), Begin::AlreadyCompleted);
        assert_eq!(kit.state(id).await.job.status, Status::Completed);
    }

    /// Any other late duplicate does, too.
    async fn a_late_duplicate_alone_decides(kit) {
        let id = kit.processing(2).await;
        kit.complete(id, [0]).await;
        kit.report_and_die(id, done(1)).await;
        kit.complete(id, [0]).await;
        assert_eq!(kit.state(id).await.job.status, Status::Completed);
    }

    /// A strongly consistent read does, too.
    async fn a_read_alone_decides(kit) {
        let id = kit.processing(1).await;
        kit.report_and_die(id, done(0)).await;
        assert_eq!(kit.tracker.snapshot_now(id).await.expect("read").status, Status::Completed);
        assert_eq!(kit.state(id).await.job.status, Status::Completed);
    }

    /// And so does a poll that sees it.
    async fn a_poll_alone_decides(kit) {
        let id = kit.processing(1).await;
        kit.report_and_die(id, done(0)).await;
        assert_eq!(kit.jobs.snapshot(id).await.expect("read").status, Status::Completed);
        assert_eq!(kit.state(id).await.job.status, Status::Completed);
    }

    /// And the sweeper, when the job could be stalled.
    async fn a_sweep_alone_decides(kit) {
        let id = kit.processing(1).await;
        kit.report_and_die(id, done(0)).await;
        kit.wait(121);
        assert_eq!(kit.tracker.sweep().await.expect("swept").completed, 1);
        assert_eq!(kit.state(id).await.job.status, Status::Completed);
    }

    /// A worker that dies after recording a failure that is too much leaves the decision, and the reason, to others.
    async fn a_failure_nobody_decided_is_decided(kit) {
        let id = kit.processing(3).await;
        kit.report_and_die(id, failed(1)).await;
        kit.complete(id, [0]).await;
        let snapshot = kit.snapshot(id).await;
        assert_eq!(snapshot.status, Status::Failed);
        let message = snapshot.failure.expect("a failure").message;
        assert!(message.contains("atch 1") && message.contains("The model refused."), "{message}");
    }

    /// While the splitter still streams, even if all it has sent is done.
    async fn nothing_completes_before_the_seal(kit) {
        let id = kit.create(Policy::default()).await;
        kit.tracker.start(id, None, &splitter()).await.expect("started");
        kit.complete(id, [0, 1]).await;
        let snapshot = kit.snapshot(id).await;
        assert_eq!(snapshot.status, Status::Processing);
        assert_eq!((snapshot.progress.fraction, snapshot.progress.batches.pending), (None, None));
        kit.tracker.seal(id, totals(3), &splitter()).await.expect("sealed");
        assert_eq!(kit.snapshot(id).await.status, Status::Processing);
        kit.complete(id, [2]).await;
        assert_eq!(kit.state(id).await.job.status, Status::Completed);
    }

    /// The last batch may have settled before the total was known.
    async fn the_seal_sees_what_settled_before(kit) {
        for total in [2, 256, 258] {
            let id = kit.create(Policy::default()).await;
            kit.tracker.start(id, None, &splitter()).await.expect("started");
            kit.complete(id, 0..total).await;
            kit.tracker.seal(id, totals(total), &splitter()).await.expect("sealed");
            assert_eq!(kit.state(id).await.job.status, Status::Completed, "{total}");
        }
    }

    /// With the same total fine, with another an error; and no total may leave out what is settled.
    async fn sealing_twice_is_sealing_once(kit) {
        let id = kit.processing(3).await;
        kit.tracker.seal(id, totals(3), &splitter()).await.expect("the same total");
        let refused = rejection(kit.tracker.seal(id, totals(4), &splitter()).await);
        assert_eq!(refused, Rejection::TotalMismatch { sealed: 3, given: 4 });
        let streaming = kit.create(Policy::default()).await;
        kit.tracker.start(streaming, None, &splitter()).await.expect("started");
        kit.complete(streaming, [5]).await;
        let refused = rejection(kit.tracker.seal(streaming, totals(5), &splitter()).await);
        assert_eq!(refused, Rejection::TotalTooSmall { given: 5, seen: batch(5) });
    }

    /// There was nothing to do.
    async fn zero_batches_complete_at_the_seal(kit) {
        let id = kit.processing(0).await;
        let snapshot = kit.snapshot(id).await;
        assert_eq!((snapshot.status, snapshot.outcome), (Status::Completed, Some(Outcome::Empty)));
        assert_eq!(snapshot.progress.fraction, Some(1.0));
    }

    /// Asked for or reported; and nothing of such a report is counted.
    async fn a_batch_past_the_total_is_an_error(kit) {
        for (total, past) in [(3, 3), (3, 300), (300, 300), (256, 256)] {
            let id = kit.processing(total).await;
            let expected = Rejection::BatchOutOfRange { batch: batch(past), total };
            assert_eq!(rejection(kit.tracker.begin(id, batch(past)).await), expected);
            assert_eq!(rejection(kit.tracker.report(id, vec![done(past)]).await), expected);
            let progress = kit.snapshot(id).await.progress;
            assert_eq!((progress.batches.completed, progress.items.processed), (0, 0), "{past} of {total}");
        }
    }

    /// Nobody works on it yet.
    async fn cancelling_before_processing_is_at_once(kit) {
        for uploaded in [false, true] {
            let id = kit.create(Policy::default()).await;
            if uploaded {
                kit.jobs.finish_upload(id).await.expect("uploaded");
            }
            let cancelled = kit.jobs.cancel(id, Some("wrong file".into())).await.expect("cancelled");
            assert!(matches!(cancelled, Cancelled::Now(_)));
            let snapshot = kit.snapshot(id).await;
            assert_eq!(snapshot.status, Status::Cancelled);
            assert_eq!(snapshot.cancel_requested.and_then(|c| c.reason).as_deref(), Some("wrong file"));
        }
    }

    /// Recorded, shown, and confirmed by the first worker that asks for work.
    async fn cancelling_in_processing_is_confirmed_by_a_worker(kit) {
        let id = kit.processing(3).await;
        kit.complete(id, [0]).await;
        assert!(matches!(kit.jobs.cancel(id, None).await, Ok(Cancelled::Requested(_))));
        let asked = kit.snapshot(id).await;
        assert_eq!((asked.status, asked.cancel_requested.is_some()), (Status::Processing, true));
        kit.complete(id, [1]).await;
        assert_eq!(kit.snapshot(id).await.status, Status::Processing, "finishing a batch is not asking for one");
        assert_eq!(kit.tracker.begin(id, batch(2)).await.expect("asked"), Begin::Over(Status::Cancelled));
        let snapshot = kit.snapshot(id).await;
        assert_eq!((snapshot.status, snapshot.progress.batches.completed), (Status::Cancelled, 2));
    }

    /// If no worker asks within the grace period.
    async fn an_unheard_cancel_is_confirmed_by_the_sweeper(kit) {
        let id = kit.processing(3).await;
        kit.jobs.cancel(id, Some("enough".into())).await.expect("requested");
        kit.wait(29);
        assert_eq!(kit.tracker.sweep().await.expect("swept").cancelled, 0);
        kit.wait(1);
        assert_eq!(kit.tracker.sweep().await.expect("swept").cancelled, 1);
        let last = kit.jobs.history(id).await.expect("found").pop().expect("an entry");
        assert_eq!((last.to, last.by, last.reason.as_deref()), (Decision::Cancelled, Actor::SWEEPER, Some("enough")));
    }

    /// The work was done.
    async fn the_last_batch_beats_the_cancel(kit) {
        let id = kit.processing(1).await;
        kit.jobs.cancel(id, None).await.expect("requested");
        kit.complete(id, [0]).await;
        assert_eq!(kit.snapshot(id).await.status, Status::Completed);
        assert_eq!(kit.tracker.begin(id, batch(0)).await.expect("asked"), Begin::AlreadyCompleted);
        let undecided = kit.processing(1).await;
        kit.report_and_die(undecided, done(0)).await;
        let refused = rejection(kit.jobs.cancel(undecided, None).await);
        assert_eq!(refused, Rejection::Contradiction { status: Status::Completed, wanted: Status::Cancelled });
        assert_eq!(kit.state(undecided).await.job.status, Status::Completed);
    }

    /// That says what it is.
    async fn cancelling_a_terminal_job_is_an_error(kit) {
        let id = kit.processing(1).await;
        kit.fail(id, [0]).await;
        let refused = rejection(kit.jobs.cancel(id, None).await);
        assert_eq!(refused, Rejection::Contradiction { status: Status::Failed, wanted: Status::Cancelled });
    }

    /// Naming the batch and the error.
    async fn by_default_the_first_failed_batch_fails_the_job(kit) {
        let id = kit.processing(3).await;
        kit.complete(id, [0]).await;
        kit.fail(id, [2]).await;
        let snapshot = kit.snapshot(id).await;
        assert_eq!(snapshot.status, Status::Failed);
        let failure = snapshot.failure.expect("a failure");
        assert_eq!((failure.code.as_str(), failure.stage), ("too-many-failed-batches", Stage::Process));
        assert!(failure.message.contains("atch 2") && failure.message.contains("The model refused."), "{}", failure.message);
        assert_eq!((snapshot.progress.batches.completed, snapshot.progress.batches.pending), (1, Some(1)));
    }

    /// And say how many; one more fails the job.
    async fn tolerated_failures_complete_the_job_partially(kit) {
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

    /// Before, nothing is past it.
    async fn a_share_is_judged_when_the_total_is_known(kit) {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Percent(50);
        let id = kit.create(policy.clone()).await;
        kit.tracker.start(id, None, &splitter()).await.expect("started");
        kit.fail(id, [0, 1]).await;
        assert_eq!(kit.snapshot(id).await.status, Status::Processing);
        kit.tracker.seal(id, totals(3), &splitter()).await.expect("sealed");
        let snapshot = kit.snapshot(id).await;
        assert_eq!(snapshot.status, Status::Failed, "two of three");
        assert!(snapshot.failure.expect("a failure").message.contains("2 batches of 3"));
        let id = kit.processing_with(policy, 4).await;
        kit.fail(id, [0, 1]).await;
        kit.complete(id, [2, 3]).await;
        assert_eq!(kit.snapshot(id).await.outcome, Some(Outcome::Partial), "two of four");
    }

    /// Which items, and why, in order, whatever the size of the page.
    async fn failed_items_are_listed_page_by_page(kit) {
        let id = kit.processing(20).await;
        let error = |index: u64, item: u64| ItemError::new(batch(index), Some(index * 10 + item), "no-name", "The row has no name.");
        for index in [11, 3, 7] {
            let report = BatchReport::completed(batch(index), 8, 2).with_errors([error(index, 4), error(index, 5)]);
            for _ in 0..2 {
                kit.tracker.report(id, vec![report.clone()]).await.expect("recorded");
            }
        }
        let expected: Vec<_> = [3, 7, 11].into_iter().flat_map(|index| [error(index, 4), error(index, 5)]).collect();
        for limit in [1, 2, 4, 100] {
            let jobs = &kit.jobs;
            let rows = all_pages(limit, |page| async move { jobs.errors(id, &page).await }).await;
            assert_eq!(rows, expected, "{limit} a page");
        }
        assert_eq!(kit.snapshot(id).await.progress.items.failed, 6);
        let nonsense = PageRequest { limit: 5, cursor: Some("what?".into()) };
        let refused = kit.jobs.errors(id, &nonsense).await;
        assert!(matches!(refused, Err(Error::Store(StoreError::InvalidCursor))), "{refused:?}");
    }

    /// In number and in size; the counters know them all.
    async fn errors_are_bounded(kit) {
        let mut policy = Policy::default();
        policy.max_errors = 25;
        let id = kit.processing_with(policy, 10).await;
        for index in 0..10 {
            let errors = (0..10).map(|item| ItemError::new(batch(index), Some(item), "bad", &"x".repeat(5_000)));
            kit.tracker.report(id, vec![BatchReport::completed(batch(index), 0, 10).with_errors(errors)]).await.expect("recorded");
        }
        let kept = kit.jobs.errors(id, &PageRequest::first(1_000)).await.expect("listed").rows;
        assert!((10..=30).contains(&kept.len()), "about as many as allowed: {}", kept.len());
        assert!(kept.iter().all(|e| e.message.len() <= ItemError::MAX_MESSAGE));
        assert_eq!(kit.snapshot(id).await.progress.items.failed, 100);
    }

    /// Nothing heard for longer than the policy allows.
    async fn silence_is_a_stall(kit) {
        let id = kit.processing(2).await;
        kit.wait(120);
        assert_eq!(kit.snapshot(id).await.health, Health::Active);
        kit.wait(1);
        assert_eq!(kit.snapshot(id).await.health, Health::Stalled);
        kit.complete(id, [0]).await;
        assert_eq!(kit.snapshot(id).await.health, Health::Active);
        kit.complete(id, [1]).await;
        kit.wait(1_000);
        assert_eq!(kit.snapshot(id).await.health, Health::Active, "a terminal job does not stall");
    }

    /// Uploads that never finish included.
    async fn the_sweeper_fails_what_is_past_its_deadline(kit) {
        let uploading = kit.create(Policy::default()).await;
        let uploaded = kit.create(Policy::default()).await;
        kit.jobs.finish_upload(uploaded).await.expect("uploaded");
        let processing = kit.processing(2).await;
        kit.complete(processing, [0]).await;
        kit.wait(3_600);
        assert_eq!(kit.tracker.sweep().await.expect("swept").failed, 1);
        let failure = |snapshot: status_core::Snapshot| snapshot.failure.map(|f| (f.code, f.stage, f.retryable));
        assert_eq!(failure(kit.snapshot(uploading).await), Some(("upload-timeout".into(), Stage::Upload, true)));
        kit.wait(11 * 3_600);
        assert_eq!(kit.tracker.sweep().await.expect("swept").failed, 2);
        assert_eq!(failure(kit.snapshot(uploaded).await), Some(("processing-timeout".into(), Stage::Split, true)));
        assert_eq!(failure(kit.snapshot(processing).await), Some(("processing-timeout".into(), Stage::Process, true)));
        assert_eq!(kit.tracker.sweep().await.expect("swept").failed, 0, "a terminal job is not due");
    }

    /// It decides as everyone else does: what is heard of, and what is over, it does not touch.
    async fn the_sweeper_leaves_the_living_alone(kit) {
        let id = kit.processing(20).await;
        for index in 0..19 {
            kit.wait(3_600);
            kit.complete(id, [index]).await;
            kit.tracker.sweep().await.expect("swept");
        }
        assert_eq!(kit.state(id).await.job.status, Status::Processing);
        kit.complete(id, [19]).await;
        let completed = kit.state(id).await.job;
        kit.wait(100_000);
        let swept = kit.tracker.sweep().await.expect("swept");
        assert_eq!((swept.looked_at, swept.errors), (0, 0));
        assert_eq!(kit.state(id).await.job, completed);
    }

    /// Each once, and none that is not due yet: also by a sweeper that reads a few at a time.
    async fn due_jobs_are_listed_page_by_page(kit) {
        let mut expected = Vec::new();
        for _ in 0..7 {
            expected.push(kit.create(Policy::default()).await);
        }
        expected.sort_unstable();
        kit.wait(2_000);
        let later = kit.create(Policy::default()).await;
        kit.wait(2_000);
        for limit in [1, 3, 7, 100] {
            let (store, now) = (&kit.store, kit.clock.now());
            let rows = all_pages(limit, |page| async move { store.due(now, &page).await }).await;
            let mut rows: Vec<_> = rows.into_iter().map(|due| due.id).collect();
            rows.sort_unstable();
            assert_eq!(rows, expected, "{limit} a page");
        }
        kit.wait(3_600);
        let due = kit.store.due(kit.clock.now(), &PageRequest::first(100)).await.expect("listed").rows;
        assert!(due.iter().any(|due| due.id == later));
        let nonsense = PageRequest { limit: 5, cursor: Some("what?".into()) };
        let refused = kit.store.due(kit.clock.now(), &nonsense).await;
        assert!(matches!(refused, Err(StoreError::InvalidCursor)), "{refused:?}");
    }

    /// With every decision and every fact, and with nothing else.
    async fn the_version_only_grows(kit) {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Batches(9);
        let id = kit.create(policy).await;
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
        assert_eq!(kit.snapshot(id).await.version, *versions.last().expect("some"), "a duplicate is no change");
    }

    /// Never back, and the stream ends with the job.
    async fn a_watcher_sees_progress_and_the_end(kit) {
        let id = kit.processing(5).await;
        let mut watched = std::pin::pin!(kit.jobs.watch(id).await.expect("watched"));
        let first = watched.next().await.expect("the newest at once");
        assert_eq!(first.status, Status::Processing);
        let working = async {
            for index in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                kit.complete(id, [index]).await;
            }
        };
        let seeing = async {
            let (mut version, mut status) = (first.version, first.status);
            while let Some(snapshot) = watched.next().await {
                assert!(snapshot.version >= version, "never back");
                (version, status) = (snapshot.version, snapshot.status);
            }
            status
        };
        let seeing = tokio::time::timeout(Duration::from_secs(20), seeing);
        assert_eq!(futures::join!(working, seeing).1.expect("within 20 s"), Status::Completed);
    }

    /// Each decision with time, actor and reason, in the record itself.
    async fn the_history_is_complete_and_bounded(kit) {
        let id = kit.create(Policy::default()).await;
        kit.wait(1);
        kit.jobs.finish_upload(id).await.expect("uploaded");
        kit.tracker.start(id, None, &splitter()).await.expect("started");
        kit.tracker.seal(id, totals(400), &splitter()).await.expect("sealed");
        kit.complete(id, 0..300).await;
        kit.jobs.cancel(id, Some("wrong file".into())).await.expect("requested");
        kit.tracker.begin(id, batch(300)).await.expect("confirmed");
        let history = kit.jobs.history(id).await.expect("found");
        let told: Vec<_> = history.iter().map(|h| (h.to, h.by.as_str(), h.reason.as_deref())).collect();
        assert_eq!(told, [
            (Decision::Uploading, "owner", None),
            (Decision::Uploaded, "owner", None),
            (Decision::Processing, "splitter", None),
            (Decision::Sealed, "splitter", None),
            (Decision::CancelRequested, "owner", Some("wrong file")),
            (Decision::Cancelled, "worker", Some("wrong file")),
        ]);
        assert!(history.is_sorted_by_key(|h| h.at));
        assert_eq!(clock_ms(&history[1]) - clock_ms(&history[0]), 1_000);
    }

    /// Not before, and there is no hidden expiry.
    async fn retention_counts_from_the_terminal_decision(kit) {
        let mut policy = Policy::default();
        policy.retention = Duration::from_secs(60 * 86_400);
        policy.processing_timeout = Duration::MAX;
        let id = kit.processing_with(policy, 1).await;
        kit.wait(100 * 86_400);
        kit.complete(id, [0]).await;
        kit.wait(60 * 86_400 - 1);
        assert_eq!(kit.jobs.snapshot(id).await.expect("still there").progress.batches.completed, 1);
        assert_eq!(kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 1);
        kit.wait(1);
        assert!(matches!(kit.jobs.snapshot(id).await, Err(Error::NotFound(_))), "gone");
        assert_eq!(kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 0);
    }

    /// Succeeded, partial or empty.
    async fn a_completed_job_says_how(kit) {
        let id = kit.processing(1).await;
        kit.tracker.report(id, vec![BatchReport::completed(batch(0), 9, 1)]).await.expect("recorded");
        assert_eq!(kit.snapshot(id).await.outcome, Some(Outcome::Partial), "a failed item");
        let id = kit.processing(1).await;
        kit.complete(id, [0]).await;
        assert_eq!(kit.snapshot(id).await.outcome, Some(Outcome::Succeeded));
    }

    /// What was done, what failed, what was not processed.
    async fn a_terminal_job_keeps_what_was_done(kit) {
        let id = kit.processing(5).await;
        kit.complete(id, [0, 1]).await;
        kit.fail(id, [2]).await;
        let snapshot = kit.snapshot(id).await;
        assert_eq!(snapshot.status, Status::Failed);
        let batches = snapshot.progress.batches;
        assert_eq!((batches.completed, batches.failed, batches.pending), (2, 1, Some(2)));
        assert_eq!(snapshot.progress.fraction, Some(0.6), "the reached progress");
        let listed = kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows;
        assert_eq!(listed[0].progress.batches.completed, 2, "the list knows it from the head alone");
    }

    /// For anybody else a job does not exist.
    async fn owners_see_only_their_own(kit) {
        let id = kit.processing(1).await;
        let bob = kit.tracker.owned_by(owner("bob"));
        assert!(matches!(bob.snapshot(id).await, Err(Error::NotFound(_))));
        assert!(matches!(bob.history(id).await, Err(Error::NotFound(_))));
        assert!(matches!(bob.errors(id, &PageRequest::first(1)).await, Err(Error::NotFound(_))));
        assert!(matches!(bob.cancel(id, None).await, Err(Error::NotFound(_))));
        assert!(matches!(bob.finish_upload(id).await, Err(Error::NotFound(_))));
        assert!(matches!(bob.upload_progress(id, 1).await, Err(Error::NotFound(_))));
        assert!(matches!(bob.watch(id).await.map(drop), Err(Error::NotFound(_))));
        assert_eq!(bob.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 0);
        assert_eq!(kit.state(id).await.job.cancel_requested, None);
    }

    /// Page by page, and by status.
    async fn jobs_are_listed_newest_first(kit) {
        let mut ids = Vec::new();
        for index in 0..7 {
            kit.wait(1);
            let id = kit.create(Policy::default()).await;
            if index % 2 == 0 {
                kit.jobs.cancel(id, None).await.expect("cancelled");
            }
            ids.push(id);
        }
        ids.reverse();
        let jobs = &kit.jobs;
        let list = async |status, limit| -> Vec<_> {
            let rows = all_pages(limit, |page| async move { jobs.list(status, &page).await }).await;
            rows.into_iter().map(|job| job.id).collect()
        };
        for limit in [1, 3, 7, 50] {
            assert_eq!(list(None, limit).await, ids, "{limit} a page");
        }
        let cancelled: Vec<_> = ids.iter().copied().step_by(2).collect();
        assert_eq!(list(Some(Status::Cancelled), 2).await, cancelled);
        assert_eq!(list(Some(Status::Completed), 2).await, []);
        let nonsense = PageRequest { limit: 5, cursor: Some("what?".into()) };
        let refused = kit.jobs.list(None, &nonsense).await;
        assert!(matches!(refused, Err(Error::Store(StoreError::InvalidCursor))), "{refused:?}");
    }

    /// Whatever workers crash and messages come twice; and they inform, they never decide.
    async fn starts_are_counted_once(kit) {
        let mut policy = Policy::default();
        policy.track_starts = true;
        let id = kit.processing_with(policy, 4).await;
        let running = async || kit.snapshot(id).await.progress.batches.running;
        assert_eq!(running().await, Some(0));
        kit.tracker.begin_all(id, &[batch(0), batch(1)]).await.expect("begun");
        assert_eq!(running().await, Some(2));
        kit.tracker.begin(id, batch(1)).await.expect("a redelivery begins again");
        assert_eq!(running().await, Some(2));
        kit.complete(id, [1, 1]).await;
        assert_eq!(running().await, Some(1));
        assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("asked"), Begin::AlreadyCompleted);
        assert_eq!(running().await, Some(1));
        kit.complete(id, [2, 3]).await;
        assert_eq!(running().await, Some(1), "the worker of batch 0 has crashed, for all anybody knows");
        kit.complete(id, [0]).await;
        let snapshot = kit.snapshot(id).await;
        assert_eq!((snapshot.status, snapshot.progress.batches.running), (Status::Completed, Some(0)));
        let untracked = kit.processing(1).await;
        kit.tracker.begin(untracked, batch(0)).await.expect("begun");
        assert_eq!(kit.snapshot(untracked).await.progress.batches.running, None);
    }

    /// The store knows exactly which.
    async fn unsettled_batches_are_known(kit) {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Batches(1);
        let id = kit.processing_with(policy, 520).await;
        kit.fail(id, [1]).await;
        kit.complete(id, (0..520).filter(|index| ![1, 7, 255, 256, 511, 519].contains(index))).await;
        let unsettled = async |from, limit| -> Vec<u64> {
            let batches = kit.tracker.batches(id, BatchState::Unsettled, from, limit).await.expect("known");
            batches.into_iter().map(u64::from).collect()
        };
        assert_eq!(unsettled(0, 100).await, [7, 255, 256, 511, 519]);
        assert_eq!(unsettled(8, 2).await, [255, 256]);
        assert_eq!(unsettled(520, 2).await, [0_u64; 0]);
        let untouched = kit.processing(3).await;
        assert_eq!(kit.tracker.batches(untouched, BatchState::Unsettled, 0, 10).await.expect("known"), [0, 1, 2].map(batch));
    }

    /// Whatever is asked of it.
    async fn what_is_not_there_is_not_found(kit) {
        let id = JobId::new(kit.clock.now());
        assert!(matches!(kit.tracker.snapshot(id).await, Err(Error::NotFound(_))));
        assert!(matches!(kit.tracker.begin(id, batch(0)).await, Err(Error::NotFound(_))));
        assert!(matches!(kit.tracker.report(id, vec![done(0)]).await, Err(Error::NotFound(_))));
        assert!(matches!(kit.tracker.start(id, None, &splitter()).await, Err(Error::NotFound(_))));
        assert!(matches!(kit.tracker.watch(id).await.map(drop), Err(Error::NotFound(_))));
        assert!(matches!(kit.tracker.batches(id, BatchState::Unsettled, 0, 1).await, Err(Error::NotFound(_))));
    }

    /// 600 batches, each delivered twice, by 16 workers at once, in different orders.
    async fn many_workers_count_exactly(kit) {
        const TOTAL: u64 = 600;
        let id = kit.processing(TOTAL).await;
        let counted: Vec<_> = join_all((0..16_u64).map(|worker| {
            let kit = kit.clone();
            tokio::spawn(async move {
                let mut counted = 0;
                for step in (worker..2 * TOTAL).step_by(16) {
                    let index = (step * 7 + worker / 8) % TOTAL;
                    let recorded = kit.tracker.report(id, vec![done(index)]).await.expect("recorded");
                    counted += effects(&recorded).iter().filter(|e| **e == Effect::Counted).count();
                }
                // Whatever that left out.
                for index in (worker..TOTAL).step_by(16) {
                    let recorded = kit.tracker.report(id, vec![done(index)]).await.expect("recorded");
                    counted += effects(&recorded).iter().filter(|e| **e == Effect::Counted).count();
                }
                counted
            })
        }))
        .await;
        let counted: usize = counted.into_iter().map(|c| c.expect("no worker panicked")).sum();
        assert_eq!(counted as u64, TOTAL, "each batch was counted by exactly one worker");
        let state = kit.state(id).await;
        assert_eq!(state.job.status, Status::Completed);
        assert_eq!((state.facts.counts.completed, state.facts.counts.items_processed), (TOTAL, TOTAL * 10));
        assert_eq!(state.facts.moments.get(status_core::Sum::Samples), i128::from(TOTAL));
        let ends = state.job.history.iter().filter(|h| h.to == Decision::Completed).count();
        assert_eq!(ends, 1, "decided once");
    }

    /// Cancels, failures and sweeps at the same moment: one of them wins, and all agree.
    async fn many_deciders_decide_once(kit) {
        let kit = Arc::new(kit);
        for _ in 0..8 {
            let id = kit.processing(1).await;
            let deciders = (0..12).map(|n| {
                let kit = kit.clone();
                tokio::spawn(async move {
                    match n % 3 {
                        0 => drop(kit.tracker.report(id, vec![done(0)]).await),
                        1 => drop(kit.tracker.fail(id, Failure::new(Stage::Process, "x", "x", false), &splitter()).await),
                        _ => {
                            let _ = kit.jobs.cancel(id, None).await;
                            let _ = kit.tracker.begin(id, batch(0)).await;
                        }
                    }
                })
            });
            for decider in join_all(deciders).await {
                decider.expect("nobody panicked");
            }
            let job = kit.state(id).await.job;
            assert!(job.status.is_terminal());
            let ends = job.history.iter().filter(|h| matches!(h.to, Decision::Completed | Decision::Failed | Decision::Cancelled));
            assert_eq!(ends.count(), 1);
        }
    }
}

fn clock_ms(entry: &status_core::HistoryEntry) -> i64 {
    entry.at.as_millisecond()
}
