//! Where jobs, leads and files are kept: in memory, in a folder, or in DynamoDB.

use std::sync::Arc;

use leads::{LeadTable, MemoryLeads};
use status_core::{StatusStore, SystemClock};
use status_memory::MemoryStore;

use crate::{Config, StartError, StoreKind, data::Data, uploads::Uploads};

/// The most jobs in memory.
const JOBS: usize = 10_000;

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
            (Some(folder), _) => {
                let Data { store, leads, uploads, lock } = Data::open(folder).await?;
                let uploads = Uploads::in_folder(&uploads, config.max_upload_bytes, lock);
                Ok(Self { store: Arc::new(store), leads: Arc::new(leads), uploads })
            }
            (None, StoreKind::Memory) => Ok(Self {
                store: Arc::new(MemoryStore::new(JOBS, Arc::new(SystemClock))),
                leads: Arc::new(MemoryLeads::default()),
                uploads: temporary()?,
            }),
            (None, StoreKind::Dynamodb) => {
                let (store, leads) = crate::aws::tables(config.table.as_deref()).await?;
                Ok(Self { store, leads, uploads: temporary()? })
            }
        }
    }
}
