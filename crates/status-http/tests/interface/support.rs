//! Processes of one service over one memory, on a clock that moves only when told to.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Debug,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::FromRequestParts,
    http::{HeaderMap, Method, Request, StatusCode, header, request::Parts},
};
use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use serde_json::Value;
use status_core::{
    Actor, BatchIndex, BatchReport, BatchState, Begun, BoxError, Consistency, Created, Damaged, Due,
    FileInfo, ItemError, Job, JobId, JobState, ManualClock, NewJob, OwnedJobs, OwnerId, Page, PageRequest,
    Policy, Status, StatusStore, StoreError, Timestamp, Tolerance, Totals, Tracker, Written,
};
use status_http::{Api, Stranger, UploadTicket, Uploads};
use status_memory::MemoryStore;
use tower::ServiceExt;

/// One memory, and as many processes over it as a test asks for.
pub(crate) struct Service {
    pub(crate) clock: Arc<ManualClock>,
    memory: Arc<MemoryStore>,
}

impl Service {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        Self { memory: Arc::new(MemoryStore::new(100, clock.clone())), clock }
    }

    /// A process that reads what is stored.
    pub(crate) fn process(&self) -> Process {
        self.process_over(self.memory.clone())
    }

    /// A process over another view of the memory.
    pub(crate) fn process_over(&self, store: impl StatusStore) -> Process {
        self.process_with(store, |api| api)
    }

    /// A process with other settings.
    pub(crate) fn process_with(&self, store: impl StatusStore, set: impl FnOnce(Api) -> Api) -> Process {
        let tracker = Tracker::new(Arc::new(store)).with_clock(self.clock.clone()).with_noun("Leads");
        let api = set(Api::new(tracker.clone(), Arc::new(Storage)));
        Process { router: status_http::router::<User>(api), tracker }
    }

    /// The memory itself.
    pub(crate) fn memory(&self) -> Arc<MemoryStore> {
        self.memory.clone()
    }

    /// A store whose eventual reads come from the moment of [`Lagging::remember`].
    pub(crate) fn lagging(&self) -> Arc<Lagging> {
        Arc::new(Lagging(View { memory: self.memory.clone(), seen: Mutex::default() }))
    }

    /// A store that cannot read some of what is stored.
    pub(crate) fn damaged(&self) -> Arc<Damage> {
        Arc::new(Damage(View { memory: self.memory.clone(), seen: Mutex::default() }))
    }
}

/// A process of the service: what it serves, and what its workers use.
pub(crate) struct Process {
    router: Router,
    pub(crate) tracker: Tracker,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn etag(&self) -> String {
        self.headers[header::ETAG].to_str().expect("text").to_owned()
    }

    pub(crate) fn version(&self) -> u64 {
        self.json()["version"].as_u64().expect("a number")
    }
}

impl Process {
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let response = self.open(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, "").await
    }

    /// A poll of somebody who has what `etag` stands for.
    pub(crate) async fn poll(&self, id: JobId, query: &str, etag: &str) -> Answer {
        self.get(&format!("/jobs/{id}{query}"), &[("if-none-match", etag)]).await
    }

    /// The events of a job; with `last`, for somebody who has seen that one.
    pub(crate) async fn events(&self, id: JobId, last: Option<&str>) -> Events {
        let last = last.map(|last| ("last-event-id", last));
        let response = self.open(Method::GET, &format!("/jobs/{id}/events"), last.as_slice(), "").await;
        assert_eq!(response.status(), StatusCode::OK);
        Box::pin(response.into_body().into_data_stream().eventsource().map(|event| event.expect("an event")))
    }

    /// The bytes of a job's events.
    pub(crate) async fn raw_events(&self, id: JobId) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
        let response = self.open(Method::GET, &format!("/jobs/{id}/events"), &[], "").await;
        Box::pin(response.into_body().into_data_stream().map(|bytes| bytes.expect("bytes")))
    }

    /// The headers of an answer whose body is not read.
    pub(crate) async fn head(&self, path: &str) -> HeaderMap {
        self.open(Method::GET, path, &[], "").await.headers().clone()
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> axum::response::Response {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "x-user") {
            request = request.header("x-user", "alice");
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_owned())).expect("a request");
        if request.headers()["x-user"].to_str().expect("text").starts_with("stranger") {
            request.extensions_mut().insert(Stranger);
        }
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    /// What Alice may do to her jobs.
    pub(crate) fn alice(&self) -> OwnedJobs {
        self.tracker.owned_by(OwnerId::new("alice").expect("a name"))
    }

    /// A job of Alice's that waits for its file.
    pub(crate) async fn uploading(&self) -> JobId {
        let file = FileInfo::new("leads.csv", 100, "text/csv").expect("a file");
        let mut policy = Policy::default();
        policy.track_starts = true;
        policy.tolerance = Tolerance::Percent(100);
        policy.stall_after = Duration::from_secs(3_600);
        self.alice().create(NewJob::new(file).with_policy(policy)).await.expect("created").id
    }

    /// A job of Alice's with so many batches of ten items.
    pub(crate) async fn processing(&self, batches: u64) -> JobId {
        let id = self.uploading().await;
        let totals = Totals { batches, items: Some(batches * 10) };
        self.tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("started");
        id
    }

    pub(crate) async fn begin(&self, id: JobId, batches: std::ops::Range<u64>) {
        let batches: Vec<_> = batches.map(batch).collect();
        self.tracker.begin_all(id, &batches).await.expect("begun");
    }

    pub(crate) async fn complete(&self, id: JobId, batches: std::ops::Range<u64>, took: Duration) {
        let reports = batches.map(|index| BatchReport::completed(batch(index), 10, 0).took(took)).collect();
        self.tracker.report(id, reports).await.expect("reported");
    }
}

