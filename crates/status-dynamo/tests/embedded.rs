//! The store over an embedded engine that speaks the DynamoDB API: nothing else is needed.

mod common;

use std::sync::Arc;

use status_core::Clock;
use status_dynamo::DynamoStore;

/// A store in a new table of an engine of its own.
async fn embedded(clock: Arc<dyn Clock>) -> Arc<DynamoStore> {
    let endpoint = common::embedded().await;
    common::table(&endpoint, clock).await
}

status_testkit::conformance!(embedded);
