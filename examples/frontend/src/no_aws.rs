//! What is here instead of AWS in a program that was built without it.

use std::sync::Arc;

use leads::LeadTable;
use status_core::StatusStore;

use crate::StartError;

pub(crate) async fn tables(
    _table: Option<&str>,
) -> Result<(Arc<dyn StatusStore>, Arc<dyn LeadTable>), StartError> {
    Err(StartError::WithoutAws)
}

pub(crate) async fn uploads(_bucket: &str) -> Result<(Arc<dyn status_http::Uploads>, String), StartError> {
    Err(StartError::WithoutAws)
}
