//! What a person may do to their jobs, and how it is told.

use axum::http::{Method, StatusCode, header};
use serde_json::{Value, json};
use status_core::{BatchIndex, BatchReport, Error, ItemError, JobId, NewJob, StoreError, Timestamp};
use status_http::Problem;

use crate::support::{Answer, Broken, Process, Service, batch};

async fn post(process: &Process, headers: &[(&str, &str)], body: &Value) -> Answer {
    process.send(Method::POST, "/jobs", headers, &body.to_string()).await
}

fn kind_of(answer: &Answer) -> (StatusCode, Value) {
    (answer.status, answer.json()["type"].clone())
}

#[tokio::test]
async fn a_job_has_a_title_and_a_kind_and_need_not_have_a_file() {
    let process = Service::new().process();
    let body = json!({"file_name": "leads.csv", "size": 100, "kind": "lead-import"});
    let created = post(&process, &[], &body).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let job = &created.json()["job"];
    let file = json!({"name": "leads.csv", "size": 100, "content_type": "application/octet-stream"});
    assert_eq!((&job["title"], &job["kind"]), (&json!("leads.csv"), &json!("lead-import")));
    assert_eq!((&job["file"], &job["parent"], &job["child"]), (&file, &Value::Null, &Value::Null));
    let id = process.alice().create(NewJob::titled("Nightly export")).await.expect("created").id;
    let shown = process.get(&format!("/jobs/{id}"), &[]).await.json();
    assert_eq!(
        (&shown["title"], &shown["file"], &shown["kind"], &shown["status"], &shown["label"]),
        (&json!("Nightly export"), &Value::Null, &Value::Null, &json!("uploaded"), &json!("Waiting"))
    );
    for kind in ["", "  ", "a\nb", &"x".repeat(65)] {
        let refused = post(&process, &[], &json!({"file_name": "a.csv", "size": 1, "kind": kind})).await;
        assert_eq!(kind_of(&refused), (StatusCode::BAD_REQUEST, json!("invalid-request")), "{kind:?}");
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.starts_with("Kind ")));
    }
}

#[tokio::test]
async fn nobody_says_that_a_file_is_uploaded_before_it_is_there() {
    let process = Service::new().process();
    for (name, says) in [
        ("coming.csv", (StatusCode::CONFLICT, json!("file-missing"))),
        ("lost.csv", (StatusCode::SERVICE_UNAVAILABLE, json!("unavailable"))),
        ("leads.csv", (StatusCode::OK, Value::Null)),
    ] {
        let job = post(&process, &[], &json!({"file_name": name, "size": 1})).await.json()["job"].clone();
        let path = format!("/jobs/{}/uploaded", job["id"].as_str().expect("an id"));
        assert_eq!(kind_of(&process.send(Method::POST, &path, &[], "").await), says, "{name}");
    }
}

#[tokio::test]
async fn a_process_whose_store_does_not_answer_lives_and_is_not_ready() {
    let service = Service::new();
    let store = service.damaged();
    let process = service.process_over(store.clone());
    let statuses =
        async || [process.get("/healthz", &[]).await.status, process.get("/readyz", &[]).await.status];
    assert_eq!(statuses().await, [StatusCode::OK, StatusCode::OK]);
    store.harm(JobId::from_parts(Timestamp::UNIX_EPOCH, 0), Broken::Record);
    assert_eq!(statuses().await, [StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR]);
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let process = Service::new().process();
    let key = [("idempotency-key", "one")];
    let body = json!({"file_name": "leads.csv", "size": 100, "kind": "lead-import"});
    let first = post(&process, &key, &body).await.json()["job"]["id"].clone();
    assert_eq!(post(&process, &key, &body).await.json()["job"]["id"], first);
    for (field, value) in [("kind", json!("export")), ("kind", Value::Null), ("size", json!(101))] {
        let mut other = body.clone();
        other[field] = value;
        let refused = post(&process, &key, &other).await;
        let expected = (StatusCode::UNPROCESSABLE_ENTITY, json!("idempotency-key-reused"));
        assert_eq!(kind_of(&refused), expected, "{other}");
    }
}

