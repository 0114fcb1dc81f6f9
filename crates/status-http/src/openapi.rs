//! The interface's description, derived from the handlers and the types they answer with.

use axum::{Json, extract::OriginalUri};
use utoipa::OpenApi;

use crate::{Problem, errors, events, jobs};

#[derive(OpenApi)]
#[openapi(
    info(title = "Job status", description = "How far long batch jobs are. Every job belongs to the caller that created it."),
    paths(
        jobs::create, jobs::list, jobs::show, jobs::erase, jobs::upload_progress, jobs::uploaded,
        events::events, jobs::cancel, jobs::history, errors::errors
    ),
    components(schemas(Problem)),
    tags((name = "jobs", description = "Jobs of the caller"))
)]
struct Description;

/// The description, with the prefix the router is mounted at as its server.
pub(crate) async fn document(OriginalUri(uri): OriginalUri) -> Json<utoipa::openapi::OpenApi> {
    let mut description = Description::openapi();
    let prefix = uri.path().strip_suffix("/openapi.json").unwrap_or_default();
    let prefix = if prefix.is_empty() { "/" } else { prefix };
    description.servers = Some(vec![utoipa::openapi::Server::new(prefix)]);
    Json(description)
}
