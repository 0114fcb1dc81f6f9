//! Who may ask what, from where, and how much of it; and who is told.

use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode, header};
use futures::StreamExt;
use serde_json::{Value, json};
use status_http::{Answered, Api, Limits, Observer, Origins};

use crate::support::{Answer, Process, Service};

const FRIEND: &str = "https://friend.example";

fn limited(service: &Service, set: impl FnOnce(&mut Limits)) -> Process {
    let mut limits = Limits::default();
    set(&mut limits);
    service.process_with(service.memory(), |api| api.with_limits(limits))
}

async fn create(process: &Process, headers: &[(&str, &str)]) -> Answer {
    process.send(Method::POST, "/jobs", headers, r#"{"file_name":"leads.csv","size":100}"#).await
}

fn too_many(answer: &Answer) -> bool {
    let wait =
        answer.headers.get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse::<u64>().ok());
    answer.status == StatusCode::TOO_MANY_REQUESTS
        && answer.json()["type"] == "too-many"
        && wait.is_some_and(|wait| wait > 0)
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing_whatever_its_body_is_called() {
    let service = Service::new();
    let process = service
        .process_with(service.memory(), |api| api.with_origins(Origins::new([FRIEND]).expect("an origin")));
    let id = process.uploading().await;
    let cancel = format!("/jobs/{id}/cancel");
    let allowed = [
        &[][..],
        &[("host", "us.example"), ("sec-fetch-site", "same-origin"), ("origin", "https://us.example")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "cross-site"), ("origin", FRIEND)],
        &[("host", "us.example:8443"), ("origin", "https://us.example:8443")],
    ];
    let refused = [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site"), ("origin", "https://sub.us.example"), ("host", "us.example")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://friend.example.evil.example")],
        &[("sec-fetch-site", "cross-site"), ("content-type", "text/plain")],
        &[("host", "us.example"), ("origin", "https://evil.example")],
        &[("host", "us.example"), ("origin", "null")],
    ];
    for headers in refused {
        for (method, path) in [
            (Method::POST, "/jobs".to_owned()),
            (Method::POST, cancel.clone()),
            (Method::DELETE, format!("/jobs/{id}")),
        ] {
            let answer = process.send(method, &path, headers, "{}").await;
            assert_eq!(
                (answer.status, &answer.json()["type"]),
                (StatusCode::FORBIDDEN, &json!("cross-site")),
                "{path} {headers:?}"
            );
        }
        let read = process.get(&format!("/jobs/{id}"), headers).await;
        assert_eq!(read.json()["status"], "uploading", "reading changes nothing");
    }
    for headers in allowed {
        assert_eq!(create(&process, headers).await.status, StatusCode::CREATED, "{headers:?}");
    }
}

