//! Who did what, and what came of it: for an audit, and for metrics.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};
use status_core::{JobId, OwnerId};

use crate::{Api, Caller, problem::Kind};

/// A request that has been answered, or refused. Streams are answered when they begin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answered<'a> {
    /// The method.
    pub method: &'a Method,
    /// The route, such as `/jobs/{id}/cancel`: of these there are few.
    pub route: Option<&'a str>,
    /// The job, where the request named one or made one.
    pub job: Option<JobId>,
    /// Who asked, if that was found out.
    pub owner: Option<&'a OwnerId>,
    /// The status of the answer.
    pub status: StatusCode,
    /// The `type` of the problem, where it is one: why it was refused.
    pub problem: Option<&'static str>,
    /// How long it took.
    pub took: Duration,
}

/// Is told of every request to the router.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Called before the answer goes out; do not block.
    fn answered(&self, request: &Answered<'_>);
}

pub(crate) async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(observer) = api.observer else { return next.run(request).await };
    let (begun, method) = (Instant::now(), request.method().clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let location = response.headers().get(axum::http::header::LOCATION).and_then(|at| at.to_str().ok());
    let job = [location.unwrap_or_default(), &path].into_iter().flat_map(|path| path.rsplit('/'));
    observer.answered(&Answered {
        method: &method,
        route: route.as_ref().map(MatchedPath::as_str),
        job: job.into_iter().find_map(|part| part.parse().ok()),
        owner: response.extensions().get::<Caller>().map(|caller| &caller.owner),
        status: response.status(),
        problem: response.extensions().get::<Kind>().map(|Kind(kind)| *kind),
        took: begun.elapsed(),
    });
    response
}
