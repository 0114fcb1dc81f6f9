//! The page around the component, and the headers that protect it.

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::owner;

pub(crate) fn router() -> Router {
    let asset = |kind: &'static str, body: &'static str| {
        get(async move || {
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], body).into_response()
        })
    };
    Router::new()
        .route("/", asset("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/page.js", asset("text/javascript; charset=utf-8", include_str!("page/page.js")))
        .route("/page.css", asset("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/favicon.svg", asset("image/svg+xml", include_str!("page/favicon.svg")))
}

/// Nothing runs here but what we serve, nobody frames us, and the page speaks to us and, for uploads, to `storage`.
pub(crate) fn policy(storage: &str) -> HeaderValue {
    let connect = if storage.is_empty() { String::new() } else { format!("connect-src 'self' {storage}; ") };
    let policy =
        format!("default-src 'self'; {connect}frame-ancestors 'none'; base-uri 'none'; form-action 'self'");
    HeaderValue::from_str(&policy).expect("an origin has no characters that headers cannot have")
}

pub(crate) async fn protect(State(policy): State<HeaderValue>, request: Request, next: Next) -> Response {
    let is_secure = owner::is_secure(request.headers());
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if is_secure {
        let a_year = HeaderValue::from_static("max-age=31536000");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, a_year);
    }
    response
}
