//! Jobs over HTTP: an [axum] router over any [`StatusStore`](status_core::StatusStore), mounted at any prefix.
//!
//! Every job belongs to the caller that created it; who is calling is told by an extractor of the embedder's. For
//! anyone else a job does not exist (404). Errors are `application/problem+json` (RFC 9457) and tell nothing internal.
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//! use axum::{Router, extract::FromRequestParts, http::request::Parts};
//! use status_core::{FileInfo, JobId, OwnerId, Tracker};
//! use status_http::{Api, BoxError, UploadTicket, Uploads};
//!
//! // Who is calling: here whoever the proxy in front says.
//! struct User(OwnerId);
//!
//! impl<S: Sync> FromRequestParts<S> for User {
//!     type Rejection = axum::http::StatusCode;
//!     async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
//!         let name = parts.headers.get("x-user").and_then(|name| name.to_str().ok());
//!         name.and_then(|n| OwnerId::new(n).ok()).map(User).ok_or(axum::http::StatusCode::UNAUTHORIZED)
//!     }
//! }
//!
//! impl From<User> for OwnerId {
//!     fn from(user: User) -> Self {
//!         user.0
//!     }
//! }
//!
//! // Where the browser puts the file.
//! #[derive(Debug)]
//! struct Storage;
//!
//! #[async_trait::async_trait]
//! impl Uploads for Storage {
//!     async fn ticket(&self, job: JobId, _: &FileInfo) -> Result<UploadTicket, BoxError> {
//!         Ok(UploadTicket::put(format!("/uploads/{job}")))
//!     }
//! }
//!
//! let tracker = Tracker::new(Arc::new(status_memory::MemoryStore::default()));
//! let app: Router = Router::new().nest("/api", status_http::router::<User>(Api::new(tracker, Arc::new(Storage))));
//! ```

mod errors;
mod events;
mod jobs;
mod openapi;
mod problem;
mod query;
mod seen;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use status_core::{FileInfo, JobId, OwnedJobs, OwnerId, Tracker};
use tokio_util::sync::CancellationToken;

pub use problem::Problem;
pub use query::QueryString;
pub use status_core::BoxError;

/// The web component: a module script without dependencies.
pub const JOB_STATUS_JS: &str = include_str!("../assets/job-status.js");

/// Where the bytes of a file go.
#[async_trait]
pub trait Uploads: std::fmt::Debug + Send + Sync + 'static {
    /// How the owner of `job` may upload its file, once.
    ///
    /// # Errors
    /// Whatever keeps the storage from taking it; the caller sees 503.
    async fn ticket(&self, job: JobId, file: &FileInfo) -> Result<UploadTicket, BoxError>;

    /// Whether the file of `job` is there. Until it is, nobody can say that it was uploaded: the caller sees
    /// 409. A storage that cannot tell says yes, and so does this one, unless it is told otherwise.
    ///
    /// # Errors
    /// Whatever keeps the storage from looking; the caller sees 503.
    async fn has_arrived(&self, job: JobId, file: &FileInfo) -> Result<bool, BoxError> {
        let _ = (job, file);
        Ok(true)
    }
}

/// A request the browser can make to upload a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct UploadTicket {
    /// The method.
    pub method: String,
    /// Absolute, or relative to the page.
    pub url: String,
    /// Headers that must be sent along.
    pub headers: BTreeMap<String, String>,
}

impl UploadTicket {
    /// A `PUT` to `url` without further headers.
    pub fn put(url: impl Into<String>) -> Self {
        Self { method: "PUT".into(), url: url.into(), headers: BTreeMap::new() }
    }
}

/// What the router serves, and its limits.
#[derive(Clone, Debug)]
pub struct Api {
    tracker: Tracker,
    uploads: Arc<dyn Uploads>,
    max_upload_bytes: u64,
    shutdown: CancellationToken,
}

impl Api {
    /// Jobs of `tracker`, files to `uploads`, at most 100 MiB each.
    pub fn new(tracker: Tracker, uploads: Arc<dyn Uploads>) -> Self {
        Self { tracker, uploads, max_upload_bytes: 100 << 20, shutdown: CancellationToken::new() }
    }

    /// The same with another limit for the size of a file.
    #[must_use]
    pub fn with_max_upload_bytes(mut self, bytes: u64) -> Self {
        self.max_upload_bytes = bytes;
        self
    }

    /// The same, ending its streams and its waits when `shutdown` is cancelled, so that a server can drain.
    #[must_use]
    pub fn with_shutdown(mut self, shutdown: CancellationToken) -> Self {
        self.shutdown = shutdown;
        self
    }

    fn jobs(&self, Caller(owner): Caller) -> OwnedJobs {
        self.tracker.owned_by(owner)
    }
}

/// The routes of the interface, to be mounted at any prefix. `C` tells who is calling.
pub fn router<C>(api: Api) -> Router
where
    C: FromRequestParts<Api> + Into<OwnerId> + Send + 'static,
{
    let owned = Router::new()
        .route("/jobs", post(jobs::create).get(jobs::list))
        .route("/jobs/{id}", get(jobs::show).delete(jobs::erase))
        .route("/jobs/{id}/upload-progress", post(jobs::upload_progress))
        .route("/jobs/{id}/uploaded", post(jobs::uploaded))
        .route("/jobs/{id}/events", get(events::events))
        .route("/jobs/{id}/cancel", post(jobs::cancel))
        .route("/jobs/{id}/history", get(jobs::history))
        .route("/jobs/{id}/errors", get(errors::errors))
        .route_layer(middleware::from_fn_with_state(api.clone(), identify::<C>));
    Router::new()
        .merge(owned)
        .route("/openapi.json", get(openapi::document))
        .route("/job-status.js", get(component))
        .route("/healthz", get(health))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(api)
}

/// Whoever is calling, as the embedder's extractor told.
#[derive(Clone, Debug)]
struct Caller(OwnerId);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

async fn identify<C>(State(api): State<Api>, request: Request, next: Next) -> Response
where
    C: FromRequestParts<Api> + Into<OwnerId> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let owner: OwnerId = match C::from_request_parts(&mut parts, &api).await {
        Ok(caller) => caller.into(),
        Err(rejection) => return rejection.into_response(),
    };
    parts.extensions.insert(Caller(owner));
    let mut response = next.run(Request::from_parts(parts, body)).await;
    // What is said of somebody's jobs is for them alone.
    let private = HeaderValue::from_static("private, no-store");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(private);
    response
}

async fn component() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")],
        JOB_STATUS_JS,
    )
}

async fn health(State(api): State<Api>) -> Response {
    // A job that cannot be: the store answers, or it does not.
    let nobody = JobId::from_parts(status_core::Timestamp::UNIX_EPOCH, 0);
    match api.tracker.job(nobody).await {
        Ok(_) | Err(status_core::Error::NotFound(_)) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}
