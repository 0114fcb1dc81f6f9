//! The requests about jobs.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, FromRequestParts, OriginalUri, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use status_core::{Cancelled, Damaged, FileInfo, HistoryEntry, JobId, NewJob, PageRequest, Snapshot, Status};

use crate::{
    Api, Caller, Problem, QueryString, UploadTicket,
    events::next_change,
    seen::{self, Known},
};

/// No request of this interface is longer than this.
const MAX_BODY: usize = 16 << 10;
/// None takes longer to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest long-poll, in seconds.
const MAX_WAIT: f64 = 20.0;

/// The id in the path; what is no id names no job.
pub(crate) struct Id(pub(crate) JobId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| Problem::job_not_found())?;
        id.parse().map(Id).map_err(|_| Problem::job_not_found())
    }
}

/// A JSON body of bounded size, whatever the content type says when it is empty.
pub(crate) struct JsonBody<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let too_long = |_| Problem::invalid(format!("The request has more than {MAX_BODY} bytes."));
        let bytes = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY)).await;
        let bytes = bytes.map_err(|_| Problem::too_slow())?.map_err(too_long)?;
        let request =
            if bytes.is_empty() { empty(parts) } else { Request::from_parts(parts, Body::from(bytes)) };
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// An empty request carries no content type, and is an empty object.
fn empty(mut parts: Parts) -> Request {
    parts.headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Request::from_parts(parts, Body::from("{}"))
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct CreateJob {
    /// 1 to 255 bytes.
    file_name: String,
    /// In bytes.
    size: u64,
    #[serde(default)]
    content_type: String,
    /// What sort of job it is, for programs: 1 to 64 bytes without control characters.
    kind: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedJob {
    job: Snapshot,
    upload: UploadTicket,
}

#[utoipa::path(post, path = "/jobs", request_body = CreateJob, tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry return the same job")),
    responses((status = 201, body = CreatedJob, headers(("Location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json", headers(("Retry-After" = u64)),
            description = "`too-many`: past the caller's limits"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    JsonBody(body): JsonBody<CreateJob>,
) -> Result<Response, Problem> {
    if body.size > api.max_upload_bytes {
        return Err(Problem::too_large(api.max_upload_bytes));
    }
    let file =
        FileInfo::new(body.file_name, body.size, body.content_type).map_err(status_core::Error::from)?;
    let mut new = NewJob::new(file.clone());
    if let Some(kind) = body.kind {
        new = new.with_kind(kind);
    }
    if let Some(key) = headers.get("idempotency-key") {
        new = new.with_key(
            key.to_str().map_err(|_| Problem::invalid("Idempotency-Key must be printable ASCII."))?,
        );
    }
    caller.may_create(&api)?;
    let jobs = api.jobs(caller);
    // Who repeats a request by its key may be at the limit because of what the first one made.
    let most = api.limits.open_jobs + usize::from(headers.contains_key("idempotency-key"));
    if jobs.count_open(most).await? >= most {
        let detail = "Too many of your jobs are not over yet. Wait for some of them, or cancel them.";
        return Err(Problem::too_many(detail, Duration::from_secs(30)));
    }
    let job = jobs.create(new).await?;
    let upload = api.uploads.ticket(job.id, &file).await.map_err(|error| storage_failed(job.id, &*error))?;
    let location = format!("{}/{}", uri.path().trim_end_matches('/'), job.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(CreatedJob { job, upload }))
        .into_response())
}

fn storage_failed(job: JobId, error: &dyn std::error::Error) -> Problem {
    tracing::error!(%job, error = %error, "the storage of uploads does not answer");
    Problem::unavailable()
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    status: Option<Status>,
    /// 1 to 100; 20.
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct JobList {
    jobs: Vec<Snapshot>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
    /// How many more jobs belong here and cannot be shown, since what is stored of them cannot be read.
    /// Absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<usize>,
}

#[utoipa::path(get, path = "/jobs", params(ListQuery), tag = "jobs",
    responses((status = 200, body = JobList, description = "Newest first. With `status`, a page may hold \
            fewer jobs than its limit, even none, and still name a next one."),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: QueryString<ListQuery>,
) -> Result<Json<JobList>, Problem> {
    let page = page(query.0.limit, query.0.cursor, 20, 100)?;
    let jobs = api.jobs(caller).list(query.0.status, &page).await?;
    let damaged = damaged(&jobs.damaged);
    Ok(Json(JobList { jobs: jobs.rows, next_cursor: jobs.next, damaged }))
}

/// How many rows of a page cannot be shown. What is wrong with them is for operators only.
pub(crate) fn damaged(rows: &[Damaged]) -> Option<usize> {
    for Damaged { subject, why } in rows {
        tracing::error!(subject, why, "what is listed cannot be read");
    }
    Some(rows.len()).filter(|damaged| *damaged > 0)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowQuery {
    /// Seconds, at most 20: with `If-None-Match`, answers when people can see a change or the time
    /// is up.
    wait: Option<f64>,
}

#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path), ShowQuery,
        ("If-None-Match" = Option<String>, Header,
            description = "ETags the client has: it is not answered with anything older. What is none of \
                ours is ignored.")),
    responses(
        (status = 200, body = Snapshot, headers(("ETag" = String,
            description = "Opaque; changes with anything in the snapshot that people see"))),
        (status = 304, description = "Nothing that people see has changed"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    query: QueryString<ShowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = Known::of(&headers);
    let wait = query.0.wait.unwrap_or(0.0);
    if !(0.0..=3_600.0).contains(&wait) {
        return Err(Problem::invalid("wait is a number of seconds, at most 20."));
    }
    let waits = wait > 0.0 && !known.is_empty();
    let _place = waits.then(|| api.usage.stream(&caller.owner)).transpose()?;
    let jobs = api.jobs(caller);
    let snapshot = if waits {
        next_change(&api, &jobs, id, Duration::from_secs_f64(wait.min(MAX_WAIT)), &known).await?
    } else {
        known.snapshot(&jobs, id).await?
    };
    let etag = seen::etag(&snapshot);
    let headers = [(header::ETAG, etag), (header::CACHE_CONTROL, "private, no-cache".to_owned())];
    if known.holds(&snapshot) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, Json(snapshot)).into_response())
}

#[utoipa::path(delete, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path)), responses(
    (status = 204, description = "Erased, with its errors"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "`job-running`: only a job that is over can be erased")))]
pub(crate) async fn erase(State(api): State<Api>, caller: Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    api.jobs(caller).erase(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct UploadedBytes {
    bytes: u64,
}

#[utoipa::path(post, path = "/jobs/{id}/upload-progress", params(("id" = String, Path)), request_body = UploadedBytes, tag = "jobs",
    responses((status = 200, body = Snapshot), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn upload_progress(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    JsonBody(body): JsonBody<UploadedBytes>,
) -> Result<Json<Snapshot>, Problem> {
    Ok(Json(api.jobs(caller).upload_progress(id, body.bytes).await?))
}

#[utoipa::path(post, path = "/jobs/{id}/uploaded", params(("id" = String, Path)), tag = "jobs",
    responses((status = 200, body = Snapshot), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`file-missing`; `job-terminal`")))]
pub(crate) async fn uploaded(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<Snapshot>, Problem> {
    let jobs = api.jobs(caller);
    let job = jobs.snapshot(id).await?;
    if let (Status::Uploading, Some(file)) = (job.status, &job.file) {
        let arrived = api.uploads.has_arrived(id, file).await.map_err(|error| storage_failed(id, &*error))?;
        if !arrived {
            let detail = "The file of this job is not there yet. Say so once all of it is uploaded.";
            return Err(Problem::new(StatusCode::CONFLICT, "file-missing", "The file is not there", detail));
        }
    }
    Ok(Json(jobs.finish_upload(id).await?))
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct CancelJob {
    reason: Option<String>,
}

#[utoipa::path(post, path = "/jobs/{id}/cancel", params(("id" = String, Path)), request_body = Option<CancelJob>, tag = "jobs",
    responses((status = 200, body = Snapshot, description = "Cancelled"), (status = 202, body = Snapshot, description = "Requested"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`job-terminal`")))]
pub(crate) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    JsonBody(body): JsonBody<CancelJob>,
) -> Result<Response, Problem> {
    let reason = body.reason.filter(|reason| !reason.trim().is_empty());
    Ok(match api.jobs(caller).cancel(id, reason).await? {
        Cancelled::Now(snapshot) => (StatusCode::OK, Json(snapshot)).into_response(),
        Cancelled::Requested(snapshot) => (StatusCode::ACCEPTED, Json(snapshot)).into_response(),
    })
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct History {
    history: Vec<HistoryEntry>,
}

#[utoipa::path(get, path = "/jobs/{id}/history", params(("id" = String, Path)), tag = "jobs",
    responses((status = 200, body = History), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn history(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<History>, Problem> {
    Ok(Json(History { history: api.jobs(caller).history(id).await? }))
}

pub(crate) fn page(
    limit: Option<usize>,
    cursor: Option<String>,
    default: usize,
    max: usize,
) -> Result<PageRequest, Problem> {
    let limit = limit.unwrap_or(default);
    if limit == 0 || limit > max {
        return Err(Problem::invalid(format!("limit is between 1 and {max}.")));
    }
    Ok(PageRequest { limit, cursor: cursor.filter(|cursor| !cursor.is_empty()) })
}
