//! Forgetting: when retention is over, when a job is erased, and what may be used again then.

use std::time::Duration;

use status_core::{
    BatchState, Clock, Consistency, Due, Error, Job, JobId, NewJob, PageRequest, Policy, Status, StoreError,
    Timestamp, Tolerance, clock,
};

use crate::kit::{Kit, batch, done, failed, file, owner, splitter, totals};

const DAY: u64 = 86_400;

pub(super) async fn retention_counts_from_the_terminal_decision(kit: Kit) {
    let mut policy = Policy::default();
    policy.retention = Duration::from_secs(60 * DAY);
    policy.processing_timeout = Duration::MAX;
    policy.deadline = Duration::from_secs(200 * DAY);
    let id = kit.processing_with(policy, 1).await;
    kit.wait(100 * DAY);
    kit.complete(id, [0]).await;
    kit.wait(60 * DAY - 1);
    assert_eq!(kit.jobs.snapshot(id).await.expect("still there").progress.batches.completed, 1);
    assert_eq!(kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 1);
    kit.wait(1);
    assert!(matches!(kit.jobs.snapshot(id).await, Err(Error::NotFound(_))), "gone");
    assert_eq!(kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 0);
}

/// A job of alice under a key, over or not, with all that can belong to a job.
async fn full_job(kit: &Kit, over: bool) -> JobId {
    let mut policy = Policy::default();
    policy.track_starts = true;
    policy.tolerance = Tolerance::Batches(2);
    let id = kit.jobs.create(keyed(policy)).await.expect("created").id;
    kit.tracker.start(id, Some(totals(600)), &splitter()).await.expect("started");
    kit.tracker.begin_all(id, &[batch(0), batch(300)]).await.expect("begun");
    kit.complete(id, [0, 1, 300, 599]).await;
    kit.fail(id, [2, 301]).await;
    if over {
        kit.fail(id, [303]).await;
    }
    id
}

fn keyed(policy: Policy) -> NewJob {
    NewJob::new(file("leads.csv")).with_kind("lead-import").with_key("k-1").with_policy(policy)
}

/// A job as it was while it was there, and when it was due.
struct Before(Job, Due);

impl Before {
    async fn of(kit: &Kit, id: JobId) -> Self {
        let due = kit.store.due(Timestamp::MAX, &PageRequest::first(100)).await.expect("listed").rows;
        let due = due.into_iter().find(|due| due.id == id);
        Self(kit.state(id).await.job, due.unwrap_or(Due::new(id, id.created_at())))
    }
}

/// Whatever is asked, nothing is left of the job.
async fn nothing_is_left_of(kit: &Kit, Before(job, due): &Before) {
    let id = job.id;
    for consistency in [Consistency::Eventual, Consistency::Strong] {
        assert_eq!(kit.store.job(id, consistency).await.expect("an answer"), None);
        assert_eq!(kit.store.read(id, consistency).await.expect("an answer"), None);
    }
    assert!(matches!(kit.jobs.snapshot(id).await, Err(Error::NotFound(_))));
    let begun = kit.store.begin(id, &[batch(0)], kit.clock.now()).await.expect("an answer");
    assert_eq!(begun, None);
    for report in [done(0), failed(7)] {
        let reported = kit.tracker.report(id, vec![report]).await;
        assert!(matches!(reported, Err(Error::NotFound(_))), "{reported:?}");
    }
    let reported = kit.store.report(id, &[done(1)], kit.clock.now()).await;
    assert!(matches!(reported, Err(StoreError::NotFound(_))), "{reported:?}");
    assert_eq!(kit.errors(id).await, [], "no errors");
    for which in [BatchState::Completed, BatchState::Failed, BatchState::Unsettled] {
        let batches = kit.store.batches(id, which, 0, 9).await;
        assert!(matches!(batches, Err(StoreError::NotFound(_))), "{batches:?}");
    }
    assert_eq!(kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows, []);
    assert_eq!(kit.jobs.count_open(5).await.expect("counted"), 0);
    let alice = owner("alice");
    assert_eq!(kit.store.last_completed(&alice, "lead-import", 5).await.expect("listed"), []);
    let since = id.created_at();
    assert_eq!(kit.store.changed_since(&alice, since, 5).await.expect("listed"), []);
    assert_eq!(kit.tracker.list_open(&PageRequest::first(5)).await.expect("listed").rows, []);
    assert_eq!(kit.due().await, []);
    let until = clock::after(kit.clock.now(), Duration::from_secs(60));
    assert!(!kit.store.postpone(due, until).await.expect("an answer"));
    let mut next = job.clone();
    next.revision += 1;
    let decided = kit.store.decide(&next).await;
    assert!(matches!(decided, Err(StoreError::NotFound(_))), "{decided:?}");
    let nothing = kit.store.report(id, &[], kit.clock.now()).await;
    assert!(matches!(nothing, Err(StoreError::NotFound(_))), "{nothing:?}");
    let swept = kit.tracker.sweep().await.expect("swept");
    assert_eq!((swept.looked_at, swept.errors), (0, 0));
}

