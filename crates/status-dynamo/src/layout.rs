//! Keys and attributes: the names in the table, and the ways in and out of attribute values.
//!
//! | attribute | of | what |
//! |---|---|---|
//! | `pk`, `sk` | all | the key |
//! | `sv` | all but idempotency keys and the count of a job's errors | the version of this layout |
//! | `ttl_at` | all, from their first write | when DynamoDB may delete it, in seconds |
//! | `st` | heads, chunks of terminal jobs | the job's status |
//! | `job` | heads, idempotency keys | the record as JSON; the id of the job that has the key |
//! | `rev` | heads | its revision |
//! | `barred` | what stands where a head must not be created any more | that it is no head |
//! | `o` | heads | the owner: the key of the index `by_owner` |
//! | `dp`, `due` | heads of jobs a sweeper may have to look at | the key of the index `by_due` |
//! | `c`, `f` | chunks | string sets: the batches settled, and those of them that failed, from "0" in each chunk (AWS's DynamoDB Local takes a third less time for string sets than for number sets; their size is the same) |
//! | `e0`…`e5` | chunks | numbers that say with two bits for each of 43 batches which attempt's errors are listed: added with the batch, in the write that counts it |
//! | `r` | chunks | batches that an earlier release counted as failed and that completed since: errors that release 0.1 wrote of them are not listed |
//! | `x0`…`x255` | chunks | what a failed batch failed with, until it completes: its items and the number of errors kept, as text |
//! | `en` | chunks | errors that are kept of what the batches of the chunk are settled as |
//! | `k` | chunks | since it exists, somebody has looked whether the job has it: writes need not look again |
//! | `cap` | the last chunk, and what is past it | its size, which is 0 past the total; of a compacted one 0 |
//! | `z` | full chunks | compacted: the number of its batches, all settled; `c` is gone |
//! | `ip`, `ix` | chunks | items processed, and failed ones of completed batches (under earlier releases of failed ones, too) |
//! | `l` | chunks | the last report, in milliseconds |
//! | `s0`…`s255` | chunks | when a batch in flight was begun, in milliseconds since the job's creation |
//! | `b`, `rows`, `more` | errors | the batch, its errors, and their lines and inputs, as JSON |
//! | `p`, `x` | errors | items processed and failed of the attempt they belong to |
//! | `n` | the count of a job's errors | about how many are kept: each chunk adds [`ERRORS_STEP`] when it has that many more, and takes them away when it has that many fewer |
//! | others of one letter | chunks | the estimator's sums ([`status_core::Sum::name`]) |

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{BatchIndex, Due, JobId, OwnerId, Settled, StoreError, Timestamp, chunk};

/// An item, or a key.
pub type Item = HashMap<String, AttributeValue>;

/// Batches in a chunk. One whose batches complete stays within 1 KB, which is one write unit, also with an error
/// for each. Each failed batch adds about ten bytes until it completes, and each start about eight: 255 failed
/// batches are between 3 and 4 KB, and a write of their chunk four write units.
pub const CHUNK: u64 = chunk::SIZE;
/// Chunks add to the count of a job's errors in such steps, so that it is no item that every worker writes.
pub const ERRORS_STEP: u64 = 128;
/// The version of this layout.
pub const SCHEMA: u64 = 1;
/// What is wrong with an item of a newer layout.
pub const NEWER: &str = "it was written by a newer version; update this program";
/// The attribute with the expiry.
pub const TTL: &str = "ttl_at";
/// The sort key's name.
pub const SK: &str = "sk";
/// The head's sort key.
pub const HEAD: &str = "job";
/// What the sort keys of chunks begin with.
pub const CHUNK_PREFIX: &str = "chunk#";
/// What the sort keys of errors begin with.
pub const ERRORS_PREFIX: &str = "error#";
/// The attribute with the record, or (of an idempotency key) the job's id.
pub const JOB: &str = "job";
/// The attribute with the owner.
pub const OWNER: &str = "o";
/// The index of jobs by owner.
pub const BY_OWNER: &str = "by_owner";
/// The index of jobs by when they are due.
pub const BY_DUE: &str = "by_due";
/// The partition of that index.
pub const DUE: &str = "due";

fn key(pk: String, sk: impl Into<String>) -> Item {
    HashMap::from([("pk".into(), AttributeValue::S(pk)), (SK.into(), AttributeValue::S(sk.into()))])
}

/// The key of a job's head.
pub fn head_key(id: JobId) -> Item {
    key(id.to_string(), HEAD)
}

