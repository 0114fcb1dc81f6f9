//! Stores in folders that go with them, and ways past the store.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::{path::Path, sync::Arc};

use rusqlite::Connection;
use status_core::{Clock, SystemClock, Timestamp, chunk::Places};
use status_sqlite::SqliteStore;
use tempfile::TempDir;

/// A store on the file at `path`, on the system's clock.
pub(crate) async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.expect("it opens").with_clock(Arc::new(SystemClock))
}

/// A clock that keeps a folder as long as a store goes by it.
#[derive(Debug)]
pub(crate) struct InFolder {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) _folder: Arc<TempDir>,
}

impl Clock for InFolder {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// A connection past the store.
pub(crate) fn raw(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("it opens");
    connection.busy_timeout(std::time::Duration::from_secs(5)).expect("set");
    connection
}

/// SQLite's full check finds nothing, and the sums of every job are those of its bits.
pub(crate) fn check(path: &Path) {
    let connection = raw(path);
    let found: String =
        connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("checked");
    assert_eq!(found, "ok");
    let found: i64 = connection
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| r.get(0))
        .expect("checked");
    assert_eq!(found, 0, "rows without a job");
    let mut jobs = connection
        .prepare("SELECT job, completed, failed, errors FROM facts WHERE number = 1 << 32")
        .expect("a query");
    let jobs = jobs.query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])));
    let jobs: Vec<(i64, [u64; 3])> = jobs.and_then(Iterator::collect).expect("the sums");
    for (job, sums) in jobs {
        let mut chunks = connection
            .prepare("SELECT settled_bits, failed_bits FROM facts WHERE job = ?1 AND number < 1 << 32")
            .expect("a query");
        let chunks = chunks.query_map([job], |row| Ok((count(row.get(0)?), count(row.get(1)?))));
        let chunks: Vec<(u64, u64)> = chunks.and_then(Iterator::collect).expect("the bits");
        let settled: u64 = chunks.iter().map(|(settled, _)| settled).sum();
        let failed: u64 = chunks.iter().map(|(_, failed)| failed).sum();
        let errors: u64 = connection
            .query_row("SELECT count(*) FROM errors WHERE job = ?1", [job], |row| row.get(0))
            .expect("counted");
        assert_eq!(sums, [settled - failed, failed, errors], "completed, failed and errors of job {job}");
    }
}

fn count(bits: [u8; 32]) -> u64 {
    let words = std::array::from_fn(|word| {
        u64::from_le_bytes(bits[8 * word..][..8].try_into().expect("eight bytes"))
    });
    Places::from_words(words).count()
}
