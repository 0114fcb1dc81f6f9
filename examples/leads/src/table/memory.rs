//! Leads in the memory of one process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use status_core::{JobId, OwnerId, Timestamp};

use super::{LeadPage, LeadQuery, LeadTable, StoredLead, TableError};
use crate::Lead;

/// Leads in the memory of one process.
#[derive(Debug, Default)]
pub struct MemoryLeads(Mutex<HashMap<OwnerId, BTreeMap<String, StoredLead>>>);

#[async_trait]
impl LeadTable for MemoryLeads {
    async fn upsert(
        &self,
        owner: &OwnerId,
        job: JobId,
        leads: &[(u64, Lead)],
        at: Timestamp,
    ) -> Result<(), TableError> {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let table = owners.entry(owner.clone()).or_default();
        for (row, lead) in leads {
            let lead = StoredLead::new(job, *row, lead.clone(), at);
            table.insert(lead.id.clone(), lead);
        }
        Ok(())
    }

    async fn page(&self, owner: &OwnerId, query: &LeadQuery) -> Result<LeadPage, TableError> {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(LeadPage::of(owners.get(owner).into_iter().flat_map(BTreeMap::values), query))
    }
}
