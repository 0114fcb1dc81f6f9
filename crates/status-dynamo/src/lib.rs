//! The status of long batch jobs in DynamoDB, or any server that speaks its API.
//!
//! What it guarantees and what it costs, measured by `dynamo-cost` with the server's own `ConsumedCapacity`:
//!
//! - An outcome is **one** `UpdateItem` of one write unit, guarded so that each batch counts once: no transaction, no read
//!   before, no retry loop. Several outcomes of one worker share one write.
//! - A poll is **one** `Query`: half a read unit for each 4 KB of the whole job.
//! - Work begins after **one** `BatchGetItem` of the head and the worker's own chunk: one read unit.
//!
//! # Layout
//! One table, `pk` = the job; see [`layout`] for keys and attributes.
//!
//! | `sk` | what | written by |
//! |---|---|---|
//! | `job` | the head: what was decided, compare-and-swap on its revision | decisions |
//! | `chunk#00000`… | 256 batches each: sets of the completed and the failed, sums | outcomes |
//!
//! Errors of items live beside, under `pk` = the job and `#errors`, so that polls do not read them.
//!
//! # Limits
//! A partition takes about 1,000 write units a second, so one job takes about 1,000 uncoalesced completions a second (ten
//! times that when ten share a write) before DynamoDB splits the partition or the SDK backs off.
//!
//! ```no_run
//! # async fn example(config: &aws_sdk_dynamodb::config::Config) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use status_core::Tracker;
//! use status_dynamo::DynamoStore;
//!
//! let client = aws_sdk_dynamodb::Client::from_conf(config.clone());
//! let store = DynamoStore::new(client, "job-status");
//! store.create_table().await?;
//! let tracker = Tracker::new(Arc::new(store));
//! # Ok(())
//! # }
//! ```

mod chunk;
mod error;
mod errors;
mod head;
pub mod layout;
mod meter;
mod outcomes;
mod retire;
mod table;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    Client,
    operation::query::builders::QueryFluentBuilder,
    types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure},
};
use status_core::{
    BatchIndex, BatchReport, Begun, Clock, Consistency, Created, Facts, ItemError, Job, JobId, OwnerId, Page,
    PageRequest, Record, Recorded, Rejection, Settled, Status, StatusStore, StoreError, SystemClock,
    Timestamp,
};

use crate::{
    chunk::Chunk,
    error::failed,
    layout::{CHUNK, Item, attribute},
};

pub use meter::{Meter, Usage};

/// A store in one DynamoDB table. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    client: Client,
    table: String,
    clock: Arc<dyn Clock>,
    meter: Option<Arc<Meter>>,
}

