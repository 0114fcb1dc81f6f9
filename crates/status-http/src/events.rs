//! A job's snapshots as server-sent events (WHATWG HTML §9.2), and the wait of the long-poll.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, StreamExt};
use status_core::{OwnedJobs, Snapshot};

use crate::{Api, Caller, Problem, jobs::Id};

/// Proxies and clients that wait 15 s for a sign of life get one in time.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The newest snapshot at once, then each change, until the job is over.
#[utoipa::path(get, path = "/jobs/{id}/events", params(("id" = String, Path)), tag = "jobs", responses(
    (status = 200, content_type = "text/event-stream", description = "`event: snapshot`, `id:` the version, `data:` the snapshot. \
      A comment at least every 15 s. Ends after a terminal snapshot."),
    (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn events(State(api): State<Api>, caller: Caller, Id(id): Id) -> Result<Response, Problem> {
    let snapshots = api.jobs(caller).watch(id).await?;
    let shutdown = api.shutdown.clone();
    let events = snapshots
        .map(|snapshot| -> Result<Event, Infallible> {
            let event = Event::default().event("snapshot").id(snapshot.version.to_string());
            Ok(event.json_data(&*snapshot).unwrap_or_else(|error| {
                tracing::error!(%error, "a snapshot could not be written as JSON");
                Event::default().comment("unwritable")
            }))
        })
        .take_until(shutdown.cancelled_owned());
    let keep_alive = KeepAlive::new().interval(HEARTBEAT).text("still here");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx and its kin hold back what they buffer.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The first snapshot for which `is_news` holds; the newest one when `wait` is over or the server goes down.
pub(crate) async fn next_change(
    api: &Api,
    jobs: &OwnedJobs,
    id: status_core::JobId,
    wait: Duration,
    is_news: impl Fn(&Snapshot) -> bool,
) -> Result<Snapshot, Problem> {
    let snapshots = jobs.watch(id).await?;
    let mut newest = None;
    let _ = tokio::time::timeout(
        wait,
        first(snapshots.take_until(api.shutdown.clone().cancelled_owned()), &mut newest, is_news),
    )
    .await;
    match newest {
        Some(snapshot) => Ok(Arc::unwrap_or_clone(snapshot)),
        None => Ok(jobs.snapshot(id).await?),
    }
}

async fn first(
    snapshots: impl Stream<Item = Arc<Snapshot>>,
    newest: &mut Option<Arc<Snapshot>>,
    is_news: impl Fn(&Snapshot) -> bool,
) {
    let mut snapshots = std::pin::pin!(snapshots);
    while let Some(snapshot) = snapshots.next().await {
        let news = is_news(&snapshot);
        *newest = Some(snapshot);
        if news {
            return;
        }
    }
}
