//! The tables, and how files of earlier versions become files of this one.
//!
//! Times are milliseconds since 1970. What can be derived stands beside the record only where an
//! index needs it.

use rusqlite::{Connection, TransactionBehavior};

/// Tells a file of this store from any other SQLite database: "JobS" in ASCII.
pub(crate) const APPLICATION_ID: i32 = 0x4a6f_6253;

/// The version that this program writes.
pub(crate) const VERSION: usize = MIGRATIONS.len();

/// Entry `n` makes a file of version `n` one of version `n + 1`. Entries that were released never
/// change.
const MIGRATIONS: &[&str] = &[FIRST];

const FIRST: &str = "
    -- What was decided: the record as JSON, swapped by its revision.
    CREATE TABLE jobs (
        -- Never given twice: what is left of a row that is lost is nobody else's.
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
        owner TEXT NOT NULL,
        idempotency_key TEXT,
        kind TEXT,
        status TEXT NOT NULL,
        revision INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        due_at INTEGER,
        expires_at INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
    CREATE INDEX jobs_by_owner ON jobs (owner, id, status, updated_at);
    CREATE INDEX jobs_by_status ON jobs (owner, status, id);
    CREATE INDEX jobs_completed ON jobs (owner, kind, id) WHERE status = 'completed';
    CREATE INDEX jobs_open ON jobs (id) WHERE status IN ('uploading', 'uploaded', 'processing');
    CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;
    CREATE INDEX jobs_expiring ON jobs (expires_at);

    -- What happened to a job's batches. Each 256 of them have a row: which are settled, and which of
    -- those failed, one bit each. The sums over all are in the row after those, number 2^32: a poll
    -- reads it alone, however long the job is, and what a report changes is mostly on one page.
    CREATE TABLE facts (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        number INTEGER NOT NULL,
        settled_bits BLOB CHECK (length(settled_bits) = 32),
        failed_bits BLOB CHECK (length(failed_bits) = 32),
        completed INTEGER,
        failed INTEGER,
        items_processed INTEGER,
        items_failed INTEGER,
        errors INTEGER,
        last_at INTEGER,
        highest INTEGER,
        moments BLOB,
        PRIMARY KEY (job, number)
    ) STRICT, WITHOUT ROWID;

    -- The batches that stand as failed, with the items that were counted of them.
    CREATE TABLE failures (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        batch INTEGER NOT NULL,
        items INTEGER NOT NULL,
        PRIMARY KEY (job, batch)
    ) STRICT, WITHOUT ROWID;

    -- What failed in a batch, by the attempt that counted.
    CREATE TABLE errors (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        batch INTEGER NOT NULL,
        place INTEGER NOT NULL,
        item INTEGER,
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        line INTEGER,
        input TEXT,
        PRIMARY KEY (job, batch, place)
    ) STRICT, WITHOUT ROWID;

    -- The batches that were begun and have not settled, of jobs that track starts.
    CREATE TABLE starts (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        batch INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (job, batch)
    ) STRICT, WITHOUT ROWID;
";

/// What a file is, before anything is written to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Nothing is in it yet.
    Empty,
    /// A file of this store, of this version.
    Ours(usize),
    /// Another program's.
    Foreign,
}

pub(crate) fn kind_of(connection: &Connection) -> rusqlite::Result<Kind> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, usize::try_from(version)) {
        (APPLICATION_ID, Ok(version)) if version > 0 => Kind::Ours(version),
        (0, Ok(0)) if tables == 0 => Kind::Empty,
        _ => Kind::Foreign,
    })
}

/// Brings a file to [`VERSION`], whoever else opens it at the same time: all of it, or nothing.
pub(crate) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = match kind_of(&transaction)? {
        Kind::Empty => 0,
        Kind::Ours(version) => version,
        Kind::Foreign => return Ok(()),
    };
    for migration in MIGRATIONS.iter().skip(from) {
        transaction.execute_batch(migration)?;
    }
    if from < VERSION {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i32::try_from(VERSION).unwrap_or(i32::MAX))?;
    }
    transaction.commit()
}