/// The key of a job's chunk.
pub fn chunk_key(id: JobId, number: u64) -> Item {
    HashMap::from([("pk".into(), AttributeValue::S(id.to_string())), (SK.into(), chunk_sk(number))])
}

/// The number of the last chunk that a job can have.
pub const LAST_CHUNK: u64 = BatchIndex::MAX / CHUNK;

/// The sort key of a chunk.
pub fn chunk_sk(number: u64) -> AttributeValue {
    AttributeValue::S(format!("{CHUNK_PREFIX}{number:05}"))
}

/// The number of the chunk with this sort key, if it is the key of one, and not only like it.
pub fn chunk_in(sk: &str) -> Option<u64> {
    let number = sk.strip_prefix(CHUNK_PREFIX)?.parse().ok()?;
    (number <= LAST_CHUNK && chunk_sk(number) == AttributeValue::S(sk.to_owned())).then_some(number)
}

/// What every write of a chunk sets, with [`chunk_birth`]: its version, and an expiry from its birth on.
pub const CHUNK_BIRTH: &str = "sv = :sv, ttl_at = if_not_exists(ttl_at, :ttl)";

/// The condition of every write of a chunk: what a newer version wrote is left to it.
pub const CHUNK_IS_OURS: &str = "(attribute_not_exists(sv) OR sv = :sv)";

/// The values of [`CHUNK_BIRTH`] and [`CHUNK_IS_OURS`]. A chunk expires with its job, as far as that is known when
/// it is born: whoever dies right after leaves nothing that outlives the job by its rules.
pub fn chunk_birth(expires: Timestamp) -> Item {
    HashMap::from([(":sv".into(), number(SCHEMA)), (":ttl".into(), seconds(expires))])
}

/// The partition of a job's errors.
pub fn errors_pk(id: JobId) -> String {
    format!("{id}#errors")
}

/// The key of the errors of an attempt, from 1, at a batch that was settled so. The batch's bits in its chunk
/// say which attempt counts.
pub fn errors_key(id: JobId, batch: BatchIndex, settled: Settled, attempt: u8) -> Item {
    let way = match settled {
        Settled::Completed => 'c',
        Settled::Failed => 'f',
    };
    key(errors_pk(id), format!("{ERRORS_PREFIX}{:08}{way}{attempt}", batch.get()))
}

/// Where the errors of this batch and of all after it are; release 0.1 kept the batch's own just there.
pub fn errors_from(batch: u64) -> String {
    format!("{ERRORS_PREFIX}{batch:08}")
}

/// The key of the number of a job's errors.
pub fn errors_count_key(id: JobId) -> Item {
    key(errors_pk(id), "count")
}

/// The key under which an owner's idempotency key is kept.
pub fn idempotency_key(owner: &OwnerId, name: &str) -> Item {
    // The length keeps ("a", "b#c") and ("a#b", "c") apart.
    key(format!("key#{}#{owner}#{name}", owner.as_str().len()), "key")
}

/// A job in the index of due jobs.
///
/// # Errors
/// [`StoreError::Corrupt`] if the key lacks what the index is made of.
pub fn due_of(item: &Item) -> Result<Due, StoreError> {
    let id = id_of(item)?;
    if attribute::text(item, SK) != Some(HEAD) {
        return Err(corrupt(id, "another item of it than its head is in the index of due jobs"));
    }
    let due = attribute::number::<i64>(item, "due").and_then(|ms| Timestamp::from_millisecond(ms).ok());
    due.map(|at| Due::new(id, at)).ok_or_else(|| corrupt(id, "no due time in the index of due jobs"))
}

/// Where a page of due jobs ended, as a cursor. It holds whatever key the index has, so that one that is
/// no job's does not end the list.
pub fn due_cursor(item: &Item) -> String {
    let due = item.get("due").and_then(|due| due.as_n().ok()).map_or("0", String::as_str);
    let [sk, pk] = [SK, "pk"].map(|name| attribute::text(item, name).unwrap_or_default());
    format!("{due}#{}#{sk}{pk}", sk.len())
}

/// The two parts of a key, of which the first is told by its length: either may hold anything.
fn parts(text: &str) -> Option<(&str, &str)> {
    let (length, both) = text.split_once('#')?;
    let (sk, pk) = both.split_at_checked(length.parse().ok()?)?;
    (!sk.is_empty() && !pk.is_empty()).then_some((sk, pk))
}

