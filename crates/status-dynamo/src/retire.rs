//! The end of a job: its items get their expiry, and the chunks learn that it is over; and its erasure.

use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::try_join_all;
use status_core::{Consistency, Job, JobId, StoreError};

use crate::{
    DynamoStore,
    chunk::Chunk,
    layout::{self, Item},
};

/// So many items are written at a time.
const AT_A_TIME: usize = 16;

impl DynamoStore {
    /// Sets the expiry of what belongs to a terminal job and tells the chunks that it is over; then, and
    /// only then, the job is not due any more. Errors have had their expiry from their first write.
    pub(crate) async fn retire(&self, job: &Job) -> Result<(), StoreError> {
        let keys = self.keys(job.id, job.id.to_string(), layout::CHUNK_PREFIX).await?;
        if let Some(key) = &job.idempotency_key {
            self.expire_key(job, layout::idempotency_key(&job.owner, key)).await?;
        }
        for part in keys.chunks(AT_A_TIME) {
            try_join_all(part.iter().map(|key| self.expire(job, key.clone()))).await?;
        }
        // Unless the head has expired in the meantime.
        let update = self
            .update(layout::head_key(job.id))
            .update_expression("REMOVE dp, due")
            .condition_expression("rev = :rev")
            .expression_attribute_values(":rev", layout::number(job.revision));
        self.write_by(|| format!("job {}", job.id), update.send()).await.map(drop)
    }

    /// Sets the expiry of the job's idempotency key, unless another job has it by now.
    async fn expire_key(&self, job: &Job, key: Item) -> Result<(), StoreError> {
        let update = self
            .update(key)
            .update_expression("SET ttl_at = :ttl")
            .condition_expression("job = :id")
            .expression_attribute_values(":id", AttributeValue::S(job.id.to_string()))
            .expression_attribute_values(":ttl", layout::seconds(job.expires_at()));
        self.write_by(|| format!("job {}", job.id), update.send()).await.map(drop)
    }

    /// Tells a chunk that its job is over, if it was made in the moment of the end and does not know. Whoever sees
    /// one does so: the worker that made it may have died before it looked again.
    pub(crate) async fn tell_if_over(&self, job: &Job, chunk: &Chunk) -> Result<(), StoreError> {
        if !job.status.is_terminal() || chunk.over.is_some() {
            return Ok(());
        }
        self.expire(job, layout::chunk_key(job.id, chunk.number)).await
    }

    /// Sets the expiry of one item of a terminal job, if it is there. A newer version's keeps its own.
    pub(crate) async fn expire(&self, job: &Job, key: Item) -> Result<(), StoreError> {
        let update = self
            .update(key)
            .update_expression("SET ttl_at = :ttl, st = :st")
            .condition_expression("attribute_exists(pk) AND (attribute_not_exists(sv) OR sv = :sv)")
            .expression_attribute_values(":sv", layout::number(layout::SCHEMA))
            .expression_attribute_values(":ttl", layout::seconds(job.expires_at()))
            .expression_attribute_values(":st", AttributeValue::S(job.status.as_str().into()));
        self.write_by(|| format!("job {}", job.id), update.send()).await.map(drop)
    }

    /// Deletes the items of a job: what its owner's data is in first, then the head, with which it is gone
    /// for every reader, then the rest. Each of them expires by itself, should this fail half-way.
    pub(crate) async fn erase_job(&self, id: JobId) -> Result<(), StoreError> {
        let errors = self.keys(id, layout::errors_pk(id), "").await?;
        self.delete_all(id, &errors).await?;
        let get = self.get(layout::head_key(id), Consistency::Strong);
        let head = self.read_by(|| format!("job {id}"), get.send()).await?.item;
        // A head that cannot be read is deleted all the same; its idempotency key expires.
        if let Some(Ok(Job { owner, idempotency_key: Some(key), .. })) =
            head.map(|item| crate::head::decode(id, &item))
        {
            let delete = self
                .deletion(layout::idempotency_key(&owner, &key))
                .condition_expression("job = :id")
                .expression_attribute_values(":id", AttributeValue::S(id.to_string()));
            self.write_by(|| format!("job {id}"), delete.send()).await?;
        }
        self.delete(id, layout::head_key(id)).await?;
        let chunks = self.keys(id, id.to_string(), layout::CHUNK_PREFIX).await?;
        self.delete_all(id, &chunks).await?;
        // Once more: what a late report kept in the meantime. One that keeps some from now on finds neither
        // chunk nor head, and deletes them itself.
        let errors = self.keys(id, layout::errors_pk(id), "").await?;
        self.delete_all(id, &errors).await
    }

    async fn delete_all(&self, id: JobId, keys: &[Item]) -> Result<(), StoreError> {
        for part in keys.chunks(AT_A_TIME) {
            try_join_all(part.iter().map(|key| self.delete(id, key.clone()))).await?;
        }
        Ok(())
    }

    /// The keys of all items under `pk` whose sort key begins with `prefix`.
    async fn keys(&self, id: JobId, pk: String, prefix: &str) -> Result<Vec<Item>, StoreError> {
        let mut keys = Vec::new();
        let mut start = None;
        loop {
            let mut query = self
                .query(pk.clone(), Consistency::Strong)
                .projection_expression("pk, sk")
                .set_exclusive_start_key(start);
            if !prefix.is_empty() {
                query = query
                    .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                    .expression_attribute_values(":prefix", AttributeValue::S(prefix.into()));
            }
            let page = self.read_by(|| format!("job {id}"), query.send()).await?;
            keys.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(keys);
            }
        }
    }
}