#[tokio::test]
async fn browsers_are_told_of_the_origins_that_may_read_and_of_no_others() {
    let service = Service::new();
    let process = service
        .process_with(service.memory(), |api| api.with_origins(Origins::new([FRIEND]).expect("an origin")));
    for (origin, told) in [(FRIEND, Some(FRIEND)), ("https://evil.example", None)] {
        let preflight = [("origin", origin), ("access-control-request-method", "POST")];
        let asked = process.send(Method::OPTIONS, "/jobs", &preflight, "").await;
        let read = process.get("/jobs", &[("origin", origin)]).await;
        for answer in [asked, read] {
            let allowed = answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(allowed.map(|origin| origin.to_str().expect("text")), told, "{origin}");
        }
    }
    let none = Service::new().process().get("/jobs", &[("origin", FRIEND)]).await;
    assert!(none.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_refused() {
    let process = Service::new().process();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let answer = create(&process, &[("content-type", kind)]).await;
        let told = (answer.status, answer.json()["type"].clone());
        assert_eq!(told, (StatusCode::UNSUPPORTED_MEDIA_TYPE, json!("unsupported-media-type")), "{kind}");
    }
    let id = process.uploading().await;
    let empty = process.send(Method::POST, &format!("/jobs/{id}/cancel"), &[], "").await;
    assert_eq!(empty.status, StatusCode::OK, "an empty body is no body");
}

#[tokio::test]
async fn an_owner_has_so_many_jobs_that_are_not_over_and_others_have_theirs() {
    let process = limited(&Service::new(), |limits| limits.open_jobs = 3);
    let key = [("idempotency-key", "third")];
    for headers in [&[][..], &[], &key] {
        assert_eq!(create(&process, headers).await.status, StatusCode::CREATED);
    }
    let refused = create(&process, &[]).await;
    assert!(too_many(&refused), "{}", refused.text);
    assert_eq!(create(&process, &key).await.status, StatusCode::CREATED, "a retry finds what was made");
    assert_eq!(create(&process, &[("x-user", "bob")]).await.status, StatusCode::CREATED);
    let jobs = process.get("/jobs", &[]).await.json();
    let one = jobs["jobs"][0]["id"].as_str().expect("an id");
    process.send(Method::POST, &format!("/jobs/{one}/cancel"), &[], "").await;
    assert_eq!(create(&process, &[]).await.status, StatusCode::CREATED, "one of them is over");
}

#[tokio::test]
async fn an_owner_watches_so_many_times_at_once() {
    let process = limited(&Service::new(), |limits| limits.streams = 2);
    let id = process.processing(5).await;
    let (mut first, second) = (process.events(id, None).await, process.events(id, None).await);
    assert!(first.next().await.is_some());
    let path = format!("/jobs/{id}/events");
    assert!(too_many(&process.get(&path, &[]).await));
    let etag = process.get(&format!("/jobs/{id}"), &[]).await.etag();
    assert!(too_many(&process.poll(id, "?wait=5", &etag).await), "a long-poll watches, too");
    assert_eq!(process.poll(id, "", &etag).await.status, StatusCode::NOT_MODIFIED, "a poll does not");
    drop(second);
    assert!(process.events(id, None).await.next().await.is_some(), "a page was closed");
}

#[tokio::test]
async fn an_owner_asks_so_many_things_at_once_and_all_together_so_many() {
    let service = Service::new();
    let process = limited(&service, |limits| (limits.requests, limits.all_requests) = (1, 2));
    let ids = [process.processing(5).await];
    let etag = process.get(&format!("/jobs/{}", ids[0]), &[]).await.etag();
    let poll = process.poll(ids[0], "?wait=20", &etag);
    let meanwhile = async {
        tokio::task::yield_now().await;
        assert!(too_many(&process.get("/jobs", &[]).await));
        assert_eq!(process.get("/jobs", &[("x-user", "bob")]).await.status, StatusCode::OK);
        process.complete(ids[0], 0..1, std::time::Duration::from_secs(1)).await;
    };
    assert_eq!(tokio::join!(poll, meanwhile).0.status, StatusCode::OK);
    let busy = limited(&service, |limits| limits.all_requests = 0).get("/jobs", &[]).await;
    assert_eq!(
        (busy.status, busy.json()["type"].clone()),
        (StatusCode::SERVICE_UNAVAILABLE, json!("unavailable"))
    );
    assert!(busy.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn strangers_of_one_address_make_so_many_jobs_and_those_who_are_known_more() {
    let process = limited(&Service::new(), |limits| {
        limits.strangers_per_minute = 2;
        limits.peer_header = Some(header::HeaderName::from_static("x-peer"));
    });
    let stranger = async |nth: usize, peer: &str| {
        create(&process, &[("x-user", &format!("stranger {nth}")), ("x-peer", peer)]).await
    };
    for nth in 0..2 {
        assert_eq!(stranger(nth, "192.0.2.1").await.status, StatusCode::CREATED);
    }
    assert!(too_many(&stranger(2, "192.0.2.1").await));
    assert_eq!(stranger(3, "192.0.2.2").await.status, StatusCode::CREATED);
    assert_eq!(create(&process, &[("x-peer", "192.0.2.1")]).await.status, StatusCode::CREATED);
}

#[derive(Debug, Default)]
struct Audit(Mutex<Vec<Value>>);

impl Observer for Audit {
    fn answered(&self, request: &Answered<'_>) {
        self.0.lock().expect("unpoisoned").push(json!([
            request.method.as_str(),
            request.route,
            request.owner.map(|owner| owner.as_str()),
            request.job.is_some(),
            request.status.as_u16(),
            request.problem
        ]));
    }
}

#[tokio::test]
async fn an_observer_is_told_who_did_what_refused_or_not() {
    let (service, audit) = (Service::new(), Arc::new(Audit::default()));
    let process = service.process_with(service.memory(), |api: Api| api.with_observer(audit.clone()));
    let job = create(&process, &[]).await.json()["job"]["id"].as_str().expect("an id").to_owned();
    let cancel = format!("/jobs/{job}/cancel");
    process.send(Method::POST, &cancel, &[("x-user", "bob")], "").await;
    process.send(Method::POST, &cancel, &[("sec-fetch-site", "cross-site")], "").await;
    process.send(Method::POST, &cancel, &[], "").await;
    process.send(Method::PATCH, &format!("/jobs/{job}"), &[], "").await;
    process.get(&format!("/jobs/{job}/nothing"), &[]).await;
    let told = audit.0.lock().expect("unpoisoned").clone();
    assert_eq!(
        json!(told),
        json!([
            ["POST", "/jobs", "alice", true, 201, null],
            ["POST", "/jobs/{id}/cancel", "bob", true, 404, "job-not-found"],
            ["POST", "/jobs/{id}/cancel", null, true, 403, "cross-site"],
            ["POST", "/jobs/{id}/cancel", "alice", true, 200, null],
            ["PATCH", "/jobs/{id}", null, true, 405, "method-not-allowed"],
            ["GET", "/jobs/{id}/{*rest}", null, true, 404, "not-found"]
        ])
    );
}
