//! From where browsers may ask: a page of another site changes nothing here, whatever its visitor is signed in to.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::Problem;

/// The pages of other origins that may use the interface, with what their visitors are signed in to.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

/// This is no origin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no origin; say https://HOST or https://HOST:PORT, without anything after it")]
pub struct InvalidOrigin(String);

impl Origins {
    /// These origins, such as `https://app.example.com`.
    ///
    /// # Errors
    /// [`InvalidOrigin`].
    pub fn new<T: AsRef<str>>(origins: impl IntoIterator<Item = T>) -> Result<Self, InvalidOrigin> {
        origins.into_iter().map(|origin| parse(origin.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// What tells their browsers that they may.
    pub(crate) fn cors(&self) -> Option<CorsLayer> {
        let request =
            ["idempotency-key", "if-none-match", "last-event-id"].map(header::HeaderName::from_static);
        let answer = [header::ETAG, header::LOCATION, header::RETRY_AFTER];
        (!self.0.is_empty()).then(|| {
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(self.0.iter().cloned()))
                .allow_credentials(true)
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
                .allow_headers(request.into_iter().chain([header::CONTENT_TYPE]).collect::<Vec<_>>())
                .expose_headers(answer)
                .max_age(std::time::Duration::from_secs(600))
        })
    }

    /// Whether a request that may change something comes from here, from one of them, or from no browser.
    fn allow(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN);
        if origin.is_some_and(|origin| self.0.contains(origin)) {
            return true;
        }
        match (headers.get("sec-fetch-site"), origin) {
            (Some(site), _) => site == "same-origin" || site == "none",
            (None, Some(origin)) => is_here(origin, uri, headers),
            (None, None) => true,
        }
    }
}

/// An origin of the host that is asked. The scheme is the proxy's affair.
fn is_here(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.zip(host).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
}

fn parse(text: &str) -> Result<HeaderValue, InvalidOrigin> {
    let invalid = || InvalidOrigin(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| invalid())?;
    let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(invalid)?;
    let origin = format!("{scheme}://{authority}");
    let is_origin =
        origin == text && ["http", "https"].contains(&scheme) && !authority.as_str().contains('@');
    if is_origin { HeaderValue::from_str(text).map_err(|_| invalid()) } else { Err(invalid()) }
}

/// Refuses what another site's page has a browser ask for: 403 `cross-site` for every method that may change something, where
/// `Sec-Fetch-Site` or, without it, `Origin` says so. Who sends neither is no browser, and passes.
///
/// The router has it already. Put it before routes of your own with [`axum::middleware::from_fn_with_state`].
pub async fn refuse_cross_site(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    if request.method().is_safe() || origins.allow(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let detail = "A page of another site asked for this. Use the page of this site.";
    Problem::new(StatusCode::FORBIDDEN, "cross-site", "Asked by another site", detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for good in ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert!(Origins::new([good]).is_ok(), "{good}");
        }
        for bad in [
            "app.example.com",
            "https://app.example.com/",
            "https://a@b.example",
            "ftp://a.example",
            "*",
            "null",
            "",
        ] {
            assert!(Origins::new([bad]).is_err(), "{bad}");
        }
    }
}
