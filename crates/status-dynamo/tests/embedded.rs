//! The store over an embedded engine that speaks the DynamoDB API: nothing else is needed.

mod common;

use std::sync::Arc;

use status_core::Clock;
use status_dynamo::DynamoStore;

/// A store in a new table of an engine of its own.
async fn embedded(clock: Arc<dyn Clock>) -> Arc<DynamoStore> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let database = dynoxide::Database::memory().expect("a database");
    tokio::spawn(dynoxide::server::serve_on(listener, database));
    common::table(&endpoint, clock).await
}

status_testkit::conformance!(embedded);
