//! Time: stalls, deadlines, what is due, and sweepers that share the work.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use status_core::{
    BatchReport, Clock, Command, Due, Health, JobId, PageRequest, Policy, Snapshot, Stage, Status,
    StoreError, Swept, clock,
};

use crate::kit::{Kit, all_pages, batch, done, totals};

pub(super) async fn silence_is_a_stall(kit: Kit) {
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

    // Where the job's own batches take long, silence is no sign of a stall for longer.
    let id = kit.processing(20).await;
    let slow = |index| BatchReport::completed(batch(index), 10, 0).took(Duration::from_secs(600));
    for index in 0..8 {
        kit.wait(600);
        kit.tracker.report(id, vec![slow(index)]).await.expect("recorded");
    }
    for (seconds, health) in [(180, Health::Active), (410, Health::Active), (20, Health::Stalled)] {
        kit.wait(seconds);
        assert_eq!(kit.snapshot(id).await.health, health, "{seconds} s later");
    }
}

pub(super) async fn the_sweeper_fails_what_is_past_its_deadline(kit: Kit) {
    let uploading = kit.create(Policy::default()).await;
    let uploaded = kit.create(Policy::default()).await;
    kit.jobs.finish_upload(uploaded).await.expect("uploaded");
    let processing = kit.processing(2).await;
    kit.complete(processing, [0]).await;
    kit.wait(3_600);
    assert_eq!(kit.tracker.sweep().await.expect("swept").failed, 1);
    let failure = |snapshot: Snapshot| snapshot.failure.map(|f| (f.code, f.stage, f.retryable));
    let timeout = |code: &str, stage| Some((code.to_owned(), stage, true));
    assert_eq!(failure(kit.snapshot(uploading).await), timeout("upload-timeout", Stage::Upload));
    kit.wait(11 * 3_600);
    assert_eq!(kit.tracker.sweep().await.expect("swept").failed, 2);
    assert_eq!(failure(kit.snapshot(uploaded).await), timeout("processing-timeout", Stage::Split));
    assert_eq!(failure(kit.snapshot(processing).await), timeout("processing-timeout", Stage::Process));
    assert_eq!(kit.tracker.sweep().await.expect("swept").failed, 0, "a terminal job is not due");
}

pub(super) async fn the_sweeper_leaves_the_living_alone(kit: Kit) {
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

pub(super) async fn due_jobs_are_listed_page_by_page(kit: Kit) {
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
    assert!(kit.due().await.contains(&later));
    let nonsense = PageRequest { limit: 5, cursor: Some("what?".into()) };
    let refused = kit.store.due(kit.clock.now(), &nonsense).await;
    assert!(matches!(refused, Err(StoreError::InvalidCursor)), "{refused:?}");
}

pub(super) async fn an_end_stays_due_until_it_is_propagated(kit: Kit) {
    let id = kit.processing(2).await;
    kit.complete(id, [0]).await;
    kit.report_and_die(id, done(1)).await;
    let completed = kit.next(id, &Command::Reconcile).await;
    kit.store.decide(&completed).await.expect("swapped in; then the worker dies");
    assert_eq!(kit.due().await, [id], "at once");
    kit.wait(86_400);
    assert_eq!(kit.due().await, [id], "and still");
    let swept = kit.tracker.sweep().await.expect("swept");
    assert_eq!((swept.looked_at, swept.completed, swept.errors), (1, 0, 0));
    kit.wait(86_400);
    assert!(kit.due().await.is_empty(), "the sweep has propagated it");
    assert_eq!(kit.tracker.sweep().await.expect("swept").looked_at, 0);
    assert_eq!(kit.state(id).await.job, completed, "nothing was decided again");
    kit.store.propagate(&completed).await.expect("once more is no error");
    assert!(kit.due().await.is_empty());
}

/// The row of the only job that is due.
async fn only_due(kit: &Kit) -> Due {
    let page = kit.store.due(kit.clock.now(), &PageRequest::first(9)).await.expect("listed");
    let [due] = page.rows[..] else { panic!("one job is due, not {:?}", page.rows) };
    due
}

pub(super) async fn of_many_who_postpone_a_job_one_is_told_so(kit: Kit) {
    let id = kit.processing(2).await;
    kit.wait(200);
    for round in 0..4 {
        let due = only_due(&kit).await;
        let until = clock::after(kit.clock.now(), Duration::from_secs(60));
        let moves = (0..10).map(|_| {
            let store = kit.in_turns().store;
            tokio::spawn(async move { store.postpone(&due, until).await.expect("an answer") })
        });
        let told: Vec<_> = join_all(moves).await.into_iter().map(|t| t.expect("nobody panicked")).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "round {round}");
        let late = clock::after(until, Duration::from_secs(60));
        assert!(
            !kit.store.postpone(&due, late).await.expect("an answer"),
            "it is due at another time by now"
        );
        assert!(kit.due().await.is_empty());
        kit.wait(60);
        assert_eq!(kit.due().await, [id]);
    }
    let due = Due::new(JobId::new(kit.clock.now()), kit.clock.now());
    assert!(!kit.store.postpone(&due, kit.clock.now()).await.expect("an answer"), "there is no such job");
}

pub(super) async fn a_postponed_job_is_not_due_before(kit: Kit) {
    let id = kit.processing(2).await;
    kit.wait(200);
    let due = only_due(&kit).await;
    assert_eq!(due.id, id);
    assert!(due.at <= kit.clock.now());
    let until = clock::after(kit.clock.now(), Duration::from_secs(3_600));
    assert!(kit.store.postpone(&due, until).await.expect("an answer"));
    kit.wait(3_599);
    assert!(kit.due().await.is_empty());
    kit.wait(1);
    assert_eq!(kit.due().await, [id]);
}

