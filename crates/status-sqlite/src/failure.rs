//! What can go wrong between a task and the file, and what the store says of it.

use std::{any::Any, fmt, io};

use rusqlite::ErrorCode;
use status_core::{BoxError, Damaged, JobId, StoreError};

/// Why a task failed, before it is said what was tried on what.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The task's own answer.
    Store(StoreError),
    Sqlite(rusqlite::Error),
    /// The task panicked: with this message.
    Panicked(String),
    /// The store's thread or its runtime has ended.
    Ended,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let message = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        Self::Panicked(message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
    }

    /// The failure of something that many tasks were part of, for one of them.
    pub(crate) fn shared(error: &rusqlite::Error) -> Self {
        Self::Sqlite(match error {
            rusqlite::Error::SqliteFailure(code, message) => {
                rusqlite::Error::SqliteFailure(*code, message.clone())
            }
            other => {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR);
                rusqlite::Error::SqliteFailure(code, Some(other.to_string()))
            }
        })
    }

    /// What is damaged, where a row does not hold what it should: that concerns nothing but the row. What
    /// is wrong with the file concerns everybody, and stays a failure.
    pub(crate) fn damaged(self, subject: impl FnOnce() -> String) -> Result<Damaged, Self> {
        match self {
            Self::Store(StoreError::Corrupt { subject, why }) => Ok(Damaged { subject, why }),
            Self::Sqlite(error) if error.sqlite_error_code().is_none() => {
                Ok(Damaged { subject: subject(), why: error.to_string() })
            }
            other => Err(other),
        }
    }

    /// What the store says: `operation` of `subject` failed.
    pub(crate) fn of(self, operation: &'static str, subject: String) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Panicked(message) => {
                let source = format!("it panicked: {message}").into();
                return StoreError::Unavailable { operation, subject, source };
            }
            Self::Ended => {
                let source = "the store was closed".into();
                return StoreError::Unavailable { operation, subject, source };
            }
            Self::Sqlite(error) => error,
        };
        let Some(code) = error.sqlite_error_code() else {
            // A column that does not hold what it should.
            return StoreError::Corrupt { subject, why: error.to_string() };
        };
        match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                StoreError::Throttled { operation, subject, source: error.into() }
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                let why = format!("the database file is damaged ({error}); {RESTORE}");
                StoreError::Corrupt { subject, why }
            }
            _ => {
                let advised = Advised(error);
                // Callers know the system's kind of error, whatever the store.
                let source: BoxError = if advised.is_full() {
                    io::Error::new(io::ErrorKind::StorageFull, advised).into()
                } else {
                    Box::new(advised)
                };
                StoreError::Unavailable { operation, subject, source }
            }
        }
    }
}

/// What to do about a damaged file. A log that is left beside a copy would be played into it.
pub(crate) const RESTORE: &str = "restore a backup: remove the file and those beside it that end in `-wal` \
                                  and `-shm`, and copy the backup there";

/// An error of SQLite, with what can be done about it.
#[derive(Debug)]
pub(crate) struct Advised(pub(crate) rusqlite::Error);

impl Advised {
    fn is_full(&self) -> bool {
        self.0.sqlite_error().is_some_and(|error| {
            // The memory that the log is shared by is a file, too.
            error.code == ErrorCode::DiskFull || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
        })
    }

    fn advice(&self) -> Option<&'static str> {
        match self.0.sqlite_error()?.code {
            _ if self.is_full() => Some("free space on the disk"),
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
                Some("make the file and its folder writable")
            }
            ErrorCode::SystemIoFailure => Some("look at the disk and the system's log"),
            _ => None,
        }
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        self.advice().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl std::error::Error for Advised {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// How errors name a job.
pub(crate) fn job(id: JobId) -> String {
    format!("job {id}")
}

/// Something that is stored of a job is not what this version writes.
pub(crate) fn corrupt(id: JobId, why: impl fmt::Display) -> StoreError {
    StoreError::Corrupt { subject: job(id), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(code: std::ffi::c_int) -> StoreError {
        let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        Failure::from(error).of("report", "job 1".into())
    }

    #[test]
    fn errors_say_what_can_be_done() {
        use rusqlite::ffi;
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED, ffi::SQLITE_BUSY_SNAPSHOT] {
            assert!(matches!(said_of(code), StoreError::Throttled { .. }), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert!(matches!(said_of(code), StoreError::Corrupt { .. }), "{code}");
        }
        for (code, advice) in [
            (ffi::SQLITE_FULL, "free space"),
            (ffi::SQLITE_READONLY, "writable"),
            (ffi::SQLITE_CANTOPEN, "writable"),
            (ffi::SQLITE_IOERR, "look at the disk"),
            (ffi::SQLITE_IOERR_SHMSIZE, "free space"),
        ] {
            match said_of(code) {
                StoreError::Unavailable { operation: "report", subject, source } => {
                    assert_eq!(subject, "job 1");
                    assert!(source.to_string().contains(advice), "{source}");
                    let kind = source.downcast_ref().map(io::Error::kind);
                    let full = (advice == "free space").then_some(io::ErrorKind::StorageFull);
                    assert_eq!(kind, full, "{source}");
                }
                other => panic!("{code}: {other:?}"),
            }
        }
        assert!(matches!(said_of(ffi::SQLITE_NOMEM), StoreError::Unavailable { .. }));
    }
}
