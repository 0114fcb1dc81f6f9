//! A frontend inside the test, and a visitor that uses it as a browser does.

mod deepseek;
mod wire;

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use clap::Parser;
use eventsource_stream::Eventsource;
use frontend::{Config, Frontend};
use futures::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::oneshot;

pub use deepseek::{DeepSeek, Upset};
pub use wire::{Fault, Moment, Wire};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running frontend; ends with the test.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// Starts a frontend with these flags on a port of its own.
    pub async fn start(flags: &[&str]) -> Self {
        let flags = ["frontend", "--listen", "127.0.0.1:0"].iter().chain(flags);
        let config = Config::try_parse_from(flags).expect("good flags");
        let frontend = Frontend::bind(&config).await.expect("it starts");
        let address = frontend.address();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(frontend.serve(async {
            let _ = stopped.await;
        }));
        Self { address, _stop: stop }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Somebody with a browser of their own.
    pub fn visitor(&self) -> Visitor {
        Visitor::at(&self.url())
    }
}

/// Somebody with a browser.
#[derive(Clone, Debug)]
pub struct Visitor {
    base: String,
    client: reqwest::Client,
}

impl Visitor {
    /// Somebody new at a frontend.
    pub fn at(base: &str) -> Self {
        let client = reqwest::Client::builder().cookie_store(true).build().expect("a client");
        Self { base: base.to_owned(), client }
    }

    /// A request to a path of the frontend.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// GETs a path that answers with JSON.
    pub async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.expect("answered");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.expect("JSON")
    }

    /// POSTs to a path; the status and the JSON.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = self.request(Method::POST, path).json(body).send().await.expect("answered");
        (response.status(), response.json().await.expect("JSON"))
    }

    /// Creates a job for a file; its path and the address to upload to.
    pub async fn create(&self, name: &str, size: usize) -> (String, String) {
        let (status, created) =
            self.post("/jobs", &json!({"file_name": name, "size": size, "content_type": "text/csv"})).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        (format!("/jobs/{}", text(&created["job"]["id"])), text(&created["upload"]["url"]))
    }

    /// Uploads a file as a browser does; the path of its job.
    pub async fn upload(&self, name: &str, bytes: Vec<u8>) -> String {
        let (job, url) = self.create(name, bytes.len()).await;
        let sent = self.request(Method::PUT, &url).body(bytes).send().await.expect("answered");
        assert_eq!(sent.status(), StatusCode::OK);
        self.post(&format!("{job}/uploaded"), &json!({})).await;
        job
    }

    /// Polls until the snapshot is as wanted.
    ///
    /// # Panics
    /// If it is not within a minute.
    pub async fn until(&self, job: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let snapshot = self.get(job).await;
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(begun.elapsed() < PATIENCE, "still {snapshot}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Polls until the job is over.
    pub async fn until_over(&self, job: &str) -> Value {
        self.until(job, |s| ["completed", "failed", "cancelled"].iter().any(|over| s["status"] == *over))
            .await
    }

    /// Every snapshot of the job's event stream, to its end.
    pub async fn events(&self, job: &str) -> Vec<Value> {
        let response = self.open_events(job).await;
        let mut events = response.bytes_stream().eventsource();
        let (mut snapshots, mut ids) = (Vec::new(), HashSet::new());
        while let Some(event) = events.next().await {
            let event = event.expect("a well-formed stream");
            assert_eq!(event.event, "snapshot");
            snapshots.push(serde_json::from_str(&event.data).expect("JSON"));
            assert!(ids.insert(event.id), "an id of its own for each: {}", event.data);
        }
        snapshots
    }

    /// The response of the job's event stream.
    pub async fn open_events(&self, job: &str) -> Response {
        let response = self.request(Method::GET, &format!("{job}/events")).send().await.expect("answered");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        response
    }
}

/// The hundred leads of `tests/data`.
pub fn leads_100() -> Vec<u8> {
    include_bytes!("../data/leads-100.csv").to_vec()
}

/// A CSV of so many leads.
pub fn many_leads(count: usize) -> Vec<u8> {
    let mut csv = b"First Name,Last Name,Email,Company\n".to_vec();
    for n in 0..count {
        csv.extend_from_slice(format!("Ann{n},Bee,ann{n}@example.com,\"Acme, {n}\"\n").as_bytes());
    }
    csv
}

/// A CSV of so many rows; the last of every `every` has nobody in it, only a note.
pub fn leads_with_nobody(count: usize, every: usize) -> Vec<u8> {
    let mut csv = b"First Name,Last Name,Email,Company,Notes\n".to_vec();
    for n in 1..=count {
        let row = if n % every == 0 {
            format!(",,,,note {n}\n")
        } else {
            format!("Ann{n},Bee,ann{n}@example.com,\"Acme, {n}\",\n")
        };
        csv.extend_from_slice(row.as_bytes());
    }
    csv
}
