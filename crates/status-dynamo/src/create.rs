//! Creating a job, once for each of its owner's idempotency keys.

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{Consistency, Created, Job, JobId, StoreError};

use crate::{
    DynamoStore, head,
    layout::{self, attribute},
    request::Write,
};

impl DynamoStore {
    pub(crate) async fn create_job(&self, job: &Job) -> Result<Created, StoreError> {
        let Some(key) = &job.idempotency_key else { return self.create_head(job).await };
        let owner_of_key = self.claim_key(job, key).await?;
        if owner_of_key == job.id {
            return self.create_head(job).await;
        }
        if let Some(existing) = self.head(owner_of_key, Consistency::Strong).await? {
            return Ok(Created::Existing(Box::new(existing)));
        }
        // Whoever claimed the key has not created the job yet, or died before: it is created now, under
        // the id the key has. Of the two, the first one's request is the job.
        let mut resumed = job.clone();
        resumed.id = owner_of_key;
        Ok(match self.create_head(&resumed).await? {
            Created::New => Created::Existing(Box::new(resumed)),
            existing => existing,
        })
    }

    async fn create_head(&self, job: &Job) -> Result<Created, StoreError> {
        let put = self.put(head::encode(job)).condition_expression("attribute_not_exists(pk)");
        let stored = match self.write_by(|| format!("job {}", job.id), put.send()).await? {
            Write::Applied(_) => return Ok(Created::New),
            Write::Refused(stored) => {
                stored.ok_or_else(|| layout::corrupt(job.id, "it is there and is not"))?
            }
        };
        let stored = head::decode(job.id, &stored)?;
        // The answer to the same creation was lost; or somebody else with the same key was faster.
        let is_this = stored.is_same_request(job);
        Ok(if is_this { Created::New } else { Created::Existing(Box::new(stored)) })
    }

    /// Claims the owner's idempotency key for the job; gives the id of the job that has it.
    async fn claim_key(&self, job: &Job, key: &str) -> Result<JobId, StoreError> {
        let mut item = layout::idempotency_key(&job.owner, key);
        item.insert(layout::JOB.into(), AttributeValue::S(job.id.to_string()));
        item.insert(layout::TTL.into(), layout::seconds(job.expires_at()));
        let put = self
            .put(item)
            .condition_expression("attribute_not_exists(pk) OR ttl_at <= :now")
            .expression_attribute_values(":now", layout::seconds(self.clock.now()));
        match self.write_by(|| format!("job {}", job.id), put.send()).await? {
            Write::Applied(_) => Ok(job.id),
            Write::Refused(there) => {
                let id = there.as_ref().and_then(|item| attribute::text(item, layout::JOB));
                let id = id.and_then(|id| id.parse().ok());
                id.ok_or_else(|| layout::corrupt(job.id, "an idempotency key without a job"))
            }
        }
    }
}
