//! The status of long batch jobs in one SQLite file: durable without a server.
//!
//! # What it guarantees
//!
//! - **Durable.** An answer is given when the write is on the disk: it survives `kill -9` and a
//!   power failure (write-ahead log, `synchronous = FULL`; see [below](#why-synchronous--full)).
//! - **Atomic.** Every method is one transaction, a report of many batches too: all of it happens
//!   or nothing. A batch, its counters, its errors and the estimator's sums are one write.
//! - **Strong.** Every read sees one state of the file, with every write that was acknowledged
//!   before it: there are no eventual reads. Readers and the writer do not wait for each other.
//! - **Grouped.** Writes that wait at one moment share one transaction, and so one wait for the
//!   disk. Each fails alone: a full disk, a damaged job or a panic in one takes no other with it.
//! - **Shared.** Any number of processes on one machine may have the file open. Who waits for a
//!   change is woken at once by writes of the same process, and within 25 ms by those of others.
//! - **Checked.** A file that was not closed is checked before it is used, with its indexes, and
//!   refused if it is damaged. A later version's file, and a file of another program, are refused and left as they
//!   are. One damaged row is shown as damaged, alone.
//! - **Private.** The file and its log are made readable by their owner alone (0600).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! use std::sync::Arc;
//! use status_core::Tracker;
//! use status_sqlite::SqliteStore;
//!
//! let store = SqliteStore::open(folder.join("status.db")).await?;
//! let tracker = Tracker::new(Arc::new(store.clone()));
//! // Work goes on meanwhile.
//! store.backup(folder.join("status-copy.db")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! | table | a row is | written by |
//! |---|---|---|
//! | `jobs` | a job: its record as JSON, and the columns that indexes need | decisions |
//! | `facts` | 256 batches of a job, two bits each; after those, the sums over all of them | reports |
//! | `failures` | a failed batch, with the items that were counted of it | reports |
//! | `errors` | one error of an item | reports |
//! | `starts` | a batch in flight, of jobs that track starts | begins |
//!
//! The sums are in one row, not in one for each chunk as in stores with many writers: here there is
//! one writer, and nobody contends for the row. So a poll takes as long for ten million batches as
//! for ten. The row is the last of its job, beside the bits that reports in order change: such a
//! report writes one page, as a bare upsert does.
//!
//! # Limits
//!
//! Measured by `cargo run --release -p bench --bin store-cost -- --store sqlite` on two quiet cores,
//! beside a bare upsert of a counter's row, off the async threads, as durable, and in turn with the
//! store: 4,300 to 5,300 commits a second.
//!
//! | workers | reports/s, one batch each | of the bare rate | reports a commit | written each |
//! |---|---|---|---|---|
//! | 1 | 3,900 to 4,300 | 0.85 to 0.87 | 1.0 | 8 KB |
//! | 8 | 13,000 to 14,600 | 2.6 to 2.8 | 4.4 | 1.9 KB |
//! | 32 | 27,700 to 29,000 | 6.1 | 16 | 0.5 KB |
//!
//! Both write one page and wait for one flush. A report reads before it writes, and changes threads
//! twice: beside an upsert that blocks the thread of its caller, one worker reports at 0.7 of its
//! rate. Where a flush takes milliseconds, the two are equally fast.
//!
//! | batches | a poll | the file |
//! |---|---|---|
//! | 1,000 | 0.03 ms | 64 KB |
//! | 100,000 | 0.03 to 0.06 ms | 96 KB, 1.0 bytes a batch |
//! | 1,000,000 | 0.03 to 0.04 ms | 428 KB, 0.4 bytes a batch |
//!
//! Who waits for a change hears of it within 0.4 ms of a report of the same process (median), of
//! one of another process within 25 ms. Errors of items take what their texts take, up to 4 KB of
//! input each.
//!
//! - The file has to be on a local disk: write-ahead logs need shared memory, which network file
//!   systems do not have.
//! - One write at a time, whatever the number of processes. A write waits up to five seconds for
//!   another process, and is then [`StoreError::Throttled`].
//! - A check after an unclean end reads the whole file. So does opening a file that another process
//!   has open at that moment: the two cannot be told apart.
//! - Damage is found where it is read. A disk that loses what it has acknowledged is not found out.
//!
//! # Why `synchronous = FULL`
//!
//! With `NORMAL`, SQLite answers before the disk has the log: a power failure keeps the file
//! consistent and takes the last commits back. A worker deletes its message once its report was
//! taken, so a report that is taken back would be missing for ever, and its job would never
//! complete. Groups make `FULL` cheap where it matters, with many workers at once.
//!
//! # Space
//!
//! What expires is deleted by [`purge`](StatusStore::purge), which every sweep calls. Free pages
//! are used again. Where at least a quarter of the file and four megabytes are free, `purge` gives
//! pages back to the file system (`auto_vacuum = INCREMENTAL`), four megabytes in one transaction,
//! so that nobody waits for a `VACUUM`. The log is cut back to 16 MB after a burst.
//!
//! # Backup
//!
//! [`SqliteStore::backup`] copies one state of the file while work goes on. Copying the file by
//! other means loses what is still in its log.
//!
//! To restore a copy, end every process that has the file open, remove `FILE`, `FILE-wal` and
//! `FILE-shm`, and copy it there. A log that is left behind would be played into the copy.

