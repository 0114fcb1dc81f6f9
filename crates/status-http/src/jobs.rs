//! The requests about jobs.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, FromRequestParts, OriginalUri, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use status_core::{
    Cancelled, FileInfo, Health, HistoryEntry, ItemError, JobId, NewJob, OwnedJobs, PageRequest, Snapshot,
    Status,
};

use crate::{Api, Caller, Problem, QueryString, UploadTicket, events::next_change};

/// No request of this interface is longer than this.
const MAX_BODY: usize = 16 << 10;
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
        let bytes = axum::body::to_bytes(body, MAX_BODY).await.map_err(too_long)?;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        let Json(value) =
            Json::from_request(Request::from_parts(as_json(parts), Body::from(bytes)), state).await?;
        Ok(Self(value))
    }
}

/// An empty request carries no content type, and is an empty object.
fn as_json(mut parts: Parts) -> Parts {
    parts.headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    parts
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct CreateJob {
    /// 1 to 255 bytes.
    file_name: String,
    /// In bytes.
    size: u64,
    #[serde(default)]
    content_type: String,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedJob {
    job: Snapshot,
    upload: UploadTicket,
}

#[utoipa::path(post, path = "/jobs", request_body = CreateJob, tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry return the same job")),
    responses((status = 201, body = CreatedJob, headers(("Location" = String))),
        (status = 413, body = Problem, content_type = "application/problem+json"),
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
    let mut new = NewJob::new(file);
    if let Some(key) = headers.get("idempotency-key") {
        new = new.with_key(
            key.to_str().map_err(|_| Problem::invalid("Idempotency-Key must be printable ASCII."))?,
        );
    }
    let job = api.jobs(caller).create(new).await?;
    let upload = api.uploads.ticket(job.id, &job.file).await.map_err(|error| {
        tracing::error!(job = %job.id, %error, "the storage gives no upload ticket");
        Problem::unavailable()
    })?;
    let location = format!("{}/{}", uri.path().trim_end_matches('/'), job.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(CreatedJob { job, upload }))
        .into_response())
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
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/jobs", params(ListQuery), tag = "jobs",
    responses((status = 200, body = JobList, description = "Newest first"),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: QueryString<ListQuery>,
) -> Result<Json<JobList>, Problem> {
    let page = page(query.0.limit, query.0.cursor, 20, 100)?;
    let jobs = api.jobs(caller).list(query.0.status, &page).await?;
    Ok(Json(JobList { jobs: jobs.rows, next_cursor: jobs.next }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowQuery {
    /// Seconds, at most 20: with `If-None-Match`, answers when the job changes or the time is up.
    wait: Option<f64>,
}

#[utoipa::path(get, path = "/jobs/{id}", params(("id" = String, Path), ShowQuery,
        ("If-None-Match" = Option<String>, Header)), tag = "jobs",
    responses((status = 200, body = Snapshot, headers(("ETag" = String))), (status = 304, description = "Not changed"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    query: QueryString<ShowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let jobs = api.jobs(caller);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let wait = query.0.wait.unwrap_or(0.0);
    if !(0.0..=3_600.0).contains(&wait) {
        return Err(Problem::invalid("wait is a number of seconds, at most 20."));
    }
    let is_known = |snapshot: &Snapshot| known.is_some_and(|known| matches(known, &etag(snapshot)));
    let snapshot = if known.is_some() && wait > 0.0 {
        next_change(&api, &jobs, id, Duration::from_secs_f64(wait.min(MAX_WAIT)), |s| !is_known(s)).await?
    } else {
        jobs.snapshot(id).await?
    };
    let headers = [(header::ETAG, etag(&snapshot)), (header::CACHE_CONTROL, "private, no-cache".to_owned())];
    if is_known(&snapshot) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, Json(snapshot)).into_response())
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
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn uploaded(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<Snapshot>, Problem> {
    Ok(Json(api.jobs(caller).finish_upload(id).await?))
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

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ErrorsQuery {
    /// 1 to 1,000; 100.
    limit: Option<usize>,
    cursor: Option<String>,
    /// `csv` does what `Accept: text/csv` does, for links.
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Csv,
    Json,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Errors {
    errors: Vec<ItemError>,
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/jobs/{id}/errors", params(("id" = String, Path), ErrorsQuery), tag = "jobs",
    responses((status = 200, body = Errors, description = "With `Accept: text/csv`, all of them as a download"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn errors(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    query: QueryString<ErrorsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let jobs = api.jobs(caller);
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let accepted = accepts.split(',').any(|kind| kind.trim().starts_with("text/csv"));
    if query.0.format.map_or(accepted, |format| format == Format::Csv) {
        return errors_as_csv(jobs, id).await;
    }
    let page = page(query.0.limit, query.0.cursor, 100, 1_000)?;
    let errors = jobs.errors(id, &page).await?;
    Ok(Json(Errors { errors: errors.rows, next_cursor: errors.next }).into_response())
}

/// All errors, page by page as the client reads them.
async fn errors_as_csv(jobs: OwnedJobs, id: JobId) -> Result<Response, Problem> {
    let mut page = jobs.errors(id, &PageRequest::first(1_000)).await?;
    let body = async_stream::try_stream! {
        let mut header = true;
        loop {
            yield csv_rows(std::mem::take(&mut header), &page.rows)?;
            let Some(cursor) = page.next.take() else { break };
            page = jobs.errors(id, &PageRequest { limit: 1_000, cursor: Some(cursor) }).await.map_err(std::io::Error::other)?;
        }
    };
    let body: std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<Bytes>> + Send>> = Box::pin(body);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"errors-{id}.csv\"")),
        (header::CACHE_CONTROL, "private, no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn csv_rows(header: bool, rows: &[ItemError]) -> std::io::Result<Bytes> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    if header {
        csv.write_record(["batch", "item", "code", "message"])?;
    }
    for row in rows {
        let item = row.item.map(|item| item.to_string()).unwrap_or_default();
        csv.write_record([&row.batch.to_string(), &item, &as_text(&row.code), &as_text(&row.message)])?;
    }
    csv.into_inner().map(Bytes::from).map_err(|error| std::io::Error::other(error.to_string()))
}

/// What a spreadsheet would take for a formula is made text (OWASP: CSV injection).
fn as_text(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.to_owned() }
}

fn page(
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

/// The version, which only grows; a stall is the one change that time alone makes.
fn etag(snapshot: &Snapshot) -> String {
    match snapshot.health {
        Health::Active => format!("\"{}\"", snapshot.version),
        Health::Stalled => format!("\"{}-stalled\"", snapshot.version),
    }
}

/// RFC 9110 §13.1.2: weak comparison against a list, or `*`.
fn matches(if_none_match: &str, etag: &str) -> bool {
    if_none_match
        .split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}
