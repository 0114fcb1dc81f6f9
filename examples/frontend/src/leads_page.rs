//! `GET /leads`: the caller's leads, page by page. They stay when the status of
//! their job is erased or expires.

use std::error::Error as StdError;

use axum::{
    Json,
    extract::State as Shared,
    http::header,
    response::{IntoResponse, Response},
};
use leads::LeadQuery;
use status_http::{Problem, QueryString};

use crate::{State, owner::Visitor};

pub(crate) async fn leads(
    Shared(state): Shared<State>,
    visitor: Visitor,
    QueryString(query): QueryString<LeadQuery>,
) -> Result<Response, Problem> {
    if query.page == 0 || query.per_page == 0 || query.per_page > LeadQuery::MAX_PER_PAGE {
        let most = LeadQuery::MAX_PER_PAGE;
        return Err(Problem::invalid(format!("page is at least 1, per_page between 1 and {most}.")));
    }
    if query.q.chars().count() > LeadQuery::LONGEST_SEARCH {
        return Err(Problem::invalid(format!("q has at most {} characters.", LeadQuery::LONGEST_SEARCH)));
    }
    let page = state.leads.page(&visitor.into(), &query).await.map_err(|error| {
        tracing::error!(error = &error as &dyn StdError, "leads could not be read");
        Problem::unavailable()
    })?;
    Ok(([(header::CACHE_CONTROL, "private, no-store")], Json(page)).into_response())
}
