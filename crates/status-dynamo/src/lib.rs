//! The status of long batch jobs in DynamoDB, or any server that speaks its API.
//!
//! What it guarantees and what it costs, measured by `dynamo-cost` with the server's own `ConsumedCapacity`:
//!
//! - An outcome is **one** `UpdateItem` of one write unit, guarded so that each batch counts once: no transaction and no read
//!   before. Several outcomes of one worker share one write. The first two writes of a chunk of 256 batches are refused
//!   once, and look at the head. A batch that failed, or has errors of items, is read about first (one `BatchGetItem`), and
//!   its errors are one `PutItem`; after a failure the whole job is looked at.
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
//! Errors of items live beside, under `pk` = the job and `#errors`, so that polls do not read them. Every
//! item has its expiry from its first write on: the last moment at which the job can end, and its retention. From the
//! terminal decision on, the head, the chunks and the idempotency key have that of the decision. Errors keep theirs: a
//! write for each would cost as much as the batch.
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
mod create;
mod errors;
mod expression;
mod head;
pub mod layout;
mod list;
mod meter;
mod report;
mod request;
mod retire;
mod table;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_dynamodb::{Client, types::KeysAndAttributes};
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Clock, Consistency, Created, Damaged, Due, Facts, ItemError,
    Job, JobId, JobState, OwnerId, Page, PageRequest, Status, StatusStore, StoreError, SystemClock,
    Timestamp, Written, chunk as chunks,
};

