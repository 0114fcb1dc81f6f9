//! Decisions: commands, compare-and-swap, and what the record keeps of them.

use std::sync::Arc;

use futures::future::join_all;
use status_core::{
    BatchReport, Begin, Cancelled, Clock, Command, Consistency, Decision, JobId, NewJob, Outcome,
    PageRequest, Policy, Rejection, Status, StatusStore, StoreError,
};

use crate::kit::{Kit, batch, done, file, gave_up, rejection, splitter, totals};

pub(super) async fn commands_say_at_least_this_far(kit: Kit) {
    let id = kit.create(Policy::default()).await;
    let started = kit.tracker.start(id, None, &splitter()).await.expect("starts from Uploading");
    assert_eq!(started.status, Status::Processing);
    let late = kit.jobs.finish_upload(id).await.expect("already applied");
    assert_eq!((late.status, late.version), (Status::Processing, started.version));
    kit.jobs.upload_progress(id, 5).await.expect("already applied");
    for size in [20, 50] {
        let stands = kit.tracker.batch_size(id, size, &splitter()).await.expect("kept");
        assert_eq!(stands, 20, "it was cut before");
    }
    kit.tracker.seal(id, totals(0), &splitter()).await.expect("sealed");
    kit.jobs.finish_upload(id).await.expect("already applied on a completed job");
    kit.tracker.start(id, None, &splitter()).await.expect("already applied on a completed job");
}

pub(super) async fn the_same_command_twice_is_once(kit: Kit) {
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
    assert!(matches!(kit.jobs.cancel(id, None).await, Ok(Cancelled::Now(_))), "again is no error");
    assert_eq!(kit.state(id).await.job.revision, 5);
}

pub(super) async fn a_contradiction_names_both_statuses(kit: Kit) {
    let id = kit.processing(1).await;
    kit.complete(id, [0]).await;
    let refused = rejection(kit.tracker.fail(id, gave_up(), &splitter()).await);
    assert_eq!(refused, Rejection::Contradiction { status: Status::Completed, wanted: Status::Failed });
    let cancelled = kit.create(Policy::default()).await;
    kit.jobs.cancel(cancelled, None).await.expect("cancelled");
    let refused = rejection(kit.jobs.finish_upload(cancelled).await);
    assert_eq!(refused, Rejection::Contradiction { status: Status::Cancelled, wanted: Status::Uploaded });
    let refused = rejection(kit.tracker.start(cancelled, None, &splitter()).await);
    assert_eq!(refused, Rejection::Contradiction { status: Status::Cancelled, wanted: Status::Processing });
    let refused = rejection(kit.tracker.fail(cancelled, gave_up(), &splitter()).await);
    assert_eq!(refused, Rejection::Contradiction { status: Status::Cancelled, wanted: Status::Failed });
}

pub(super) async fn terminal_is_final(kit: Kit) {
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
        let _ = kit.tracker.fail(id, gave_up(), &splitter()).await;
        let _ = kit.tracker.report(id, vec![done(1)]).await;
        let _ = kit.tracker.begin(id, batch(1)).await;
        kit.wait(1_000_000);
        kit.tracker.sweep().await.expect("swept");
        assert_eq!(kit.state(id).await.job, before, "{end}");
    }
}

pub(super) async fn upload_progress_is_a_courtesy(kit: Kit) {
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

pub(super) async fn a_begin_starts_a_job_that_nobody_started(kit: Kit) {
    for new in [NewJob::new(file("leads.csv")), NewJob::titled("Nightly export")] {
        let id = kit.jobs.create(new).await.expect("created").id;
        assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("begun"), Begin::Work);
        started_late(&kit, id).await;
    }
}

pub(super) async fn a_report_starts_a_job_that_nobody_started(kit: Kit) {
    for new in [NewJob::new(file("leads.csv")), NewJob::titled("Nightly export")] {
        let id = kit.jobs.create(new).await.expect("created").id;
        kit.complete(id, [1]).await;
        started_late(&kit, id).await;
    }
}

/// A worker was first; then comes the splitter, as if nothing had happened.
async fn started_late(kit: &Kit, id: JobId) {
    let snapshot = kit.snapshot(id).await;
    assert_eq!((snapshot.status, snapshot.progress.batches.total), (Status::Processing, None));
    kit.tracker.start(id, None, &splitter()).await.expect("already so");
    kit.tracker.seal(id, totals(2), &splitter()).await.expect("sealed");
    kit.complete(id, [0, 1]).await;
    let job = kit.state(id).await.job;
    assert_eq!((job.status, job.outcome), (Status::Completed, Some(Outcome::Succeeded)));
    let told: Vec<_> = job.history.iter().map(|h| (h.to, h.by.as_str())).collect();
    let expected = [
        (Decision::Uploading, "owner"),
        (Decision::Uploaded, if job.file.is_some() { "worker" } else { "owner" }),
        (Decision::Processing, "worker"),
        (Decision::Sealed, "splitter"),
        (Decision::Completed, "worker"),
    ];
    assert_eq!(told, expected[usize::from(job.file.is_none())..]);
}

