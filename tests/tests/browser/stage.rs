//! A server whose one job is whatever the test says, and whose ways to tell of it can be blocked as proxies do.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{Html, IntoResponse, Response, Sse, sse::Event},
    routing::{get, post},
};
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A way to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Gets through.
    Open,
    /// A proxy holds it back for ever.
    Held,
    /// A proxy answers 503.
    Refused,
}

#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) url: String,
    job: watch::Sender<Value>,
    ways: Arc<Mutex<Ways>>,
    requests: Arc<Mutex<Vec<(Instant, String)>>>,
}

struct Ways {
    events: Way,
    waits: Way,
    polls: Way,
    cancel: (StatusCode, Value),
}

impl Stage {
    pub(crate) async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let cancel = (StatusCode::CONFLICT, json!({"detail": "The job is completed."}));
        let ways = Ways { events: Way::Open, waits: Way::Open, polls: Way::Open, cancel };
        let stage = Self {
            url: format!("http://{}", listener.local_addr().expect("bound")),
            job: watch::Sender::new(snapshot(1, "uploading", &json!({}))),
            ways: Arc::new(Mutex::new(ways)),
            requests: Arc::default(),
        };
        let app = Router::new()
            .route("/", get(page))
            .route(
                "/job-status.js",
                get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], status_http::JOB_STATUS_JS) }),
            )
            .route("/jobs/{id}", get(poll))
            .route("/jobs/{id}/events", get(events))
            .route("/jobs/{id}/cancel", post(cancel_job))
            .with_state(stage.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        stage
    }

    /// The job from now on.
    pub(crate) fn show(&self, snapshot: Value) {
        self.job.send_replace(snapshot);
    }

    /// Which ways get through.
    pub(crate) fn block(&self, events: Way, waits: Way, polls: Way) {
        let mut ways = self.ways.lock().expect("unpoisoned");
        (ways.events, ways.waits, ways.polls) = (events, waits, polls);
    }

    pub(crate) fn answer_cancel(&self, status: StatusCode, body: Value) {
        self.ways.lock().expect("unpoisoned").cancel = (status, body);
    }

    /// When requests came whose address ends so.
    pub(crate) fn requests(&self, end: &str) -> Vec<Instant> {
        let requests = self.requests.lock().expect("unpoisoned");
        requests.iter().filter(|(_, path)| path.ends_with(end)).map(|(at, _)| *at).collect()
    }

    fn note(&self, uri: &Uri) {
        self.requests.lock().expect("unpoisoned").push((Instant::now(), uri.to_string()));
    }
}

/// A snapshot of this version and status, with these fields instead of a running job's.
pub(crate) fn snapshot(version: u64, status: &str, with: &Value) -> Value {
    let label = match status {
        "uploading" => "File Uploading",
        "uploaded" => "File Uploaded",
        "processing" => "Leads Processing",
        "completed" => "Completed",
        "failed" => "Processing Failed",
        "cancelled" => "Processing Cancelled",
        _ => "Something New",
    };
    let mut snapshot = json!({
        "id": "1", "title": "leads.csv", "kind": null, "parent": null, "child": null, "status": status, "outcome": null, "label": label, "stage": null,
        "file": {"name": "leads.csv", "size": 2_000_000, "content_type": "text/csv"},
        "progress": {"fraction": null, "upload": {"bytes": 2_000_000, "total": 2_000_000},
            "batches": {"total": null, "completed": 0, "failed": 0, "pending": null, "running": null},
            "items": {"total": null, "processed": 0, "failed": 0}},
        "estimate": null, "health": "active", "cancel_requested": null, "failure": null,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "started_at": null, "finished_at": null,
        "version": version, "poll_after_ms": 300,
    });
    merge(&mut snapshot, with);
    snapshot
}

/// Batches of ten leads: so many completed and failed of so many.
pub(crate) fn batches(completed: u64, failed: u64, total: u64) -> Value {
    let settled = completed + failed;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let fraction = (settled as f64 / total as f64).min(0.999);
    json!({"progress": {"fraction": fraction,
        "batches": {"total": total, "completed": completed, "failed": failed, "pending": total - settled, "running": null},
        "items": {"total": total * 10, "processed": completed * 10, "failed": failed * 10}}})
}

/// What stands for a snapshot: opaque, as the real ones are.
fn token(snapshot: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    snapshot.to_string().hash(&mut hasher);
    format!("{}.0.0.0-{:016x}", snapshot["version"], hasher.finish())
}

pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

async fn page() -> impl IntoResponse {
    let policy = [(header::CONTENT_SECURITY_POLICY, "default-src 'self'")];
    let page = "<!doctype html><html lang=en><head><meta charset=utf-8><title>Stage</title><meta name=viewport content='width=device-width'>\
        <link rel=icon href='data:,'><script type=module src=/job-status.js></script></head>\
        <body><main><h1>Stage</h1><p>A page with something on it.</p><job-status src=/jobs/1 noun=leads></job-status></main></body></html>";
    (policy, Html(page))
}

#[derive(Deserialize)]
struct Wait {
    wait: Option<u64>,
}

async fn poll(
    State(stage): State<Stage>,
    uri: Uri,
    headers: HeaderMap,
    Query(Wait { wait }): Query<Wait>,
) -> Response {
    stage.note(&uri);
    let way = {
        let ways = stage.ways.lock().expect("unpoisoned");
        if wait.is_some() { ways.waits } else { ways.polls }
    };
    match way {
        Way::Open => {}
        Way::Held => return std::future::pending().await,
        Way::Refused => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
    let mut job = stage.job.subscribe();
    let etag = |job: &Value| format!("W/\"{}\"", token(job));
    let seen =
        headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    if let Some(seconds) = wait {
        let changed = job.wait_for(|job| etag(job) != seen);
        let _ = tokio::time::timeout(Duration::from_secs(seconds), changed).await;
    }
    let job = stage.job.borrow().clone();
    if etag(&job) == seen {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(header::ETAG, etag(&job))], Json(job)).into_response()
}

async fn events(State(stage): State<Stage>, uri: Uri) -> Response {
    stage.note(&uri);
    let way = stage.ways.lock().expect("unpoisoned").events;
    if way == Way::Refused {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let job = stage.job.subscribe();
    let snapshots = stream::unfold((job, true, stage), move |(mut job, first, stage)| async move {
        if way == Way::Held {
            return std::future::pending().await;
        }
        loop {
            if !first
                && !matches!(tokio::time::timeout(Duration::from_millis(50), job.changed()).await, Ok(Ok(())))
            {
                // What was open may be cut.
                if stage.ways.lock().expect("unpoisoned").events != Way::Open {
                    return None;
                }
                continue;
            }
            let snapshot = job.borrow_and_update().clone();
            let event = Event::default().event("snapshot").id(token(&snapshot)).json_data(snapshot);
            return Some((event, (job, false, stage)));
        }
    });
    Sse::new(snapshots.boxed()).into_response()
}

async fn cancel_job(State(stage): State<Stage>, uri: Uri) -> Response {
    stage.note(&uri);
    let (status, body) = stage.ways.lock().expect("unpoisoned").cancel.clone();
    if status.is_success() {
        stage.show(body.clone());
    }
    (status, Json(body)).into_response()
}
