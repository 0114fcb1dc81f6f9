//! Embedders mock a store for tests of their own.

use std::sync::Arc;

use status_core::{Error, JobId, MockStatusStore, Timestamp, Tracker};

#[tokio::test]
async fn a_mocked_store_answers_what_it_is_told_to() {
    let id = JobId::from_parts(Timestamp::UNIX_EPOCH, 7);
    let mut store = MockStatusStore::new();
    store.expect_read().times(2).returning(|_, _| Ok(None));
    let tracker = Tracker::new(Arc::new(store));
    assert!(matches!(tracker.snapshot(id).await, Err(Error::NotFound(of)) if of == id));
}
