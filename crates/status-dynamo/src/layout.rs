//! Keys and attributes: the names in the table, and the ways in and out of attribute values.
//!
//! | attribute | of | what |
//! |---|---|---|
//! | `pk`, `sk` | all | the key |
//! | `sv` | all | the version of this layout |
//! | `ttl_at` | all of a terminal job | when DynamoDB may delete it, in seconds |
//! | `st` | heads, chunks of terminal jobs | the job's status |
//! | `job` | heads | the record as JSON |
//! | `rev` | heads | its revision |
//! | `o` | heads | the owner: the key of the index `by_owner` |
//! | `dp`, `due` | heads of jobs a sweeper may have to look at | the key of the index `by_due` |
//! | `c`, `f` | chunks | string sets: the batches settled, and those of them that failed, from "0" in each chunk (AWS's DynamoDB Local takes a third less time for string sets than for number sets; their size is the same) |
//! | `cap` | the last chunk | its size; of a compacted one 0 |
//! | `z` | full chunks | compacted: so many batches, all settled; `c` is gone |
//! | `ip`, `ix` | chunks | items processed, items failed |
//! | `l` | chunks | the last write, in milliseconds |
//! | `s0`…`s255` | chunks | when a batch in flight was begun, in milliseconds since the job's creation |
//! | others of one letter | chunks | the estimator's sums ([`status_core::Sum::name`]) |

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{JobId, OwnerId, StoreError, Timestamp};

/// An item, or a key.
pub type Item = HashMap<String, AttributeValue>;

/// Batches in a chunk: a full one stays within 1 KB, which is one write unit.
pub const CHUNK: u64 = 256;
/// The version of this layout.
pub const SCHEMA: u64 = 1;
/// The sort key's name.
pub const SK: &str = "sk";
/// The head's sort key.
pub const HEAD: &str = "job";
/// What the sort keys of chunks begin with.
pub const CHUNK_PREFIX: &str = "chunk#";
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
    key(id.to_string(), format!("{CHUNK_PREFIX}{number:05}"))
}

/// The partition of a job's errors.
pub fn errors_pk(id: JobId) -> String {
    format!("{id}#errors")
}

/// The key of a batch's errors.
pub fn errors_key(id: JobId, batch: u64) -> Item {
    key(errors_pk(id), format!("error#{batch:08}"))
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

/// Where a page of due jobs ended, as a cursor.
///
/// # Errors
/// [`StoreError::Corrupt`] if the key lacks what the index is made of.
pub fn due_cursor(item: &Item) -> Result<String, StoreError> {
    let id = id_of(item)?;
    let due = attribute::number::<i64>(item, "due")
        .ok_or_else(|| corrupt(id, "no due time in the index of due jobs"))?;
    Ok(format!("{due}-{id}"))
}

/// The key that a cursor stands for.
///
/// # Errors
/// [`StoreError::InvalidCursor`].
pub fn due_key(cursor: &str) -> Result<Item, StoreError> {
    let (due, id) = cursor.split_once('-').ok_or(StoreError::InvalidCursor)?;
    let due: i64 = due.parse().map_err(|_| StoreError::InvalidCursor)?;
    let mut item = head_key(id.parse().map_err(|_| StoreError::InvalidCursor)?);
    item.insert("dp".into(), AttributeValue::S(DUE.into()));
    item.insert("due".into(), number(due));
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