pub(super) async fn a_decision_sets_anew_when_a_job_is_due(kit: Kit) {
    let id = kit.create(Policy::default()).await;
    kit.wait(3_600);
    for command in [Command::FinishUpload, Command::Start(Some(totals(5))), Command::Cancel(None)] {
        let due = only_due(&kit).await;
        let far = clock::after(kit.clock.now(), Duration::from_secs(10 * 86_400));
        assert!(kit.store.postpone(&due, far).await.expect("an answer"));
        assert!(kit.due().await.is_empty());
        let next = kit.next(id, &command).await;
        kit.store.decide(&next).await.expect("swapped in");
        let seconds = clock::between(kit.clock.now(), next.due_at()).as_secs();
        if seconds > 0 {
            kit.wait(seconds - 1);
            assert!(kit.due().await.is_empty(), "{command:?}: {seconds} s are not over");
            kit.wait(1);
        }
        assert_eq!(kit.due().await, [id], "{command:?}: {seconds} s are over");
    }
}

/// Sweeps every ten seconds until the job is over; gives after how many.
async fn swept_after(kit: &Kit, id: JobId) -> u64 {
    for seconds in (10..=7_200).step_by(10) {
        kit.wait(10);
        kit.tracker.sweep().await.expect("swept");
        if kit.state(id).await.job.status.is_terminal() {
            return seconds;
        }
    }
    panic!("the job is never over")
}

pub(super) async fn a_cancel_is_confirmed_after_its_grace_however_long_the_job_has_run(kit: Kit) {
    for (stall_after, looks) in [(3_600, false), (3_600, true), (120, false), (120, true), (1, true)] {
        let mut policy = Policy::default();
        policy.stall_after = Duration::from_secs(stall_after);
        let id = kit.processing_with(policy, 10).await;
        kit.wait(7_200);
        kit.complete(id, [0]).await;
        if looks {
            kit.tracker.sweep().await.expect("swept");
        }
        kit.jobs.cancel(id, None).await.expect("requested");
        let took = swept_after(&kit, id).await;
        assert_eq!(
            (took, kit.state(id).await.job.status),
            (30, Status::Cancelled),
            "{stall_after} s, {looks}"
        );
    }
}

pub(super) async fn a_timeout_that_is_shorter_than_a_stall_is_met(kit: Kit) {
    let mut policy = Policy::default();
    policy.stall_after = Duration::from_secs(3_600);
    policy.processing_timeout = Duration::from_secs(600);
    for heard_after in [0, 500] {
        let id = kit.processing_with(policy.clone(), 10).await;
        kit.wait(heard_after);
        kit.complete(id, [0]).await;
        let took = swept_after(&kit, id).await;
        assert_eq!(
            (took, kit.state(id).await.job.status),
            (600, Status::Failed),
            "heard after {heard_after} s"
        );
    }
}

pub(super) async fn sweepers_share_the_jobs(kit: Kit) {
    let (mut quiet, mut undecided) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        quiet.push(kit.processing(2).await);
        undecided.push(kit.processing(1).await);
    }
    for id in &undecided {
        kit.report_and_die(*id, done(0)).await;
    }
    kit.wait(200);
    let kit = kit.in_turns();
    sweep_at_once(&[kit.clone(), kit.clone(), kit.clone()], &quiet, &undecided).await;
}

/// Sweeps with each of these kits at the same time: every job is looked at by one.
pub(super) async fn sweep_at_once(kits: &[Kit], quiet: &[JobId], undecided: &[JobId]) {
    let sweeps = kits.iter().map(|kit| {
        let tracker = kit.tracker.clone();
        tokio::spawn(async move { tracker.sweep().await.expect("swept") })
    });
    let swept: Vec<_> = join_all(sweeps).await.into_iter().map(|s| s.expect("nobody panicked")).collect();
    let sum = |count: fn(&Swept) -> u64| swept.iter().map(count).sum::<u64>();
    assert_eq!(sum(|swept| swept.completed), undecided.len() as u64, "each was decided by one: {swept:?}");
    assert_eq!(sum(|swept| swept.errors), 0, "{swept:?}");
    // A job may be met again between its end and the propagation of it.
    let ended = sum(|swept| swept.looked_at) - quiet.len() as u64;
    assert!((undecided.len() as u64..=2 * undecided.len() as u64).contains(&ended), "{swept:?}");
    for id in undecided {
        assert_eq!(kits[0].state(*id).await.job.status, Status::Completed);
    }
    assert!(kits[0].due().await.is_empty(), "nothing is left, and the living ones are due later");
    assert_eq!(kits[0].tracker.sweep().await.expect("swept").looked_at, 0);
    kits[0].wait(121);
    let again: BTreeSet<_> = kits[0].due().await.into_iter().collect();
    assert_eq!(again, quiet.iter().copied().collect(), "they are looked at again");
}

pub(super) async fn quiet_jobs_are_looked_at_once_by_all_sweepers(kit: Kit) {
    let mut quiet = Vec::new();
    for _ in 0..12 {
        quiet.push(kit.processing(2).await);
    }
    kit.wait(200);
    let sweeps = (0..4).map(|_| {
        let tracker = kit.in_turns().tracker;
        tokio::spawn(async move { tracker.sweep().await.expect("swept").looked_at })
    });
    let looked_at = join_all(sweeps).await.into_iter().map(|s| s.expect("nobody panicked")).sum::<u64>();
    assert_eq!(looked_at, quiet.len() as u64, "together, at {quiet:?}");
}
