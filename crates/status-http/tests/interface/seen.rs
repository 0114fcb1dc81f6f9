//! A client never goes back, and is never told "not changed" falsely.

use std::{collections::HashSet, time::Duration};

use axum::http::StatusCode;
use futures::StreamExt;
use serde_json::Value;
use status_core::{Actor, JobId, Totals};
use tokio::time::Instant;

use crate::support::{Answer, Process, Service};

const MINUTE: Duration = Duration::from_secs(60);
const TEN_MINUTES: Duration = Duration::from_secs(600);

async fn show(process: &Process, id: JobId) -> Answer {
    process.get(&format!("/jobs/{id}"), &[]).await
}

/// What identifies an answer for people: not its entity tag.
fn visible(answer: &Answer) -> Value {
    let mut shown = answer.json();
    for runs_with_the_clock in ["updated_at", "poll_after_ms"] {
        shown[runs_with_the_clock] = Value::Null;
    }
    if shown["estimate"].is_object() {
        shown["estimate"] = shown["estimate"]["text"].clone();
    }
    shown
}

#[tokio::test]
async fn an_estimate_that_fell_from_10_to_7_minutes_is_a_change() {
    let service = Service::new();
    let process = service.process();
    let id = process.processing(128).await;
    process.begin(id, 0..64).await;
    service.clock.advance(TEN_MINUTES);
    process.complete(id, 0..64, TEN_MINUTES).await;
    process.begin(id, 64..128).await;
    let says = async |words: &str| loop {
        let shown = show(&process, id).await;
        if shown.json()["estimate"]["text"] == words {
            break shown;
        }
        assert!(shown.json()["estimate"]["remaining_ms"].as_u64() > Some(400_000), "{}", shown.text);
        service.clock.advance(Duration::from_secs(5));
    };
    let before = says("about 10 minutes left").await;
    let after = says("about 7 minutes left").await;
    assert_eq!(after.version(), before.version(), "nothing but time has passed");
    assert_ne!(after.etag(), before.etag());
    let polled = process.poll(id, "", &before.etag()).await;
    assert_eq!((polled.status, polled.etag()), (StatusCode::OK, after.etag()));
}

#[tokio::test]
async fn three_running_batches_that_became_eight_are_a_change() {
    let service = Service::new();
    let process = service.process();
    let id = process.processing(100).await;
    process.begin(id, 0..3).await;
    let before = show(&process, id).await;
    process.begin(id, 3..8).await;
    let after = process.poll(id, "", &before.etag()).await;
    let running = |answer: &Answer| answer.json()["progress"]["batches"]["running"].as_u64();
    assert_eq!((after.status, running(&before), running(&after)), (StatusCode::OK, Some(3), Some(8)));
    assert_eq!(after.version(), before.version(), "a start is no fact");
    assert_ne!(after.etag(), before.etag());
}

#[tokio::test]
async fn not_changed_is_said_only_when_people_see_no_change() {
    let service = Service::new();
    let process = service.process();
    let id = process.uploading().await;
    let mut known = show(&process, id).await;
    let (mut changed, mut same) = (0, 0);
    for step in 0..400 {
        match step {
            10 => drop(process.alice().upload_progress(id, 40).await.expect("told")),
            20 => drop(process.alice().finish_upload(id).await.expect("told")),
            // Nothing to see: it is so already.
            25 => drop(process.alice().finish_upload(id).await.expect("told")),
            30 => drop(process.tracker.start(id, None, &Actor::WORKER).await.expect("started")),
            40.. if step % 10 == 0 => process.begin(id, step..step + 2).await,
            // The same batch once more: as many run as before.
            40.. if step % 10 == 1 => process.begin(id, step - 1..step).await,
            40.. if step % 10 == 5 => process.complete(id, step - 5..step - 4, MINUTE).await,
            200 => drop(process.alice().cancel(id, None).await.expect("cancelled")),
            _ => {}
        }
        service.clock.advance(Duration::from_secs(3));
        let (polled, now) = (process.poll(id, "", &known.etag()).await, show(&process, id).await);
        let is_same = visible(&now) == visible(&known);
        assert_eq!(polled.status == StatusCode::NOT_MODIFIED, is_same, "{step}: {} {}", known.text, now.text);
        assert_eq!(polled.etag(), now.etag());
        if is_same {
            assert!(polled.text.is_empty());
            same += 1;
        } else {
            changed += 1;
        }
        known = now;
    }
    assert!(changed > 50 && same > 50, "{changed} changes, {same} times the same");
}

