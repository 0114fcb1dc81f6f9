//! A copy of the file, taken while work goes on.

use std::{fs, io, path::Path};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};
use status_core::StoreError;

use crate::{
    failure::Failure,
    open::{connect, damage},
};

/// Copies one state of the file to `to`, checks the copy, and only then gives it its name. Until then it has a name
/// of its own beside it, which goes if anything fails.
pub(crate) fn backup(from: &Connection, to: &Path) -> Result<(), Failure> {
    let io = |source: io::Error| StoreError::Unavailable {
        operation: "backup",
        subject: to.display().to_string(),
        source: source.into(),
    };
    if to.exists() {
        return Err(io(io::Error::new(io::ErrorKind::AlreadyExists, "there is such a file already")).into());
    }
    // Readable by its owner alone.
    let copy = tempfile::Builder::new().prefix(".backup-").tempfile_in(folder_of(to)).map_err(io)?;
    let mut into = connect(copy.path())?;
    // A copy that is interrupted goes as a whole: it needs no journal.
    into.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    // All of it in one step: a copy in several begins again whenever somebody writes in between.
    let step = Backup::new(from, &mut into)?.step(-1)?;
    if step != StepResult::Done {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, None).into());
    }
    // One file, without a log beside it.
    into.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    if let Some(findings) = damage(&into)? {
        let subject = to.display().to_string();
        return Err(StoreError::Corrupt { subject, why: format!("the copy is damaged: {findings}") }.into());
    }
    into.close().map_err(|(_, error)| error)?;
    copy.as_file().sync_all().map_err(io)?;
    copy.persist_noclobber(to).map_err(|error| io(error.error))?;
    sync_folder(to).map_err(io)?;
    Ok(())
}

/// Makes the name durable, too.
fn sync_folder(of: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return fs::File::open(folder_of(of))?.sync_all();
    #[cfg(not(unix))]
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
