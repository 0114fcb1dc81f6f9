//! The SQLite store keeps the contract.

mod common;

use std::sync::Arc;

use status_core::Clock;
use status_sqlite::SqliteStore;
use tempfile::TempDir;

// Each on a file of its own, which several handles may have open.
status_testkit::conformance!(shared: async || Arc::new(tempfile::tempdir().expect("a folder")), open);

async fn open(folder: Arc<TempDir>, clock: Arc<dyn Clock>) -> Arc<SqliteStore> {
    let store = SqliteStore::open(folder.path().join("status.db")).await.expect("it opens");
    Arc::new(store.with_clock(Arc::new(common::InFolder { clock, _folder: folder })))
}