use crate::{
    chunk::Chunk,
    layout::{CHUNK, Item, attribute},
    report::may_have_failed,
    request::Write,
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

    /// All items of the job: one `Query`, or one for each megabyte.
    async fn items(&self, id: JobId, consistency: Consistency) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let query = self.query(id.to_string(), consistency).set_exclusive_start_key(start);
            let page = self.read_by(|| format!("job {id}"), query.send()).await?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// The head and the chunks of the job, and what of it cannot be read by the number of the chunk that it
    /// is, unless there is no job or its retention is over.
    async fn job_and_chunks(
        &self,
        id: JobId,
        consistency: Consistency,
    ) -> Result<Option<(Job, Vec<Chunk>, Vec<Part>)>, StoreError> {
        let (mut job, mut chunks, mut damaged) = (None, Vec::new(), Vec::new());
        for item in self.items(id, consistency).await? {
            match attribute::text(&item, layout::SK) {
                Some(layout::HEAD) if head::is_barred(&item) => {}
                Some(layout::HEAD) => job = Some(head::decode(id, &item)?),
                Some(sk) => match Chunk::decode(id, &item) {
                    Ok(chunk) => chunks.push(chunk),
                    Err(error) => damaged.push((layout::chunk_in(sk), list::damaged(error)?)),
                },
                None => return Err(layout::corrupt(id, "an item without a sort key")),
            }
        }
        Ok(job.filter(|job| !self.is_expired(job)).map(|job| (job, chunks, damaged)))
    }

    /// The head alone. Expired ones count as gone.
    async fn head(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        let get = self.get(layout::head_key(id), consistency);
        let found = self.read_by(|| format!("job {id}"), get.send()).await?;
        let item = found.item.filter(|item| !head::is_barred(item));
        let job = item.map(|item| head::decode(id, &item)).transpose()?;
        Ok(job.filter(|job| !self.is_expired(job)))
    }

    /// The job, or what a strongly consistent read says of one that was not found.
    async fn found_or_gone(&self, id: JobId, found: Option<Job>) -> Result<Option<Job>, StoreError> {
        match found {
            Some(job) => Ok(Some(job)),
            None => self.head(id, Consistency::Strong).await,
        }
    }

    fn is_expired(&self, job: &Job) -> bool {
        job.expires_at() <= self.clock.now()
    }

    /// Some items of a job, by their keys, which have to be distinct: one `BatchGetItem`, or one for each
    /// hundred keys.
    async fn look(&self, id: JobId, keys: Vec<Item>, consistency: Consistency) -> Result<Found, StoreError> {
        let mut found = Found::default();
        for part in keys.chunks(100) {
            for item in self.batch_get(&format!("job {id}"), part.to_vec(), consistency).await? {
                match attribute::text(&item, layout::SK) {
                    Some(layout::HEAD) if head::is_barred(&item) => {}
                    Some(layout::HEAD) => found.job = Some(head::decode(id, &item)?),
                    Some(sk) if sk.starts_with(layout::CHUNK_PREFIX) => match Chunk::decode(id, &item) {
                        Ok(chunk) => drop(found.chunks.insert(chunk.number, chunk)),
                        Err(error) => {
                            let number = layout::chunk_in(sk).unwrap_or(u64::MAX);
                            found.damaged.insert(number, list::damaged(error)?);
                        }
                    },
                    _ => found.errors = attribute::number(&item, "n").unwrap_or(0),
                }
            }
        }
        found.job = found.job.filter(|job| !self.is_expired(job));
        Ok(found)
    }

    /// The items of these keys, in no order: at most a hundred keys.
    async fn batch_get(
        &self,
        subject: &str,
        keys: Vec<Item>,
        consistency: Consistency,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut wanted = keys;
        for tried in 0..=UNPROCESSED_TRIES {
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(consistency == Consistency::Strong)
                .build()
                .map_err(|error| StoreError::Corrupt { subject: subject.into(), why: error.to_string() })?;
            let get = self.client.batch_get_item().request_items(&self.table, keys);
            let get = get.set_return_consumed_capacity(self.metered());
            let found = self.read_by(|| subject.to_owned(), get.send()).await?;
            items.extend(found.responses.into_iter().flat_map(HashMap::into_values).flatten());
            let left = found.unprocessed_keys.unwrap_or_default().remove(&self.table);
            wanted = left.map(|keys| keys.keys).unwrap_or_default();
            if wanted.is_empty() {
                return Ok(items);
            }
            tokio::time::sleep(Duration::from_millis(10 << tried)).await;
        }
        let (operation, subject) = ("BatchGetItem", subject.to_owned());
        Err(StoreError::Throttled { operation, subject, source: "keys stayed unprocessed".into() })
    }

    /// Tells the chunk that the total cuts its size, so that whoever settles the last batch knows; and those
    /// past it, which are there only if somebody reported a batch that the job does not have, that they
    /// have room for none. One that is compacted is full.
    async fn mark_capacity(&self, job: &Job, total: u64) -> Result<(), StoreError> {
        let id = job.id;
        if !total.is_multiple_of(CHUNK) {
            let key = layout::chunk_key(id, total / CHUNK);
            self.mark(job, key, total % CHUNK, "attribute_not_exists(z)").await?;
        }
        let (first, mut start) = (chunks::chunks_of(total), None);
        if first > layout::LAST_CHUNK {
            // Past the last chunk that a job can have there is none.
            return Ok(());
        }
        loop {
            let past = self
                .query(id.to_string(), Consistency::Strong)
                .key_condition_expression("pk = :pk AND sk BETWEEN :first AND :last")
                .expression_attribute_values(":first", layout::chunk_sk(first))
                .expression_attribute_values(":last", layout::chunk_sk(layout::LAST_CHUNK))
                .projection_expression("pk, sk")
                .set_exclusive_start_key(start);
            let page = self.read_by(|| format!("job {id}"), past.send()).await?;
            for key in page.items.unwrap_or_default() {
                self.close(job, key).await?;
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    /// Tells a chunk that the job does not have that it has room for none.
    pub(crate) async fn close(&self, job: &Job, key: Item) -> Result<(), StoreError> {
        self.mark(job, key, 0, "attribute_exists(pk) AND attribute_not_exists(z)").await
    }

    async fn mark(&self, job: &Job, key: Item, size: u64, condition: &str) -> Result<(), StoreError> {
        let id = job.id;
        let update = self
            .update(key)
            .update_expression(format!("SET {}, cap = :cap", layout::CHUNK_BIRTH))
            .condition_expression(format!("{condition} AND {}", layout::CHUNK_IS_OURS))
            .set_expression_attribute_values(Some(layout::chunk_birth(job.expires_at())))
            .expression_attribute_values(":cap", layout::number(size));
        match self.write_by(|| format!("job {id}"), update.send()).await? {
            // One that is compacted, and so full, is refused, too. One that cannot be read stays as it is, and
            // hinders nobody: the job is shown as damaged, and does not complete without its batches.
            Write::Refused(Some(there)) => {
                if let Err(error) = Chunk::decode(id, &there) {
                    tracing::warn!(job = %id, %error, "a chunk is not told how many batches it has");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// How often keys that DynamoDB left unprocessed are asked for again.
const UNPROCESSED_TRIES: u32 = 8;

/// What of a job cannot be read, and which chunk it is, if it is one.
type Part = (Option<u64>, Damaged);

/// What a look at some items of a job found.
#[derive(Default)]
struct Found {
    job: Option<Job>,
    chunks: BTreeMap<u64, Chunk>,
    /// Chunks that cannot be read.
    damaged: BTreeMap<u64, Damaged>,
    /// About how many errors are kept for the job, if that was asked for.
    errors: u64,
}

#[async_trait]
impl StatusStore for DynamoStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        self.create_job(job).await
    }

    async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        self.head(id, consistency).await
    }

    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError> {
        let found = self.job_and_chunks(id, consistency).await?;
        let Some((job, chunks, damaged)) = found else { return Ok(None) };
        let mut facts = Facts::default();
        for chunk in chunks {
            facts.merge(&chunk.facts_of(job.total()));
        }
        facts.running.sort_unstable();
        Ok(Some(JobState::new(job, facts).with_damaged(damaged.into_iter().map(|(_, part)| part).collect())))
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        let put = self
            .put(head::encode(next))
            .condition_expression("rev = :rev AND (attribute_not_exists(ttl_at) OR ttl_at > :now)")
            .expression_attribute_values(":now", layout::seconds(self.clock.now()))
            .expression_attribute_values(":rev", layout::number(next.revision.saturating_sub(1)));
        let stored = match self.write_by(|| format!("job {}", next.id), put.send()).await? {
            Write::Applied(_) => return Ok(()),
            Write::Refused(None) => return Err(StoreError::NotFound(next.id)),
            Write::Refused(Some(stored)) => head::decode(next.id, &stored)?,
        };
        // The answer to the same write was lost.
        if stored == *next {
            return Ok(());
        }
        // Of its own revision it is refused in the second of its expiry, at the earliest.
        let gone = stored.revision + 1 == next.revision || self.is_expired(&stored);
        Err(if gone { StoreError::NotFound(next.id) } else { StoreError::Conflict(next.id) })
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        // Also of a job that ended with the very decision that sealed it: what comes late must not be past
        // its total.
        if let Some(total) = job.total() {
            self.mark_capacity(job, total).await?;
        }
        if job.status.is_terminal() { self.retire(job).await } else { Ok(()) }
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        let mut batches = batches.to_vec();
        batches.sort_unstable();
        batches.dedup();
        let mut keys: Vec<_> =
            batches.iter().map(|batch| layout::chunk_key(id, chunks::number_of(*batch))).collect();
        keys.dedup();
        keys.push(layout::head_key(id));
        let found = self.look(id, keys, Consistency::Eventual).await?;
        let Some(job) = self.found_or_gone(id, found.job).await? else { return Ok(None) };
        let settled: Vec<_> = batches
            .iter()
            .map(|batch| {
                let chunk = found.chunks.get(&chunks::number_of(*batch));
                (*batch, chunk.and_then(|chunk| chunk.settled(*batch)))
            })
            .collect();
        let is_damaged = |batch: &BatchIndex| found.damaged.contains_key(&chunks::number_of(*batch));
        let mut damaged: Vec<_> = batches.iter().copied().filter(|batch| is_damaged(batch)).collect();
        if job.notes_starts() {
            let total = job.total().unwrap_or(u64::MAX);
            let open = settled
                .iter()
                .filter(|(batch, settled)| settled.is_none() && batch.get() < total && !is_damaged(batch));
            let open: Vec<_> = open.map(|(batch, _)| *batch).collect();
            damaged.extend(self.note_starts(&job, &open, at).await?);
        }
        let mut may_decide = false;
        for chunk in found.chunks.values() {
            self.tell_if_over(&job, chunk).await?;
            may_decide = may_decide
                || job.status == Status::Processing
                    && (may_have_failed(&job, chunk) || self.may_be_last(id, chunk).await?);
        }
        Ok(Some(Begun::new(job, settled, may_decide).with_damaged(damaged)))
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        self.report_outcomes(id, reports, at).await
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        self.list_errors(id, page).await
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        let found = self.job_and_chunks(id, Consistency::Strong).await?;
        let (job, chunks, damaged) = found.ok_or(StoreError::NotFound(id))?;
        let chunks: HashMap<_, _> = chunks.into_iter().map(|chunk| (chunk.number, chunk)).collect();
        let highest = chunks.values().filter_map(|chunk| chunk.facts.highest).max();
        // Nobody knows which batches of a damaged chunk are settled: each may be.
        let unknown = damaged.iter().filter_map(|(number, _)| *number).map(|number| (number + 1) * CHUNK);
        let seen = unknown.chain(highest.map(|highest| highest.get() + 1)).max().unwrap_or(0);
        let batches = (from..job.total().unwrap_or(seen)).filter_map(|index| BatchIndex::new(index).ok());
        let stand = batches.filter_map(|batch| {
            let number = chunks::number_of(batch);
            match damaged.iter().find(|(of, _)| *of == Some(number)) {
                Some((_, Damaged { subject, why })) => {
                    Some(Err(StoreError::Corrupt { subject: subject.clone(), why: why.clone() }))
                }
                None => {
                    let settled = chunks.get(&number).and_then(|chunk| chunk.settled(batch));
                    which.holds(settled).then_some(Ok(batch))
                }
            }
        });
        stand.take(limit).collect()
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        self.list_jobs(owner, status, page).await
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        self.list_due(now, page).await
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        let update = self
            .update(layout::head_key(due.id))
            .update_expression("SET due = :until")
            .condition_expression("due = :at AND (attribute_not_exists(ttl_at) OR ttl_at > :now)")
            .expression_attribute_values(":now", layout::number(self.clock.now().as_second()))
            .expression_attribute_values(":until", layout::millis(until))
            .expression_attribute_values(":at", layout::millis(due.at));
        let moved = self.write_by(|| format!("job {}", due.id), update.send()).await?;
        Ok(matches!(moved, Write::Applied(_)))
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        self.erase_job(id).await
    }
}
