//! Errors as callers see them: problem details (RFC 9457) with a stable `type`, and nothing internal.

use std::{io::ErrorKind, time::Duration};

use axum::{
    extract::rejection::{JsonRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use status_core::{Error, Rejection, StoreError};

/// A problem, ready to be answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// A stable slug.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What the slug means.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened this time, and what to do.
    detail: String,
    /// Seconds, for the header.
    #[serde(skip)]
    retry_after: Option<u64>,
}

/// A problem's type, for whoever observes answers.
#[derive(Clone, Copy)]
pub(crate) struct Kind(pub(crate) &'static str);

impl Problem {
    /// A problem of kind `kind`.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, title, status: status.as_u16(), detail: detail.into(), retry_after: None }
    }

    /// 429: there are too many already; try again after so long.
    pub fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too many at once", detail);
        Self { retry_after: Some(wait.as_secs() + 1), ..problem }
    }

    /// 408: what was announced does not come.
    pub fn too_slow() -> Self {
        let detail = "What was announced does not come, or too slowly. Send it again.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "Too slow", detail)
    }

    /// 404: there is nothing at this address.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", "There is nothing here.")
    }

    /// 400 for a request that cannot be understood.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "The request cannot be used", detail)
    }

    /// 404: there is no such job for this caller.
    pub fn job_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "job-not-found", "No such job", "There is no job with this id.")
    }

    /// 413 for a file of more than `max` bytes.
    pub fn too_large(max: u64) -> Self {
        let detail =
            format!("Files of up to {} are accepted. Split the file and upload the parts.", in_units(max));
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "file-too-large", "The file is too large", detail)
    }

    /// 503: try again.
    pub fn unavailable() -> Self {
        let detail = "The service is busy or being restarted. Try again in a few seconds.";
        let problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable", detail);
        Self { retry_after: Some(2), ..problem }
    }

    /// 507: what is kept has no room.
    pub fn storage_full() -> Self {
        let detail = "The storage of the service is full. Try again when its operator has freed space.";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage-full", "Storage is full", detail)
    }

    /// 500: the fault is ours.
    pub fn internal() -> Self {
        let detail = "Something went wrong on our side. It has been logged.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let detail = "This address does not take that method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }
}

fn in_units(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes >> 20),
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(_) => Self::job_not_found(),
            Error::Rejected { rejection: rejection @ Rejection::Contradiction { .. }, .. } => Self::new(
                StatusCode::CONFLICT,
                "job-terminal",
                "The job is over",
                capitalised(&rejection.to_string()),
            ),
            Error::Rejected { rejection: rejection @ Rejection::NotOver { .. }, .. } => Self::new(
                StatusCode::CONFLICT,
                "job-running",
                "The job is not over",
                capitalised(&rejection.to_string()),
            ),
            Error::Rejected { rejection, .. } => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                "The job does not allow that",
                capitalised(&rejection.to_string()),
            ),
            Error::KeyReused => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(
                    status,
                    "idempotency-key-reused",
                    "Idempotency key reused",
                    capitalised(&error.to_string()),
                )
            }
            Error::InvalidText(invalid) => Self::invalid(capitalised(&invalid.to_string())),
            Error::Store(StoreError::InvalidCursor) => {
                Self::invalid("The cursor is not valid; start without one.")
            }
            Error::Store(
                error @ (StoreError::Full(_) | StoreError::Throttled { .. } | StoreError::Unavailable { .. }),
            ) => {
                tracing::warn!(%error, source = ?std::error::Error::source(&error), "the store cannot answer");
                if is_full(&error) { Self::storage_full() } else { Self::unavailable() }
            }
            error => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "unexpected error");
                Self::internal()
            }
        }
    }
}

/// Whether the store's backend says that there is no room.
fn is_full(error: &StoreError) -> bool {
    let mut causes =
        std::iter::successors(std::error::Error::source(error), |cause| std::error::Error::source(*cause));
    causes.any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::StorageFull)
    })
}

fn capitalised(sentence: &str) -> String {
    let mut chars = sentence.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        if rejection.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            let detail = "Send JSON, and say so: Content-Type: application/json.";
            return Self::new(rejection.status(), "unsupported-media-type", "Not declared as JSON", detail);
        }
        Self { status: rejection.status().as_u16(), ..Self::invalid(rejection.body_text()) }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Kind(self.kind));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_without_room_is_told_from_one_that_does_not_answer() {
        for (kind, status) in [(ErrorKind::StorageFull, 507), (ErrorKind::TimedOut, 503)] {
            let source = Box::new(std::io::Error::new(kind, "why"));
            let error = StoreError::Unavailable { operation: "report", subject: "job 1".into(), source };
            assert_eq!(Problem::from(Error::Store(error)).into_response().status(), status);
        }
    }
}
