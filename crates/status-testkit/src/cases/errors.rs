//! Errors of items: facts like the counters. Those that are listed are those of the attempt that counted.

use std::collections::BTreeMap;

use futures::future::join_all;
use status_core::{
    BatchOutcome, BatchReport, Clock, Effect, Error, ItemError, JobId, PageRequest, StoreError,
};

use crate::kit::{Kit, all_pages, batch, done, effects, failed, tolerant};

/// Errors that only the attempt of this name reports.
fn errors_of(attempt: &str, index: u64, items: u64) -> impl Iterator<Item = ItemError> {
    let message = format!("{attempt} says so.");
    (0..items).map(move |item| ItemError::new(batch(index), Some(index * 10 + item), "no-name", &message))
}

/// Batch `index` of ten items, of which `attempt` says that the first `failed` failed.
fn partly(attempt: &str, index: u64, failed: u64) -> BatchReport {
    let report = BatchReport::completed(batch(index), 10 - failed, failed);
    report.with_errors(errors_of(attempt, index, failed))
}

/// Batch `index` of ten items, given up, with an error for each of the first `items`.
fn given_up(attempt: &str, index: u64, items: u64) -> BatchReport {
    BatchReport::failed(batch(index), 10, "x", "x").with_errors(errors_of(attempt, index, items))
}

/// The listed errors of each batch, sorted.
async fn listed(kit: &Kit, id: JobId) -> BTreeMap<u64, Vec<ItemError>> {
    let mut listed: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for error in kit.errors(id).await {
        listed.entry(error.batch.get()).or_default().push(error);
    }
    for errors in listed.values_mut() {
        errors.sort_by_key(|error| error.item);
    }
    listed
}

pub(super) async fn failed_items_are_listed_page_by_page(kit: Kit) {
    let id = kit.processing(600).await;
    for index in [11, 300, 3, 256, 255, 7] {
        for _ in 0..2 {
            kit.tracker.report(id, vec![partly("one", index, 2)]).await.expect("recorded");
        }
    }
    let batches = [3, 7, 11, 255, 256, 300];
    let expected: Vec<_> = batches.into_iter().flat_map(|index| errors_of("one", index, 2)).collect();
    for limit in [1, 2, 3, 5, 12, 100] {
        let jobs = &kit.jobs;
        let rows = all_pages(limit, |page| async move { jobs.errors(id, &page).await }).await;
        assert_eq!(rows, expected, "{limit} a page");
    }
    assert_eq!(kit.snapshot(id).await.progress.items.failed, 12);
    let nonsense = PageRequest { limit: 5, cursor: Some("what?".into()) };
    let refused = kit.jobs.errors(id, &nonsense).await;
    assert!(matches!(refused, Err(Error::Store(StoreError::InvalidCursor))), "{refused:?}");
}

pub(super) async fn an_error_is_listed_as_it_was_reported(kit: Kit) {
    let id = kit.processing(2).await;
    let whole = ItemError::new(batch(1), Some(17), "no-name", "Zoë's row has no name; \"x\" <b>.")
        .at_line(4_711)
        .with_input("{\"name\": \"\", \"e-mail\": \"zoë@example.org\"}");
    let bare = ItemError::new(batch(1), None, "late", "The rest came too late.");
    let report = BatchReport::completed(batch(1), 8, 2).with_errors([bare.clone(), whole.clone()]);
    kit.tracker.report(id, vec![report]).await.expect("recorded");
    let rows = kit.errors(id).await;
    assert_eq!(rows.len(), 2);
    assert!(rows.contains(&whole) && rows.contains(&bare), "{rows:?}");
}

pub(super) async fn errors_are_bounded(kit: Kit) {
    let mut policy = tolerant();
    policy.max_errors = 25;
    let id = kit.processing_with(policy, 600).await;
    for index in (0..10).map(|n| n * 60) {
        let error = |item| ItemError::new(batch(index), Some(item), "bad", &"x".repeat(5_000));
        let report = BatchReport::completed(batch(index), 0, 10).with_errors((0..10).map(error));
        kit.tracker.report(id, vec![report]).await.expect("recorded");
    }
    for limit in [1, 7, 24, 25, 26, 1_000] {
        let jobs = &kit.jobs;
        let rows = all_pages(limit, |page| async move { jobs.errors(id, &page).await }).await;
        assert_eq!(rows.len(), 25, "over all pages of {limit}");
        assert!(rows.is_sorted_by_key(|e| e.batch));
        assert!(rows.iter().all(|e| e.message.len() <= ItemError::MAX_MESSAGE));
    }
    assert_eq!(kit.snapshot(id).await.progress.items.failed, 100, "the counters know them all");
}

