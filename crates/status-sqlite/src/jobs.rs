//! Jobs: their records as rows, and every decision about them. The functions run inside a
//! transaction.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row, params};
use status_core::{Created, Damaged, Due, Job, JobId, StoreError, Timestamp};

use crate::{
    facts::{self, Sums},
    failure::{Failure, corrupt, job as subject},
};

/// The most records that a thread keeps parsed.
const PARSED: usize = 64;

thread_local! {
    /// Records that this thread has parsed, beside their texts: a report mostly finds the record that
    /// the one before it found. What the file holds counts, whoever wrote it: the text is read each
    /// time, and parsed again where it differs.
    static RECORDS: RefCell<HashMap<JobId, (String, Arc<Job>)>> = RefCell::default();
}

/// A job, the key under which the other tables have it, and the sums over its batches.
pub(crate) struct Stored {
    pub(crate) seq: i64,
    pub(crate) job: Arc<Job>,
    pub(crate) sums: Result<Sums, Damaged>,
}

impl Stored {
    /// The sums, for what cannot be told without them.
    pub(crate) fn sums(&self) -> Result<&Sums, StoreError> {
        self.sums.as_ref().map_err(|Damaged { subject, why }| StoreError::Corrupt {
            subject: subject.clone(),
            why: why.clone(),
        })
    }
}

/// A job whose retention is not over.
pub(crate) fn find(connection: &Connection, id: JobId, now: Timestamp) -> Result<Option<Stored>, Failure> {
    let mut find = connection.prepare_cached(
        "SELECT completed, failed, items_processed, items_failed, errors, last_at, highest, moments,
         job, seq, id, record, revision
         FROM jobs LEFT JOIN facts ON job = seq AND number = ?3 WHERE id = ?1 AND expires_at > ?2",
    )?;
    let mut rows = find.query(params![id.to_string(), now.as_millisecond(), facts::SUMS])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (has_sums, seq) = (row.get::<_, Option<i64>>(8)?.is_some(), row.get(9)?);
    let job = parsed(id, row, 10)?;
    let sums = if has_sums { facts::decode(row, &job) } else { facts::none(connection, seq, id) };
    let damaged = |failure: Failure| failure.damaged(|| format!("the sums of job {id}"));
    let sums = sums.map(Ok).or_else(|failure| damaged(failure).map(Err))?;
    Ok(Some(Stored { seq, job, sums }))
}

/// [`decode`] for job `id`, unless the record is one that was parsed before.
fn parsed(id: JobId, row: &Row<'_>, id_column: usize) -> Result<Arc<Job>, StoreError> {
    RECORDS.with_borrow_mut(|records| {
        let text = text(row, id_column + 1);
        if let Some((known, job)) = records.get(&id)
            && text == Some(known)
            && is_of_its_revision(job, row, id_column)
        {
            return Ok(job.clone());
        }
        let job = Arc::new(decode(row, id_column)?);
        if records.len() >= PARSED {
            records.clear();
        }
        records.insert(id, (text.unwrap_or_default().to_owned(), job.clone()));
        Ok(job)
    })
}

/// [`find`], where there has to be one.
pub(crate) fn get(connection: &Connection, id: JobId, now: Timestamp) -> Result<Stored, Failure> {
    Ok(find(connection, id, now)?.ok_or(StoreError::NotFound(id))?)
}

/// The job in a row that has its `id`, `record` and `revision` from column `first` on.
pub(crate) fn decode(row: &Row<'_>, first: usize) -> Result<Job, StoreError> {
    let id = text(row, first);
    let damaged = |why: String| StoreError::Corrupt {
        subject: subject_of(id),
        why: format!("its record cannot be read: {why}"),
    };
    let json = text(row, first + 1).ok_or_else(|| damaged("it is no text".into()))?;
    let job: Job = serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
    if Some(job.id.to_string().as_str()) != id {
        return Err(damaged(format!("it is that of job {}", job.id)));
    }
    if !is_of_its_revision(&job, row, first) {
        return Err(damaged(format!("it is of revision {}, its row of another", job.revision)));
    }
    Ok(job)
}

/// Whether the row says the same revision as the record: if not, no decision could ever be swapped in.
fn is_of_its_revision(job: &Job, row: &Row<'_>, first: usize) -> bool {
    row.get(first + 2).ok() == Some(revision(job.revision))
}

/// A column, if it is a text.
fn text<'row>(row: &'row Row<'_>, column: usize) -> Option<&'row str> {
    row.get_ref(column).ok()?.as_str().ok()
}

fn subject_of(id: Option<&str>) -> String {
    format!("job {}", id.unwrap_or("without an id"))
}

