//! The DynamoDB server that is measured.

use std::io;

use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
};

/// A client of the server at `endpoint`; without one, of an embedded engine that runs in this
/// process and keeps its tables in memory.
///
/// # Errors
/// The embedded engine cannot start.
pub async fn client(endpoint: Option<&str>) -> io::Result<Client> {
    let endpoint = match endpoint {
        Some(endpoint) => endpoint.to_owned(),
        None => embedded().await?,
    };
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::standard())
        .build();
    Ok(Client::from_conf(config))
}

/// Starts the embedded engine; its endpoint.
async fn embedded() -> io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let database = dynoxide::Database::memory().map_err(io::Error::other)?;
    tokio::spawn(dynoxide::server::serve_on(listener, database));
    Ok(endpoint)
}