mod backup;
mod batches;
mod errors;
mod facts;
mod failure;
mod jobs;
mod lists;
mod open;
mod readers;
mod schema;
mod store;
mod vacuum;
mod watchers;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::Connection;
#[cfg(doc)]
use status_core::StatusStore;
use status_core::{Clock, JobId, StoreError, SystemClock, Timestamp};

pub use crate::open::OpenError;
use crate::{failure::Failure, readers::Readers, watchers::Watchers, writer::Writer};

/// A store in one file. Cheap to clone; the file is closed with the last clone.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    handle: Arc<Handle>,
    clock: Arc<dyn Clock>,
}

/// What all clones share. The readers close their connections first, so that the writer's is the
/// last: it writes the log into the file, and removes it.
#[derive(Debug)]
struct Handle {
    path: PathBuf,
    was_checked: bool,
    readers: Arc<Readers>,
    writer: Writer,
    watchers: Arc<Watchers>,
}

impl SqliteStore {
    /// Opens the file at `path`, and makes it, for its owner alone, if it is not there. Its folder
    /// has to be. A file of an earlier version becomes one of this version, all at once or not at
    /// all.
    ///
    /// A file that was not closed, or that another process has open, is checked first (`PRAGMA
    /// integrity_check`: some seconds for each gigabyte).
    ///
    /// # Errors
    /// [`OpenError`]: a file of a later version, one of another program, a damaged one. None of
    /// them is changed.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let io = |path: &Path, source| OpenError::Io { path: path.to_owned(), source };
        let opening = path.clone();
        let opened = tokio::task::spawn_blocking(move || open::open(&opening));
        let opened = opened.await.map_err(|ended| io(&path, std::io::Error::other(ended)))??;
        let watchers = Arc::new(Watchers::default());
        let writer =
            Writer::start(opened.connection, watchers.clone()).map_err(|source| io(&path, source))?;
        let readers = Arc::new(Readers::new(path.clone()));
        let handle = Handle { path, was_checked: opened.was_checked, readers, writer, watchers };
        Ok(Self { handle: Arc::new(handle), clock: Arc::new(SystemClock) })
    }

    /// The same, judging by another clock whether a job's retention is over.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.handle.path
    }

    /// Whether the file had to be checked when it was opened, and was found sound.
    pub fn was_checked(&self) -> bool {
        self.handle.was_checked
    }

    /// How many transactions of this store have changed the file: far fewer than reports, where
    /// many workers report at once.
    pub fn commits(&self) -> u64 {
        self.handle.writer.commits()
    }

    /// Copies the file to `to`, which must not exist, with SQLite's own backup: one state of it, as
    /// it was at one moment. Work goes on meanwhile. The copy is checked before it gets its name,
    /// readable by its owner alone, and can be opened like any other file of this store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if there is such a file or it cannot be written;
    /// [`StoreError::Corrupt`] if the copy turns out damaged.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<(), StoreError> {
        let to = to.as_ref().to_owned();
        let subject = to.display().to_string();
        self.read_by("backup", || subject, move |connection| backup::backup(connection, &to)).await
    }

    async fn read_by<T, F>(
        &self,
        operation: &'static str,
        subject: impl FnOnce() -> String,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let read = self.handle.readers.read(work).await;
        read.map_err(|failure| failure.of(operation, subject()))
    }

    /// Writes something about one job; those who watch it are woken.
    async fn write_by<T, F>(&self, operation: &'static str, id: JobId, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let written = self.handle.writer.write(Some(id), work).await;
        written.map_err(|failure| failure.of(operation, failure::job(id)))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