pub(crate) type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

pub(crate) fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("small")
}

/// Whoever the header says.
struct User(OwnerId);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let name = parts.headers["x-user"].to_str().expect("text");
        Ok(Self(OwnerId::new(name).expect("a name")))
    }
}

impl From<User> for OwnerId {
    fn from(user: User) -> Self {
        user.0
    }
}

#[derive(Debug)]
struct Storage;

#[async_trait]
impl Uploads for Storage {
    async fn ticket(&self, job: JobId, _: &FileInfo) -> Result<UploadTicket, BoxError> {
        Ok(UploadTicket::put(format!("/uploads/{job}")))
    }

    async fn has_arrived(&self, _: JobId, file: &FileInfo) -> Result<bool, BoxError> {
        match file.name.as_str() {
            "lost.csv" => Err("no answer".into()),
            name => Ok(name != "coming.csv"),
        }
    }
}

/// A memory, and what a test has set aside of it.
#[derive(Debug)]
pub(crate) struct View<T> {
    memory: Arc<MemoryStore>,
    seen: Mutex<HashMap<JobId, T>>,
}

impl<T: Clone> View<T> {
    fn set(&self, id: JobId, value: T) {
        self.seen.lock().expect("unpoisoned").insert(id, value);
    }

    fn get(&self, id: JobId) -> Option<T> {
        self.seen.lock().expect("unpoisoned").get(&id).cloned()
    }

    fn all(&self) -> Vec<T> {
        self.seen.lock().expect("unpoisoned").values().cloned().collect()
    }
}

/// A process that lags: its eventual reads of a job answer what the job was when it was remembered.
#[derive(Debug)]
pub(crate) struct Lagging(View<JobState>);

impl Lagging {
    pub(crate) async fn remember(&self, id: JobId) {
        let state = self.0.memory.read(id, Consistency::Strong).await.expect("read").expect("there");
        self.0.set(id, state);
    }

    fn remembered(&self, id: JobId, consistency: Consistency) -> Option<JobState> {
        self.0.get(id).filter(|_| consistency == Consistency::Eventual)
    }

    async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        match self.remembered(id, consistency) {
            Some(state) => Ok(Some(state.job)),
            None => self.0.memory.job(id, consistency).await,
        }
    }

    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError> {
        match self.remembered(id, consistency) {
            Some(state) => Ok(Some(state)),
            None => self.0.memory.read(id, consistency).await,
        }
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        self.0.memory.list(owner, status, page).await
    }
}

/// What cannot be read of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    /// Its record: it is on no page of the list.
    Record,
    /// What is known of its batches.
    Facts,
}

/// A store that cannot read some jobs.
#[derive(Debug)]
pub(crate) struct Damage(View<(JobId, Broken)>);

impl Damage {
    pub(crate) fn harm(&self, id: JobId, what: Broken) {
        self.0.set(id, (id, what));
    }

    fn corrupt(id: JobId) -> StoreError {
        StoreError::Corrupt { subject: format!("job {id}"), why: "secret#internals".into() }
    }

    async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        match self.0.get(id) {
            Some((_, Broken::Record)) => Err(Self::corrupt(id)),
            _ => self.0.memory.job(id, consistency).await,
        }
    }

    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError> {
        match self.0.get(id) {
            Some(_) => Err(Self::corrupt(id)),
            None => self.0.memory.read(id, consistency).await,
        }
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let mut listed = self.0.memory.list(owner, status, page).await?;
        for (id, _) in self.0.all().into_iter().filter(|(_, what)| *what == Broken::Record) {
            listed.rows.retain(|job| job.id != id);
            listed.damaged.push(Damaged { subject: format!("job {id}"), why: "secret#internals".into() });
        }
        Ok(listed)
    }
}

/// Makes a view of a memory a store: reads are the view's own, everything else is the memory's.
macro_rules! store {
    ($view:ident) => {
        #[async_trait]
        impl StatusStore for $view {
            async fn create(&self, job: &Job) -> Result<Created, StoreError> {
                self.0.memory.create(job).await
            }
            async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
                $view::job(self, id, consistency).await
            }
            async fn read(
                &self,
                id: JobId,
                consistency: Consistency,
            ) -> Result<Option<JobState>, StoreError> {
                $view::read(self, id, consistency).await
            }
            async fn decide(&self, next: &Job) -> Result<(), StoreError> {
                self.0.memory.decide(next).await
            }
            async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
                self.0.memory.propagate(job).await
            }
            async fn begin(
                &self,
                id: JobId,
                batches: &[BatchIndex],
                at: Timestamp,
            ) -> Result<Option<Begun>, StoreError> {
                self.0.memory.begin(id, batches, at).await
            }
            async fn report(
                &self,
                id: JobId,
                reports: &[BatchReport],
                at: Timestamp,
            ) -> Result<Written, StoreError> {
                self.0.memory.report(id, reports, at).await
            }
            async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
                self.0.memory.errors(id, page).await
            }
            async fn batches(
                &self,
                id: JobId,
                which: BatchState,
                from: u64,
                limit: usize,
            ) -> Result<Vec<BatchIndex>, StoreError> {
                self.0.memory.batches(id, which, from, limit).await
            }
            async fn list(
                &self,
                owner: &OwnerId,
                status: Option<Status>,
                page: &PageRequest,
            ) -> Result<Page<Job>, StoreError> {
                $view::list(self, owner, status, page).await
            }
            async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
                self.0.memory.due(now, page).await
            }
            async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
                self.0.memory.postpone(due, until).await
            }
            async fn erase(&self, id: JobId) -> Result<(), StoreError> {
                self.0.memory.erase(id).await
            }
        }
    };
}

store!(Lagging);
store!(Damage);
