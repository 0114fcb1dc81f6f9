//! Opening a file: what it may be, with which settings it is used, and when it is checked.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use crate::{
    failure::{Advised, RESTORE},
    schema::{self, Kind},
};

/// How long a write waits for the writer of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared: more than the store has.
const STATEMENTS: usize = 64;
/// The write-ahead log is cut back to this many bytes once it has been written to the file.
const LOG_BYTES: i64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A later version of this program has written it.
    #[error(
        "{} has schema version {found}, and this program knows versions up to {known}: update this program",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        found: usize,
        /// The latest version that this program can read.
        known: usize,
    },
    /// It is no file of this store. Nothing was changed in it.
    #[error("{} is not a job status database; choose another file", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// It was not closed cleanly, and the check found damage.
    #[error(
        "{} is damaged ({findings}); {RESTORE}; without a backup, sqlite.org's own `sqlite3 FILE .recover` may save a part",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the check found first.
        findings: String,
    },
    /// SQLite cannot keep a write-ahead log beside it: some network file systems cannot share
    /// memory.
    #[error("{} is on a file system without write-ahead logs; choose a local disk", path.display())]
    NoLog {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made or opened.
    #[error("{} cannot be opened", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{} cannot be opened", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why, and what can be done about it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process had it locked for longer than this one waits.
    #[error("{} is locked by another process; try again when that is done", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

/// A file that is open for writing.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    /// Whether the file had to be checked, and was found sound.
    pub(crate) was_checked: bool,
}

/// Opens the file at `path` for writing, makes it if it is not there, and brings it to this
/// version.
pub(crate) fn open(path: &Path) -> Result<Opened, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    create_private(path).map_err(io)?;
    // Whoever closes the file last removes its log. Where there is one, somebody has the file open,
    // or had it open when the machine or the process ended.
    let has_log = log_of(path).exists();
    let begun = Instant::now();
    loop {
        match try_open(path, has_log) {
            // SQLite does not wait for locks when it changes to write-ahead logging.
            Err(OpenError::Busy { .. }) if begun.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

fn try_open(path: &Path, has_log: bool) -> Result<Opened, OpenError> {
    let sqlite = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotOurs { path: path.to_owned() },
        Some(ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path: path.to_owned(), findings: source.to_string() }
        }
        Some(ErrorCode::DatabaseBusy) => OpenError::Busy { path: path.to_owned() },
        _ => OpenError::Sqlite { path: path.to_owned(), source: Advised(source).into() },
    };
    let mut connection = connect(path).map_err(sqlite)?;
    // A file that is refused keeps its log, and with it the sign that it is to be checked.
    let keeps_log = |connection: &Connection, keeps| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keeps).map_err(sqlite)
    };
    keeps_log(&connection, true)?;
    match schema::kind_of(&connection).map_err(sqlite)? {
        Kind::Foreign => return Err(OpenError::NotOurs { path: path.to_owned() }),
        Kind::Ours(found) if found > schema::VERSION => {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: schema::VERSION });
        }
        // Before the first table, or it has no effect.
        Kind::Empty => connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(sqlite)?,
        Kind::Ours(_) => {}
    }
    if has_log {
        check(path, &connection).map_err(sqlite)??;
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        return Err(OpenError::NoLog { path: path.to_owned() });
    }
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES).map_err(sqlite)?;
    schema::migrate(&mut connection).map_err(sqlite)?;
    keeps_log(&connection, false)?;
    Ok(Opened { connection, was_checked: has_log })
}

/// A connection with the settings that all have. A transaction waits for the disk before it is
/// acknowledged (`synchronous = FULL`): a worker deletes its message when its report was taken, so
/// a report that a power failure takes back would be missing for ever.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// The outer error is one of the check, the inner one what it found.
fn check(path: &Path, connection: &Connection) -> rusqlite::Result<Result<(), OpenError>> {
    let findings = damage(connection)?;
    Ok(match findings {
        None => Ok(()),
        Some(findings) => Err(OpenError::Damaged { path: path.to_owned(), findings }),
    })
}

/// Whether a finding of SQLite's check is of one row's values. It concerns that row alone, and is shown where
/// the row is read.
fn is_of_one_row(finding: &str) -> bool {
    finding.starts_with("CHECK constraint failed in ") || finding.contains(" value in ")
}

/// What SQLite's own check finds wrong with the file and its indexes first.
pub(crate) fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    // All findings: those of single rows would hide others behind them.
    let mut check = connection.prepare("PRAGMA integrity_check(2147483647)")?;
    let mut findings = check.query([])?;
    while let Some(row) = findings.next()? {
        let finding: String = row.get(0)?;
        if finding != "ok" && !is_of_one_row(&finding) {
            return Ok(Some(finding));
        }
    }
    Ok(None)
}

/// Makes the file, for its owner alone, unless it is there. SQLite gives its log the same
/// permissions.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_one_row_are_told_from_those_of_an_index() {
        for of_one_row in [
            "CHECK constraint failed in facts",
            "NULL value in jobs.id",
            "non-INTEGER value in facts.completed",
        ] {
            assert!(is_of_one_row(of_one_row), "{of_one_row}");
        }
        for of_an_index in [
            "non-unique entry in index jobs_by_key",
            "row 1 missing from index jobs_due",
            "Page 7: never used",
        ] {
            assert!(!is_of_one_row(of_an_index), "{of_an_index}");
        }
    }

    #[test]
    fn every_connection_waits_for_the_disk_and_keeps_rows_with_their_jobs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("status.db");
        let opened = open(&path).expect("it opens").connection;
        for connection in [opened, connect(&path).expect("it opens")] {
            let set = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let settings = ["synchronous", "foreign_keys", "auto_vacuum", "trusted_schema", "busy_timeout"];
            let found = settings.map(|name| set(name).expect("a setting"));
            assert_eq!(found, [2, 1, 2, 0, 5_000], "{settings:?}");
            let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
            assert_eq!(mode.expect("a setting"), "wal");
        }
    }
}