/// A process that lags behind: it remembers the job from before four of its batches were done, and
/// before somebody asked to cancel it.
async fn behind() -> (Service, Process, Process, JobId) {
    let service = Service::new();
    let store = service.lagging();
    let (process, lagging) = (service.process(), service.process_over(store.clone()));
    let id = process.processing(10).await;
    process.complete(id, 0..1, MINUTE).await;
    store.remember(id).await;
    process.complete(id, 1..5, MINUTE).await;
    process.alice().cancel(id, None).await.expect("asked");
    (service, process, lagging, id)
}

#[tokio::test]
async fn a_lagging_process_never_answers_a_poll_with_an_older_state() {
    let (_service, process, lagging, id) = behind().await;
    let newest = show(&process, id).await;
    let old = show(&lagging, id).await;
    assert!(old.version() < newest.version(), "it does lag, for those who name nothing");
    let polled = lagging.poll(id, "", &newest.etag()).await;
    assert_eq!((polled.status, polled.etag()), (StatusCode::NOT_MODIFIED, newest.etag()));
    // Among several, the furthest counts, wherever it stands.
    let foreign = "\"an \\ old server's\"";
    for known in [[&old.etag(), &newest.etag()], [&newest.etag(), &old.etag()]] {
        let known = format!("{foreign}, {}, {}", known[0], known[1]);
        assert_eq!(lagging.poll(id, "", &known).await.status, StatusCode::NOT_MODIFIED, "{known}");
    }
    process.complete(id, 5..6, MINUTE).await;
    let polled = lagging.poll(id, "", &newest.etag()).await;
    assert_eq!((polled.status, polled.version()), (StatusCode::OK, newest.version() + 2));
}

