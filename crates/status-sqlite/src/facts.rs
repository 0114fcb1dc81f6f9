//! What happened to a job's batches: one row of bits for each 256 batches, and one row of sums for
//! the job.
//!
//! Both are written in one transaction by the one writer, so the sums always are those of the bits.
//! They are in one table, and the sums come after the last bits, which most reports change: so a
//! report mostly changes one page.

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, Row, params};
use status_core::{
    BatchIndex, Facts, Job, JobId, Sum, Timestamp,
    chunk::{self, Places, Settlements},
};

use crate::{
    failure::{Failure, corrupt},
    jobs::Stored,
};

/// The number of the row of sums: past that of any chunk.
pub(crate) const SUMS: i64 = 1 << 32;
/// Bytes of one of the estimator's sums.
const SUM_BYTES: usize = 16;

/// The row of sums.
#[derive(Clone, Default)]
pub(crate) struct Sums {
    /// Over all batches, also those past a total that became known later.
    pub(crate) facts: Facts,
    /// How many errors of items are kept.
    pub(crate) errors: u64,
}

/// The sums of a job, from the first columns of a row, in the order in which [`Sums`] are written.
pub(crate) fn decode(row: &Row<'_>, job: &Job) -> Result<Sums, Failure> {
    let damaged = |why: &str| Failure::from(corrupt(job.id, format_args!("its sums cannot be read: {why}")));
    let count =
        |column| u64::try_from(row.get::<_, i64>(column)?).map_err(|_| damaged("a count is below zero"));
    let mut facts = Facts::default();
    facts.counts.completed = count(0)?;
    facts.counts.failed = count(1)?;
    facts.counts.items_processed = count(2)?;
    facts.counts.items_failed = count(3)?;
    let last_at: Option<i64> = row.get(5)?;
    let last_at = last_at.map(Timestamp::from_millisecond).transpose();
    facts.last_at = last_at.map_err(|_| damaged("a time is out of range"))?;
    let highest: Option<u32> = row.get(6)?;
    let highest = highest.map(|highest| BatchIndex::new(highest.into())).transpose();
    facts.highest = highest.map_err(|_| damaged("the highest batch is past what a job may have"))?;
    let known = facts.highest.map_or(0, |highest| highest.get() + 1);
    if facts.counts.completed.saturating_add(facts.counts.failed) > known {
        return Err(damaged("more batches are counted than there are"));
    }
    let moments: Vec<u8> = row.get(7)?;
    let (sums, rest) = moments.as_chunks::<SUM_BYTES>();
    if sums.len() != Sum::ALL.len() || !rest.is_empty() {
        return Err(damaged("the estimator's sums have another length"));
    }
    for (sum, bytes) in Sum::ALL.iter().zip(sums) {
        facts.moments.set(*sum, i128::from_le_bytes(*bytes));
    }
    Ok(Sums { facts, errors: count(4)? })
}

/// The sums of a job that has no row of them: nothing has been reported.
pub(crate) fn none(connection: &Connection, seq: i64, id: JobId) -> Result<Sums, Failure> {
    let lost = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM facts WHERE job = ?1)")?
        .query_row([seq], |row| row.get::<_, bool>(0))?;
    if lost { Err(corrupt(id, "its sums are missing").into()) } else { Ok(Sums::default()) }
}

pub(crate) fn write_sums(connection: &Connection, seq: i64, sums: &Sums) -> Result<(), Failure> {
    let Sums { facts, errors } = sums;
    let moments: Vec<u8> = Sum::ALL.iter().flat_map(|sum| facts.moments.get(*sum).to_le_bytes()).collect();
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT INTO facts
             (job, number, completed, failed, items_processed, items_failed, errors, last_at, highest, moments)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (job, number) DO UPDATE SET completed = ?3, failed = ?4, items_processed = ?5,
             items_failed = ?6, errors = ?7, last_at = ?8, highest = ?9, moments = ?10",
        )?
        .execute(params![
            seq,
            SUMS,
            count(facts.counts.completed),
            count(facts.counts.failed),
            count(facts.counts.items_processed),
            count(facts.counts.items_failed),
            count(*errors),
            facts.last_at.map(|at| at.as_millisecond()),
            facts.highest.map(|highest| count(highest.get())),
            moments,
        ])?;
    Ok(())
}

/// The facts of the batches that the job has: those at or past its total are set aside. Only the
/// few chunks from the total on are read for it, and only where there is such a batch.
pub(crate) fn of_its_batches(
    connection: &Connection,
    stored: &Stored,
    mut facts: Facts,
) -> Result<Facts, Failure> {
    let past = |total: &u64| facts.highest.is_some_and(|highest| highest.get() >= *total);
    let Some(total) = stored.job.total().filter(past) else { return Ok(facts) };
    each_chunk(connection, stored, total / chunk::SIZE, |number, settlements| {
        let (_, stray) = settlements.split_at(chunk::size_of(number, total));
        facts.set_aside(stray.completed, stray.failed);
        ControlFlow::Continue(())
    })?;
    Ok(facts)
}

/// How the batches of chunk `number` stand.
pub(crate) fn chunk_of(
    connection: &Connection,
    stored: &Stored,
    number: u64,
) -> Result<Settlements, Failure> {
    let found = connection
        .prepare_cached("SELECT settled_bits, failed_bits FROM facts WHERE job = ?1 AND number = ?2")?
        .query_row(params![stored.seq, key(number)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((settled, failed)) = found else { return Ok(Settlements::default()) };
    Ok(Settlements { settled: Places::from_words(words(settled)), failed: Places::from_words(words(failed)) })
}

/// Shows `look` the chunks from number `from` on that have a row, in order, until it has seen
/// enough.
pub(crate) fn each_chunk(
    connection: &Connection,
    stored: &Stored,
    from: u64,
    mut look: impl FnMut(u64, Settlements) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let mut chunks = connection.prepare_cached(
        "SELECT number, settled_bits, failed_bits FROM facts
         WHERE job = ?1 AND number >= ?2 AND number < ?3 ORDER BY number",
    )?;
    let mut rows = chunks.query(params![stored.seq, key(from), SUMS])?;
    while let Some(row) = rows.next()? {
        let number: u32 = row.get(0)?;
        let (settled, failed) =
            (Places::from_words(words(row.get(1)?)), Places::from_words(words(row.get(2)?)));
        if look(number.into(), Settlements { settled, failed }).is_break() {
            break;
        }
    }
    Ok(())
}

pub(crate) fn write_chunk(
    connection: &Connection,
    seq: i64,
    number: u64,
    settlements: &Settlements,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO facts (job, number, settled_bits, failed_bits) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (job, number) DO UPDATE SET settled_bits = ?3, failed_bits = ?4",
        )?
        .execute(params![seq, key(number), bytes(settlements.settled), bytes(settlements.failed)])?;
    Ok(())
}

fn words(bytes: [u8; 32]) -> [u64; 4] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|word| u64::from_le_bytes(words[word]))
}

fn bytes(places: Places) -> [u8; 32] {
    let mut bytes = [0; 32];
    let (words, _) = bytes.as_chunks_mut::<8>();
    for (into, word) in words.iter_mut().zip(places.words()) {
        *into = word.to_le_bytes();
    }
    bytes
}

/// A chunk's number in storage.
fn key(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
