//! Stores over real engines.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
};
use status_core::Clock;
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

/// A store in a new table of the server at `endpoint`.
pub(crate) async fn table(endpoint: &str, clock: Arc<dyn Clock>) -> Arc<DynamoStore> {
    static TABLES: AtomicU64 = AtomicU64::new(0);
    let name = format!("t{}-{}", std::process::id(), TABLES.fetch_add(1, Ordering::Relaxed));
    let store = DynamoStore::new(client(endpoint), name).with_clock(clock);
    store.create_table().await.expect("a table");
    Arc::new(store)
}
