//! The end of a job: its items get their expiry, and the chunks learn that it is over.

use aws_sdk_dynamodb::{operation::update_item::builders::UpdateItemFluentBuilder, types::AttributeValue};
use futures::future::try_join_all;
use status_core::{Job, StoreError, Timestamp};

use crate::{
    DynamoStore,
    error::failed,
    layout::{self, Item},
};

impl DynamoStore {
    /// Sets the expiry of everything that belongs to a terminal job and tells the chunks that it is over; then, and only
    /// then, the job is not due any more.
    pub(crate) async fn retire(&self, job: &Job) -> Result<(), StoreError> {
        let Some(expires) = job.expires_at() else { return Ok(()) };
        let mut keys = self.keys(&job.id.to_string(), layout::CHUNK_PREFIX).await?;
        keys.extend(self.keys(&layout::errors_pk(job.id), "").await?);
        if let Some(key) = &job.idempotency_key {
            keys.push(layout::idempotency_key(&job.owner, key));
        }
        for part in keys.chunks(16) {
            try_join_all(part.iter().map(|key| self.expire(job, key.clone(), expires))).await?;
        }
        // Unless the head has expired in the meantime.
        let update = self.client.update_item().set_key(Some(layout::head_key(job.id)));
        let update = update
            .update_expression("REMOVE dp, due")
            .condition_expression("rev = :rev")
            .expression_attribute_values(":rev", layout::number(job.revision));
        self.update_if(job, update).await
    }

    /// Sets the expiry of one item of a terminal job, if it is there.
    pub(crate) async fn expire(&self, job: &Job, key: Item, expires: Timestamp) -> Result<(), StoreError> {
        let update = self.client.update_item().set_key(Some(key));
        let update = update
            .update_expression("SET ttl_at = :ttl, st = :st")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":ttl", layout::seconds(expires))
            .expression_attribute_values(":st", AttributeValue::S(job.status.as_str().into()));
        self.update_if(job, update).await
    }

    /// Makes an update, or does not, as its condition says: either is fine.
    async fn update_if(&self, job: &Job, update: UpdateItemFluentBuilder) -> Result<(), StoreError> {
        let update = update.table_name(&self.table).set_return_consumed_capacity(self.metered());
        match update.send().await {
            Ok(done) => self.wrote(done.consumed_capacity.as_ref()),
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                self.refused();
            }
            Err(error) => return Err(failed("UpdateItem", format!("job {}", job.id), error)),
        }
        Ok(())
    }

    /// The keys of all items under `pk` whose sort key begins with `prefix`.
    async fn keys(&self, pk: &str, prefix: &str) -> Result<Vec<Item>, StoreError> {
        let mut keys = Vec::new();
        let mut start = None;
        loop {
            let mut query = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", AttributeValue::S(pk.into()))
                .projection_expression("pk, sk")
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.metered());
            if !prefix.is_empty() {
                query = query
                    .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                    .expression_attribute_values(":prefix", AttributeValue::S(prefix.into()));
            }
            let page = query.send().await.map_err(|error| failed("Query", pk.to_owned(), error))?;
            self.read(page.consumed_capacity.as_ref());
            keys.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(keys);
            }
        }
    }
}
