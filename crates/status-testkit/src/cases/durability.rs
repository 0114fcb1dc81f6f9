//! What lasts: the same data opened again, and opened twice.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use status_core::{
    Begin, Clock, Command, Consistency, Decision, Effect, Error, NewJob, PageRequest, Policy, Status,
    StoreError, Sum, Tolerance, clock,
};

use super::{deciding::swap_at_once, sweeping::sweep_at_once, watching::watch_to_the_end};
use crate::kit::{Kit, batch, done, effects, failed, file, splitter, tolerant, totals};

pub(super) async fn what_was_acknowledged_is_there_after_reopening(kit: Kit) {
    let mut policy = Policy::default();
    policy.track_starts = true;
    policy.tolerance = Tolerance::Batches(3);
    let new = NewJob::new(file("leads.csv")).with_kind("lead-import").with_key("k-1").with_policy(policy);
    let id = kit.jobs.create(new.clone()).await.expect("created").id;
    kit.wait(5);
    kit.tracker.start(id, Some(totals(600)), &splitter()).await.expect("started");
    kit.tracker.begin_all(id, &[batch(7), batch(8), batch(500)]).await.expect("begun");
    kit.wait(5);
    kit.complete(id, [0, 255, 256, 599, 8]).await;
    kit.fail(id, [1, 300]).await;
    kit.complete(id, [300]).await;
    kit.jobs.cancel(id, Some("wrong file".into())).await.expect("requested");
    let over = kit.processing(1).await;
    kit.fail(over, [0]).await;
    let late = kit.create(Policy::default()).await;
    kit.tracker.erase(late).await.expect("erased");

    let mut before = (kit.state(id).await, kit.state(over).await);
    let errors = (kit.errors(id).await, kit.errors(over).await);
    let shown = kit.snapshot(id).await;
    let mut kit = kit.reopened().await;
    for _ in 0..2 {
        let mut after = (kit.state(id).await, kit.state(over).await);
        for state in [&mut before.0, &mut after.0] {
            state.facts.running.sort_unstable();
        }
        assert_eq!(after, before);
        assert_eq!((kit.errors(id).await, kit.errors(over).await), errors);
        assert_eq!(kit.snapshot(id).await, shown);
        assert_eq!(kit.jobs.create(new.clone()).await.expect("found again").id, id);
        assert_eq!(kit.store.job(late, Consistency::Strong).await.expect("an answer"), None);
        let listed = kit.jobs.list(None, &PageRequest::first(9)).await.expect("listed").rows;
        assert_eq!(listed.len(), 2);
        kit = kit.reopened().await;
    }
    // And it goes on as if nothing had happened.
    assert_eq!(kit.tracker.begin(id, batch(9)).await.expect("asked"), Begin::Over(Status::Cancelled));
    let reported = kit.tracker.report(id, vec![done(255), done(7), done(600)]).await.expect("recorded");
    assert_eq!(effects(&reported), [Effect::Duplicate, Effect::Counted, Effect::OutOfRange]);
    kit.wait(90 * 86_400);
    for id in [id, over] {
        let gone = kit.jobs.snapshot(id).await;
        assert!(matches!(gone, Err(Error::NotFound(_))), "retention is over: {gone:?}");
    }
}

pub(super) async fn what_is_due_is_due_after_reopening(kit: Kit) {
    let postponed = kit.processing(2).await;
    let next = kit.processing(2).await;
    let undecided = kit.processing(1).await;
    kit.report_and_die(undecided, done(0)).await;
    let unpropagated = kit.processing(1).await;
    kit.report_and_die(unpropagated, done(0)).await;
    let completed = kit.next(unpropagated, &Command::Reconcile).await;
    kit.store.decide(&completed).await.expect("swapped in; then the process dies");
    kit.wait(130);
    let rows = kit.store.due(kit.clock.now(), &PageRequest::first(9)).await.expect("listed").rows;
    let due = rows.iter().find(|due| due.id == postponed).expect("it is due");
    let until = clock::after(kit.clock.now(), Duration::from_secs(1_000));
    assert!(kit.store.postpone(due, until).await.expect("an answer"));

    let kit = kit.reopened().await;
    let due: BTreeSet<_> = kit.due().await.into_iter().collect();
    assert_eq!(due, BTreeSet::from([next, undecided, unpropagated]));
    let swept = kit.tracker.sweep().await.expect("swept");
    assert_eq!((swept.looked_at, swept.completed), (3, 1));
    let kit = kit.reopened().await;
    assert_eq!(kit.due().await, []);
    assert_eq!(kit.state(undecided).await.job.status, Status::Completed);
    kit.wait(1_000);
    assert!(kit.due().await.contains(&postponed));
}

