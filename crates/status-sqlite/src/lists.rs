//! Lists of jobs. Each is read from an index, and reads no more rows than its page has. One damaged
//! row hides no other.

use std::str::FromStr;

use rusqlite::{Connection, Params, Row, named_params, params};
use status_core::{Damaged, Due, Job, JobId, OwnerId, Page, PageRequest, Status, StoreError, Timestamp};

use crate::{failure::Failure, jobs};

/// The rows to read for a page: one more tells whether there is a next one.
pub(crate) fn rows_for(page: &PageRequest) -> i64 {
    i64::try_from(page.limit.saturating_add(1)).unwrap_or(i64::MAX)
}

/// The statements, each on an index.
mod sql {
    pub(super) const OF_OWNER: &str = "SELECT id, record, revision FROM jobs
        WHERE owner = :owner AND id < :before AND expires_at > :now ORDER BY id DESC LIMIT :rows";
    pub(super) const OF_STATUS: &str = "SELECT id, record, revision FROM jobs
        WHERE owner = :owner AND status = :status AND id < :before AND expires_at > :now
        ORDER BY id DESC LIMIT :rows";
    pub(super) const OPEN: &str = "SELECT id, record, revision FROM jobs
        WHERE status IN ('uploading', 'uploaded', 'processing') AND id < :before AND expires_at > :now
        ORDER BY id DESC LIMIT :rows";
    pub(super) const CHANGED: &str = "SELECT id, record, revision FROM jobs
        WHERE owner = ?1 AND (status IN ('uploading', 'uploaded', 'processing') OR updated_at >= ?2)
        AND expires_at > ?3 ORDER BY id DESC LIMIT ?4";
    pub(super) const COMPLETED: &str = "SELECT id, record, revision FROM jobs
        WHERE owner = ?1 AND kind = ?2 AND status = 'completed' AND expires_at > ?3
        ORDER BY id DESC LIMIT ?4";
    pub(super) const COUNT_OPEN: &str = "SELECT count(*) FROM (SELECT 1 FROM jobs
        WHERE owner = ?1 AND status IN ('uploading', 'uploaded', 'processing') AND expires_at > ?2 LIMIT ?3)";
    pub(super) const DUE: &str = "SELECT seq, id, due_at FROM jobs
        WHERE due_at <= ?1 AND (due_at, seq) > (?2, ?3) AND expires_at > ?4 ORDER BY due_at, seq LIMIT ?5";
}

/// After every id there is.
const AFTER_ALL: &str = "~";

/// The jobs of an owner, newest first.
pub(crate) fn of_owner(
    connection: &Connection,
    owner: &OwnerId,
    status: Option<Status>,
    page: &PageRequest,
    now: Timestamp,
) -> Result<Page<Job>, Failure> {
    let before = before(page)?;
    let (owner, now, rows) = (owner.as_str(), now.as_millisecond(), rows_for(page));
    match status {
        None => {
            let of = named_params! {":owner": owner, ":before": before, ":now": now, ":rows": rows};
            page_of(connection, sql::OF_OWNER, of, page)
        }
        Some(status) => {
            let status = status.as_str();
            let of = named_params! {
                ":owner": owner, ":status": status, ":before": before, ":now": now, ":rows": rows
            };
            page_of(connection, sql::OF_STATUS, of, page)
        }
    }
}

/// The jobs of all owners that are not over.
pub(crate) fn open(
    connection: &Connection,
    page: &PageRequest,
    now: Timestamp,
) -> Result<Page<Job>, Failure> {
    let of = named_params! {":before": before(page)?, ":now": now.as_millisecond(), ":rows": rows_for(page)};
    page_of(connection, sql::OPEN, of, page)
}

/// The jobs of an owner that are not over or changed since then.
pub(crate) fn changed(
    connection: &Connection,
    owner: &OwnerId,
    since: Timestamp,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Job>, Failure> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    readable(
        connection,
        sql::CHANGED,
        params![owner.as_str(), since.as_millisecond(), now.as_millisecond(), limit],
    )
}

/// The owner's last completed jobs of a kind.
pub(crate) fn completed(
    connection: &Connection,
    owner: &OwnerId,
    kind: &str,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Job>, Failure> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    readable(connection, sql::COMPLETED, params![owner.as_str(), kind, now.as_millisecond(), limit])
}

/// How many jobs of an owner are not over, at most `at_most`.
pub(crate) fn count_open(
    connection: &Connection,
    owner: &OwnerId,
    at_most: usize,
    now: Timestamp,
) -> Result<usize, Failure> {
    let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
    let of = params![owner.as_str(), now.as_millisecond(), at_most];
    Ok(connection.prepare_cached(sql::COUNT_OPEN)?.query_row(of, |row| row.get(0))?)
}

