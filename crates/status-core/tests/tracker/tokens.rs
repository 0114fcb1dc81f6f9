//! A token stands for what a snapshot shows: two that people could tell apart differ, and time alone, with
//! nothing new to see, changes none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt;
use status_core::{
    Actor, BatchReport, Clock, Health, JobState, Outcome, Snapshot, Status, Timestamp, Token, Totals, clock,
};
use status_testkit::Kit;

use super::{batch, done, kit, tracking};

/// A job of 40 batches of which 10 took ten seconds each, four at a time; five are running.
async fn half_way(kit: &Kit) -> JobState {
    let id = kit.processing_with(tracking(), 40).await;
    for round in 0..3_u64 {
        kit.wait(10);
        let reports = (0..4).map(|lane| round * 4 + lane).filter(|index| *index < 10);
        let took = Duration::from_secs(10);
        let reports = reports.map(|index| BatchReport::completed(batch(index), 10, 0).took(took)).collect();
        kit.tracker.report(id, reports).await.expect("recorded");
    }
    let running: Vec<_> = (10..15).map(batch).collect();
    kit.tracker.begin_all(id, &running).await.expect("begun");
    kit.state(id).await
}

fn shown(state: &JobState, now: Timestamp) -> Snapshot {
    Snapshot::new(state, "Leads", now)
}

#[tokio::test]
async fn whatever_people_can_tell_apart_has_another_token() {
    let kit = kit().await;
    let state = half_way(&kit).await;
    let now = clock::after(kit.clock.now(), Duration::from_secs(5));
    let before = shown(&state, now);
    assert!(before.estimate.is_some(), "there is an estimate to tell apart");
    assert_eq!(shown(&state, now).token(), before.token(), "the same state at the same time");

    type Change = (&'static str, fn(&mut JobState));
    let changes: [Change; 13] = [
        ("running 5 → 8", |state| state.facts.running.extend_from_within(..3)),
        ("a batch more", |state| state.facts.counts.completed += 1),
        ("a failed batch", |state| state.facts.counts.failed += 1),
        ("items processed", |state| state.facts.counts.items_processed += 1),
        ("items failed", |state| state.facts.counts.items_failed += 1),
        ("a batch past the total", |state| state.facts.set_aside(1, 0)),
        ("a stage", |state| state.job.stage = Some("reading worksheet 2 of 3".into())),
        ("bytes", |state| state.job.uploaded_bytes -= 1),
        ("a title", |state| state.job.title = "other.csv".into()),
        ("a child", |state| state.job.child = Some(state.job.id)),
        ("a status", |state| state.job.status = Status::Failed),
        ("an outcome", |state| state.job.outcome = Some(Outcome::Partial)),
        ("a revision", |state| state.job.revision += 1),
    ];
    let mut tokens = BTreeMap::from([(before.token().to_string(), "before")]);
    for (what, change) in changes {
        let mut changed = state.clone();
        change(&mut changed);
        let same = tokens.insert(shown(&changed, now).token().to_string(), what);
        assert_eq!(same, None, "{what} has a token of its own");
    }
    let (mut failed, mut corrected) = (state.clone(), state);
    failed.facts.counts.failed += 1;
    corrected.facts.counts.completed += 1;
    assert_ne!(shown(&failed, now).token(), shown(&corrected, now).token(), "a failed batch completed");
}

/// Of what runs with the clock, what people see.
fn seen_of_time(snapshot: &Snapshot) -> (Option<&str>, Option<u64>, bool) {
    let text = snapshot.estimate.as_ref().map(|estimate| estimate.text.as_str());
    (text, snapshot.progress.batches.running, snapshot.health == Health::Stalled)
}

#[tokio::test]
async fn time_alone_changes_a_token_when_people_see_it_and_only_then() {
    let kit = kit().await;
    let state = half_way(&kit).await;
    let at = |seconds| shown(&state, clock::after(kit.clock.now(), Duration::from_secs(seconds)));
    let (mut equal, mut changes) = (0, BTreeSet::new());
    for seconds in 0..50_000_u64 {
        let step = if seconds < 2_000 { 1 } else { 97 };
        if seconds % step != 0 {
            continue;
        }
        let (one, next) = (at(seconds), at(seconds + step));
        let is_same = seen_of_time(&one) == seen_of_time(&next);
        assert_eq!(one.token() == next.token(), is_same, "from {seconds} s: {one:?} {next:?}");
        assert!(one.covers(&next.token()) && next.covers(&one.token()), "neither is behind the other");
        if is_same {
            equal += 1;
        }
        changes.insert(format!("{:?}", seen_of_time(&next)));
    }
    assert!(equal > 1_900, "most of the time nothing is to be seen: {equal}");
    assert!(changes.len() > 3, "words, stall and dead workers show: {changes:?}");
}

#[tokio::test]
async fn each_status_on_the_way_has_a_token_of_its_own() {
    let kit = kit().await;
    let id = kit.create(tracking()).await;
    let watched = kit.jobs.watch(id).await.expect("watched");
    // Done before the watcher looks again.
    kit.tracker.start(id, None, &Actor::WORKER).await.expect("started");
    kit.complete(id, [0]).await;
    let totals = Totals { batches: 1, items: None };
    kit.tracker.seal(id, totals, &Actor::WORKER).await.expect("sealed");
    let seen: Vec<_> = watched.collect().await;
    let statuses: Vec<_> = seen.iter().map(|snapshot| snapshot.status).collect();
    let way = [Status::Uploading, Status::Uploaded, Status::Processing, Status::Completed];
    assert_eq!(statuses, way);
    let tokens: BTreeSet<_> = seen.iter().map(|snapshot| snapshot.token().to_string()).collect();
    assert_eq!(tokens.len(), way.len());
    for pair in seen.windows(2) {
        assert!(pair[1].covers(&pair[0].token()), "from {} to {}", pair[0].status, pair[1].status);
    }
    // Somebody who was shown one of them and comes back is shown what is newer.
    let last = seen[3].token();
    for snapshot in &seen {
        let after = kit.jobs.snapshot_after(id, &snapshot.token()).await.expect("found");
        assert_eq!(after.token(), last);
    }
}

#[tokio::test]
async fn a_token_is_text_that_a_header_takes_and_that_tells_who_is_behind() {
    let kit = kit().await;
    let id = kit.processing(3).await;
    let mut before: Option<Token> = None;
    for index in 0..3 {
        kit.tracker.report(id, vec![done(index)]).await.expect("recorded");
        let snapshot = kit.snapshot(id).await;
        let token = snapshot.token();
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token));
        assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b'"'), "{text}");
        if let Some(before) = before {
            assert!(token.covers(&before) && !before.covers(&token));
            assert!(snapshot.covers(&before));
        }
        before = Some(token);
    }
}
