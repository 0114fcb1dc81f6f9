//! Leads in the memory of one process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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

    async fn forget(&self, owner: &OwnerId, job: JobId) -> Result<(), TableError> {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = owners.get_mut(owner) {
            table.retain(|_, lead| lead.job_id != job);
        }
        Ok(())
    }

    async fn jobs_before(&self, before: Timestamp) -> Result<Vec<(OwnerId, JobId)>, TableError> {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs =
            owners.iter().flat_map(|(owner, leads)| leads.values().map(move |lead| (owner, lead.job_id)));
        let jobs: BTreeSet<_> = jobs.filter(|(_, job)| job.created_at() < before).collect();
        Ok(jobs.into_iter().map(|(owner, job)| (owner.clone(), job)).collect())
    }
}
