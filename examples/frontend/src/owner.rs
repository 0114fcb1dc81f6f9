//! Who is calling: an anonymous owner for each browser, by a cookie that scripts cannot read and nobody can make up.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use cookie::{Cookie, SameSite, time::Duration};
use data_encoding::HEXLOWER;
use ring::{
    digest::{SHA256, digest},
    hmac,
};
use status_core::OwnerId;
use status_http::{Problem, Stranger};

/// The cookie's name. Browsers take the second only over TLS, from this very host, for all of it.
const COOKIE: &str = "visitor";
const COOKIE_BY_TLS: &str = "__Host-visitor";
/// The fewest bytes of a key.
const KEY_BYTES: usize = 32;

/// The keys by which cookies are signed: the first signs, the others are still believed.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Arc<[hmac::Key]>);

impl Keys {
    /// A key that nobody has before or after this process.
    pub(crate) fn of_this_process() -> Self {
        Self::of([random::<KEY_BYTES>().as_slice()])
    }

    /// The keys in a file, one a line.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let keys: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if keys.is_empty() || keys.iter().any(|key| key.len() < KEY_BYTES) {
            let why = format!("say one key a line, of at least {KEY_BYTES} characters, the newest first");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Self::of(keys.into_iter().map(str::as_bytes)))
    }

    /// The key in a file, which is made if it is not there.
    pub(crate) fn read_or_make(path: &Path) -> io::Result<Self> {
        if !path.exists() {
            let folder = path.parent().unwrap_or(Path::new("."));
            // Readable by its owner alone, and there as a whole or not at all.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            writeln!(file, "{}", HEXLOWER.encode(&random::<KEY_BYTES>()))?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            #[cfg(unix)]
            File::open(folder)?.sync_all()?;
        }
        Self::read(path)
    }

    fn of<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(keys.into_iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect())
    }

    fn sign(&self, secret: &str) -> String {
        format!("{secret}.{}", HEXLOWER.encode(hmac::sign(&self.0[0], secret.as_bytes()).as_ref()))
    }

    /// The secret of a cookie that we have made.
    fn verify<'a>(&self, cookie: &'a str) -> Option<&'a str> {
        let (secret, tag) = cookie.split_once('.')?;
        let tag = HEXLOWER.decode(tag.as_bytes()).ok()?;
        self.0.iter().any(|key| hmac::verify(key, secret.as_bytes(), &tag).is_ok()).then_some(secret)
    }
}

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

/// Whether the browser speaks TLS, to a proxy in front.
pub(crate) fn is_secure(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https")
}

/// Knows the browser by its cookie, or gives it one.
pub(crate) async fn recognise(State(keys): State<Keys>, mut request: Request, next: Next) -> Response {
    let is_secure = is_secure(request.headers());
    let name = if is_secure { COOKIE_BY_TLS } else { COOKIE };
    let known = cookie(request.headers(), name).and_then(|cookie| keys.verify(&cookie).map(str::to_owned));
    let is_new = known.is_none();
    let secret = known.unwrap_or_else(|| HEXLOWER.encode(&random::<16>()));
    let Some(visitor) = visitor(&secret) else {
        return axum::response::IntoResponse::into_response(Problem::internal());
    };
    request.extensions_mut().insert(visitor);
    if is_new {
        request.extensions_mut().insert(Stranger);
    }
    let mut response = next.run(request).await;
    if is_new {
        let cookie = Cookie::build((name, keys.sign(&secret)))
            .path("/")
            .http_only(true)
            .secure(is_secure)
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

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut cookies = cookies.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == name).map(|cookie| cookie.value().to_owned())
}

fn random<const N: usize>() -> [u8; N] {
    let mut random = [0; N];
    getrandom::fill(&mut random).expect("the operating system provides random numbers");
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_believed_while_its_key_is_among_ours_and_nothing_made_up_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let (old, new) = ("o".repeat(KEY_BYTES), "n".repeat(KEY_BYTES));
        let keys = |text: &str| {
            fs::write(&path, text).expect("written");
            Keys::read(&path)
        };
        let by_old = keys(&old).expect("a key").sign("ann");
        let rotated = keys(&format!("{new}\n{old}\n")).expect("two keys");
        assert_eq!(rotated.verify(&by_old), Some("ann"));
        let by_new = rotated.sign("ann");
        let done = keys(&new).expect("a key");
        assert_eq!((done.verify(&by_new), done.verify(&by_old)), (Some("ann"), None));
        for made_up in ["", "ann", "ann.", "bob.00", &by_new.replace("ann", "bob"), &format!("{by_new}00")] {
            assert_eq!(done.verify(made_up), None, "{made_up}");
        }
        assert!(keys("").is_err() && keys("short").is_err());
    }
}
