//! `GET /leads`: the caller's leads, page by page. They go when their job is erased.

use std::error::Error as StdError;

use axum::{
    Json,
    extract::{Request, State as Shared},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use leads::LeadQuery;
use status_core::JobId;
use status_http::{Problem, QueryString};

use crate::{State, owner::Visitor, pipeline};

pub(crate) async fn leads(
    Shared(state): Shared<State>,
    visitor: Visitor,
    QueryString(query): QueryString<LeadQuery>,
) -> Result<Response, Problem> {
    if query.page == 0 || query.per_page == 0 || query.per_page > LeadQuery::MAX_PER_PAGE {
        let most = LeadQuery::MAX_PER_PAGE;
        return Err(Problem::invalid(format!("page is at least 1, per_page between 1 and {most}.")));
    }
    let page = state.leads.page(&visitor.into(), &query).await.map_err(|error| {
        tracing::error!(error = &error as &dyn StdError, "leads could not be read");
        Problem::unavailable()
    })?;
    Ok(([(header::CACHE_CONTROL, "private, no-store")], Json(page)).into_response())
}

/// After `DELETE /jobs/{id}`, removes the leads of the job. Also if it was gone before: this process may have
/// ended between the two.
pub(crate) async fn forget_erased(
    Shared(state): Shared<State>,
    visitor: Visitor,
    request: Request,
    next: Next,
) -> Response {
    let job = request.uri().path().strip_prefix("/jobs/").and_then(|id| id.parse::<JobId>().ok());
    let erased = job.filter(|_| request.method() == Method::DELETE);
    let response = next.run(request).await;
    let is_gone = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_FOUND);
    if let Some(job) = erased.filter(|_| is_gone) {
        let (leads, shutdown, owner) = (state.leads, state.shutdown, visitor.into());
        state.tasks.spawn(async move {
            shutdown.run_until_cancelled(pipeline::forget(leads.as_ref(), &owner, job)).await;
        });
    }
    response
}
