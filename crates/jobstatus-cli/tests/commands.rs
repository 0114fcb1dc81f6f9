//! The program itself, over an embedded engine that speaks the DynamoDB API.

use std::{process::Command, sync::Arc, time::Duration};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region},
    types::AttributeValue,
};
use serde_json::{Value, json};
use status_core::{
    Actor, BatchIndex, BatchReport, FileInfo, ItemError, JobId, NewJob, OwnerId, Policy, Tolerance, Totals,
    Tracker,
};
use status_dynamo::DynamoStore;

struct Operator {
    endpoint: String,
    client: Client,
    tracker: Tracker,
}

impl Operator {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().expect("a database")));
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .region(Region::new("eu-central-1"))
            .endpoint_url(&endpoint);
        let client = Client::from_conf(config.build());
        let store = DynamoStore::new(client.clone(), "jobs");
        let operator = Self { endpoint, client, tracker: Tracker::new(Arc::new(store)) };
        for _ in 0..2 {
            assert!(operator.run(&["create-table"]).await.0, "it can be run twice");
        }
        operator
    }

    async fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobstatus"));
        command.args(arguments).args(["--table", "jobs", "--endpoint-url", &self.endpoint]);
        for (name, value) in
            [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]
        {
            command.env(name, value);
        }
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (ok, out, err) = self.run(&[arguments, &["--json"]].concat()).await;
        assert!(ok, "{arguments:?}: {err}");
        serde_json::from_str(&out).expect("JSON")
    }

    async fn job(&self, name: &str, total: u64) -> JobId {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Batches(5);
        let new = NewJob::new(FileInfo::new(name, 10, "text/csv").expect("a file")).with_policy(policy);
        let jobs = self.tracker.owned_by(OwnerId::new("alice").expect("a name"));
        let id = jobs.create(new).await.expect("created").id;
        let totals = Totals { batches: total, items: Some(total * 10) };
        self.tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("started");
        id
    }

    async fn complete(&self, id: JobId, batches: impl IntoIterator<Item = u64>) {
        let reports = batches
            .into_iter()
            .map(|b| BatchReport::completed(BatchIndex::new(b).expect("small"), 10, 0))
            .collect();
        self.tracker.report(id, reports).await.expect("reported");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_shown_and_their_missing_batches_named() {
    let operator = Operator::start().await;
    let id = operator.job("leads.csv", 5).await;
    operator.complete(id, [0, 2]).await;
    let batch = BatchIndex::new(3).expect("small");
    let failed =
        BatchReport::failed(batch, 10, "llm-refused", "The model refused.").with_errors([ItemError::new(
            batch,
            Some(31),
            "llm-refused",
            "The model\x1b[31m refused.",
        )
        .at_line(33)]);
    operator.tracker.report(id, vec![failed]).await.expect("reported");
    let text = id.to_string();
    let listed = operator.json(&["list", "--owner", "alice"]).await;
    assert_eq!((&listed["jobs"][0]["id"], &listed["next_cursor"]), (&json!(text), &json!(null)));
    assert_eq!(operator.json(&["list", "--owner", "alice", "--status", "failed"]).await["jobs"], json!([]));
    let shown = operator.json(&["show", &text]).await;
    assert_eq!(shown["progress"]["batches"]["completed"], 2);
    assert_eq!(operator.json(&["missing", &text]).await, json!({"missing": [1, 4]}));
    for (state, batches) in
        [("unsettled", json!([1, 4])), ("completed", json!([0, 2])), ("failed", json!([3]))]
    {
        let listed = operator.json(&["batches", &text, "--state", state]).await;
        assert_eq!(listed, json!({ "batches": batches }), "{state}");
    }
    let after =
        operator.json(&["batches", &text, "--state", "unsettled", "--from", "2", "--limit", "1"]).await;
    assert_eq!(after, json!({"batches": [4]}));
    let error = &operator.json(&["errors", &text]).await["errors"][0];
    assert_eq!((&error["item"], &error["line"]), (&json!(31), &json!(33)));
    assert_eq!(operator.json(&["history", &text]).await["history"][3]["to"], "sealed");
    let (ok, out, _) = operator.run(&["show", &text]).await;
    assert!(ok && out.contains("2 completed, 1 failed, 2 pending of 5"), "{out}");
    let (ok, out, _) = operator.run(&["errors", &text]).await;
    assert!(ok && out.contains("The model") && !out.contains('\x1b'), "nothing steers the terminal: {out:?}");
    assert!(operator.run(&["list", "--owner", "alice"]).await.1.contains("leads.csv"));
    assert_eq!(operator.run(&["missing", &text]).await.1, "2 unsettled batches: 1, 4\n");
    assert_eq!(operator.run(&["batches", &text, "--state", "failed"]).await.1, "1 failed batch: 3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_owner_the_jobs_of_all_owners_that_are_not_over_are_listed() {
    let operator = Operator::start().await;
    let (running, over) = (operator.job("a.csv", 2).await, operator.job("b.csv", 1).await);
    operator.complete(over, [0]).await;
    let bob = operator.tracker.owned_by(OwnerId::new("bob").expect("a name"));
    let new = NewJob::titled("Nightly export").with_kind("export");
    let waiting = bob.create(new).await.expect("created").id;
    let (mut listed, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let more = cursor.as_deref().map_or(vec![], |cursor| vec!["--cursor", cursor]);
        let page = operator.json(&[&["list", "--limit", "1"], more.as_slice()].concat()).await;
        listed.extend(page["jobs"].as_array().expect("a list").clone());
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
    assert_eq!(operator.json(&["list", "--status", "uploaded"]).await["jobs"][0]["owner"], "bob");
    let (ok, out, _) = operator.run(&["list"]).await;
    assert!(ok && out.contains("bob") && out.contains("Nightly export") && !out.contains("b.csv"), "{out}");
    let (ok, _, err) = operator.run(&["list", "--status", "completed"]).await;
    assert!(!ok && err.contains("add --owner"), "{err}");
    let owned = operator.json(&["list", "--owner", "alice", "--status", "completed"]).await;
    assert_eq!(owned["jobs"][0]["id"], json!(over));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_job_is_named_and_hides_no_other() {
    let operator = Operator::start().await;
    let (damaged, sound) = (operator.job("a.csv", 2).await, operator.job("b.csv", 2).await);
    let text = |text: &str| AttributeValue::S(text.into());
    let harm = operator.client.update_item().table_name("jobs").update_expression("SET job = :job");
    let harm = harm.key("pk", text(&damaged.to_string())).key("sk", text("job"));
    harm.expression_attribute_values(":job", text("nonsense")).send().await.expect("written");
    for owner in [&["--owner", "alice"][..], &[]] {
        let listed = operator.json(&[&["list"], owner].concat()).await;
        let ids: Vec<_> = listed["jobs"].as_array().expect("a list").iter().map(|job| &job["id"]).collect();
        assert_eq!(ids, [&json!(sound)], "{owner:?}");
        let named = listed["damaged"][0]["subject"].as_str().expect("text");
        assert!(named.contains(&damaged.to_string()), "{owner:?}: {listed}");
        let (ok, out, err) = operator.run(&[&["list"], owner].concat()).await;
        assert!(ok && out.contains("b.csv") && !out.contains("nonsense"), "{owner:?}: {out}");
        assert!(err.contains(&damaged.to_string()) && err.contains("cannot be read"), "{owner:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_watched_to_its_end() {
    let operator = Operator::start().await;
    let id = operator.job("leads.csv", 4).await;
    let text = id.to_string();
    let working = async {
        for batch in 0..4 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            operator.complete(id, [batch]).await;
        }
    };
    let watch = ["watch", &text, "--json"];
    let ((ok, out, _), ()) = futures::join!(operator.run(&watch), working);
    assert!(ok);
    let snapshots: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(snapshots.len() > 1, "it was seen moving");
    assert_eq!(snapshots.last().expect("some")["status"], "completed");
    let (ok, out, _) = operator.run(&["watch", &text]).await;
    assert!(ok && out.contains("Completed") && out.contains("4 completed"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_cancelled_and_swept() {
    let operator = Operator::start().await;
    let id = operator.job("leads.csv", 4).await.to_string();
    let asked = operator.json(&["cancel", &id, "--reason", "wrong file"]).await;
    assert_eq!(asked["cancel_requested"]["by"], "operator");
    let swept = operator.json(&["sweep"]).await;
    assert_eq!(
        (&swept["cancelled"], &swept["errors"]),
        (&json!(0), &json!(0)),
        "the grace period is not over"
    );
    let (ok, _, err) = operator.run(&["show", "nonsense"]).await;
    assert!(!ok && err.contains("a job id is 36 characters"), "{err}");
    let (ok, _, err) = operator.run(&["show", &"0".repeat(36)]).await;
    assert!(!ok && err.contains("there is no job"), "{err}");
}
