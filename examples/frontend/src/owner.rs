//! Who is calling: an anonymous owner for each browser, by a cookie that scripts cannot read.

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use cookie::{Cookie, SameSite, time::Duration};
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use status_core::OwnerId;
use status_http::Problem;

const COOKIE: &str = "visitor";

/// The browser that is calling.
#[derive(Clone, Debug)]
pub(crate) struct Visitor(OwnerId);

impl From<Visitor> for OwnerId {
    fn from(visitor: Visitor) -> Self {
        visitor.0
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

/// Knows the browser by its cookie, or gives it one.
pub(crate) async fn recognise(mut request: Request, next: Next) -> Response {
    let known = secret(request.headers());
    let is_new = known.is_none();
    let secret = known.unwrap_or_else(new_secret);
    let Some(visitor) = visitor(&secret) else {
        return axum::response::IntoResponse::into_response(Problem::internal());
    };
    let secure = request.headers().get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    request.extensions_mut().insert(visitor);
    let mut response = next.run(request).await;
    if is_new {
        let cookie = Cookie::build((COOKIE, secret))
            .path("/")
            .http_only(true)
            .secure(secure)
            .same_site(SameSite::Lax)
            .max_age(Duration::days(365));
        if let Ok(cookie) = HeaderValue::from_str(&cookie.build().to_string()) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// What is kept names the owner, but does not let anybody act as the owner.
fn visitor(secret: &str) -> Option<Visitor> {
    let digest = HEXLOWER.encode(&digest(&SHA256, secret.as_bytes()).as_ref()[..16]);
    OwnerId::new(format!("visitor-{digest}")).ok().map(Visitor)
}

fn secret(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut cookies = cookies.flat_map(Cookie::split_parse).filter_map(Result::ok);
    let cookie = cookies.find(|cookie| cookie.name() == COOKIE)?;
    let is_ours = cookie.value().len() == 32 && cookie.value().bytes().all(|b| b.is_ascii_hexdigit());
    is_ours.then(|| cookie.value().to_owned())
}

fn new_secret() -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system provides random numbers");
    HEXLOWER.encode(&random)
}
