//! Lists: an owner's jobs, those of all owners, and batches by how they stand.

use std::collections::BTreeSet;

use status_core::{
    BatchState, Clock, Error, Job, JobId, NewJob, PageRequest, Policy, Status, StoreError, Timestamp,
};

use crate::kit::{Kit, all_pages, batch, done, file, gave_up, owner, splitter, tolerant, totals};

pub(super) async fn owners_see_only_their_own(kit: Kit) {
    let id = kit.processing(1).await;
    let bob = kit.tracker.owned_by(owner("bob"));
    assert!(matches!(bob.snapshot(id).await, Err(Error::NotFound(_))));
    assert!(matches!(bob.history(id).await, Err(Error::NotFound(_))));
    assert!(matches!(bob.errors(id, &PageRequest::first(1)).await, Err(Error::NotFound(_))));
    assert!(matches!(bob.cancel(id, None).await, Err(Error::NotFound(_))));
    assert!(matches!(bob.finish_upload(id).await, Err(Error::NotFound(_))));
    assert!(matches!(bob.upload_progress(id, 1).await, Err(Error::NotFound(_))));
    assert!(matches!(bob.watch(id).await.map(drop), Err(Error::NotFound(_))));
    assert!(matches!(bob.erase(id).await, Err(Error::NotFound(_))));
    assert_eq!(bob.list(None, &PageRequest::first(5)).await.expect("listed").rows.len(), 0);
    assert_eq!(bob.count_open(5).await.expect("counted"), 0);
    assert_eq!(kit.state(id).await.job.cancel_requested, None);
}

pub(super) async fn jobs_are_listed_newest_first(kit: Kit) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        kit.wait(1);
        ids.push(kit.create(Policy::default()).await);
    }
    ids.reverse();
    for limit in [1, 3, 7, 50] {
        assert_eq!(listed(&kit, None, limit).await, ids, "{limit} a page");
    }
    let nonsense = PageRequest { limit: 5, cursor: Some("what?".into()) };
    let refused = kit.jobs.list(None, &nonsense).await;
    assert!(matches!(refused, Err(Error::Store(StoreError::InvalidCursor))), "{refused:?}");
}

pub(super) async fn jobs_of_a_status_are_listed_over_all_pages(kit: Kit) {
    let (mut cancelled, mut open) = (Vec::new(), Vec::new());
    for index in 0..13 {
        kit.wait(1);
        let id = kit.create(Policy::default()).await;
        if index % 4 == 1 || index == 12 {
            kit.jobs.cancel(id, None).await.expect("cancelled");
            cancelled.insert(0, id);
        } else {
            open.insert(0, id);
        }
    }
    for limit in [1, 2, 3, 50] {
        assert_eq!(listed(&kit, Some(Status::Cancelled), limit).await, cancelled, "{limit} a page");
        assert_eq!(listed(&kit, Some(Status::Uploading), limit).await, open, "{limit} a page");
        assert_eq!(listed(&kit, Some(Status::Completed), limit).await, [], "{limit} a page");
    }
}

async fn listed(kit: &Kit, status: Option<Status>, limit: usize) -> Vec<JobId> {
    let jobs = &kit.jobs;
    let rows = all_pages(limit, |page| async move { jobs.list(status, &page).await }).await;
    rows.into_iter().map(|job| job.id).collect()
}

/// Jobs of alice that are not over, and jobs that are, each a second after the one before.
async fn open_and_over(kit: &Kit, count: usize) -> (Vec<JobId>, Vec<JobId>) {
    let (mut open, mut over) = (Vec::new(), Vec::new());
    for index in 0..count {
        kit.wait(1);
        match index % 5 {
            0 => open.push(kit.create(Policy::default()).await),
            1 => over.push(kit.processing(0).await),
            2 => open.push(kit.processing(3).await),
            3 => {
                let id = kit.processing(1).await;
                kit.fail(id, [0]).await;
                over.push(id);
            }
            _ => {
                let id = kit.create(Policy::default()).await;
                kit.jobs.cancel(id, None).await.expect("cancelled");
                over.push(id);
            }
        }
    }
    (open, over)
}