#[tokio::test]
async fn a_job_that_is_over_can_be_erased_once_by_its_owner() {
    let process = Service::new().process();
    let id = process.processing(1).await;
    let path = format!("/jobs/{id}");
    let delete = async |user: &str| process.send(Method::DELETE, &path, &[("x-user", user)], "").await;
    let refused = delete("alice").await;
    assert_eq!(kind_of(&refused), (StatusCode::CONFLICT, json!("job-running")));
    assert_eq!(refused.headers[header::CONTENT_TYPE], "application/problem+json");
    let failed = BatchReport::failed(batch(0), 10, "refused", "The model refused.");
    process.tracker.report(id, vec![failed]).await.expect("reported");
    assert_eq!(kind_of(&delete("bob").await), (StatusCode::NOT_FOUND, json!("job-not-found")));
    let errors = process.get(&format!("{path}/errors"), &[]).await.json();
    assert_eq!(errors["errors"].as_array().map(Vec::len), Some(1), "it is still there: {errors}");
    let erased = delete("alice").await;
    assert_eq!((erased.status, erased.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(kind_of(&delete("alice").await), (StatusCode::NOT_FOUND, json!("job-not-found")));
    for rest in ["", "/errors", "/history", "/events"] {
        assert_eq!(process.get(&format!("{path}{rest}"), &[]).await.status, StatusCode::NOT_FOUND, "{rest}");
    }
    assert_eq!(process.get("/jobs", &[]).await.json()["jobs"], json!([]));
}

#[tokio::test]
async fn damaged_jobs_hide_no_others() {
    let service = Service::new();
    let store = service.damaged();
    let process = service.process_over(store.clone());
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(process.processing(10).await);
    }
    let whole = process.get("/jobs", &[]).await.json();
    assert_eq!(whole["jobs"].as_array().map(Vec::len), Some(4));
    assert!(whole.get("damaged").is_none(), "absent where all can be shown: {whole}");
    store.harm(jobs[1], Broken::Record);
    store.harm(jobs[2], Broken::Facts);
    let listed = process.get("/jobs", &[]).await;
    assert_eq!(listed.status, StatusCode::OK);
    let mut shown: Vec<_> =
        listed.json()["jobs"].as_array().expect("a list").iter().map(|j| j["id"].clone()).collect();
    shown.sort_by_key(ToString::to_string);
    let mut sound = [json!(jobs[0]), json!(jobs[3])];
    sound.sort_by_key(ToString::to_string);
    assert_eq!(shown, sound);
    assert_eq!((&listed.json()["damaged"], &listed.json()["next_cursor"]), (&json!(2), &Value::Null));
    assert!(!listed.text.contains("secret"), "nothing internal: {}", listed.text);
    let one = process.get(&format!("/jobs/{}", jobs[1]), &[]).await;
    assert_eq!(kind_of(&one), (StatusCode::INTERNAL_SERVER_ERROR, json!("internal")));
    assert!(!one.text.contains("secret"));
}

#[tokio::test]
async fn errors_are_listed_with_what_came_in_and_downloaded_to_be_mended() {
    let process = Service::new().process();
    let id = process.processing(2).await;
    let error = |index: u64, message: &str, input: &str| {
        ItemError::new(batch(index), Some(index + 1), "unusable", message)
            .at_line(index + 2)
            .with_input(input)
    };
    let report = |index: u64, error| BatchReport::completed(batch(index), 9, 1).with_errors([error]);
    let reports = vec![
        report(0, error(0, "No name.", r#"{"Name":"","Phone":"+49 30 1","Note":"=1+1"}"#)),
        report(1, error(1, "No phone.", r#"{"Name":"Ada","Since":2024}"#)),
    ];
    process.tracker.report(id, reports).await.expect("reported");
    let path = format!("/jobs/{id}/errors");
    let listed = process.get(&path, &[]).await.json();
    assert_eq!(listed["errors"][1]["line"], 3, "{listed}");
    assert_eq!(listed["errors"][1]["input"], r#"{"Name":"Ada","Since":2024}"#);
    assert!(listed.get("damaged").is_none());
    let csv = process.get(&path, &[("accept", "text/csv")]).await;
    assert_eq!(csv.headers[header::CONTENT_TYPE], "text/csv; charset=utf-8");
    assert_eq!(
        csv.text,
        "Name,Phone,Note,Since,line,batch,item,code,message\n\
         ,+49 30 1,'=1+1,,2,0,1,unusable,No name.\n\
         Ada,,,2024,3,1,2,unusable,No phone.\n"
    );
}

#[tokio::test]
async fn more_errors_than_are_read_at_once_are_all_downloaded() {
    let process = Service::new().process();
    let id = process.processing(30).await;
    let errors =
        |index: BatchIndex| (0..50).map(move |n| ItemError::new(index, Some(n), "c", "m").with_input("{}"));
    let report = |index| BatchReport::completed(batch(index), 0, 50).with_errors(errors(batch(index)));
    process.tracker.report(id, (0..30).map(report).collect()).await.expect("reported");
    let csv = process.get(&format!("/jobs/{id}/errors?format=csv"), &[]).await.text;
    assert_eq!((csv.lines().count(), csv.matches("message").count()), (1_501, 1), "one header");
}

#[tokio::test]
async fn what_is_said_of_jobs_is_private() {
    let process = Service::new().process();
    let id = process.processing(1).await;
    for path in
        ["", "/errors", "/errors?format=csv", "/history", "/events"].map(|rest| format!("/jobs/{id}{rest}"))
    {
        // A stream is not read: its head says it.
        let head = process.head(&path).await;
        let control = head[header::CACHE_CONTROL].to_str().expect("text");
        assert!(control.contains("private") || control.contains("no-store"), "{path}: {control}");
    }
    assert!(
        process.get("/jobs", &[]).await.headers[header::CACHE_CONTROL]
            .to_str()
            .expect("text")
            .contains("private")
    );
}

#[test]
fn faults_of_the_store_are_ours_and_stay_inside() {
    let id = status_core::JobId::from_parts(status_core::Timestamp::UNIX_EPOCH, 0);
    let incomplete = StoreError::Incomplete { operation: "begin", id, batch: batch(3) };
    let corrupt = StoreError::Corrupt { subject: "chunk#00001".into(), why: "ix is no count".into() };
    for error in [incomplete, corrupt] {
        assert_eq!(Problem::from(Error::from(error)), Problem::internal());
    }
}

#[tokio::test]
async fn the_interface_describes_what_is_new() {
    let description = Service::new().process().get("/openapi.json", &[]).await.json();
    let job = &description["paths"]["/jobs/{id}"];
    assert!(job["delete"]["responses"].get("409").is_some(), "{job}");
    let schemas = &description["components"]["schemas"];
    for (schema, field) in [
        ("Snapshot", "title"),
        ("Snapshot", "kind"),
        ("Snapshot", "parent"),
        ("Snapshot", "child"),
        ("CreateJob", "kind"),
        ("JobList", "damaged"),
        ("Errors", "damaged"),
        ("ItemError", "line"),
        ("ItemError", "input"),
    ] {
        let properties = &schemas[schema]["properties"];
        assert!(properties.get(field).is_some(), "{schema}.{field}: {properties}");
    }
    assert_eq!(schemas["JobList"]["required"], json!(["jobs"]), "{}", schemas["JobList"]);
    let named = |path: &str, name: &str| {
        let parameters =
            description["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
        assert!(parameters.iter().any(|parameter| parameter["name"] == name), "{path}: {name}");
    };
    named("/jobs/{id}/events", "Last-Event-ID");
    named("/jobs/{id}", "If-None-Match");
}