impl DynamoStore {
    /// A store in `table`. How often a throttled request is repeated is the client's setting
    /// (`aws_sdk_dynamodb::config::retry::RetryConfig`, with jitter).
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into(), clock: Arc::new(SystemClock), meter: None }
    }

    /// The same, judging by another clock whether a job's retention is over.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same, asking the server for the capacity each request consumed.
    #[must_use]
    pub fn with_meter(mut self, meter: Arc<Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// A `Query` of the job's items.
    fn query(&self, id: JobId, consistency: Consistency) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(id.to_string()))
            .consistent_read(consistency == Consistency::Strong)
            .set_return_consumed_capacity(self.metered())
    }

    /// All items of the job: one `Query`, or one for each megabyte.
    async fn items(&self, id: JobId, consistency: Consistency) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .query(id, consistency)
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| failed("Query", format!("job {id}"), error))?;
            self.read(page.consumed_capacity.as_ref());
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// The head and the chunks of the job, unless there is none or its retention is over.
    async fn job_and_chunks(
        &self,
        id: JobId,
        consistency: Consistency,
    ) -> Result<Option<(Job, Vec<Chunk>)>, StoreError> {
        let (mut job, mut chunks) = (None, Vec::new());
        for item in self.items(id, consistency).await? {
            match attribute::text(&item, layout::SK) {
                Some(layout::HEAD) => job = Some(head::decode(id, &item)?),
                Some(_) => chunks.push(Chunk::decode(id, &item)?),
                None => return Err(layout::corrupt(id, "an item without a sort key")),
            }
        }
        Ok(job.filter(|job| !self.is_expired(job)).map(|job| (job, chunks)))
    }

    /// The head alone. Expired ones count as gone.
    async fn head(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(layout::head_key(id)))
            .consistent_read(consistency == Consistency::Strong)
            .set_return_consumed_capacity(self.metered())
            .send()
            .await
            .map_err(|error| failed("GetItem", format!("job {id}"), error))?;
        self.read(found.consumed_capacity.as_ref());
        let job = found.item.map(|item| head::decode(id, &item)).transpose()?;
        Ok(job.filter(|job| !self.is_expired(job)))
    }

    fn is_expired(&self, job: &Job) -> bool {
        job.expires_at().is_some_and(|at| at <= self.clock.now())
    }

    async fn put_head(&self, job: &Job, condition: &str, revision: Option<u64>) -> Result<Put, StoreError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(head::encode(job)))
            .condition_expression(condition)
            .set_expression_attribute_values(
                revision.map(|r| HashMap::from([(":rev".into(), layout::number(r))])),
            )
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .set_return_consumed_capacity(self.metered())
            .send()
            .await;
        match put {
            Ok(done) => {
                self.wrote(done.consumed_capacity.as_ref());
                Ok(Put::Done)
            }
            Err(error) => match error.as_service_error() {
                Some(
                    aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(
                        check,
                    ),
                ) => {
                    self.refused();
                    let old = check.item().map(|item| head::decode(job.id, item)).transpose()?;
                    Ok(Put::Refused(old.map(Box::new)))
                }
                _ => Err(failed("PutItem", format!("job {}", job.id), error)),
            },
        }
    }

    /// The items of these keys, in no order: at most a hundred keys.
    async fn batch_get(&self, id: JobId, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut wanted = Some(keys);
        for tried in 0_u32.. {
            let Some(keys) = wanted.take() else { break };
            let keys = KeysAndAttributes::builder().set_keys(Some(keys)).build();
            let keys = keys.map_err(|error| layout::corrupt(id, &error.to_string()))?;
            let found = self
                .client
                .batch_get_item()
                .request_items(&self.table, keys)
                .set_return_consumed_capacity(self.metered())
                .send()
                .await
                .map_err(|error| failed("BatchGetItem", format!("job {id}"), error))?;
            found.consumed_capacity().iter().for_each(|capacity| self.read(Some(capacity)));
            items.extend(found.responses.into_iter().flat_map(HashMap::into_values).flatten());
            let left = found.unprocessed_keys.unwrap_or_default().remove(&self.table).map(|keys| keys.keys);
            wanted = left.filter(|keys| !keys.is_empty());
            if wanted.is_some() {
                let (operation, subject) = ("BatchGetItem", format!("job {id}"));
                if tried == 8 {
                    return Err(StoreError::Throttled {
                        operation,
                        subject,
                        source: "keys stayed unprocessed".into(),
                    });
                }
                tokio::time::sleep(Duration::from_millis(10 << tried)).await;
            }
        }
        Ok(items)
    }
}

/// What a conditional write of a head came to.
enum Put {
    Done,
    /// The head as it is, if there is one.
    Refused(Option<Box<Job>>),
}

