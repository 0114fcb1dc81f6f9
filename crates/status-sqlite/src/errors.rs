//! Errors of items: those of the attempt that counted, a row each, written with the count itself.

use rusqlite::{Connection, Row, params};
use status_core::{
    BatchIndex, BatchReport, Damaged, ErrorsPosition, ItemError, JobId, Page, PageRequest, StoreError,
    Timestamp,
};

use crate::{batches::place, failure::Failure, jobs, lists::rows_for};

/// Deletes the errors of a batch; gives their number.
pub(crate) fn drop_of(connection: &Connection, seq: i64, batch: BatchIndex) -> Result<u64, Failure> {
    let drop = "DELETE FROM errors WHERE job = ?1 AND batch = ?2";
    Ok(connection.prepare_cached(drop)?.execute(params![seq, place(batch)])? as u64)
}

/// Keeps the errors of a report, at most `room`; gives their number.
pub(crate) fn keep(
    connection: &Connection,
    seq: i64,
    report: &BatchReport,
    room: u64,
) -> Result<u64, Failure> {
    let mut errors: Vec<_> = report.errors().iter().collect();
    errors.sort_by(|a, b| (a.item, &a.code).cmp(&(b.item, &b.code)));
    errors.truncate(usize::try_from(room).unwrap_or(usize::MAX));
    for (number, error) in errors.iter().enumerate() {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO errors (job, batch, place, item, code, message, line, input)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                seq,
                place(error.batch),
                number,
                error.item.map(bits),
                error.code,
                error.message,
                error.line.map(bits),
                error.input,
            ])?;
    }
    Ok(errors.len() as u64)
}

/// A page of a job's errors.
pub(crate) fn list(
    connection: &Connection,
    id: JobId,
    from: ErrorsPosition,
    page: &PageRequest,
    now: Timestamp,
) -> Result<Page<ItemError>, Failure> {
    let mut listed = Page::new(Vec::new(), None);
    let Some(stored) = jobs::find(connection, id, now)? else { return Ok(listed) };
    let first = BatchIndex::new(from.batch).map_err(|_| StoreError::InvalidCursor)?;
    let mut errors = connection.prepare_cached(
        "SELECT batch, place, item, code, message, line, input FROM errors
         WHERE job = ?1 AND (batch, place) >= (?2, ?3) ORDER BY batch, place LIMIT ?4",
    )?;
    let start = i64::try_from(from.place).map_err(|_| StoreError::InvalidCursor)?;
    let mut rows = errors.query(params![stored.seq, place(first), start, rows_for(page)])?;
    let mut read = 0;
    while let Some(row) = rows.next()? {
        let (batch, place): (i64, i64) = (row.get(0)?, row.get(1)?);
        if read == page.limit {
            let next = ErrorsPosition {
                batch: u64::try_from(batch).unwrap_or(0),
                place: usize::try_from(place).unwrap_or(0),
                listed: from.listed.saturating_add(read as u64),
            };
            listed.next = Some(next.to_string());
            break;
        }
        read += 1;
        match decode(row) {
            Ok(error) => listed.rows.push(error),
            Err(why) => {
                listed
                    .damaged
                    .push(Damaged { subject: format!("error {place} of batch {batch} of job {id}"), why });
            }
        }
    }
    Ok(listed)
}

fn decode(row: &Row<'_>) -> Result<ItemError, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let batch: u64 = row.get(0).map_err(text)?;
    let batch = BatchIndex::new(batch).map_err(|error| error.to_string())?;
    let (item, line): (Option<i64>, Option<i64>) = (row.get(2).map_err(text)?, row.get(5).map_err(text)?);
    let (code, message): (String, String) = (row.get(3).map_err(text)?, row.get(4).map_err(text)?);
    let mut error = ItemError::new(batch, item.map(i64::cast_unsigned), &code, &message);
    error.line = line.map(i64::cast_unsigned);
    error.input = row.get(6).map_err(text)?;
    Ok(error)
}

/// A number of an embedder in storage: all of its bits.
fn bits(number: u64) -> i64 {
    number.cast_signed()
}