pub(super) async fn a_swap_needs_the_revision_it_was_made_from(kit: Kit) {
    let id = kit.create(Policy::default()).await;
    let mut next = kit.state(id).await.job;
    next.revision += 1;
    next.stage = Some("one".into());
    for _ in 0..2 {
        kit.store.decide(&next).await.expect("the same swap succeeds twice");
    }
    let mut stale = next.clone();
    stale.stage = Some("two".into());
    let refused = kit.store.decide(&stale).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "same revision, other record: {refused:?}");
    stale.revision += 5;
    let refused = kit.store.decide(&stale).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "a revision too far: {refused:?}");
    assert_eq!(kit.state(id).await.job, next);
}

pub(super) async fn of_many_swaps_of_one_revision_one_is_told_ok(kit: Kit) {
    for total in [None, Some(3)] {
        let id = kit.create(Policy::default()).await;
        kit.tracker.start(id, total.map(totals), &splitter()).await.expect("started");
        swap_at_once(std::slice::from_ref(&kit.store), &kit, id).await;
    }
}

/// Has twelve callers swap different records in over one revision, spread over these handles.
pub(super) async fn swap_at_once(handles: &[Arc<dyn StatusStore>], kit: &Kit, id: JobId) {
    let before = kit.state(id).await.job;
    let swaps = (0..12).map(|n| {
        let mut next = before.clone();
        next.revision += 1;
        next.stage = Some(format!("swap {n}"));
        let store = handles[n % handles.len()].clone();
        tokio::spawn(async move { (store.decide(&next).await, next) })
    });
    let (mut winners, mut losers) = (Vec::new(), Vec::new());
    for swap in join_all(swaps).await {
        match swap.expect("nobody panicked") {
            (Ok(()), next) => winners.push(next),
            (Err(StoreError::Conflict(_)), next) => losers.push(next),
            (Err(error), _) => panic!("{error}"),
        }
    }
    assert_eq!((winners.len(), losers.len()), (1, 11), "of twelve swaps of one revision");
    assert_eq!(kit.state(id).await.job, winners[0], "the one that was told so is in");
    for handle in handles {
        handle.decide(&winners[0]).await.expect("its repetition succeeds");
        let refused = handle.decide(&losers[0]).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    }
}

pub(super) async fn many_deciders_decide_once(kit: Kit) {
    for _ in 0..8 {
        let id = kit.processing(1).await;
        // Each says as what it was told that the job has ended, if it was.
        let deciders = (0..12).map(|n| {
            let kit = kit.clone();
            tokio::spawn(async move {
                match n % 3 {
                    0 => kit.tracker.report(id, vec![done(0)]).await.expect("recorded").late,
                    1 => kit.tracker.fail(id, gave_up(), &splitter()).await.ok().map(|job| job.status),
                    _ => {
                        let _ = kit.jobs.cancel(id, None).await;
                        match kit.tracker.begin(id, batch(0)).await.expect("asked") {
                            Begin::Over(status) => Some(status),
                            _ => None,
                        }
                    }
                }
            })
        });
        let told = join_all(deciders).await.into_iter().filter_map(|told| told.expect("nobody panicked"));
        let job = kit.state(id).await.job;
        assert!(job.status.is_terminal());
        assert!(told.into_iter().all(|status| status == job.status), "all agree on {}", job.status);
        let is_end = |to| matches!(to, Decision::Completed | Decision::Failed | Decision::Cancelled);
        assert_eq!(job.history.iter().filter(|h| is_end(h.to)).count(), 1);
    }
}

pub(super) async fn the_history_is_complete_and_bounded(kit: Kit) {
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
    let expected = [
        (Decision::Uploading, "owner", None),
        (Decision::Uploaded, "owner", None),
        (Decision::Processing, "splitter", None),
        (Decision::Sealed, "splitter", None),
        (Decision::CancelRequested, "owner", Some("wrong file")),
        (Decision::Cancelled, "worker", Some("wrong file")),
    ];
    assert_eq!(told, expected);
    assert!(history.is_sorted_by_key(|h| h.at));
    assert_eq!(history[1].at.as_millisecond() - history[0].at.as_millisecond(), 1_000);
}

pub(super) async fn the_head_alone_is_what_was_decided(kit: Kit) {
    let head = async |id| kit.store.job(id, Consistency::Strong).await.expect("an answer");
    let id = kit.processing(3).await;
    kit.complete(id, [0]).await;
    assert_eq!(head(id).await, Some(kit.state(id).await.job));
    let next = kit.next(id, &Command::Cancel(None)).await;
    kit.store.decide(&next).await.expect("swapped in");
    assert_eq!(head(id).await, Some(next), "a strong read sees every swap that was acknowledged before");
    assert_eq!(kit.tracker.job(id).await.expect("found").id, id);
    assert_eq!(head(JobId::new(kit.clock.now())).await, None);
}

pub(super) async fn a_completed_job_says_how(kit: Kit) {
    let id = kit.processing(1).await;
    let partial = BatchReport::completed(batch(0), 9, 1);
    kit.tracker.report(id, vec![partial]).await.expect("recorded");
    assert_eq!(kit.snapshot(id).await.outcome, Some(Outcome::Partial), "a failed item");
    let id = kit.processing(1).await;
    kit.complete(id, [0]).await;
    assert_eq!(kit.snapshot(id).await.outcome, Some(Outcome::Succeeded));
}

pub(super) async fn a_terminal_job_keeps_what_was_done(kit: Kit) {
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
