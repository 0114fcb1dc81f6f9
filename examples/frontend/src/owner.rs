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
use status_http::{Api, Problem, Stranger};

/// The cookie's name. Browsers take the second only over TLS, from this very host, for all of it.
const COOKIE: &str = "visitor";
const COOKIE_BY_TLS: &str = "__Host-visitor";
/// What is somebody's, and the page. Probes and scripts ask for the rest often, and are nobody.
const OF_SOMEBODY: [&str; 3] = ["/jobs", "/leads", "/uploads"];
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

    /// The secret of a cookie that we have made, and whether the newest key signed it.
    fn verify<'a>(&self, cookie: &'a str) -> Option<(&'a str, bool)> {
        let (secret, tag) = cookie.split_once('.')?;
        let tag = HEXLOWER.decode(tag.as_bytes()).ok()?;
        let signed = self.0.iter().position(|key| hmac::verify(key, secret.as_bytes(), &tag).is_ok())?;
        Some((secret, signed == 0))
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

/// Knows the browser by its cookie, or gives it one, so many a minute to each address.
pub(crate) async fn recognise(
    State((keys, api)): State<(Keys, Api)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let is_secure = is_secure(&parts.headers);
    let name = if is_secure { COOKIE_BY_TLS } else { COOKIE };
    let known = cookies(&parts.headers, name)
        .find_map(|cookie| keys.verify(&cookie).map(|(secret, is_newest)| (secret.to_owned(), is_newest)));
    let gets_cookie = match &known {
        // Signed anew before the older key goes.
        Some((_, is_newest)) => !is_newest,
        None => is_of_somebody(parts.uri.path()) && api.admits_stranger(&parts),
    };
    if known.is_none() && !gets_cookie {
        parts.extensions.insert(Stranger);
    }
    let secret = known.map_or_else(|| HEXLOWER.encode(&random::<16>()), |(secret, _)| secret);
    let Some(visitor) = visitor(&secret) else {
        return axum::response::IntoResponse::into_response(Problem::internal());
    };
    parts.extensions.insert(visitor);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if gets_cookie {
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

fn is_of_somebody(path: &str) -> bool {
    path == "/" || OF_SOMEBODY.iter().any(|begin| path.starts_with(begin))
}

/// What is kept names the owner, but does not let anybody act as the owner.
fn visitor(secret: &str) -> Option<Visitor> {
    let digest = HEXLOWER.encode(&digest(&SHA256, secret.as_bytes()).as_ref()[..16]);
    OwnerId::new(format!("visitor-{digest}")).ok().map(Visitor)
}

/// All cookies of this name: others may have set one, for another path.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let cookies = cookies.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.filter(move |cookie| cookie.name() == name).map(|cookie| cookie.value().to_owned())
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
        assert_eq!(rotated.verify(&by_old), Some(("ann", false)));
        let by_new = rotated.sign("ann");
        let done = keys(&new).expect("a key");
        assert_eq!((done.verify(&by_new), done.verify(&by_old)), (Some(("ann", true)), None));
        for made_up in ["", "ann", "ann.", "bob.00", &by_new.replace("ann", "bob"), &format!("{by_new}00")] {
            assert_eq!(done.verify(made_up), None, "{made_up}");
        }
        assert!(keys("").is_err() && keys("short").is_err());
    }
}