/// The key that a cursor stands for.
///
/// # Errors
/// [`StoreError::InvalidCursor`].
pub fn due_key(cursor: &str) -> Result<Item, StoreError> {
    let (due, key_parts) = cursor.split_once('#').ok_or(StoreError::InvalidCursor)?;
    let (sk, pk) = parts(key_parts).ok_or(StoreError::InvalidCursor)?;
    if due.parse::<f64>().is_err() {
        return Err(StoreError::InvalidCursor);
    }
    let mut item = key(pk.to_owned(), sk);
    item.insert("dp".into(), AttributeValue::S(DUE.into()));
    item.insert("due".into(), number(due));
    Ok(item)
}

/// Where a page of an owner's jobs ended, as a cursor: a job's id, or whatever key the index has, so that one
/// that is no job's does not end the list.
pub fn owner_cursor(item: &Item) -> String {
    let [sk, pk] = [SK, "pk"].map(|name| attribute::text(item, name).unwrap_or_default());
    let is_job = sk == HEAD && pk.parse::<JobId>().is_ok();
    if is_job { pk.to_owned() } else { format!("{}#{sk}{pk}", sk.len()) }
}

/// The key that a cursor in the jobs of an owner stands for.
///
/// # Errors
/// [`StoreError::InvalidCursor`].
pub fn owner_key(owner: &OwnerId, cursor: &str) -> Result<Item, StoreError> {
    let mut item = match (cursor.parse(), parts(cursor)) {
        (Ok(id), _) => head_key(id),
        (_, Some((sk, pk))) => key(pk.to_owned(), sk),
        _ => return Err(StoreError::InvalidCursor),
    };
    item.insert(OWNER.into(), AttributeValue::S(owner.to_string()));
    Ok(item)
}

/// The job an item belongs to.
///
/// # Errors
/// [`StoreError::Corrupt`] if its key names none.
pub fn id_of(item: &Item) -> Result<JobId, StoreError> {
    let pk = attribute::text(item, "pk").unwrap_or_default();
    let why = || "its key names no job".to_owned();
    pk.parse().map_err(|_| StoreError::Corrupt { subject: format!("item {pk:?}"), why: why() })
}

/// The error for what is not as this version writes it.
pub fn corrupt(id: JobId, why: &str) -> StoreError {
    StoreError::Corrupt { subject: format!("job {id}"), why: why.to_owned() }
}

/// How large an item is, as DynamoDB counts it (developer guide, "Item sizes and formats"): names and text
/// in UTF-8, a number about one byte for two digits and one.
pub fn size_of(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of_value(value)).sum()
}

fn size_of_value(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.trim_matches(['-', '0']).len().div_ceil(2) + 1,
        AttributeValue::Ss(set) => 3 + set.iter().map(String::len).sum::<usize>(),
        other => format!("{other:?}").len(),
    }
}

/// A number.
#[expect(clippy::needless_pass_by_value, reason = "numbers are copied")]
pub fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A time in milliseconds.
pub fn millis(at: Timestamp) -> AttributeValue {
    number(at.as_millisecond())
}

/// A time in seconds, as DynamoDB's time-to-live wants it; rounded up.
pub fn seconds(at: Timestamp) -> AttributeValue {
    number(at.as_millisecond().div_euclid(1_000) + i64::from(at.as_millisecond().rem_euclid(1_000) > 0))
}

/// Ways to read attributes.
pub mod attribute {
    use std::str::FromStr;

    use super::Item;

    /// The text of an attribute.
    pub fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
        item.get(name)?.as_s().ok().map(String::as_str)
    }

    /// The number of an attribute.
    pub fn number<T: FromStr>(item: &Item, name: &str) -> Option<T> {
        item.get(name)?.as_n().ok()?.parse().ok()
    }

    /// A whole number as servers write it: large round ones come as `6.25E+24`.
    pub fn whole(text: &str) -> Option<i128> {
        let Some((mantissa, exponent)) = text.split_once(['E', 'e']) else { return text.parse().ok() };
        let exponent: u32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let shift = exponent.checked_sub(u32::try_from(fraction.len()).ok()?)?;
        format!("{whole}{fraction}").parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(shift)?)
    }
}

#[cfg(test)]
mod tests {
    use super::attribute::whole;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-12", Some(-12)),
            ("6.25E+24", Some(6_250_000_000_000_000_000_000_000)),
            ("1E+3", Some(1_000)),
            ("-2.5e1", Some(-25)),
            (
                "99999999999999999999999999999999999999",
                Some(99_999_999_999_999_999_999_999_999_999_999_999_999),
            ),
            ("1.5", None),
            ("1.25E+1", None),
            ("1E-3", None),
            ("1E+99", None),
            ("many", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }
}