#[async_trait]
impl StatusStore for DynamoStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        let Some(key) = &job.idempotency_key else { return self.create_head(job).await };
        let owner_of_key = self.claim_key(job, key).await?;
        if owner_of_key == job.id {
            return self.create_head(job).await;
        }
        if let Some(existing) = self.head(owner_of_key, Consistency::Strong).await? {
            return Ok(Created::Existing(Box::new(existing)));
        }
        // Whoever claimed the key died before creating the job: it is created now, under the id the key has.
        let mut resumed = job.clone();
        resumed.id = owner_of_key;
        self.create_head(&resumed).await?;
        let existing = self.head(owner_of_key, Consistency::Strong).await?;
        Ok(Created::Existing(Box::new(existing.unwrap_or(resumed))))
    }

    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<Record>, StoreError> {
        let Some((job, chunks)) = self.job_and_chunks(id, consistency).await? else { return Ok(None) };
        let mut facts = Facts::default();
        for chunk in chunks.iter().filter(|chunk| job.total().is_none_or(|total| chunk.first() < total)) {
            facts.merge(&chunk.facts);
        }
        Ok(Some(Record::new(job, facts)))
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        let before = next.revision.saturating_sub(1);
        match self.put_head(next, "rev = :rev", Some(before)).await? {
            Put::Done => Ok(()),
            // The answer to the same write was lost.
            Put::Refused(Some(stored)) if *stored == *next => Ok(()),
            Put::Refused(Some(_)) => Err(StoreError::Conflict(next.id)),
            Put::Refused(None) => Err(StoreError::NotFound(next.id)),
        }
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        // Also of a job that ended with the very decision that sealed it: what comes late must not be past its total.
        if let Some(total) = job.total().filter(|total| total % CHUNK != 0) {
            self.mark_capacity(job.id, total).await?;
        }
        if job.status.is_terminal() { self.retire(job).await } else { Ok(()) }
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        let mut numbers: Vec<_> = batches.iter().map(|batch| batch.get() / CHUNK).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut keys = vec![layout::head_key(id)];
        keys.extend(numbers.iter().map(|number| layout::chunk_key(id, *number)));
        let (mut job, mut chunks) = (None, HashMap::new());
        for part in keys.chunks(100) {
            for item in self.batch_get(id, part.to_vec()).await? {
                if attribute::text(&item, layout::SK) == Some(layout::HEAD) {
                    job = Some(head::decode(id, &item)?);
                } else {
                    let chunk = Chunk::decode(id, &item)?;
                    chunks.insert(chunk.number, chunk);
                }
            }
        }
        let Some(job) = job.filter(|job| !self.is_expired(job)) else { return Ok(None) };
        let chunk_of = |batch: &BatchIndex| chunks.get(&(batch.get() / CHUNK));
        let settled: Vec<_> =
            batches.iter().map(|batch| chunk_of(batch).and_then(|c| c.settled(*batch))).collect();
        let is_full = |chunk: &Chunk| job.total().is_some_and(|total| chunk.is_full(Some(total)));
        let may_be_settled = chunks.values().any(|chunk| is_full(chunk) || chunk.facts.counts.failed > 0);
        if job.policy.track_starts && job.status == Status::Processing && job.cancel_requested.is_none() {
            let total = job.total().unwrap_or(u64::MAX);
            let open = batches
                .iter()
                .zip(&settled)
                .filter(|(b, s)| **s != Some(Settled::Completed) && b.get() < total);
            let open: Vec<_> = open.map(|(batch, _)| *batch).collect();
            self.note_starts(id, &open, at).await?;
        }
        Ok(Some(Begun { job, settled, may_be_settled }))
    }

    async fn record(
        &self,
        id: JobId,
        reports: &[BatchReport],
        at: Timestamp,
    ) -> Result<Recorded, StoreError> {
        self.record_outcomes(id, reports, at).await
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        self.list_errors(id, page).await
    }

    async fn unsettled(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<BatchIndex>, StoreError> {
        let found = self.job_and_chunks(id, Consistency::Strong).await?;
        let (job, chunks) = found.ok_or(StoreError::NotFound(id))?;
        let chunks: HashMap<_, _> = chunks.into_iter().map(|chunk| (chunk.number, chunk)).collect();
        let highest = chunks.values().filter_map(|chunk| chunk.facts.highest).max();
        let end = job.total().or(highest.map(BatchIndex::get)).unwrap_or(0);
        let batches = (from..end).filter_map(|index| BatchIndex::new(index).ok());
        let open = batches
            .filter(|b| chunks.get(&(b.get() / CHUNK)).is_none_or(|chunk| chunk.settled(*b).is_none()));
        Ok(open.take(limit).collect())
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let after: Option<JobId> =
            page.cursor.as_deref().map(str::parse).transpose().map_err(|_| StoreError::InvalidCursor)?;
        let mut start = after.map(|id| {
            let mut key = layout::head_key(id);
            key.insert(layout::OWNER.into(), AttributeValue::S(owner.to_string()));
            key
        });
        let mut rows: Vec<Job> = Vec::new();
        loop {
            let mut query = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(layout::BY_OWNER)
                .key_condition_expression("o = :o")
                .expression_attribute_values(":o", AttributeValue::S(owner.to_string()))
                .scan_index_forward(false)
                .limit(i32::try_from(page.limit.saturating_add(1)).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.metered());
            if let Some(status) = status {
                let wanted = AttributeValue::S(status.as_str().into());
                query = query.filter_expression("st = :st").expression_attribute_values(":st", wanted);
            }
            let found =
                query.send().await.map_err(|error| failed("Query", format!("jobs of {owner}"), error))?;
            self.read(found.consumed_capacity.as_ref());
            for item in found.items.unwrap_or_default() {
                let job = head::decode(layout::id_of(&item)?, &item)?;
                if self.is_expired(&job) {
                    continue;
                }
                if rows.len() == page.limit {
                    return Ok(Page { next: rows.last().map(|job| job.id.to_string()), rows });
                }
                rows.push(job);
            }
            start = found.last_evaluated_key;
            if start.is_none() {
                return Ok(Page { rows, next: None });
            }
        }
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<JobId>, StoreError> {
        let start = page.cursor.as_deref().map(layout::due_key).transpose()?;
        let found = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(layout::BY_DUE)
            .key_condition_expression("dp = :dp AND due <= :now")
            .expression_attribute_values(":dp", AttributeValue::S(layout::DUE.into()))
            .expression_attribute_values(":now", layout::millis(now))
            .limit(i32::try_from(page.limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start)
            .set_return_consumed_capacity(self.metered())
            .send()
            .await
            .map_err(|error| failed("Query", "jobs that are due".into(), error))?;
        self.read(found.consumed_capacity.as_ref());
        let rows = found.items().iter().map(layout::id_of).collect::<Result<_, _>>()?;
        Ok(Page { rows, next: found.last_evaluated_key.as_ref().map(layout::due_cursor).transpose()? })
    }

    async fn changed(&self, _: JobId, _: u64, at_most: Duration) {
        tokio::time::sleep(at_most).await;
    }
}

impl DynamoStore {
    async fn create_head(&self, job: &Job) -> Result<Created, StoreError> {
        // An id has 128 random bits: what is there under it is this very job, and the answer was lost.
        self.put_head(job, "attribute_not_exists(pk)", None).await.map(|_| Created::New)
    }

    /// Claims the owner's idempotency key for the job; gives the id of the job that has it.
    async fn claim_key(&self, job: &Job, key: &str) -> Result<JobId, StoreError> {
        let mut item = layout::idempotency_key(&job.owner, key);
        item.insert(layout::JOB.into(), AttributeValue::S(job.id.to_string()));
        let claimed = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk) OR ttl_at <= :now")
            .expression_attribute_values(":now", layout::seconds(self.clock.now()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .set_return_consumed_capacity(self.metered())
            .send()
            .await;
        match claimed {
            Ok(done) => {
                self.wrote(done.consumed_capacity.as_ref());
                Ok(job.id)
            }
            Err(error) => match error.as_service_error() {
                Some(
                    aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(
                        check,
                    ),
                ) => {
                    self.refused();
                    let id = check
                        .item()
                        .and_then(|item| attribute::text(item, layout::JOB))
                        .and_then(|id| id.parse().ok());
                    id.ok_or_else(|| layout::corrupt(job.id, "an idempotency key without a job"))
                }
                _ => Err(failed("PutItem", format!("job {}", job.id), error)),
            },
        }
    }

    /// Tells the last chunk its size, so that whoever settles it knows.
    async fn mark_capacity(&self, id: JobId, total: u64) -> Result<(), StoreError> {
        let done = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(layout::chunk_key(id, total / CHUNK)))
            .update_expression("SET cap = :cap, sv = :sv")
            .expression_attribute_values(":cap", layout::number(total % CHUNK))
            .expression_attribute_values(":sv", layout::number(layout::SCHEMA))
            .set_return_consumed_capacity(self.metered())
            .send()
            .await
            .map_err(|error| failed("UpdateItem", format!("job {id}"), error))?;
        self.wrote(done.consumed_capacity.as_ref());
        Ok(())
    }

    /// The rejection of a batch past the total.
    fn out_of_range(id: JobId, batch: BatchIndex, total: u64) -> StoreError {
        StoreError::Rejected { id, rejection: Rejection::BatchOutOfRange { batch, total } }
    }
}