pub(super) async fn two_handles_see_each_others_writes(kit: Kit) {
    let other = kit.second().await;
    let new = NewJob::new(file("leads.csv")).with_key("k-1");
    let id = kit.jobs.create(new.clone()).await.expect("created").id;
    assert_eq!(other.jobs.create(new).await.expect("found again").id, id);
    other.tracker.start(id, Some(totals(4)), &splitter()).await.expect("started");
    assert_eq!(kit.state(id).await, other.state(id).await);
    kit.complete(id, [0]).await;
    let reported = other.tracker.report(id, vec![done(0), done(1)]).await.expect("recorded");
    assert_eq!(effects(&reported), [Effect::Duplicate, Effect::Counted]);
    let reported = kit.tracker.report(id, vec![done(1)]).await.expect("recorded");
    assert_eq!(effects(&reported), [Effect::Duplicate]);
    kit.jobs.cancel(id, None).await.expect("requested");
    let stale = other.state(id).await.job;
    assert!(stale.cancel_requested.is_some());
    assert_eq!(other.tracker.begin(id, batch(2)).await.expect("asked"), Begin::Over(Status::Cancelled));
    let mut late = stale.clone();
    late.revision += 1;
    assert!(matches!(kit.store.decide(&late).await, Err(StoreError::Conflict(_))), "the other was first");
    assert_eq!(kit.snapshot(id).await, other.snapshot(id).await);
    other.tracker.erase(id).await.expect("erased");
    assert_eq!(kit.store.read(id, Consistency::Strong).await.expect("an answer"), None);
}

pub(super) async fn of_many_swaps_through_two_handles_one_is_told_ok(kit: Kit) {
    let other = kit.second().await;
    for _ in 0..4 {
        let id = kit.create(Policy::default()).await;
        swap_at_once(&[kit.store.clone(), other.store.clone()], &kit, id).await;
    }
}

pub(super) async fn two_handles_count_each_batch_once(kit: Kit) {
    const TOTAL: u64 = 300;
    let other = kit.second().await;
    let id = kit.processing_with(tolerant(), TOTAL).await;
    let counted: Vec<_> = join_all((0..8_u64).map(|worker| {
        let kit = if worker % 2 == 0 { kit.clone() } else { other.clone() };
        tokio::spawn(async move {
            let mut changes = 0;
            // Workers of both handles share each batch; some fail first.
            for index in (worker / 2..TOTAL).step_by(4) {
                let mut reports = vec![done(index)];
                if index % 7 == 0 {
                    reports.insert(0, failed(index));
                }
                for report in reports {
                    let reported = kit.tracker.report(id, vec![report]).await.expect("recorded");
                    changes += effects(&reported).iter().filter(|e| e.is_change()).count();
                }
            }
            changes
        })
    }))
    .await;
    let changes: usize = counted.into_iter().map(|c| c.expect("no worker panicked")).sum();
    let failing = TOTAL.div_ceil(7);
    assert!((TOTAL..=TOTAL + failing).contains(&(changes as u64)), "{changes}");
    for kit in [&kit, &other] {
        let state = kit.state(id).await;
        assert_eq!(state.job.status, Status::Completed);
        let counts = state.facts.counts;
        assert_eq!((counts.completed, counts.failed, counts.items_processed), (TOTAL, 0, TOTAL * 10));
        assert_eq!(state.facts.moments.get(Sum::Samples), i128::from(TOTAL));
        let ends = state.job.history.iter().filter(|h| h.to == Decision::Completed).count();
        assert_eq!(ends, 1, "decided once");
        assert_eq!(kit.errors(id).await, []);
    }
}

pub(super) async fn two_handles_sweep_each_job_once(kit: Kit) {
    let other = kit.second().await;
    let (mut quiet, mut undecided) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        quiet.push(kit.processing(2).await);
        undecided.push(other.processing(1).await);
    }
    for id in &undecided {
        kit.report_and_die(*id, done(0)).await;
    }
    kit.wait(200);
    let (kit, other) = (kit.in_turns(), other.in_turns());
    sweep_at_once(&[kit.clone(), other.clone(), kit, other], &quiet, &undecided).await;
}

pub(super) async fn a_watcher_sees_what_another_handle_writes(kit: Kit) {
    let other = kit.second().await;
    watch_to_the_end(&kit, &other).await;
}
