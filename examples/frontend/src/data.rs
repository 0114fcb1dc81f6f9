//! A folder in which everything is durable: jobs and leads in SQLite files, and the uploads that are not
//! through. One process at a time has it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use leads::SqliteLeads;
use status_sqlite::SqliteStore;

use crate::StartError;

/// What the folder of release 0.1 holds: tables of an embedded DynamoDB.
const OLD: &str = "tables.db";

pub(crate) struct Data {
    pub(crate) store: SqliteStore,
    pub(crate) leads: SqliteLeads,
    /// The folder of the uploads.
    pub(crate) uploads: PathBuf,
    /// As long as it is open, no other process gets the folder.
    pub(crate) lock: File,
}

impl Data {
    /// Opens the folder, and makes it if it is not there. It is for its owner alone.
    pub(crate) async fn open(folder: &Path) -> Result<Self, StartError> {
        let failed = |source: io::Error| StartError::Data { folder: folder.to_owned(), source };
        if folder.join(OLD).exists() {
            return Err(StartError::OldData { folder: folder.to_owned() });
        }
        let uploads = folder.join("uploads");
        private_folder(folder).and_then(|()| private_folder(&uploads)).map_err(failed)?;
        let lock = private_file(&folder.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StartError::DataInUse { folder: folder.to_owned() },
            TryLockError::Error(error) => failed(error),
        })?;
        let store = SqliteStore::open(folder.join("status.db")).await;
        let store = store.map_err(|error| failed(io::Error::other(error)))?;
        let leads = SqliteLeads::open(&folder.join("leads.db"));
        let leads = leads.map_err(|error| failed(io::Error::other(error)))?;
        Ok(Self { store, leads, uploads, lock })
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