/// The key makes a job again, and it is a new one.
async fn the_key_is_free(kit: &Kit, before: JobId) {
    let again = kit.jobs.create(keyed(Policy::default())).await.expect("created");
    assert_ne!(again.id, before);
    assert_eq!((again.status, again.version), (Status::Uploading, 1));
    let once_more = kit.jobs.create(keyed(Policy::default())).await.expect("found again");
    assert_eq!(once_more.id, again.id);
    assert_eq!(kit.state(again.id).await.facts.counts.settled(), 0);
}

pub(super) async fn all_of_a_job_goes_when_its_retention_is_over(kit: Kit) {
    let id = full_job(&kit, true).await;
    kit.wait(90 * DAY - 1);
    let again = kit.jobs.create(keyed(Policy::default())).await.expect("found again");
    assert_eq!((again.id, again.status), (id, Status::Failed), "until then its key finds it");
    assert_eq!(kit.errors(id).await.len(), 3);
    let before = Before::of(&kit, id).await;
    kit.wait(1);
    nothing_is_left_of(&kit, &before).await;
    the_key_is_free(&kit, id).await;
}

pub(super) async fn a_key_is_free_when_its_job_is_gone_though_nobody_purged(kit: Kit) {
    let id = full_job(&kit, true).await;
    kit.wait(90 * DAY);
    the_key_is_free(&kit, id).await;
}

pub(super) async fn a_job_that_never_ends_is_forgotten_too(kit: Kit) {
    let id = full_job(&kit, false).await;
    let expires = kit.state(id).await.job.expires_at();
    let lives = clock::between(kit.clock.now(), expires);
    assert!(lives > Policy::default().deadline, "not before it can end");
    kit.wait(lives.as_secs() - 1);
    assert_eq!(kit.state(id).await.facts.counts.settled(), 6, "nobody swept, and it is there");
    let before = Before::of(&kit, id).await;
    kit.wait(2);
    nothing_is_left_of(&kit, &before).await;
    the_key_is_free(&kit, id).await;
}

pub(super) async fn purging_deletes_what_has_expired_and_nothing_else(kit: Kit) {
    let over = full_job(&kit, true).await;
    kit.wait(1);
    let live = kit.processing(2).await;
    kit.complete(live, [0]).await;
    let ended = kit.processing(1).await;
    kit.complete(ended, [0]).await;
    assert_eq!(kit.store.purge(kit.clock.now()).await.expect("purged"), 0, "nothing has expired");
    kit.wait(90 * DAY - 1);
    assert!(kit.store.purge(kit.clock.now()).await.expect("purged") <= 1, "or the backend does it");
    assert_eq!(kit.store.purge(kit.clock.now()).await.expect("purged"), 0, "once");
    assert_eq!(kit.store.job(over, Consistency::Strong).await.expect("an answer"), None);
    assert_eq!(kit.state(live).await.facts.counts.completed, 1);
    assert_eq!(kit.state(ended).await.facts.counts.completed, 1);
    kit.wait(1);
    kit.store.purge(kit.clock.now()).await.expect("purged");
    assert_eq!(kit.store.job(ended, Consistency::Strong).await.expect("an answer"), None);
    assert_eq!(kit.jobs.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 1);
}

pub(super) async fn erasing_leaves_nothing(kit: Kit) {
    for over in [false, true] {
        let id = full_job(&kit, over).await;
        let before = Before::of(&kit, id).await;
        for _ in 0..2 {
            kit.tracker.erase(id).await.expect("erased, and once more is no error");
            nothing_is_left_of(&kit, &before).await;
        }
        the_key_is_free(&kit, id).await;
        let again = kit.jobs.create(keyed(Policy::default())).await.expect("found again").id;
        kit.tracker.erase(again).await.expect("erased");
    }
    kit.tracker.erase(JobId::new(kit.clock.now())).await.expect("what is not there is erased");
}

pub(super) async fn erasing_leaves_the_others_alone(kit: Kit) {
    let id = full_job(&kit, true).await;
    let other = kit.processing_with(Policy::default(), 2).await;
    kit.complete(other, [0]).await;
    let before = kit.state(other).await;
    kit.tracker.erase(id).await.expect("erased");
    assert_eq!(kit.state(other).await, before);
    kit.complete(other, [1]).await;
    assert_eq!(kit.snapshot(other).await.status, Status::Completed);
}

pub(super) async fn owners_erase_what_is_over(kit: Kit) {
    let id = full_job(&kit, false).await;
    let refused = kit.jobs.erase(id).await;
    assert!(matches!(refused, Err(Error::Rejected { .. })), "{refused:?}");
    assert_eq!(kit.state(id).await.facts.counts.settled(), 6);
    kit.fail(id, [303]).await;
    let before = Before::of(&kit, id).await;
    kit.jobs.erase(id).await.expect("erased");
    nothing_is_left_of(&kit, &before).await;
}
