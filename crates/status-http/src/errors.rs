//! What failed in a job: page by page as JSON, or all of it as CSV.

use std::{io, pin::Pin};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use status_core::{ItemError, JobId, OwnedJobs, PageRequest};

use crate::{
    Api, Caller, Problem, QueryString,
    jobs::{Id, damaged, page},
    table::Table,
};

/// How many errors are read at once for a download.
const ROWS: usize = 1_000;

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
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
    /// How many more errors belong here and cannot be shown, since what is stored of them cannot be
    /// read. Absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<usize>,
}

#[utoipa::path(get, path = "/jobs/{id}/errors", params(("id" = String, Path), ErrorsQuery), tag = "jobs",
    responses(
        (status = 200, body = Errors, description = "With `Accept: text/csv`, all of them as a download: \
            the columns of the items as they came in, then `line`, `batch`, `item`, `code`, `message`"),
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
        return download(jobs, id).await;
    }
    let page = page(query.0.limit, query.0.cursor, 100, 1_000)?;
    let errors = jobs.errors(id, &page).await?;
    let damaged = damaged(&errors.damaged);
    Ok(Json(Errors { errors: errors.rows, next_cursor: errors.next, damaged }).into_response())
}

/// All errors, page by page as the client reads them.
async fn download(jobs: OwnedJobs, id: JobId) -> Result<Response, Problem> {
    let mut page = jobs.errors(id, &PageRequest::first(ROWS)).await?;
    let table = Table::for_errors(&page.rows, page.next.is_some());
    let body = async_stream::try_stream! {
        yield table.header()?;
        loop {
            damaged(&page.damaged);
            yield table.rows(&page.rows)?;
            let Some(cursor) = page.next.take() else { break };
            let request = PageRequest { limit: ROWS, cursor: Some(cursor) };
            page = jobs.errors(id, &request).await.map_err(io::Error::other)?;
        }
    };
    let body: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>> = Box::pin(body);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"errors-{id}.csv\"")),
        (header::CACHE_CONTROL, "private, no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}
