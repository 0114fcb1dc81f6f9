//! Jobs over HTTP: an [axum] router over any [`StatusStore`](status_core::StatusStore), mounted at any prefix.
//!
//! Every job belongs to the caller that created it; who is calling is told by an extractor of the embedder's. For
//! anyone else a job does not exist (404). Errors are `application/problem+json` (RFC 9457) and tell nothing internal.
//!
//! What callers may do at a time is bounded ([`Limits`]), pages of other sites change nothing ([`Origins`]), and an
//! [`Observer`] is told who did what.
//!
//! # Behind a proxy
//! Let the proxy strip what callers must not say of themselves: whatever header the extractor believes (here `x-user`), and
//! [`Limits::peer_header`]. It must pass `Host`, `Origin` and `Sec-Fetch-Site` on as they came, and not buffer
//! `text/event-stream`.
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
mod limits;
mod observer;
mod openapi;
mod origin;
mod problem;
mod query;
mod seen;
mod table;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde::Serialize;
use status_core::{FileInfo, JobId, OwnedJobs, OwnerId, Tracker};
use tokio_util::sync::CancellationToken;

use limits::Usage;

pub use limits::{Limits, Stranger};
pub use observer::{Answered, Observer};
pub use origin::{InvalidOrigin, Origins, refuse_cross_site};
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
    limits: Limits,
    usage: Usage,
    origins: Origins,
    observer: Option<Arc<dyn Observer>>,
    shutdown: CancellationToken,
}

impl Api {
    /// Jobs of `tracker`, files to `uploads`, at most 100 MiB each; the default [`Limits`], and no other [`Origins`].
    pub fn new(tracker: Tracker, uploads: Arc<dyn Uploads>) -> Self {
        let limits = Limits::default();
        Self {
            tracker,
            uploads,
            max_upload_bytes: 100 << 20,
            usage: Usage::new(&limits),
            limits,
            origins: Origins::default(),
            observer: None,
            shutdown: CancellationToken::new(),
        }
    }

    /// The same with other limits for what callers may do at a time.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.usage = Usage::new(&limits);
        self.limits = limits;
        self
    }

    /// The same for pages of these origins, too.
    #[must_use]
    pub fn with_origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// The same, telling `observer` of every request.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
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

    /// Counts a caller without an identity against [`Limits::strangers_per_minute`], and tells whether they may have one.
    ///
    /// For embedders that hand out identities themselves, such as cookies: who is told no gets none, and is a
    /// [`Stranger`]. An identity that is free and unbounded would make every other limit void.
    pub fn admits_stranger(&self, request: &Parts) -> bool {
        self.usage.stranger(limits::peer(request, self.limits.peer_header.as_ref())).is_ok()
    }

    fn jobs(&self, caller: Caller) -> OwnedJobs {
        self.tracker.owned_by(caller.owner)
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
    let cors = api.origins.cors();
    let router = Router::new()
        .merge(owned)
        .route("/jobs/{id}/{*rest}", any(async || Problem::not_found()))
        .route("/openapi.json", get(openapi::document))
        .route("/job-status.js", get(component))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn_with_state(api.origins.clone(), refuse_cross_site))
        .layer(middleware::from_fn_with_state(api.clone(), observer::observe))
        .with_state(api);
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// Whoever is calling, as the embedder's extractor told.
#[derive(Clone, Debug)]
struct Caller {
    owner: OwnerId,
    /// Where strangers are counted, for one.
    stranger_from: Option<Option<IpAddr>>,
}

impl Caller {
    /// Strangers are new owners each time: their number is bounded by where they come from.
    fn may_create(&self, api: &Api) -> Result<(), Problem> {
        self.stranger_from.map_or(Ok(()), |peer| api.usage.stranger(peer))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
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
    let is_stranger = parts.extensions.get::<Stranger>().is_some();
    let stranger_from = is_stranger.then(|| limits::peer(&parts, api.limits.peer_header.as_ref()));
    let caller = Caller { owner, stranger_from };
    parts.extensions.insert(caller.clone());
    let mut response = match api.usage.request(&caller.owner) {
        Ok(_places) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(caller);
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

/// Whether it can serve. A process that lives and cannot is not helped by being started anew.
async fn ready(State(api): State<Api>) -> Response {
    // A job that cannot be: the store answers, or it does not.
    let nobody = JobId::from_parts(status_core::Timestamp::UNIX_EPOCH, 0);
    match api.tracker.job(nobody).await {
        Ok(_) | Err(status_core::Error::NotFound(_)) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}
