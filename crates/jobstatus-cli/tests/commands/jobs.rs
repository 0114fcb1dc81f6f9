//! The commands about jobs, on each store.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use status_core::{Actor, BatchReport, Failure, ItemError, NewJob, OwnerId, Policy, Stage};

use crate::{
    on_both_stores,
    operator::{Operator, batch},
};

on_both_stores! {
    jobs_are_listed_shown_and_their_missing_batches_named
    the_jobs_of_all_owners_that_are_not_over_are_listed
    lists_are_filtered
    batches_are_counted_in_all_and_paged
    a_job_without_a_total_is_not_said_to_be_settled
    a_job_is_watched_to_its_end
    the_exit_code_tells_how_a_watched_job_ended
    jobs_are_cancelled_and_swept
    errors_are_sentences_or_objects
    a_job_has_its_own_word_for_its_items
}

async fn jobs_are_listed_shown_and_their_missing_batches_named(operator: Operator) {
    let id = operator.job("leads.csv", 5).await;
    operator.complete(id, [0, 2]).await;
    let error = ItemError::new(batch(3), Some(31), "llm-refused", "The model refused.").at_line(33);
    let failed = BatchReport::failed(batch(3), 10, "llm-refused", "The model refused.").with_errors([error]);
    operator.tracker.report(id, vec![failed]).await.expect("reported");
    let text = id.to_string();
    let listed = operator.json(&["list", "--owner", "alice"]).await;
    assert_eq!((&listed["jobs"][0]["id"], &listed["next_cursor"]), (&json!(text), &json!(null)));
    assert_eq!(operator.json(&["list", "--owner", "alice", "--status", "failed"]).await["jobs"], json!([]));
    let shown = operator.json(&["show", &text]).await;
    assert_eq!((&shown["owner"], &shown["progress"]["batches"]["completed"]), (&json!("alice"), &json!(2)));
    let missing = operator.json(&["missing", &text]).await;
    assert_eq!(missing, json!({"missing": [1, 4], "in_all": 2, "next_from": null}));
    let error = &operator.json(&["errors", &text]).await["errors"][0];
    assert_eq!((&error["item"], &error["line"]), (&json!(31), &json!(33)));
    assert_eq!(operator.json(&["history", &text]).await["history"][3]["to"], "sealed");
    let shown = operator.text(&["show", &text]).await;
    assert!(shown.contains("batches\t2 completed, 1 failed, 2 pending of 5\n"), "{shown}");
    assert!(shown.contains("owner\talice\n") && shown.contains("title\tleads.csv\n"), "{shown}");
    assert_eq!(operator.text(&["errors", &text]).await, "3\t31\t33\tllm-refused\tThe model refused.\n");
    let history = operator.text(&["history", &text]).await;
    let decisions: Vec<_> = history.lines().map(|line| line.split('\t').nth(1).expect("columns")).collect();
    assert_eq!(decisions, ["uploading", "uploaded", "processing", "sealed"]);
}

async fn the_jobs_of_all_owners_that_are_not_over_are_listed(operator: Operator) {
    let (running, over) = (operator.job("a.csv", 2).await, operator.job("b.csv", 1).await);
    operator.complete(over, [0]).await;
    let bob = operator.tracker.owned_by(OwnerId::new("bob").expect("a name"));
    let new = NewJob::titled("Nightly export").with_kind("export");
    let waiting = bob.create(new).await.expect("created").id;
    let (mut listed, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let more = cursor.as_deref().map_or(vec![], |cursor| vec!["--cursor", cursor]);
        let page = operator.json(&[&["list", "--limit", "1"], more.as_slice()].concat()).await;
        let jobs = page["jobs"].as_array().expect("a list");
        assert!(jobs.len() <= 1, "{page}");
        listed.extend(jobs.clone());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    listed.sort_by_key(|job| job["owner"].to_string());
    let shown: Vec<_> = listed.iter().map(|job| [&job["owner"], &job["id"], &job["title"]]).collect();
    assert_eq!(
        shown,
        [
            [&json!("alice"), &json!(running), &json!("a.csv")],
            [&json!("bob"), &json!(waiting), &json!("Nightly export")],
        ]
    );
    let text = operator.text(&["list"]).await;
    assert!(text.contains("\tbob\t") && text.contains("\tNightly export\n") && !text.contains("b.csv"));
    let refused = operator.run(&["list", "--status", "completed"]).await;
    assert!(refused.code == 2 && refused.err.contains("add --owner"), "{refused:?}");
    let owned = operator.json(&["list", "--owner", "alice", "--status", "completed"]).await;
    assert_eq!(owned["jobs"][0]["id"], json!(over));
    let none = operator.run(&["list", "--owner", "carol"]).await;
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (0, "", "No jobs.\n"));
}

