//! Who and what: job ids, owners and actors. Each is built through one checked door, so that the rest of the
//! code never meets an empty, oversized or unprintable one.

use std::{borrow::Cow, fmt, str::FromStr};

use data_encoding::BASE32_DNSSEC;
use serde::{Deserialize, Serialize, de};

use crate::{Policy, Timestamp, clock, text};

/// A job's identity: the millisecond it was created, then 128 random bits.
///
/// Unguessable, sorts by age, and tells every worker the job's origin of time without a read. In text it is 36
/// lower-case characters (base32hex, RFC 4648 §7), safe in URLs, file names and storage keys.
///
/// ```
/// # use status_core::{JobId, Timestamp};
/// let id = JobId::new(Timestamp::from_millisecond(1_700_000_000_000)?);
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert_eq!(id.created_at().as_millisecond(), 1_700_000_000_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId([u8; 22]);

impl JobId {
    /// A new id for a job created at `at`; 128 bits of it come from the operating system's generator.
    ///
    /// # Panics
    /// If the operating system has no random numbers to give: nothing secure can be done without.
    pub fn new(at: Timestamp) -> Self {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the operating system provides random numbers");
        Self::from_parts(at, u128::from_be_bytes(random))
    }

    /// The id with these random bits: for tests that must be repeatable.
    pub fn from_parts(at: Timestamp, random: u128) -> Self {
        let mut bytes = [0; 22];
        let ms = u64::try_from(at.as_millisecond()).unwrap_or(0);
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random.to_be_bytes());
        Self(bytes)
    }

    /// When the job was created, to the millisecond.
    pub fn created_at(&self) -> Timestamp {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        // 48 bits of milliseconds reach the year 10889; what Timestamp cannot hold was refused when parsing.
        Timestamp::from_millisecond(i64::from_be_bytes(ms)).unwrap_or(Timestamp::MAX)
    }

    /// The last moment at which a job with this id can end, whatever its policy says: what is written for
    /// it by somebody who has not read the job expires then.
    pub fn latest_end(&self) -> Timestamp {
        let longest = Policy::MAX_DEADLINE.saturating_add(Policy::SWEPT_WITHIN);
        clock::after(self.created_at(), longest)
    }

    /// Milliseconds from the job's creation to `at`; zero when a clock runs behind.
    pub fn age_ms(&self, at: Timestamp) -> u64 {
        u64::try_from(at.as_millisecond() - self.created_at().as_millisecond()).unwrap_or(0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_DNSSEC.encode(&self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// A text that is no job id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job id is 36 characters of 0-9 and a-v")]
pub struct InvalidJobId;

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidJobId);
        }
        let bytes = BASE32_DNSSEC.decode(text.as_bytes()).map_err(|_| InvalidJobId)?;
        let bytes: [u8; 22] = bytes.try_into().map_err(|_| InvalidJobId)?;
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&bytes[..6]);
        Timestamp::from_millisecond(i64::from_be_bytes(ms)).map_err(|_| InvalidJobId)?;
        Ok(Self(bytes))
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Whom a job belongs to: an opaque name of 1 to 128 printable characters that the embedder vouches for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OwnerId(String);

impl OwnerId {
    /// The longest owner, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// # Errors
    /// [`text::InvalidText`] when empty, longer than [`OwnerId::MAX_BYTES`] or with control characters.
    pub fn new(owner: impl Into<String>) -> Result<Self, text::InvalidText> {
        text::checked("owner", owner.into(), Self::MAX_BYTES).map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OwnerId {
    type Error = text::InvalidText;
    fn try_from(owner: String) -> Result<Self, Self::Error> {
        Self::new(owner)
    }
}

impl From<OwnerId> for String {
    fn from(owner: OwnerId) -> Self {
        owner.0
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who made a decision, as the history names them: a role, never a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Actor(Cow<'static, str>);

impl Actor {
    /// The person the job belongs to.
    pub const OWNER: Self = Self(Cow::Borrowed("owner"));
    /// The sweeper.
    pub const SWEEPER: Self = Self(Cow::Borrowed("sweeper"));
    /// Whoever runs the service.
    pub const OPERATOR: Self = Self(Cow::Borrowed("operator"));
    /// A worker without a name of its own.
    pub const WORKER: Self = Self(Cow::Borrowed("worker"));

    /// Another role, cut to 64 bytes: `Actor::named("splitter")`.
    pub fn named(role: impl Into<Cow<'static, str>>) -> Self {
        let role = role.into();
        if role.len() <= 64 { Self(role) } else { Self(text::bounded(&role, 64).into()) }
    }

    /// The role as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_and_survive_text() {
        let at = |ms| Timestamp::from_millisecond(ms).expect("in range");
        let older = JobId::from_parts(at(1_000), u128::MAX);
        let newer = JobId::from_parts(at(1_001), 0);
        assert!(older < newer && older.to_string() < newer.to_string());
        assert_eq!(newer.to_string().len(), 36);
        assert_eq!(newer.to_string().parse(), Ok(newer));
        assert_eq!(newer.age_ms(at(1_500)), 499);
        assert_eq!(newer.age_ms(at(0)), 0, "a clock that runs behind");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let far = "v".repeat(36);
        for text in ["", "x", "../../etc/passwd", &"0".repeat(35), &"0".repeat(37), &"A".repeat(36), &far] {
            assert_eq!(text.parse::<JobId>(), Err(InvalidJobId), "{text}");
        }
    }

    #[test]
    fn two_ids_of_one_moment_differ() {
        assert_ne!(JobId::new(Timestamp::UNIX_EPOCH), JobId::new(Timestamp::UNIX_EPOCH));
    }
}
