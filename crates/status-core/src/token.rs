//! What a client has seen, as one opaque text: the ETag, the id of a server-sent event.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    str::FromStr,
};

use crate::{Snapshot, Status};

/// Identifies what a snapshot shows: two snapshots that people could tell apart have different tokens.
///
/// It covers every decision and every fact, and what runs with the clock only as people see it: the
/// estimate's words, the number of running batches, the health. So a snapshot taken a second later, with
/// nothing new to see, has the same token. Its text is opaque to clients and safe in an HTTP header; two
/// processes of one build give the same text for the same state.
///
/// ```
/// # use status_core::Token;
/// let token: Token = "3.120.2.1200-9f3a61b27c44d1e8".parse()?;
/// assert_eq!(token.to_string().parse(), Ok(token));
/// # Ok::<(), status_core::InvalidToken>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    seen: Seen,
    digest: u64,
}

/// How far a job was when somebody looked. Each number only ever grows, however the reads of its parts
/// were mixed; so a state that is behind in any of them is an older one, or was read from older parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    pub(crate) completed: u64,
    /// Batches that completed or failed: a failed one may complete later.
    pub(crate) settled: u64,
    pub(crate) items_processed: u64,
}

impl Seen {
    /// Whether nobody who has seen `other` can tell that this is behind it.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.revision >= other.revision
            && self.completed >= other.completed
            && self.settled >= other.settled
            && self.items_processed >= other.items_processed
    }
}

impl Token {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut hasher = DefaultHasher::new();
        visible(snapshot, &mut hasher);
        Self { seen: snapshot.seen(), digest: hasher.finish() }
    }

    /// Whether this is not behind `other`, in anything that only grows.
    pub fn covers(&self, other: &Self) -> bool {
        self.seen.covers(other.seen)
    }

    /// How far the job was.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }
}

/// Everything that people see of a snapshot.
fn visible(snapshot: &Snapshot, hasher: &mut DefaultHasher) {
    let Snapshot { status, outcome, stage, title, progress, health, .. } = snapshot;
    let (upload, batches, items) = (progress.upload, progress.batches, progress.items);
    (*status as u8, outcome.map(|outcome| outcome as u8), stage, title, *health as u8).hash(hasher);
    (snapshot.seen(), snapshot.version, snapshot.child, upload.bytes, snapshot.damaged).hash(hasher);
    (batches.total, batches.completed, batches.failed, batches.running).hash(hasher);
    (items.total, items.processed, items.failed).hash(hasher);
    snapshot.estimate.as_ref().map(|estimate| &estimate.text).hash(hasher);
    if *status == Status::Processing {
        snapshot.cancel_requested.is_some().hash(hasher);
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { revision, completed, settled, items_processed } = self.seen;
        write!(f, "{revision}.{completed}.{settled}.{items_processed}-{:016x}", self.digest)
    }
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token that was given out")]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let parse = || {
            let (seen, digest) = text.split_once('-')?;
            let mut numbers = seen.split('.').map(|number| number.parse().ok());
            let mut next = || numbers.next().flatten();
            let seen =
                Seen { revision: next()?, completed: next()?, settled: next()?, items_processed: next()? };
            if next().is_some() || digest.len() != 16 {
                return None;
            }
            Some(Self { seen, digest: u64::from_str_radix(digest, 16).ok()? })
        };
        parse().ok_or(InvalidToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_refused() {
        for text in
            ["", "7", "1.2.3-0", "1.2.3.4.5-0123456789abcdef", "1.2.3.4-x123456789abcdef", "-", "1.2.3.4-1"]
        {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken), "{text}");
        }
    }

    #[test]
    fn a_state_that_is_behind_in_anything_does_not_cover_the_other() {
        let seen = Seen { revision: 3, completed: 2, settled: 4, items_processed: 20 };
        assert!(seen.covers(seen) && seen.covers(Seen::default()));
        for behind in [
            Seen { revision: 2, completed: 9, ..seen },
            Seen { completed: 1, settled: 9, ..seen },
            Seen { settled: 3, completed: 3, ..seen },
            Seen { items_processed: 19, revision: 9, ..seen },
        ] {
            assert!(!behind.covers(seen), "{behind:?}");
        }
    }
}