async fn lists_are_filtered(operator: Operator) {
    let mut quick = Policy::default();
    quick.stall_after = Duration::from_millis(1);
    let export = |title: &str| NewJob::titled(title).with_kind("export");
    let stalled = operator.job_of("alice", export("stalled").with_policy(quick), 3).await;
    let started = operator.job_of("bob", export("started"), 3).await;
    let new = NewJob::titled("waiting").with_kind("import");
    let bob = operator.tracker.owned_by(OwnerId::new("bob").expect("a name"));
    let waiting = bob.create(new).await.expect("created").id;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let all = [stalled, started, waiting];
    for (filters, wanted) in [
        (&["--stalled"][..], &[stalled][..]),
        (&["--kind", "export"], &[stalled, started]),
        (&["--kind", "import"], &[waiting]),
        (&["--kind", "nothing"], &[]),
        (&["--status", "uploaded"], &[waiting]),
        (&["--status", "processing", "--kind", "export"], &[stalled, started]),
        (&["--since", "1h"], &all),
        (&["--since", "2999-01-01T00:00:00Z"], &[]),
        (&["--owner", "bob", "--kind", "export"], &[started]),
        (&["--owner", "bob", "--since", "1h"], &[started, waiting]),
        (&["--owner", "bob", "--since", "2999-01-01T00:00:00Z"], &[]),
        // One page of the list takes many of the store.
        (&["--owner", "bob", "--kind", "export", "--limit", "1"], &[started]),
    ] {
        let text = operator.text(&[&["list"], filters].concat()).await;
        let ids: BTreeSet<_> = text.lines().map(|line| line.split('\t').next().expect("an id")).collect();
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        assert_eq!(ids, wanted.iter().map(String::as_str).collect(), "{filters:?}");
    }
    assert!(operator.text(&["list", "--stalled"]).await.contains("\tprocessing\tstalled\t"));
}

async fn batches_are_counted_in_all_and_paged(operator: Operator) {
    let id = operator.job("leads.csv", 12).await;
    let text = id.to_string();
    operator.complete(id, [0, 2]).await;
    operator.fail(id, [3]).await;
    for (state, batches, in_all) in
        [("unsettled", json!([1, 4, 5]), 9), ("completed", json!([0, 2]), 2), ("failed", json!([3]), 1)]
    {
        let listed = operator.json(&["batches", &text, "--state", state, "--limit", "3"]).await;
        assert_eq!((&listed["batches"], &listed["in_all"]), (&batches, &json!(in_all)), "{state}");
        assert_eq!(listed["next_from"], if in_all == 9 { json!(6) } else { json!(null) }, "{state}");
    }
    let (mut seen, mut from) = (Vec::new(), json!(0));
    while let Some(first) = from.as_u64() {
        let page = operator.json(&["missing", &text, "--limit", "4", "--from", &first.to_string()]).await;
        seen.extend(page["missing"].as_array().expect("a list").clone());
        from = page["next_from"].clone();
    }
    assert_eq!(json!(seen), json!([1, 4, 5, 6, 7, 8, 9, 10, 11]));
    let said = async |arguments: &[&str]| {
        let ran = operator.run(&[&["missing", text.as_str()], arguments].concat()).await;
        (ran.out, ran.err)
    };
    let (out, err) = said(&["--limit", "2"]).await;
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("1\n4\n", "9 unsettled batches of 12; 2 shown. More: --from 5\n")
    );
    let (out, err) = said(&["--from", "50"]).await;
    let wanted = "No unsettled batch from 50 on; 9 of 12 in all.\n";
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("", wanted),
        "an empty page does not mean that all are settled"
    );
    operator.complete(id, [1, 4, 5, 6, 7, 8, 9, 10, 11]).await;
    let (out, err) = said(&[]).await;
    assert_eq!((out.as_str(), err.as_str()), ("", "Every batch is settled, 12 of 12.\n"));
}

async fn a_job_without_a_total_is_not_said_to_be_settled(operator: Operator) {
    let jobs = operator.tracker.owned_by(OwnerId::new("alice").expect("a name"));
    let id = jobs.create(NewJob::titled("growing")).await.expect("created").id;
    operator.tracker.start(id, None, &Actor::named("splitter")).await.expect("started");
    operator.complete(id, [0, 1]).await;
    let missing = operator.json(&["missing", &id.to_string()]).await;
    assert_eq!(missing, json!({"missing": [], "in_all": null, "next_from": null}));
    let said = operator.run(&["missing", &id.to_string()]).await.err;
    assert_eq!(said, "0 unsettled batches so far; how many there are in all is not known yet.\n");
}