fn encode(job: &Job) -> Result<String, StoreError> {
    serde_json::to_string(job).map_err(|error| corrupt(job.id, error))
}

/// Keeps a new job, unless there is one with its id or its owner's key.
pub(crate) fn create(connection: &Connection, job: &Job, now: Timestamp) -> Result<Created, Failure> {
    let (id, owner, key) = (job.id.to_string(), job.owner.as_str(), job.idempotency_key.as_deref());
    // What has expired is not there, and its key is free.
    connection
        .prepare_cached("DELETE FROM jobs WHERE id = ?1 AND expires_at <= ?2")?
        .execute(params![id, now.as_millisecond()])?;
    connection
        .prepare_cached("DELETE FROM jobs WHERE owner = ?1 AND idempotency_key = ?2 AND expires_at <= ?3")?
        .execute(params![owner, key, now.as_millisecond()])?;
    if let Some(there) = find(connection, job.id, now)? {
        // The answer to the same creation was lost.
        let is_this = there.job.is_same_request(job);
        return Ok(if is_this {
            Created::New
        } else {
            Created::Existing(Box::new(Arc::unwrap_or_clone(there.job)))
        });
    }
    let has_key = connection
        .prepare_cached("SELECT id, record, revision FROM jobs WHERE owner = ?1 AND idempotency_key = ?2")?
        .query_row(params![owner, key], |row| Ok(decode(row, 0)))
        .optional()?;
    if let Some(there) = has_key {
        return Ok(Created::Existing(Box::new(there?)));
    }
    connection
        .prepare_cached(
            "INSERT INTO jobs
             (id, owner, idempotency_key, kind, status, revision, updated_at, due_at, expires_at, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            id,
            owner,
            key,
            job.kind,
            job.status.as_str(),
            revision(job.revision),
            job.updated_at.as_millisecond(),
            job.due_at().as_millisecond(),
            job.expires_at().as_millisecond(),
            encode(job)?,
        ])?;
    Ok(Created::New)
}

/// Swaps `next` in if the stored revision is the one before it.
pub(crate) fn decide(connection: &Connection, next: &Job, now: Timestamp) -> Result<(), Failure> {
    let swapped = connection
        .prepare_cached(
            "UPDATE jobs SET kind = ?3, status = ?4, revision = ?5, updated_at = ?6, due_at = ?7,
             expires_at = ?8, record = ?9 WHERE id = ?1 AND revision = ?5 - 1 AND expires_at > ?2",
        )?
        .execute(params![
            next.id.to_string(),
            now.as_millisecond(),
            next.kind,
            next.status.as_str(),
            revision(next.revision),
            next.updated_at.as_millisecond(),
            next.due_at().as_millisecond(),
            next.expires_at().as_millisecond(),
            encode(next)?,
        ])?;
    // Where the answer to the same swap was lost, it is there.
    if swapped == 1 || get(connection, next.id, now)?.job.as_ref() == next {
        return Ok(());
    }
    Err(StoreError::Conflict(next.id).into())
}

/// A terminal job is not due any more: there is nowhere else to carry its end.
pub(crate) fn propagate(connection: &Connection, job: &Job) -> Result<(), Failure> {
    if job.status.is_terminal() {
        connection
            .prepare_cached("UPDATE jobs SET due_at = NULL WHERE id = ?1 AND revision = ?2")?
            .execute(params![job.id.to_string(), revision(job.revision)])?;
    }
    Ok(())
}

pub(crate) fn postpone(
    connection: &Connection,
    due: &Due,
    until: Timestamp,
    now: Timestamp,
) -> Result<bool, Failure> {
    let [at, until, now] = [due.at, until, now].map(Timestamp::as_millisecond);
    let moved = connection
        .prepare_cached("UPDATE jobs SET due_at = ?3 WHERE id = ?1 AND due_at = ?2 AND expires_at > ?4")?
        .execute(params![due.id.to_string(), at, until, now])?;
    Ok(moved == 1)
}

/// Deletes a job; what belongs to it goes with it.
pub(crate) fn erase(connection: &Connection, id: JobId) -> Result<(), Failure> {
    connection.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id.to_string()])?;
    Ok(())
}

/// Deletes at most `limit` jobs that have expired; gives their number.
pub(crate) fn purge(connection: &Connection, now: Timestamp, limit: usize) -> Result<usize, Failure> {
    let expired = "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE expires_at <= ?1 LIMIT ?2)";
    Ok(connection.prepare_cached(expired)?.execute(params![now.as_millisecond(), limit])?)
}

/// What a revision is in storage. It grows by one with each decision, of which a job has few.
fn revision(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// How errors name a job that is looked for.
pub(crate) fn named(id: JobId) -> impl FnOnce() -> String {
    move || subject(id)
}
