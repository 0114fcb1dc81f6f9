//! Cancelling: at once before anybody works, requested and confirmed afterwards, and never over the end.

use status_core::{Actor, Begin, Cancelled, Decision, Policy, Rejection, Status};

use crate::kit::{Kit, batch, done, rejection};

pub(super) async fn cancelling_before_processing_is_at_once(kit: Kit) {
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

pub(super) async fn cancelling_in_processing_is_confirmed_by_a_worker(kit: Kit) {
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

pub(super) async fn an_unheard_cancel_is_confirmed_by_the_sweeper(kit: Kit) {
    let id = kit.processing(3).await;
    kit.jobs.cancel(id, Some("enough".into())).await.expect("requested");
    kit.wait(29);
    assert_eq!(kit.tracker.sweep().await.expect("swept").cancelled, 0);
    kit.wait(1);
    assert_eq!(kit.tracker.sweep().await.expect("swept").cancelled, 1);
    let last = kit.jobs.history(id).await.expect("found").pop().expect("an entry");
    let expected = (Decision::Cancelled, Actor::SWEEPER, Some("enough"));
    assert_eq!((last.to, last.by, last.reason.as_deref()), expected);
}

pub(super) async fn the_last_batch_beats_the_cancel(kit: Kit) {
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

pub(super) async fn cancelling_a_terminal_job_is_an_error(kit: Kit) {
    let id = kit.processing(1).await;
    kit.fail(id, [0]).await;
    let refused = rejection(kit.jobs.cancel(id, None).await);
    assert_eq!(refused, Rejection::Contradiction { status: Status::Failed, wanted: Status::Cancelled });
}
