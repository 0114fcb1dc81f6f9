//! Where jobs, leads and files are kept: in memory, in DynamoDB, or in a folder on an embedded engine that speaks its API.

use std::{io, path::Path, sync::Arc};

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::{
    Client,
    config::{Credentials, Region, retry::RetryConfig},
};
use dynoxide::Database;
use leads::{DynamoLeads, LeadTable, MemoryLeads};
use status_core::{BoxError, StatusStore, SystemClock};
use status_dynamo::DynamoStore;
use status_memory::MemoryStore;
use tokio::net::TcpListener;

use crate::{Config, StartError, StoreKind, uploads::Uploads};

/// The tables of the embedded engine.
const EMBEDDED_TABLE: &str = "jobs";

/// Everything that is kept.
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn StatusStore>,
    pub(crate) leads: Arc<dyn LeadTable>,
    pub(crate) uploads: Uploads,
}

impl Backend {
    pub(crate) async fn open(config: &Config) -> Result<Self, StartError> {
        let temporary = || Uploads::in_temporary_folder(config.max_upload_bytes).map_err(StartError::Uploads);
        match (&config.data, config.store) {
            (Some(folder), _) => Self::embedded(folder, config.max_upload_bytes).await,
            (None, StoreKind::Memory) => Ok(Self {
                store: Arc::new(MemoryStore::new(10_000, Arc::new(SystemClock))),
                leads: Arc::new(MemoryLeads::default()),
                uploads: temporary()?,
            }),
            (None, StoreKind::Dynamodb) => {
                let loader = aws_config::defaults(BehaviorVersion::latest()).retry_config(retries());
                let client = Client::new(&loader.load().await);
                let table = config.table.as_deref().unwrap_or(EMBEDDED_TABLE);
                let (store, leads) = tables(client, table).await.map_err(StartError::Tables)?;
                Ok(Self { store, leads, uploads: temporary()? })
            }
        }
    }

    async fn embedded(folder: &Path, max_bytes: u64) -> Result<Self, StartError> {
        let data = |source| StartError::Data { folder: folder.to_owned(), source };
        let engine = |source: String| data(io::Error::other(source));
        let uploads = Uploads::in_folder(&folder.join("uploads"), max_bytes).map_err(data)?;
        let path = folder.join("tables.db");
        let path = path.to_str().ok_or_else(|| engine("its name is not UTF-8".into()))?;
        let database = Database::new(path).map_err(|error| engine(error.to_string()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(data)?;
        let endpoint = format!("http://{}", listener.local_addr().map_err(data)?);
        tokio::spawn(dynoxide::server::serve_on(listener, database));
        // Nobody but this process speaks to the engine, and it checks no signature.
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .credentials_provider(Credentials::new("embedded", "embedded", None, None, "embedded"))
            .region(Region::new("local"))
            .endpoint_url(endpoint)
            .retry_config(retries())
            .build();
        let (store, leads) =
            tables(Client::from_conf(config), EMBEDDED_TABLE).await.map_err(StartError::Tables)?;
        Ok(Self { store, leads, uploads })
    }
}

/// Throttled requests are repeated, with jitter, for some seconds.
fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(6)
}

async fn tables(client: Client, table: &str) -> Result<(Arc<dyn StatusStore>, Arc<dyn LeadTable>), BoxError> {
    let store = DynamoStore::new(client.clone(), table);
    store.create_table().await?;
    let leads = DynamoLeads::new(client, format!("{table}-leads"));
    leads.create_table().await?;
    Ok((Arc::new(store), Arc::new(leads)))
}
