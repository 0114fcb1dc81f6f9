//! Every state people can see: right for a screen reader, and with a picture, light, dark and on a phone.

use serde_json::{Value, json};

use crate::{
    driver::{Browser, browse},
    stage::{Stage, Way, batches, merge, snapshot},
};

fn with(mut one: Value, other: &Value) -> Value {
    merge(&mut one, other);
    one
}

fn failure(code: &str, stage: &str, message: &str, retryable: bool) -> Value {
    json!({"failure": {"code": code, "message": message, "stage": stage, "retryable": retryable}})
}

/// Name, status, and what is special of it.
fn states() -> Vec<(&'static str, &'static str, Value)> {
    let estimate = json!({"estimate": {"remaining_ms": 125_000, "low_ms": 90_000, "high_ms": 200_000,
        "finish_at": "2026-01-01T00:10:00Z", "text": "about 2 minutes left"}});
    let requested =
        json!({"cancel_requested": {"at": "2026-01-01T00:01:00Z", "by": "owner", "reason": null}});
    vec![
        ("uploading", "uploading", json!({"progress": {"upload": {"bytes": 700_000}}})),
        ("uploaded", "uploaded", json!({})),
        ("waiting", "uploaded", json!({"title": "Nightly export", "file": null, "label": "Waiting"})),
        (
            "processing-unknown-total",
            "processing",
            json!({"stage": "reading worksheet 2 of 3", "progress": {"batches": {"completed": 12}}}),
        ),
        (
            "processing",
            "processing",
            with(batches(37, 0, 120), &json!({"progress": {"batches": {"running": 8}}})),
        ),
        ("processing-time-left", "processing", with(batches(37, 0, 120), &estimate)),
        ("processing-with-failures", "processing", with(batches(37, 2, 120), &estimate)),
        ("stalled", "processing", with(batches(37, 0, 120), &json!({"health": "stalled"}))),
        ("cancelling", "processing", with(batches(37, 0, 120), &requested)),
        ("cancelled", "cancelled", with(batches(37, 0, 120), &requested)),
        (
            "failed-upload",
            "failed",
            failure(
                "upload-timeout",
                "upload",
                "The upload did not finish in time. Please upload the file again.",
                true,
            ),
        ),
        (
            "failed-split",
            "failed",
            failure(
                "file-not-a-table",
                "split",
                "The file is not a table: it is a PDF document. Please upload a CSV or Excel file.",
                false,
            ),
        ),
        (
            "failed-process",
            "failed",
            with(
                batches(99, 13, 120),
                &failure(
                    "too-many-failed-batches",
                    "process",
                    "13 batches of 120 failed. Batch 7: The normaliser is overloaded.",
                    true,
                ),
            ),
        ),
        (
            "completed",
            "completed",
            with(batches(120, 0, 120), &json!({"outcome": "succeeded", "progress": {"fraction": 1.0}})),
        ),
        (
            "completed-partial",
            "completed",
            with(batches(118, 2, 120), &json!({"outcome": "partial", "progress": {"fraction": 1.0}})),
        ),
        (
            "completed-empty",
            "completed",
            json!({"outcome": "empty", "progress": {"fraction": 1.0, "batches": {"total": 0, "pending": 0}}}),
        ),
        ("unknown-status", "archiving", batches(37, 0, 120)),
    ]
}

async fn check(browser: &Browser, name: &str) {
    let violations = browser.axe().await;
    assert!(violations.is_empty(), "{name}: {violations:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_is_accessible_and_has_its_picture() {
    let stage = Stage::open().await;
    browse(async move |browser| {
        for (name, status, special) in states() {
            stage.show(snapshot(5, status, &special));
            for (look, scheme, [width, height]) in
                [("light", "light", [720, 300]), ("dark", "dark", [720, 300]), ("phone", "light", [320, 400])]
            {
                browser
                    .prefers(&[("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")])
                    .await;
                browser.size(width, height).await;
                browser.goto(&stage.url).await;
                let label =
                    browser.until_shown(name, |shown| shown.there && !shown.label.is_empty()).await.label;
                assert!(!label.is_empty());
                check(&browser, &format!("{name}, {look}")).await;
                let overflow = browser.js("return document.documentElement.scrollWidth - innerWidth").await;
                assert!(overflow.as_i64() <= Some(0), "{name}, {look}: {overflow} px too wide");
                browser.screenshot(&format!("{name}-{look}")).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_said_quietly_and_the_last_truth_is_kept_and_caught_up_with() {
    let stage = Stage::open().await;
    stage.show(snapshot(5, "processing", &batches(37, 0, 120)));
    browse(async move |browser| {
        browser.goto(&stage.url).await;
        browser.until_shown("batches", |shown| shown.detail.contains("37 of 120")).await;
        stage.block(Way::Refused, Way::Refused, Way::Refused);
        let lost = browser.until_shown("lost", |shown| shown.note.contains("Connection lost")).await;
        assert!(lost.detail.contains("37 of 120") && lost.error.is_empty(), "{lost:?}");
        check(&browser, "lost").await;
        browser.screenshot("connection-lost-light").await;
        stage.show(snapshot(9, "processing", &batches(60, 0, 120)));
        stage.block(Way::Open, Way::Open, Way::Open);
        // As when the network comes back.
        browser.js("dispatchEvent(new Event('online'))").await;
        browser
            .until_shown("found", |shown| shown.note.is_empty() && shown.detail.contains("60 of 120"))
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn high_contrast_right_to_left_and_other_languages_work() {
    let stage = Stage::open().await;
    stage.show(snapshot(5, "processing", &batches(1_234, 0, 2_000)));
    browse(async move |browser| {
        browser.prefers(&[("forced-colors", "active")]).await;
        browser.goto(&stage.url).await;
        browser.until_shown("batches", |shown| shown.detail.contains("1,234 of 2,000 batches")).await;
        check(&browser, "forced colours").await;
        browser.screenshot("processing-forced-colors").await;
        browser.prefers(&[]).await;
        browser.js("document.documentElement.lang = 'de'; customElements.get('job-status').messages.ar = {batches: (a, b) => `${a} / ${b}`};").await;
        stage.show(snapshot(6, "processing", &batches(1_235, 0, 2_000)));
        let german = browser.until_shown("German", |shown| shown.detail.contains("1.235 von 2.000 Stapeln")).await;
        assert_eq!((german.label.as_str(), german.share.as_str()), ("In Bearbeitung", "61\u{a0}%"));
        browser.js("document.documentElement.lang = 'ar'; document.documentElement.dir = 'rtl';").await;
        stage.show(snapshot(7, "processing", &batches(1_236, 0, 2_000)));
        browser.until_shown("a language of the page's own", |shown| shown.detail.contains(" / ")).await;
        browser.screenshot("processing-rtl").await;
        check(&browser, "right to left").await;
    })
    .await;
}
