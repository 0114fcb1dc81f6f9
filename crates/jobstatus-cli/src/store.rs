//! The store that the commands work on, and what its errors are to people.

use std::{fs, io, path::Path, sync::Arc};

use status_core::{Error, StatusStore, StoreError};
use status_sqlite::{OpenError, SqliteStore};

#[cfg(feature = "aws")]
use crate::aws;
use crate::problem::{Code, Outcome, Problem, causes};

/// A store that is open.
pub(crate) enum Store {
    Sqlite(SqliteStore),
    #[cfg(feature = "aws")]
    DynamoDb(aws::Table),
}

impl Store {
    pub(crate) fn shared(&self) -> Arc<dyn StatusStore> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            #[cfg(feature = "aws")]
            Self::DynamoDb(table) => Arc::new(table.store.clone()),
        }
    }

    /// The store with its place, as sentences name it.
    fn name(&self) -> String {
        match self {
            Self::Sqlite(store) => store.path().display().to_string(),
            #[cfg(feature = "aws")]
            Self::DynamoDb(table) => table.server.name(),
        }
    }

    /// From now on somebody else says that the store does not answer.
    pub(crate) fn be_quiet(&self) {
        match self {
            Self::Sqlite(_) => {}
            #[cfg(feature = "aws")]
            Self::DynamoDb(table) => table.server.be_quiet(),
        }
    }

    /// The error as people are told of it.
    pub(crate) fn problem(&self, error: Error) -> Problem {
        match error {
            Error::NotFound(id) => Problem::Said {
                code: Code::NotFound,
                message: format!("there is no job {id} in {}", self.name()),
                passing: false,
            },
            Error::InvalidText(_) | Error::TooManyBatches(_) | Error::Store(StoreError::InvalidCursor) => {
                Problem::usage(error.to_string())
            }
            Error::Store(error) => self.store_problem(&error),
            error => Problem::error(error.to_string()),
        }
    }

    fn store_problem(&self, error: &StoreError) -> Problem {
        match (self, error) {
            (_, StoreError::Corrupt { .. }) => Problem::error(format!("{}: {error}", self.name())),
            #[cfg(feature = "aws")]
            (
                Self::DynamoDb(table),
                StoreError::Unavailable { source, .. } | StoreError::Throttled { source, .. },
            ) => table.server.problem(error, source.as_ref()),
            (Self::Sqlite(_), StoreError::Throttled { .. }) => {
                let why = "another process has been writing to it for too long; try again";
                Problem::unreachable(format!("{}: {why}", self.name())).passing()
            }
            (Self::Sqlite(_), StoreError::Unavailable { source, .. }) => {
                Problem::unreachable(format!("{}: {error}: {source}", self.name())).passing()
            }
            _ => Problem::error(format!("{}: {error}", self.name())),
        }
    }
}

/// Opens a SQLite file; makes it only if that is what was asked for.
pub(crate) async fn open_file(path: &Path, makes: bool) -> Outcome<SqliteStore> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(Problem::unreachable(format!("{shown} is a folder; name the file in it")));
        }
        // An empty file would become a database by being opened.
        Ok(found) if found.len() > 0 || makes => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && makes => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Problem::unreachable(format!("{shown} cannot be opened: {error}")));
        }
        found => {
            let what = if found.is_ok() { "is empty" } else { "does not exist" };
            return Err(Problem::unreachable(format!(
                "{shown} {what}; name the file of the jobs with --store sqlite:FILE, or make one with \
                 `jobstatus create-table --store sqlite:{shown}`"
            )));
        }
    }
    SqliteStore::open(path).await.map_err(|error| cannot_open(path, &error))
}

fn cannot_open(path: &Path, error: &OpenError) -> Problem {
    let said: Vec<_> = causes(error).map(ToString::to_string).collect();
    let mut message = said.join(": ");
    if path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        message += "; make its folder first";
    }
    match error {
        OpenError::Damaged { .. } | OpenError::Newer { .. } => Problem::error(message),
        _ => Problem::unreachable(message),
    }
}
