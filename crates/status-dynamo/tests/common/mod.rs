//! Stores over real engines.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
};
use status_core::{Clock, SystemClock};
use status_dynamo::DynamoStore;

/// A client of the server at `endpoint`.
pub(crate) fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .build();
    Client::from_conf(config)
}

/// Starts an engine in this process; its endpoint.
#[allow(dead_code, reason = "not every test has an engine of its own")]
pub(crate) async fn embedded() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let database = dynoxide::Database::memory().expect("a database");
    tokio::spawn(dynoxide::server::serve_on(listener, database));
    endpoint
}

/// A table of a server: where a store is.
#[derive(Clone)]
pub(crate) struct Place {
    endpoint: String,
    table: String,
}

/// A new table of the server at `endpoint`.
#[allow(dead_code, reason = "some tests need the client, too")]
pub(crate) async fn place(endpoint: String) -> Place {
    let (_, table) = table_of(client(&endpoint), Arc::new(SystemClock)).await;
    Place { endpoint, table }
}

/// A store in the table, with a client of its own.
#[allow(dead_code, reason = "some tests need the client, too")]
pub(crate) async fn open(place: Place, clock: Arc<dyn Clock>) -> Arc<DynamoStore> {
    Arc::new(DynamoStore::new(client(&place.endpoint), place.table).with_clock(clock))
}

/// A store in a new table of the client's server, and the table's name.
pub(crate) async fn table_of(client: Client, clock: Arc<dyn Clock>) -> (Arc<DynamoStore>, String) {
    static TABLES: AtomicU64 = AtomicU64::new(0);
    let name = format!("t{}-{}", std::process::id(), TABLES.fetch_add(1, Ordering::Relaxed));
    let store = DynamoStore::new(client, &name).with_clock(clock);
    store.create_table().await.expect("a table");
    (Arc::new(store), name)
}