/// The jobs that a sweeper should look at, the longest due first.
pub(crate) fn due(
    connection: &Connection,
    until: Timestamp,
    page: &PageRequest,
    now: Timestamp,
) -> Result<Page<Due>, Failure> {
    let after: DuePosition = page.position()?.unwrap_or(DuePosition { at: i64::MIN, seq: 0 });
    let mut due = connection.prepare_cached(sql::DUE)?;
    let mut rows = due.query(params![
        until.as_millisecond(),
        after.at,
        after.seq,
        now.as_millisecond(),
        rows_for(page)
    ])?;
    let (mut listed, mut last) = (Page::new(Vec::new(), None), after);
    let mut read = 0;
    while let Some(row) = rows.next()? {
        if read == page.limit {
            listed.next = Some(format!("{}.{}", last.at, last.seq));
            break;
        }
        read += 1;
        last = DuePosition { seq: row.get(0)?, at: row.get(2)? };
        let id = row.get_ref(1)?.as_str().unwrap_or_default();
        match (id.parse(), Timestamp::from_millisecond(last.at)) {
            (Ok(id), Ok(at)) => listed.rows.push(Due::new(id, at)),
            _ => {
                let why = "it is due, and has no id or time that can be read".into();
                listed.damaged.push(Damaged { subject: format!("job {id:?} (row {})", last.seq), why });
            }
        }
    }
    Ok(listed)
}

/// Where a page of due jobs begins: after this row.
struct DuePosition {
    at: i64,
    seq: i64,
}

impl FromStr for DuePosition {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let parse = || {
            let (at, seq) = text.split_once('.')?;
            Some(Self { at: at.parse().ok()?, seq: seq.parse().ok()? })
        };
        parse().ok_or(StoreError::InvalidCursor)
    }
}

/// What the ids of a page are below.
fn before(page: &PageRequest) -> Result<String, StoreError> {
    let last: Option<JobId> = page.position()?;
    Ok(last.map_or_else(|| AFTER_ALL.into(), |last| last.to_string()))
}

fn page_of(
    connection: &Connection,
    sql: &str,
    of: impl Params,
    page: &PageRequest,
) -> Result<Page<Job>, Failure> {
    let mut listed = Page::new(Vec::new(), None);
    let (mut read, mut last) = (0, None);
    let mut jobs = connection.prepare_cached(sql)?;
    let mut rows = jobs.query(of)?;
    while let Some(row) = rows.next()? {
        if read == page.limit {
            listed.next = last;
            break;
        }
        read += 1;
        last = id_of(row).or(last);
        match jobs::decode(row, 0) {
            Ok(job) => listed.rows.push(job),
            Err(StoreError::Corrupt { subject, why }) => listed.damaged.push(Damaged { subject, why }),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(listed)
}

/// The id of a row as a cursor, if it can be one.
fn id_of(row: &Row<'_>) -> Option<String> {
    let id: JobId = row.get_ref(0).ok()?.as_str().ok()?.parse().ok()?;
    Some(id.to_string())
}

/// The jobs of a list that has no room for what is damaged.
fn readable(connection: &Connection, sql: &str, of: impl Params) -> Result<Vec<Job>, Failure> {
    let mut found = Vec::new();
    let mut jobs = connection.prepare_cached(sql)?;
    let mut rows = jobs.query(of)?;
    while let Some(row) = rows.next()? {
        match jobs::decode(row, 0) {
            Ok(job) => found.push(job),
            Err(error) => tracing::warn!(%error, "a job is left out of a list"),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn every_list_is_read_from_its_index() {
        let mut connection = Connection::open_in_memory().expect("a database");
        schema::migrate(&mut connection).expect("the tables");
        for (sql, index) in [
            (sql::OF_OWNER, "jobs_by_owner (owner=? AND id<?)"),
            (sql::OF_STATUS, "jobs_by_status (owner=? AND status=? AND id<?)"),
            (sql::OPEN, "jobs_open (id<?)"),
            (sql::CHANGED, "jobs_by_owner (owner=?)"),
            (sql::COMPLETED, "jobs_completed (owner=? AND kind=?)"),
            (sql::COUNT_OPEN, "jobs_by_status (owner=? AND status=?)"),
            (sql::DUE, "jobs_due (due_at>? AND due_at<?)"),
        ] {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a plan");
            let none = vec![rusqlite::types::Null; explain.parameter_count()];
            let steps = explain.query_map(rusqlite::params_from_iter(none), |row| row.get(3));
            let plan: Vec<String> = steps.and_then(Iterator::collect).expect("its steps");
            assert!(plan.iter().any(|step| step.contains(index)), "{sql}: {plan:?}");
            assert!(!plan.iter().any(|step| step.contains("SORT") || step.contains("B-TREE")), "{plan:?}");
        }
    }
}