pub(super) async fn open_jobs_are_counted_up_to_a_bound(kit: Kit) {
    assert_eq!(kit.jobs.count_open(5).await.expect("counted"), 0);
    let (open, _) = open_and_over(&kit, 13).await;
    kit.tracker.owned_by(owner("bob")).create(NewJob::titled("Bob's")).await.expect("created");
    for at_most in [0, 1, open.len() - 1, open.len(), 100] {
        let counted = kit.jobs.count_open(at_most).await.expect("counted");
        assert_eq!(counted, open.len().min(at_most), "at most {at_most}");
    }
}

pub(super) async fn open_jobs_of_all_owners_are_listed(kit: Kit) {
    let (mut open, _) = open_and_over(&kit, 12).await;
    let asked = kit.processing(2).await;
    kit.jobs.cancel(asked, None).await.expect("requested");
    let bobs = kit.tracker.owned_by(owner("bob")).create(NewJob::titled("Bob's")).await.expect("created");
    open.extend([asked, bobs.id]);
    open.sort_unstable();
    // Those too that a sweeper has just looked at, and will not for a while.
    kit.wait(130);
    kit.tracker.sweep().await.expect("swept");
    for limit in [1, 3, 100] {
        let tracker = &kit.tracker;
        let rows = all_pages(limit, |page| async move { tracker.list_open(&page).await }).await;
        let mut ids: Vec<_> = rows.iter().map(|job| job.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, open_after_sweep(&kit, &open).await, "{limit} a page");
    }
    let nonsense = PageRequest { limit: 5, cursor: Some("what?".into()) };
    let refused = kit.tracker.list_open(&nonsense).await;
    assert!(matches!(refused, Err(Error::Store(StoreError::InvalidCursor))), "{refused:?}");
}

/// Those of `ids` that are still open: the sweep has confirmed a cancel.
async fn open_after_sweep(kit: &Kit, ids: &[JobId]) -> Vec<JobId> {
    let mut open = Vec::new();
    for id in ids {
        if !kit.state(*id).await.job.status.is_terminal() {
            open.push(*id);
        }
    }
    assert_eq!(open.len() + 1, ids.len(), "one cancel was confirmed");
    open
}

pub(super) async fn changed_jobs_are_those_that_are_open_and_those_decided_since(kit: Kit) {
    let changed = async |since, limit| -> Vec<JobId> {
        let jobs = kit.store.changed_since(&owner("alice"), since, limit).await.expect("listed");
        jobs.into_iter().map(|job| job.id).collect()
    };
    let (open, over) = open_and_over(&kit, 10).await;
    kit.tracker.owned_by(owner("bob")).create(NewJob::titled("Bob's")).await.expect("created");
    kit.wait(100);
    let newest_first = |ids: &BTreeSet<JobId>| ids.iter().rev().copied().collect::<Vec<_>>();
    let mut expected: BTreeSet<_> = open.iter().copied().collect();
    let since = kit.clock.now();
    assert_eq!(changed(since, 50).await, newest_first(&expected), "what is over did not change since");
    let ended = open[1];
    kit.tracker.fail(ended, gave_up(), &splitter()).await.expect("failed");
    assert_eq!(changed(since, 50).await, newest_first(&expected), "an end is a change");
    kit.wait(1);
    expected.remove(&ended);
    assert_eq!(changed(kit.clock.now(), 50).await, newest_first(&expected), "it ended before");
    expected.insert(ended);
    expected.extend(over);
    let ever = Timestamp::UNIX_EPOCH;
    assert_eq!(changed(ever, 50).await, newest_first(&expected));
    for limit in [1, 3] {
        let first: Vec<_> = newest_first(&expected).into_iter().take(limit).collect();
        assert_eq!(changed(ever, limit).await, first);
    }
}