pub(super) async fn a_repeated_batch_changes_no_errors(kit: Kit) {
    let id = kit.processing_with(tolerant(), 600).await;
    let first = [partly("first", 0, 2), partly("first", 300, 3), done(5), given_up("first", 6, 4)];
    for report in &first {
        kit.tracker.report(id, vec![report.clone()]).await.expect("recorded");
    }
    let before = listed(&kit, id).await;
    let again = [
        partly("again", 0, 5),
        done(0),
        given_up("again", 0, 1),
        partly("again", 300, 1),
        partly("again", 5, 2),
        given_up("again", 5, 2),
        given_up("again", 6, 2),
        given_up("again", 6, 0),
    ];
    for report in again {
        let reported = kit.tracker.report(id, vec![report]).await.expect("recorded");
        assert_eq!(effects(&reported), [Effect::Duplicate]);
    }
    assert_eq!(listed(&kit, id).await, before);
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), 9);
    assert_eq!(kit.snapshot(id).await.progress.items.failed, 2 + 3 + 10);
}

pub(super) async fn a_success_replaces_the_errors_of_the_failure(kit: Kit) {
    let id = kit.processing_with(tolerant(), 600).await;
    let expected = |attempt, index, items| errors_of(attempt, index, items).collect::<Vec<_>>();
    for (index, of_failure, of_success) in [(0, 3, 2), (1, 2, 5), (2, 1, 0), (300, 0, 4), (301, 100, 1)] {
        kit.tracker.report(id, vec![given_up("failure", index, of_failure)]).await.expect("recorded");
        let failure = Some(expected("failure", index, of_failure)).filter(|errors| !errors.is_empty());
        assert_eq!(listed(&kit, id).await.get(&index), failure.as_ref(), "batch {index} failed");
        kit.tracker.report(id, vec![partly("success", index, of_success)]).await.expect("recorded");
        let success = Some(expected("success", index, of_success)).filter(|errors| !errors.is_empty());
        assert_eq!(listed(&kit, id).await.get(&index), success.as_ref(), "batch {index} succeeded");
    }
    let counts = kit.state(id).await.facts.counts;
    assert_eq!((counts.completed, counts.failed, counts.items_failed), (5, 0, 2 + 5 + 4 + 1));
    assert_eq!(kit.errors(id).await.len(), 12, "as many as the counters say");
}

pub(super) async fn listed_errors_are_those_of_the_attempt_that_counted(kit: Kit) {
    let id = kit.processing_with(tolerant(), 600).await;
    let mut expected = BTreeMap::new();
    // Two attempts at every batch that differ, at once: two that succeed, a failure and a success, two failures.
    for index in (0..30).map(|n| n * 20) {
        let attempts = match index % 60 {
            0 => [partly("one", index, 2), partly("two", index, 3)],
            20 => [given_up("one", index, 4), partly("two", index, 1)],
            _ => [given_up("one", index, 2), given_up("two", index, 5)],
        };
        let reporting = attempts.map(|report| {
            let (store, at) = (kit.store.clone(), kit.clock.now());
            tokio::spawn(async move {
                let written = store.report(id, std::slice::from_ref(&report), at).await.expect("recorded");
                (report, written.effects)
            })
        });
        let mut last = None;
        for reported in join_all(reporting).await {
            let (report, effects) = reported.expect("nobody panicked");
            let [(of, effect)] = effects[..] else { panic!("one report, and {effects:?}") };
            assert_eq!(of, report.batch());
            match (effect, &last) {
                (Effect::Corrected, _) | (Effect::Counted, None) => last = Some(report),
                (Effect::Counted, Some(corrected)) if corrected.settles_as() < report.settles_as() => {}
                (Effect::Counted, Some(_)) => panic!("both attempts at batch {index} counted"),
                (Effect::Duplicate, _) => {}
                (Effect::OutOfRange | Effect::Damaged, _) => panic!("batch {index}: {effect:?}"),
            }
        }
        expected.insert(index, last.expect("one of them counted"));
    }
    let listed = listed(&kit, id).await;
    for (index, counted) in &expected {
        assert_eq!(listed.get(index).map_or(&[][..], Vec::as_slice), counted.errors(), "batch {index}");
    }
    let failed: u64 = expected
        .values()
        .map(|report| match report.outcome() {
            BatchOutcome::Completed { failed, .. } => failed,
            BatchOutcome::Failed { items } => items,
        })
        .sum();
    assert_eq!(kit.state(id).await.facts.counts.items_failed, failed);
}

pub(super) async fn errors_come_with_every_order_of_deliveries(kit: Kit) {
    let attempts =
        |index| [given_up("a", index, 2), partly("b", index, 3), given_up("c", index, 1), done(index)];
    let orders = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 0, 1, 3], [0, 3, 1, 2], [3, 2, 1, 0], [2, 0, 3, 1]];
    let id = kit.processing_with(tolerant(), 600).await;
    let mut expected = Vec::new();
    for (index, order) in (250..).zip(orders) {
        let attempts = attempts(index);
        // The first success counts; without one the first failure would.
        let counts = order.into_iter().find(|attempt| attempt % 2 == 1).expect("a success");
        expected.extend(attempts[counts].errors().to_vec());
        for attempt in order {
            kit.tracker.report(id, vec![attempts[attempt].clone()]).await.expect("recorded");
        }
    }
    assert_eq!(kit.errors(id).await, expected);
    kit.tracker.report(id, vec![failed(599)]).await.expect("recorded");
    let last = kit.errors(id).await.pop().expect("an error");
    assert_eq!((last.batch, last.code.as_str()), (batch(599), "llm-refused"));
}
