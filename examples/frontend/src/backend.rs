//! Where jobs, leads and files are kept: in memory, in a folder, or in DynamoDB.

use std::sync::Arc;

use leads::{LeadTable, MemoryLeads};
use status_core::{StatusStore, SystemClock};
use status_memory::MemoryStore;

use crate::{Config, StartError, StoreKind, data::Data, owner::Keys, uploads::Uploads};

/// The most jobs in memory.
const JOBS: usize = 10_000;

/// Everything that is kept.
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn StatusStore>,
    pub(crate) leads: Arc<dyn LeadTable>,
    pub(crate) uploads: Uploads,
    pub(crate) keys: Keys,
}

impl Backend {
    pub(crate) async fn open(config: &Config) -> Result<Self, StartError> {
        let keys = config.cookie_key_file.as_deref().map(|path| {
            Keys::read(path).map_err(|source| StartError::CookieKeys { path: path.to_owned(), source })
        });
        let keys = keys.transpose()?;
        let keys_or_new = || keys.clone().unwrap_or_else(Keys::of_this_process);
        let temporary = || {
            Uploads::in_temporary_folder(config.max_upload_bytes, config.max_stored_bytes)
                .map_err(StartError::Uploads)
        };
        match (&config.data, config.store) {
            (Some(folder), _) => {
                let Data { store, leads, uploads, keys: of_folder, lock } = Data::open(folder).await?;
                let uploads =
                    Uploads::in_folder(&uploads, config.max_upload_bytes, config.max_stored_bytes, lock);
                let keys = keys.unwrap_or(of_folder);
                Ok(Self { store: Arc::new(store), leads: Arc::new(leads), uploads, keys })
            }
            (None, StoreKind::Memory) => Ok(Self {
                store: Arc::new(MemoryStore::new(JOBS, Arc::new(SystemClock))),
                leads: Arc::new(MemoryLeads::default()),
                uploads: temporary()?,
                keys: keys_or_new(),
            }),
            (None, StoreKind::Dynamodb) => {
                let (store, leads) = crate::aws::tables(config.table.as_deref()).await?;
                if keys.is_none() {
                    tracing::warn!(
                        "visitors are forgotten when this process ends; --cookie-key-file FILE keeps them"
                    );
                }
                Ok(Self { store, leads, uploads: temporary()?, keys: keys_or_new() })
            }
        }
    }
}