pub(super) async fn the_last_completed_jobs_of_a_kind_are_known(kit: Kit) {
    let create = async |who: &str, kind: Option<&str>| {
        kit.wait(1);
        let new = NewJob::new(file("leads.csv"));
        let new = match kind {
            Some(kind) => new.with_kind(kind),
            None => new,
        };
        let id = kit.tracker.owned_by(owner(who)).create(new).await.expect("created").id;
        kit.tracker.start(id, Some(totals(1)), &splitter()).await.expect("started");
        id
    };
    let mut expected = Vec::new();
    for _ in 0..4 {
        let id = create("alice", Some("lead-import")).await;
        kit.complete(id, [0]).await;
        expected.insert(0, id);
        kit.fail(create("alice", Some("lead-import")).await, [0]).await;
        create("alice", Some("lead-import")).await;
        kit.complete(create("alice", Some("export")).await, [0]).await;
        kit.complete(create("alice", None).await, [0]).await;
        kit.complete(create("bob", Some("lead-import")).await, [0]).await;
    }
    for limit in [0, 1, 3, 9] {
        let last = kit.store.last_completed(&owner("alice"), "lead-import", limit).await.expect("listed");
        let ids: Vec<_> = last.iter().map(|job: &Job| job.id).collect();
        assert_eq!(ids, expected.iter().copied().take(limit).collect::<Vec<_>>(), "at most {limit}");
        assert!(last.iter().all(|job| job.frozen.is_some_and(|f| f.completed == 1)));
    }
    let none = kit.store.last_completed(&owner("alice"), "nothing", 9).await.expect("listed");
    assert!(none.is_empty());
}

pub(super) async fn unsettled_batches_are_known(kit: Kit) {
    let id = kit.processing_with(tolerant(), 520).await;
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
    let all = kit.tracker.batches(untouched, BatchState::Unsettled, 0, 10).await.expect("known");
    assert_eq!(all, [0, 1, 2].map(batch));
}

pub(super) async fn batches_are_listed_by_how_they_stand(kit: Kit) {
    let id = kit.streaming_with(tolerant()).await;
    kit.fail(id, [3, 255, 256, 513]).await;
    kit.complete(id, [0, 254, 257, 512, 256]).await;
    let listed = async |which, from, limit| -> Vec<u64> {
        let batches = kit.tracker.batches(id, which, from, limit).await.expect("known");
        batches.into_iter().map(u64::from).collect()
    };
    let (failed, completed) = (BatchState::Failed, BatchState::Completed);
    for sealed in [false, true] {
        if sealed {
            kit.tracker.seal(id, totals(600), &splitter()).await.expect("sealed");
        }
        assert_eq!(listed(failed, 0, 100).await, [3, 255, 513], "sealed: {sealed}");
        assert_eq!(listed(completed, 0, 100).await, [0, 254, 256, 257, 512], "sealed: {sealed}");
        assert_eq!(listed(failed, 4, 1).await, [255], "sealed: {sealed}");
        assert_eq!(listed(completed, 256, 2).await, [256, 257], "sealed: {sealed}");
        assert_eq!(listed(completed, 513, 9).await, [0_u64; 0], "sealed: {sealed}");
        let end = if sealed { 600 } else { 514 };
        let unsettled = listed(BatchState::Unsettled, 0, 1_000).await;
        let open = (0..end).filter(|index| ![0, 3, 254, 255, 256, 257, 512, 513].contains(index));
        assert_eq!(unsettled, open.collect::<Vec<_>>(), "sealed: {sealed}");
        assert_eq!(listed(BatchState::Unsettled, 511, 2).await.first(), Some(&511), "sealed: {sealed}");
    }
    let empty = kit.streaming_with(tolerant()).await;
    let none = kit.tracker.batches(empty, BatchState::Unsettled, 0, 9).await.expect("known");
    assert!(none.is_empty(), "nothing is known of a job that has just begun: {none:?}");
}

pub(super) async fn what_is_not_there_is_not_found(kit: Kit) {
    let id = JobId::new(kit.clock.now());
    assert!(matches!(kit.tracker.snapshot(id).await, Err(Error::NotFound(_))));
    assert!(matches!(kit.tracker.job(id).await, Err(Error::NotFound(_))));
    assert!(matches!(kit.tracker.begin(id, batch(0)).await, Err(Error::NotFound(_))));
    assert!(matches!(kit.tracker.report(id, vec![done(0)]).await, Err(Error::NotFound(_))));
    assert!(matches!(kit.tracker.start(id, None, &splitter()).await, Err(Error::NotFound(_))));
    assert!(matches!(kit.tracker.watch(id).await.map(drop), Err(Error::NotFound(_))));
    let batches = kit.tracker.batches(id, BatchState::Unsettled, 0, 1).await;
    assert!(matches!(batches, Err(Error::NotFound(_))), "{batches:?}");
    assert!(matches!(kit.jobs.errors(id, &PageRequest::first(1)).await, Err(Error::NotFound(_))));
    assert_eq!(kit.errors(id).await, [], "the store lists no errors of it");
}
