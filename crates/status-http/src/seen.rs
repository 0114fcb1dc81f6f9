//! What a client says it has seen of a job: `If-None-Match` and `Last-Event-ID`. Both hold tokens that
//! we gave out. What is none of ours is ignored: it names no state that we know.

use axum::http::{HeaderMap, HeaderValue, header};
use status_core::{JobId, OwnedJobs, Snapshot, Token};

use crate::Problem;

/// The states that the client has, by `If-None-Match`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Known {
    any: bool,
    tokens: Vec<Token>,
}

impl Known {
    /// RFC 9110 §13.1.2: a list of entity tags, compared weakly, or `*`.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut known = Self::default();
        let lists = headers.get_all(header::IF_NONE_MATCH).into_iter();
        for tag in lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')) {
            let tag = tag.trim();
            known.any |= tag == "*";
            known.tokens.extend(token_of(tag));
        }
        known
    }

    /// Whether the client names no state.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any && self.tokens.is_empty()
    }

    /// Whether the client has what this snapshot shows.
    pub(crate) fn holds(&self, snapshot: &Snapshot) -> bool {
        self.any || self.tokens.contains(&snapshot.token())
    }

    /// The furthest state the client has: it must not be answered with an older one.
    pub(crate) fn furthest(&self) -> Option<Token> {
        let further = |one: Token, other: Token| if other.covers(&one) { other } else { one };
        self.tokens.iter().copied().reduce(further)
    }

    /// The job as it is to be shown to this client.
    pub(crate) async fn snapshot(&self, jobs: &OwnedJobs, id: JobId) -> Result<Snapshot, Problem> {
        Ok(match self.furthest() {
            Some(seen) => jobs.snapshot_after(id, &seen).await?,
            None => jobs.snapshot(id).await?,
        })
    }
}

/// The snapshot's entity tag. Weak: the token covers what people see, while the body also holds times
/// that run on by the millisecond.
pub(crate) fn etag(snapshot: &Snapshot) -> String {
    format!("W/\"{}\"", snapshot.token())
}

/// The last event that an interrupted stream showed.
pub(crate) fn last_event(headers: &HeaderMap) -> Option<Token> {
    headers.get("last-event-id").and_then(|id| HeaderValue::to_str(id).ok()?.trim().parse().ok())
}

fn token_of(tag: &str) -> Option<Token> {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    opaque.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "1.0.0.0-00000000000000aa";
    const NEW: &str = "3.7.8.70-00000000000000bb";

    fn known(lists: &[&'static str]) -> Known {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(list));
        }
        Known::of(&headers)
    }

    #[test]
    fn the_furthest_of_several_tokens_counts_wherever_it_stands() {
        let new = Some(NEW.parse().expect("a token"));
        for lists in [
            &["\"1.0.0.0-00000000000000aa\", W/\"3.7.8.70-00000000000000bb\""][..],
            &["W/\"3.7.8.70-00000000000000bb\",\"1.0.0.0-00000000000000aa\""],
            &["\"1.0.0.0-00000000000000aa\"", "\"another server's\", \"3.7.8.70-00000000000000bb\""],
        ] {
            assert_eq!(known(lists).furthest(), new, "{lists:?}");
        }
        assert_eq!(OLD.parse::<Token>().map(Some), Ok(known(&["\"1.0.0.0-00000000000000aa\""]).furthest()));
    }

    #[test]
    fn what_is_no_token_of_ours_is_ignored() {
        for list in
            ["", "\"\"", "\"7\"", "W/", "1.0.0.0-00000000000000aa", "\"1.0.0.0-00000000000000aa", ",,"]
        {
            assert!(known(&[list]).is_empty(), "{list}");
        }
        assert!(!known(&["*"]).is_empty());
        assert_eq!(known(&["*"]).furthest(), None);
    }
}