async fn a_job_is_watched_to_its_end(operator: Operator) {
    let id = operator.job("leads.csv", 4).await;
    let text = id.to_string();
    let working = async {
        for batch in 0..4 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            operator.complete(id, [batch]).await;
        }
    };
    let watch = ["watch", &text, "--json"];
    let (ran, ()) = futures::join!(operator.run(&watch), working);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let snapshots: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(snapshots.len() > 2, "it was seen moving");
    let versions: Vec<_> = snapshots.iter().map(|snapshot| snapshot["version"].as_u64()).collect();
    assert!(versions.is_sorted(), "{versions:?}");
    assert_eq!(snapshots.last().expect("some")["status"], "completed");
    let ran = operator.run(&["watch", &text]).await;
    assert!(ran.code == 0 && ran.out.ends_with("\tCompleted, 4/4 batches, 40/40 leads\n"), "{ran:?}");
}

async fn the_exit_code_tells_how_a_watched_job_ended(operator: Operator) {
    let (failed, cancelled) = (operator.job("a.csv", 4).await, operator.job("b.csv", 4).await);
    let failure = Failure::new(Stage::Split, "no-header", "The file has no header.", false);
    operator.tracker.fail(failed, failure, &Actor::named("splitter")).await.expect("failed");
    operator.tracker.cancel(cancelled, &Actor::OWNER, None).await.expect("asked");
    operator.tracker.begin(cancelled, batch(0)).await.expect("confirmed");
    let ran = operator.run(&["watch", &failed.to_string()]).await;
    assert!(ran.code == 3 && ran.out.contains("no-header: The file has no header."), "{ran:?}");
    let ran = operator.run(&["watch", &cancelled.to_string()]).await;
    assert!(ran.code == 4 && ran.out.contains("Processing Cancelled"), "{ran:?}");
    let ran = operator.run(&["watch", &"0".repeat(36)]).await;
    assert!(ran.code == 5 && ran.err.contains("there is no job"), "{ran:?}");
    assert_eq!(operator.run(&["show", &failed.to_string()]).await.code, 0, "it was shown");
}

async fn jobs_are_cancelled_and_swept(operator: Operator) {
    let id = operator.job("leads.csv", 4).await.to_string();
    let asked = operator.json(&["cancel", &id, "--reason", "wrong file"]).await;
    assert_eq!(asked["cancel_requested"]["by"], "operator");
    let shown = operator.text(&["show", &id]).await;
    assert!(shown.contains("status\tCancelling…\n") && shown.contains(": wrong file\n"), "{shown}");
    let swept = operator.json(&["sweep"]).await;
    assert_eq!(
        (&swept["cancelled"], &swept["errors"]),
        (&json!(0), &json!(0)),
        "the grace period is not over"
    );
    let mut quick = Policy::default();
    (quick.cancel_grace, quick.stall_after) = (Duration::from_millis(1), Duration::from_millis(1));
    let unheard = operator.job_of("alice", NewJob::titled("unheard").with_policy(quick), 4).await;
    operator.text(&["cancel", &unheard.to_string()]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let said = operator.text(&["sweep"]).await;
    assert!(said.contains("0 completed, 0 failed, 1 cancelled, 0 errors."), "{said}");
    let over = operator.job("b.csv", 1).await;
    operator.complete(over, [0]).await;
    let refused = operator.run(&["cancel", &over.to_string()]).await;
    assert!(refused.code == 1 && refused.err.contains("completed"), "{refused:?}");
}

async fn errors_are_sentences_or_objects(operator: Operator) {
    let unknown = "0".repeat(36);
    for command in ["show", "watch", "cancel", "history", "errors", "missing"] {
        let ran = operator.run(&[command, &unknown]).await;
        let said = format!("jobstatus: there is no job {unknown} in {}\n", operator.name);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (5, "", said.as_str()), "{command}");
        assert_eq!(operator.run(&[command, &unknown, "--json"]).await.error()["code"], "not-found");
    }
    for wrong in [&["show", "nonsense"][..], &["list", "--cursor", "nonsense"], &["list", "--limit", "0"]] {
        let error = operator.run(&[wrong, &["--json"]].concat()).await.error();
        assert_eq!((&error["code"], &error["exit_code"]), (&json!("usage"), &json!(2)), "{wrong:?}");
        assert!(!error["message"].as_str().expect("text").contains('\n'), "{error}");
    }
    let ran = operator.run(&["show", "nonsense"]).await;
    assert!(ran.code == 2 && ran.err.contains("a job id is 36 characters"), "{ran:?}");
}

async fn a_job_has_its_own_word_for_its_items(operator: Operator) {
    let id = operator.job("leads.csv", 4).await;
    let shown = operator.text(&["show", &id.to_string()]).await;
    assert!(shown.contains("status\tLeads Processing\n") && shown.contains(" of 40 leads\n"), "{shown}");
}