#[tokio::test(start_paused = true)]
async fn a_lagging_process_never_ends_a_wait_with_an_older_state() {
    let (_service, process, lagging, id) = behind().await;
    let newest = show(&process, id).await;
    // Others watch there: what they are shown is old, and not for us.
    let mut events = lagging.events(id, None).await;
    let old: Value = serde_json::from_str(&events.next().await.expect("one").data).expect("JSON");
    assert!(old["version"].as_u64() < Some(newest.version()));
    let begun = Instant::now();
    let waited = lagging.poll(id, "?wait=5", &newest.etag()).await;
    assert_eq!((waited.status, waited.etag()), (StatusCode::NOT_MODIFIED, newest.etag()));
    assert_eq!(begun.elapsed().as_secs(), 5, "nothing changed");
    process.complete(id, 5..6, MINUTE).await;
    let waited = lagging.poll(id, "?wait=5", &newest.etag()).await;
    assert_eq!((waited.status, waited.version()), (StatusCode::OK, newest.version() + 2));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_resumed_at_a_lagging_process_never_goes_back() {
    let (_service, process, lagging, id) = behind().await;
    let mut events = process.events(id, None).await;
    let last = events.next().await.expect("one");
    // As a browser does that lost its connection and is sent elsewhere.
    let mut resumed = lagging.events(id, Some(&last.id)).await;
    let first = resumed.next().await.expect("the newest");
    assert_eq!((&first.id, &first.data), (&last.id, &last.data));
    let older = tokio::time::timeout(Duration::from_secs(60), resumed.next()).await;
    assert!(older.is_err(), "what the process has read itself is older: {older:?}");
    process.complete(id, 5..6, MINUTE).await;
    let first = lagging.events(id, Some(&last.id)).await.next().await.expect("the newest");
    assert_eq!(first.id, show(&process, id).await.etag().trim_matches(['W', '/', '"']));
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_stream_have_ids_of_their_own_and_polls_know_them() {
    let service = Service::new();
    let process = service.process();
    let id = process.uploading().await;
    process.alice().upload_progress(id, 100).await.expect("told");
    let mut events = process.events(id, None).await;
    let mut seen = vec![events.next().await.expect("one")];
    // Nobody sees it uploaded: the next thing that is read is a job in processing.
    process.tracker.start(id, None, &Actor::WORKER).await.expect("started");
    while seen.len() < 3 {
        seen.push(events.next().await.expect("one more"));
    }
    process.complete(id, 0..2, MINUTE).await;
    seen.push(events.next().await.expect("one more"));
    let totals = Totals { batches: 3, items: None };
    process.tracker.seal(id, totals, &Actor::WORKER).await.expect("sealed");
    process.complete(id, 2..3, MINUTE).await;
    seen.extend(events.collect::<Vec<_>>().await);
    let status = |data: &str| serde_json::from_str::<Value>(data).expect("JSON")["status"].clone();
    let statuses: Vec<_> = seen.iter().map(|event| status(&event.data)).collect();
    assert_eq!(statuses[..3], ["uploading", "uploaded", "processing"]);
    assert_eq!(statuses.last(), Some(&Value::from("completed")));
    let (ids, shown): (HashSet<_>, HashSet<_>) = seen.iter().map(|event| (&event.id, &event.data)).unzip();
    assert_eq!((ids.len(), shown.len()), (seen.len(), seen.len()), "{seen:#?}");
    assert!(seen.iter().all(|event| event.event == "snapshot" && !event.id.is_empty()));
    let last = format!("\"{}\"", seen.last().expect("some").id);
    assert_eq!(process.poll(id, "", &last).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test(start_paused = true)]
async fn only_snapshots_carry_an_id() {
    let service = Service::new();
    let process = service.process();
    let id = process.processing(10).await;
    let mut raw = process.raw_events(id).await;
    let mut text = String::new();
    let heartbeat = async {
        while !text.contains("still here") {
            text += std::str::from_utf8(&raw.next().await.expect("goes on")).expect("UTF-8");
        }
    };
    tokio::time::timeout(Duration::from_secs(15), heartbeat).await.expect("a sign of life in time");
    let with_id = text.split("\n\n").filter(|part| part.contains("id:")).count();
    assert_eq!((with_id, text.matches("event: snapshot").count()), (1, 1), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_for_what_people_see_and_for_nothing_else() {
    let service = Service::new();
    let process = service.process();
    let id = process.processing(10).await;
    process.begin(id, 0..2).await;
    service.clock.advance(MINUTE);
    process.complete(id, 0..1, MINUTE).await;
    process.begin(id, 1..2).await;
    let known = show(&process, id).await;
    assert!(known.json()["estimate"].is_object(), "it counts down by the millisecond");
    let known = known.etag();
    let unseen = async {
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            service.clock.advance(Duration::from_millis(100));
            // The running batch begins again, and what is done comes again: written, not to be seen.
            process.begin(id, 1..2).await;
            process.complete(id, 0..1, MINUTE).await;
        }
    };
    let begun = Instant::now();
    let (waited, ()) = tokio::join!(process.poll(id, "?wait=9", &known), unseen);
    assert_eq!((waited.status, begun.elapsed().as_secs()), (StatusCode::NOT_MODIFIED, 9));
    let seen = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        process.complete(id, 1..2, MINUTE).await;
    };
    let begun = Instant::now();
    let (waited, ()) = tokio::join!(process.poll(id, "?wait=9", &known), seen);
    assert_eq!((waited.status, waited.etag()), (StatusCode::OK, show(&process, id).await.etag()));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_token_is_ignored() {
    let service = Service::new();
    let process = service.process();
    let id = process.processing(10).await;
    let newest = show(&process, id).await.etag();
    let ahead = "W/\"99.99.99.99-0123456789abcdef\"";
    for known in ["\"7\"", "nonsense", "W/", "\"1.0.0.0-zz\"", ",", ahead] {
        let begun = Instant::now();
        for query in ["", "?wait=20"] {
            let polled = process.poll(id, query, known).await;
            assert_eq!((polled.status, polled.etag()), (StatusCode::OK, newest.clone()), "{known} {query}");
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{known}: nothing to wait for");
        let first = process.events(id, Some(known.trim_matches(['W', '/', '"']))).await.next().await;
        assert_eq!(format!("W/\"{}\"", first.expect("the newest").id), newest, "{known}");
    }
    assert_eq!(process.poll(id, "", "*").await.status, StatusCode::NOT_MODIFIED);
    let strong = newest.trim_start_matches("W/");
    for known in [strong.to_owned(), format!("\"a\",{newest} , \"b\"")] {
        assert_eq!(process.poll(id, "", &known).await.status, StatusCode::NOT_MODIFIED, "{known}");
    }
}
