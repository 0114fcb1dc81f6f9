//! A copy of the file, taken while work goes on.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};
use status_core::StoreError;

use crate::{
    failure::Failure,
    open::{connect, create_private, quick_check},
};

/// Copies one state of the file to `to`, checks the copy, and only then gives it its name.
pub(crate) fn backup(from: &Connection, to: &Path) -> Result<(), Failure> {
    let partial = with_suffix(to, ".partial");
    let copied = copy(from, to, &partial);
    if copied.is_err() {
        // What is half-done is no backup. That it cannot be removed is no news.
        let _ = fs::remove_file(&partial);
    }
    copied
}

fn copy(from: &Connection, to: &Path, partial: &Path) -> Result<(), Failure> {
    let io = |source: io::Error| StoreError::Unavailable {
        operation: "backup",
        subject: to.display().to_string(),
        source: source.into(),
    };
    if to.exists() {
        return Err(io(io::Error::new(io::ErrorKind::AlreadyExists, "there is such a file already")).into());
    }
    // A copy that was interrupted.
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error).into()),
        _ => {}
    }
    create_private(partial).map_err(io)?;
    let mut into = connect(partial)?;
    // All of it in one step: a copy in several begins again whenever somebody writes in between.
    let step = Backup::new(from, &mut into)?.step(-1)?;
    if step != StepResult::Done {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, None).into());
    }
    // One file, without a log beside it.
    into.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    if let Some(findings) = quick_check(&into)? {
        let subject = to.display().to_string();
        return Err(StoreError::Corrupt { subject, why: format!("the copy is damaged: {findings}") }.into());
    }
    into.close().map_err(|(_, error)| error)?;
    fs::File::open(partial).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(partial, to).map_err(io)?;
    sync_folder(to).map_err(io)?;
    Ok(())
}

/// Makes the name durable, too.
fn sync_folder(of: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = of.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        return fs::File::open(folder)?.sync_all();
    }
    let _ = of;
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
