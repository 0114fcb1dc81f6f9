//! A job's snapshots as server-sent events (WHATWG HTML §9.2), and the wait of the long-poll.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::StreamExt;
use status_core::{JobId, OwnedJobs, Snapshot};

use crate::{
    Api, Caller, Problem,
    jobs::Id,
    seen::{self, Known},
};

/// Proxies and clients that wait 15 s for a sign of life get one in time.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The newest snapshot at once, then each change, until the job is over.
#[utoipa::path(get, path = "/jobs/{id}/events", tag = "jobs", params(("id" = String, Path),
        ("Last-Event-ID" = Option<String>, Header,
            description = "The `id:` of the last event the client saw: nothing older is sent. \
                What is no such id is ignored.")),
    responses(
        (status = 200, content_type = "text/event-stream", description = "`event: snapshot`, `id:` an opaque \
            token of what the snapshot shows, `data:` the snapshot. A comment at least every 15 s. Ends after \
            a terminal snapshot."),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn events(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = api.usage.stream(&caller.owner)?;
    let snapshots = api.jobs(caller).watch_after(id, seen::last_event(&headers).as_ref()).await?;
    let shutdown = api.shutdown.clone();
    let events = snapshots
        .map(move |snapshot| -> Result<Event, Infallible> {
            // Held as long as the stream.
            let _ = &place;
            let event = Event::default().event("snapshot").id(snapshot.token().to_string());
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

/// The first snapshot that the client does not have; the newest one when `wait` is over or the server
/// goes down. Never one that is older than what the client has.
pub(crate) async fn next_change(
    api: &Api,
    jobs: &OwnedJobs,
    id: JobId,
    wait: Duration,
    known: &Known,
) -> Result<Snapshot, Problem> {
    let snapshots = jobs.watch_after(id, known.furthest().as_ref()).await?;
    let is_over = api.shutdown.clone().cancelled_owned();
    let mut snapshots = pin!(snapshots.take_until(tokio::time::sleep(wait)).take_until(is_over));
    let mut newest = None;
    while let Some(snapshot) = snapshots.next().await {
        let is_news = !known.holds(&snapshot);
        newest = Some(snapshot);
        if is_news {
            break;
        }
    }
    match newest {
        Some(snapshot) => Ok(Arc::unwrap_or_clone(snapshot)),
        None => known.snapshot(jobs, id).await,
    }
}
