//! The component's promises, each by its name, over a server that does as the test says.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde_json::json;

use crate::{
    driver::{Browser, browse},
    stage::{Stage, Way, batches, merge, snapshot},
};

fn completed(version: u64) -> serde_json::Value {
    let mut all = batches(120, 0, 120);
    merge(&mut all, &json!({"outcome": "succeeded", "progress": {"fraction": 1.0}}));
    snapshot(version, "completed", &all)
}

async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_stays_three_seconds_then_hides() {
    let stage = Stage::open().await;
    stage.show(completed(5));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        let shown = browser.until_shown("completed", |shown| shown.label == "Completed").await;
        let since = Instant::now();
        assert_eq!((shown.share.as_str(), shown.detail.as_str()), ("100%", "1,200 leads processed"));
        browser.until_shown("hidden", |shown| !shown.there).await;
        let stayed = since.elapsed();
        assert!((2_900..4_500).contains(&stayed.as_millis()), "{stayed:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_does_not_hide_while_hovered_or_focused() {
    let stage = Stage::open().await;
    stage.show(completed(5));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        browser.until_shown("completed", |shown| shown.label == "Completed").await;
        browser.hover(true).await;
        sleep(4_000).await;
        assert!(browser.shown().await.there, "it hid while hovered");
        browser.js("document.querySelector('job-status').shadowRoot.querySelector('.dismiss').focus()").await;
        browser.hover(false).await;
        sleep(4_000).await;
        assert!(browser.shown().await.there, "it hid while focused");
        browser.js("document.querySelector('job-status').shadowRoot.activeElement.blur()").await;
        browser.until_shown("hidden", |shown| !shown.there).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_stay_until_dismissed_and_say_the_stage_and_what_to_do() {
    let stage = Stage::open().await;
    browse(async move |browser| {
        for (version, where_, says) in
            [(5, "upload", "While uploading: "), (6, "split", "While reading the file: "), (7, "process", "While processing: ")]
        {
            let failure = json!({"code": "c", "message": "It went wrong.", "stage": where_, "retryable": true});
            stage.show(snapshot(version, "failed", &json!({ "failure": failure })));
            browser.goto(&stage.url).await;
            let shown = browser.until_shown("failed", |shown| shown.label == "Processing Failed").await;
            assert_eq!(shown.error, format!("{says}It went wrong. Uploading the file again may help."));
            let role = browser.js("return document.querySelector('job-status').shadowRoot.querySelector('.error').getAttribute('role')").await;
            assert_eq!(role, "alert");
        }
        sleep(5_000).await;
        assert!(browser.shown().await.there);
        browser.press("dismiss").await;
        browser.until_shown("hidden", |shown| !shown.there).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processing_shows_the_batches_and_the_time_left_and_ends_with_the_leads() {
    let stage = Stage::open().await;
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        for done in [0, 1, 2, 50] {
            stage.show(snapshot(5 + done, "processing", &batches(done, 0, 120)));
            let shown = browser.until_shown("batches", |shown| shown.detail == format!("{done} of 120 batches")).await;
            assert!(shown.spoken.starts_with("Leads Processing, "), "{shown:?}");
        }
        let mut late = batches(60, 0, 120);
        merge(&mut late, &json!({"estimate": {"remaining_ms": 125_000, "low_ms": 1, "high_ms": 2, "finish_at": "2026-01-01T00:00:00Z",
            "text": "about 2 minutes left"}}));
        stage.show(snapshot(100, "processing", &late));
        browser.until_shown("time left", |shown| shown.detail == "60 of 120 batches · about 2 minutes left").await;
        // 999 of 1,000 is never shown as 100%.
        stage.show(snapshot(101, "processing", &batches(1_999, 0, 2_000)));
        browser.until_shown("nearly", |shown| shown.share == "99%").await;
        stage.show(completed(200));
        browser.until_shown("the leads", |shown| shown.detail == "1,200 leads processed").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_says_cancelled_only_when_the_server_does_or_why_it_could_not() {
    let stage = Stage::open().await;
    stage.show(snapshot(5, "processing", &batches(10, 0, 120)));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        browser.until_shown("cancel", |shown| shown.cancel).await;
        browser.press("cancel").await;
        let refused = browser.until_shown("why not", |shown| !shown.note.is_empty()).await;
        assert_eq!(refused.note, "It could not be cancelled. The job is completed.");
        assert_eq!(refused.label, "Leads Processing");
        let mut requested = batches(11, 0, 120);
        merge(
            &mut requested,
            &json!({"cancel_requested": {"at": "2026-01-01T00:00:00Z", "by": "owner", "reason": null}}),
        );
        stage.answer_cancel(StatusCode::ACCEPTED, snapshot(6, "processing", &requested));
        browser.press("cancel").await;
        let cancelling = browser.until_shown("cancelling", |shown| shown.label == "Cancelling…").await;
        assert!(!cancelling.cancel);
        stage.show(snapshot(7, "cancelled", &requested));
        let cancelled = browser.until_shown("cancelled", |shown| shown.label == "Processing Cancelled").await;
        assert!(cancelled.detail.contains("Stopped after 11 of 120 batches"), "{cancelled:?}");
        assert!(cancelled.dismiss && !cancelled.cancel);
    })
    .await;
}

/// How long the page takes to show a change.
async fn shows_within(browser: &Browser, stage: &Stage, version: u64, done: u64) -> Duration {
    let begun = Instant::now();
    stage.show(snapshot(version, "processing", &batches(done, 0, 120)));
    browser.until_shown("the change", |shown| shown.detail.starts_with(&format!("{done} of"))).await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_arrive_within_a_second_by_events_else_by_long_polls_else_by_polls() {
    let stage = Stage::open().await;
    stage.show(snapshot(5, "processing", &batches(1, 0, 120)));
    browse(async move |browser| {
        for (events, waits, version) in [
            (Way::Open, Way::Open, 10),
            (Way::Held, Way::Open, 20),
            (Way::Refused, Way::Open, 30),
            (Way::Refused, Way::Refused, 40),
        ] {
            stage.block(events, waits, Way::Open);
            stage.show(snapshot(version, "processing", &batches(version, 0, 120)));
            browser.goto(&stage.url).await;
            browser.until_shown("the job", |shown| shown.detail.starts_with(&format!("{version} of"))).await;
            if waits == Way::Refused {
                // Until it has found out.
                sleep(8_000).await;
            }
            for more in 1..4 {
                let took = shows_within(&browser, &stage, version + more, version + more).await;
                assert!(took < Duration::from_secs(1), "{events:?} {waits:?}: {took:?}");
                sleep(100).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_keep_to_the_servers_advice_and_back_off_with_jitter() {
    let stage = Stage::open().await;
    let advised = |version| snapshot(version, "processing", &json!({"poll_after_ms": 700}));
    stage.show(advised(5));
    stage.block(Way::Refused, Way::Refused, Way::Open);
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        browser.until_shown("the job", |shown| shown.there).await;
        sleep(12_000).await;
        let gaps = |polls: &[Instant]| {
            polls.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect::<Vec<_>>()
        };
        let polls = stage.requests("/jobs/1");
        let steady = gaps(&polls[polls.len() - 6..]);
        assert!(steady.iter().all(|gap| (690..1_300).contains(gap)), "{steady:?}");
        assert!(steady.iter().any(|gap| gap.abs_diff(steady[0]) > 5), "no jitter: {steady:?}");
        stage.block(Way::Refused, Way::Refused, Way::Refused);
        let before = stage.requests("/jobs/1").len();
        sleep(12_000).await;
        let failing = gaps(&stage.requests("/jobs/1")[before..]);
        assert!(
            failing.len() >= 2 && failing.windows(2).all(|pair| pair[1] > pair[0] * 5 / 4),
            "no back-off: {failing:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_never_moves_backwards_on_screen() {
    let stage = Stage::open().await;
    stage.show(snapshot(50, "processing", &batches(45, 0, 120)));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        browser.until_shown("45", |shown| shown.detail.starts_with("45 of")).await;
        stage.show(snapshot(40, "processing", &batches(35, 0, 120)));
        sleep(500).await;
        assert!(browser.shown().await.detail.starts_with("45 of"));
        stage.show(completed(60));
        browser.until_shown("completed", |shown| shown.label == "Completed").await;
        stage.show(snapshot(61, "processing", &batches(46, 0, 120)));
        sleep(500).await;
        assert_eq!(browser.shown().await.label, "Completed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_smooth_and_instant_with_reduced_motion() {
    let stage = Stage::open().await;
    stage.show(snapshot(5, "processing", &batches(1, 0, 120)));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        browser.until_shown("the job", |shown| shown.there).await;
        let of_bar = "return getComputedStyle(document.querySelector('job-status').shadowRoot.querySelector('.bar')).transitionDuration";
        assert!(browser.js(of_bar).await.as_str().expect("text").starts_with("0.6s"));
        browser.prefers(&[("prefers-reduced-motion", "reduce")]).await;
        assert_eq!(browser.js(of_bar).await, "0s");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_component_loads_nothing_else_under_a_strict_policy_and_is_small() {
    let mut packed = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_level(Some(9));
    packed.start_file("j", options).expect("an entry");
    packed.write_all(status_http::JOB_STATUS_JS.as_bytes()).expect("written");
    let bytes = packed.finish().expect("finished").into_inner().len();
    println!("the component: {bytes} bytes packed");
    assert!(bytes < 10_000, "{bytes}");
    let stage = Stage::open().await;
    stage.show(snapshot(5, "processing", &batches(1, 0, 120)));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        browser.js("window.refused = []; addEventListener('securitypolicyviolation', (e) => refused.push(e.blockedURI + e.violatedDirective))").await;
        browser.until_shown("the job", |shown| shown.there).await;
        stage.show(completed(9));
        browser.until_shown("hidden", |shown| !shown.there).await;
        let loaded = browser.js("return performance.getEntriesByType('resource').map((e) => new URL(e.name).pathname)").await;
        for path in loaded.as_array().expect("a list") {
            let path = path.as_str().expect("text");
            assert!(path == "/job-status.js" || path.starts_with("/jobs/1"), "{path}");
        }
        assert_eq!(browser.js("return refused").await, json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_leave_nothing_behind() {
    let stage = Stage::open().await;
    stage.show(completed(5));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        let metrics = async || {
            browser.devtools("HeapProfiler.collectGarbage", json!({})).await;
            let metrics = browser.devtools("Performance.getMetrics", json!({})).await;
            let metric = |name: &str| {
                let all = metrics["metrics"].as_array().expect("metrics");
                all.iter().find(|m| m["name"] == name).and_then(|m| m["value"].as_f64()).expect("a number")
            };
            [metric("JSHeapUsedSize"), metric("JSEventListeners"), metric("Nodes")]
        };
        browser.devtools("Performance.enable", json!({})).await;
        let run = async |jobs: u32| {
            browser.js(&format!("window.left = {jobs}; (async () => {{
                for (let n = 0; n < {jobs}; n++) {{
                    const job = document.createElement('job-status');
                    job.setAttribute('src', '/jobs/' + n);
                    const done = new Promise((resolve) => job.addEventListener('job-status:completed', resolve));
                    document.querySelector('main').append(job);
                    await done;
                    job.dismiss();
                    job.remove();
                    left--;
                }}
            }})()")).await;
            browser.until("return window.left === 0").await;
        };
        run(50).await;
        let before = metrics().await;
        run(200).await;
        let after = metrics().await;
        println!("heap, listeners, nodes: {before:?}, after 200 jobs {after:?}");
        for (before, after) in before.iter().zip(after) {
            assert!(after <= before * 1.1 + 10.0, "{before} became {after}");
        }
    })
    .await;
}
