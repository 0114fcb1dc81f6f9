//! A folder in which everything is durable: jobs and leads in SQLite files, and the uploads that are not
//! through. One process at a time has it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use leads::SqliteLeads;
use status_sqlite::SqliteStore;

use crate::{StartError, owner::Keys};

/// What the folder of release 0.1 holds: tables of an embedded DynamoDB.
const OLD: &str = "tables.db";

pub(crate) struct Data {
    pub(crate) store: SqliteStore,
    pub(crate) leads: SqliteLeads,
    /// The folder of the uploads.
    pub(crate) uploads: PathBuf,
    /// By which visitors are known.
    pub(crate) keys: Keys,
    /// As long as it is open, no other process gets the folder.
    pub(crate) lock: File,
}

/// What is kept in the folder: any of it tells a folder of this program from one of somebody else.
const STATUS: &str = "status.db";
const LEADS: &str = "leads.db";
const LOCK: &str = "lock";
const UPLOADS: &str = "uploads";
const KEYS: &str = "cookie.keys";
/// What SQLite puts beside a file.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// What file systems put at their top.
const LOST_AND_FOUND: &str = "lost+found";

impl Data {
    /// Opens the folder, and makes it if it is not there. It is for its owner alone. One that holds
    /// something else is refused, and left as it is.
    pub(crate) async fn open(folder: &Path) -> Result<Self, StartError> {
        let failed = |source: io::Error| StartError::Data { folder: folder.to_owned(), source };
        if folder.join(OLD).exists() {
            return Err(StartError::OldData { folder: folder.to_owned() });
        }
        has_place(folder, Kind::Folder)?;
        make_private(folder).map_err(failed)?;
        if !is_ours(folder).map_err(failed)? {
            return Err(StartError::ForeignData { folder: folder.to_owned() });
        }
        // The lock is the folder's: what is elsewhere could be used by two processes at once.
        for (name, kind) in [STATUS, LEADS, LOCK, KEYS]
            .map(|name| (name, Kind::File))
            .into_iter()
            .chain([(UPLOADS, Kind::Folder)])
        {
            if folder.join(name).is_symlink() {
                return Err(StartError::LinkedData { path: folder.join(name) });
            }
            has_place(&folder.join(name), kind)?;
        }
        let new: Vec<_> = [STATUS, LEADS].into_iter().filter(|name| !folder.join(name).exists()).collect();
        let is_new_lock = !folder.join(LOCK).exists();
        let lock = lock(&folder.join(LOCK)).map_err(|error| match error {
            TryLockError::WouldBlock => StartError::DataInUse { folder: folder.to_owned() },
            TryLockError::Error(error) => failed(error),
        })?;
        match open_files(folder).await {
            Ok((store, leads)) => {
                let uploads = folder.join(UPLOADS);
                make_private(&uploads).map_err(failed)?;
                let keys = Keys::read_or_make(&folder.join(KEYS)).map_err(failed)?;
                restrict(folder, &uploads).map_err(failed)?;
                Ok(Self { store, leads, uploads, keys, lock })
            }
            Err(error) => {
                // Whose folder it is, is not known: what was not there before goes again. Logs go first: one that is left
                // without its file would be played into another that is put there, such as a backup.
                for name in new {
                    for suffix in LOGS.into_iter().chain([""]) {
                        let _ = fs::remove_file(folder.join(format!("{name}{suffix}")));
                    }
                }
                if is_new_lock {
                    let _ = fs::remove_file(folder.join(LOCK));
                }
                Err(failed(error))
            }
        }
    }
}

/// Opens both files, and makes those that are not there.
async fn open_files(folder: &Path) -> io::Result<(SqliteStore, SqliteLeads)> {
    let store = SqliteStore::open(folder.join(STATUS)).await.map_err(io::Error::other)?;
    let leads = SqliteLeads::open(&folder.join(LEADS)).map_err(io::Error::other)?;
    Ok((store, leads))
}

/// Whether this program has made what is in the folder, or nothing is.
fn is_ours(folder: &Path) -> io::Result<bool> {
    if folder.join(STATUS).exists() || folder.join(LEADS).exists() {
        return Ok(true);
    }
    // The lock is made first, and the process may have ended right after that. Others call theirs the same.
    for entry in fs::read_dir(folder)? {
        if ![LOCK, LOST_AND_FOUND].map(Some).contains(&entry?.file_name().to_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Folder,
}

/// Refuses what is neither of this kind nor missing. A pipe in the place of a file would wait for a reader for ever.
fn has_place(path: &Path, kind: Kind) -> Result<(), StartError> {
    let Ok(there) = fs::metadata(path) else { return Ok(()) };
    match kind {
        Kind::File if !there.is_file() => {
            Err(StartError::MisplacedData { path: path.to_owned(), what: "file" })
        }
        Kind::Folder if !there.is_dir() => {
            Err(StartError::MisplacedData { path: path.to_owned(), what: "folder" })
        }
        _ => Ok(()),
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The lock, once no other process has it. What was removed before it was locked is none.
fn lock(path: &Path) -> Result<File, TryLockError> {
    loop {
        let lock = private_file(path).map_err(TryLockError::Error)?;
        lock.try_lock()?;
        if is_at(&lock, path).map_err(TryLockError::Error)? {
            return Ok(lock);
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::metadata(path) {
        Ok(there) => Ok(of(there) == of(file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// What was put there by other means, such as a backup, is for its owner alone too.
#[cfg(unix)]
fn restrict(folder: &Path, uploads: &Path) -> io::Result<()> {
    let set = |path: &Path, mode| match fs::set_permissions(
        path,
        std::os::unix::fs::PermissionsExt::from_mode(mode),
    ) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        set => set,
    };
    for file in [STATUS, LEADS] {
        for suffix in LOGS.into_iter().chain([""]) {
            set(&folder.join(format!("{file}{suffix}")), 0o600)?;
        }
    }
    for name in [LOCK, KEYS] {
        set(&folder.join(name), 0o600)?;
    }
    set(uploads, 0o700)?;
    for upload in fs::read_dir(uploads)? {
        let upload = upload?;
        if upload.file_type()?.is_file() {
            set(&upload.path(), 0o600)?;
        }
    }
    set(folder, 0o700)
}

#[cfg(not(unix))]
fn restrict(_folder: &Path, _uploads: &Path) -> io::Result<()> {
    Ok(())
}
