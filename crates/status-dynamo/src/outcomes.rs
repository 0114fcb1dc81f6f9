//! Recording outcomes: one guarded `UpdateItem` for what one worker reports of one chunk.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use futures::future::try_join_all;
use status_core::{
    BatchIndex, BatchReport, Consistency, Counts, Effect, JobId, Moments, Recorded, Settled, Status,
    StoreError, Timestamp,
};

use crate::{
    DynamoStore,
    chunk::Chunk,
    error::failed,
    head,
    layout::{self, CHUNK, Item, attribute},
};

/// The most outcomes in one write: an expression has at most 4 KB.
const MOST_IN_ONE_WRITE: usize = 32;
/// How often a write is tried again because its chunk changed. Each time at least one of its batches had settled.
const TRIES: usize = MOST_IN_ONE_WRITE + 2;

/// What became of the reports of one chunk.
struct Written {
    effects: Vec<(BatchIndex, Effect)>,
    may_be_settled: bool,
    late: Option<Status>,
}

impl DynamoStore {
    pub(crate) async fn record_outcomes(
        &self,
        id: JobId,
        reports: &[BatchReport],
        at: Timestamp,
    ) -> Result<Recorded, StoreError> {
        // Successes and failures apart: one expression cannot add to a set and delete from it.
        let mut groups: HashMap<(u64, Settled), Vec<&BatchReport>> = HashMap::new();
        for report in reports {
            groups.entry((report.batch.get() / CHUNK, report.settles_as())).or_default().push(report);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(key, _)| *key);
        let parts = groups.iter().flat_map(|((number, _), group)| {
            group.chunks(MOST_IN_ONE_WRITE).map(move |part| (*number, part))
        });
        let parts: Vec<_> = parts.collect();
        if parts.len() > 1 {
            // One write is refused as a whole; of several, none may be made if one has to be refused.
            let job = self.head(id, Consistency::Strong).await?.ok_or(StoreError::NotFound(id))?;
            let total = job.total().unwrap_or(u64::MAX);
            if let Some(report) = reports.iter().find(|report| report.batch.get() >= total) {
                return Err(Self::out_of_range(id, report.batch, total));
            }
        }
        let written =
            try_join_all(parts.into_iter().map(|(number, part)| self.record_part(id, number, part, at)))
                .await?;
        let effects: HashMap<_, _> = written.iter().flat_map(|w| w.effects.iter().copied()).collect();
        Ok(Recorded {
            effects: reports
                .iter()
                .map(|r| effects.get(&r.batch).copied().unwrap_or(Effect::Duplicate))
                .collect(),
            may_be_settled: written.iter().any(|w| w.may_be_settled),
            late: written.iter().find_map(|w| w.late),
        })
    }

    async fn record_part(
        &self,
        id: JobId,
        number: u64,
        reports: &[&BatchReport],
        at: Timestamp,
    ) -> Result<Written, StoreError> {
        let kept = self.keep_errors(id, reports).await?;
        let written = self.write_part(id, number, reports, at).await?;
        for report in reports {
            let effect =
                written.effects.iter().find(|(batch, _)| *batch == report.batch).map(|(_, effect)| *effect);
            match effect {
                Some(Effect::Corrected) => self.replace_errors(id, report).await?,
                Some(Effect::Duplicate) if kept.contains(&report.batch) => {
                    self.forget_errors(id, report.batch).await?;
                }
                _ => {}
            }
        }
        Ok(written)
    }

    async fn write_part(
        &self,
        id: JobId,
        number: u64,
        reports: &[&BatchReport],
        at: Timestamp,
    ) -> Result<Written, StoreError> {
        // Until the chunk says otherwise, all are news.
        let mut effects: Vec<_> = reports.iter().map(|report| (*report, Effect::Counted)).collect();
        let mut compacted = false;
        for _ in 0..TRIES {
            let news: Vec<_> =
                effects.iter().filter(|(_, effect)| *effect != Effect::Duplicate).copied().collect();
            let effects_of =
                |effects: &[(&BatchReport, Effect)]| effects.iter().map(|(r, e)| (r.batch, *e)).collect();
            let chunk = match self.write(id, number, &news, compacted, at).await? {
                Ok(chunk) => chunk,
                Err(before) => {
                    if let Some(capacity) = before.as_ref().and_then(|chunk| chunk.capacity) {
                        let past = reports.iter().find(|report| report.batch.get() % CHUNK >= capacity);
                        if let Some(report) = past {
                            return Err(Self::out_of_range(id, report.batch, number * CHUNK + capacity));
                        }
                    }
                    let Some(chunk) = before else { continue };
                    effects = reports
                        .iter()
                        .map(|report| (*report, report.effect(chunk.settled(report.batch))))
                        .collect();
                    compacted = chunk.compacted;
                    if effects.iter().all(|(_, effect)| *effect == Effect::Duplicate) {
                        // Whoever comes late may be the only one who comes at all: it looks whether the job is decided.
                        let may_be_settled = self.may_be_last(id, &chunk).await?;
                        return Ok(Written {
                            effects: effects_of(&effects),
                            may_be_settled,
                            late: chunk.over,
                        });
                    }
                    continue;
                }
            };
            let added: u64 = news.iter().filter(|(_, effect)| *effect == Effect::Counted).count() as u64;
            let failed_more = news.iter().any(|(report, _)| report.settles_as() == Settled::Failed);
            let mut written = Written {
                effects: effects_of(&effects),
                may_be_settled: failed_more || self.may_be_last(id, &chunk).await?,
                late: chunk.over,
            };
            if chunk.facts.counts.settled() == added {
                written.late = self.check_new_chunk(id, &chunk, reports).await?;
            }
            if chunk.is_full(None) && chunk.capacity.is_none() && !chunk.compacted {
                self.compact(id, &chunk).await;
            }
            return Ok(written);
        }
        Err(StoreError::Conflict(id))
    }

    /// The write itself: the chunk after it, or before it if a condition did not hold.
    async fn write(
        &self,
        id: JobId,
        number: u64,
        news: &[(&BatchReport, Effect)],
        compacted: bool,
        at: Timestamp,
    ) -> Result<Result<Chunk, Option<Chunk>>, StoreError> {
        let Expression { update, condition, values } = Expression::new(id, news, compacted, at);
        let done = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(layout::chunk_key(id, number)))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .set_return_consumed_capacity(self.metered())
            .send()
            .await;
        match done {
            Ok(done) => {
                self.wrote(done.consumed_capacity.as_ref());
                let item = done
                    .attributes
                    .ok_or_else(|| layout::corrupt(id, "the server did not answer with the chunk"))?;
                Ok(Ok(Chunk::decode(id, &item)?))
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(check)) => {
                    self.refused();
                    Ok(Err(check.item().map(|item| Chunk::decode(id, item)).transpose()?))
                }
                _ => Err(failed("UpdateItem", format!("job {id}"), error)),
            },
        }
    }

    /// Whether `chunk` may have been the last one open. Batches come roughly in order, so that the head and the highest chunk
    /// (the two last items of a job: one read unit) nearly always tell that it was not, and spare reading them all.
    async fn may_be_last(&self, id: JobId, chunk: &Chunk) -> Result<bool, StoreError> {
        if !chunk.is_full(None) {
            return Ok(false);
        }
        let query = self.query(id, Consistency::Strong).scan_index_forward(false).limit(2);
        let ends = query.send().await.map_err(|error| failed("Query", format!("job {id}"), error))?;
        self.read(ends.consumed_capacity.as_ref());
        let [head, highest] = ends.items() else { return Ok(true) };
        let (job, highest) = (head::decode(id, head)?, Chunk::decode(id, highest)?);
        let open = match job.total() {
            _ if job.status != Status::Processing || chunk.facts.counts.failed > 0 => false,
            None => true,
            Some(total) => highest.number < total.saturating_sub(1) / CHUNK || !highest.is_full(Some(total)),
        };
        Ok(!open)
    }

    /// Whoever writes a chunk first looks at the head: whether there is a job that has it, and whether it is over.
    async fn check_new_chunk(
        &self,
        id: JobId,
        chunk: &Chunk,
        reports: &[&BatchReport],
    ) -> Result<Option<Status>, StoreError> {
        let key = layout::chunk_key(id, chunk.number);
        let Some(job) = self.head(id, Consistency::Strong).await? else {
            self.delete(id, key).await?;
            return Err(StoreError::NotFound(id));
        };
        if let Some(total) = job.total().filter(|total| *total <= chunk.first()) {
            self.delete(id, key).await?;
            return Err(Self::out_of_range(id, reports[0].batch, total));
        }
        if let Some(expires) = job.expires_at() {
            self.expire(&job, key, expires).await?;
            return Ok(Some(job.status));
        }
        Ok(None)
    }

    pub(crate) async fn delete(&self, id: JobId, key: Item) -> Result<(), StoreError> {
        let deleting = self.client.delete_item().table_name(&self.table).set_key(Some(key));
        let done = deleting.set_return_consumed_capacity(self.metered()).send().await;
        let done = done.map_err(|error| failed("DeleteItem", format!("job {id}"), error))?;
        self.wrote(done.consumed_capacity.as_ref());
        Ok(())
    }

    /// Drops the set of a full chunk: its size says the same. Polls get cheaper; whether it works
    /// this time does not matter.
    async fn compact(&self, id: JobId, chunk: &Chunk) {
        let compacting = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(layout::chunk_key(id, chunk.number)))
            .update_expression("SET z = :n, cap = :none REMOVE c")
            .condition_expression("size(c) = :n")
            .expression_attribute_values(":n", layout::number(CHUNK))
            .expression_attribute_values(":none", layout::number(0))
            .set_return_consumed_capacity(self.metered());
        match compacting.send().await {
            Ok(done) => self.wrote(done.consumed_capacity.as_ref()),
            Err(error) => {
                tracing::debug!(job = %id, chunk = chunk.number, %error, "a full chunk was not compacted");
            }
        }
    }

    /// Notes when work on these batches began: one write for each chunk.
    pub(crate) async fn note_starts(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut chunks: HashMap<u64, Vec<u64>> = HashMap::new();
        for batch in batches {
            chunks.entry(batch.get() / CHUNK).or_default().push(batch.get() % CHUNK);
        }
        let age = id.age_ms(at);
        try_join_all(chunks.into_iter().map(|(number, indices)| async move {
            let sets: Vec<_> = indices.iter().map(|index| format!("s{index} = :t")).collect();
            let done = self
                .client
                .update_item()
                .table_name(&self.table)
                .set_key(Some(layout::chunk_key(id, number)))
                .update_expression(format!("SET sv = :sv, {}", sets.join(", ")))
                .expression_attribute_values(":t", layout::number(age))
                .expression_attribute_values(":sv", layout::number(layout::SCHEMA))
                .set_return_consumed_capacity(self.metered())
                .send()
                .await
                .map_err(|error| failed("UpdateItem", format!("job {id}"), error))?;
            self.wrote(done.consumed_capacity.as_ref());
            Ok(())
        }))
        .await
        .map(drop)
    }
}

/// An update of a chunk that holds only if nobody has settled these batches in the meantime.
struct Expression {
    update: String,
    condition: String,
    values: Item,
}

impl Expression {
    fn new(id: JobId, news: &[(&BatchReport, Effect)], compacted: bool, at: Timestamp) -> Self {
        let mut sums = Moments::default();
        let (mut processed, mut failed) = (0_i128, 0_i128);
        let (mut settled_set, mut failed_set, mut corrected_set) = (Vec::new(), Vec::new(), Vec::new());
        let (mut conditions, mut removes) = (Vec::new(), Vec::new());
        let mut values: Item = HashMap::from([
            (":l".into(), layout::millis(at)),
            (":sv".into(), layout::number(layout::SCHEMA)),
            (
                ":max".into(),
                layout::number(news.iter().map(|(r, _)| r.batch.get() % CHUNK).max().unwrap_or(0)),
            ),
        ]);
        for (place, (report, effect)) in news.iter().enumerate() {
            let index = (report.batch.get() % CHUNK).to_string();
            let counts = counts_of(report);
            processed += i128::from(counts.items_processed);
            failed += i128::from(counts.items_failed);
            sums.add(&Moments::of(id, report, at));
            values.insert(format!(":b{place}"), AttributeValue::S(index.clone()));
            if *effect == Effect::Corrected {
                failed -= i128::from(report.items());
                conditions.push(format!("contains(f, :b{place})"));
                corrected_set.push(index.clone());
            } else {
                conditions.push(format!("NOT contains(c, :b{place})"));
                settled_set.push(index.clone());
                if report.settles_as() == Settled::Failed {
                    failed_set.push(index.clone());
                }
            }
            removes.push(format!("s{index}"));
        }
        let mut adds = Vec::new();
        for (name, set) in [("c", settled_set), ("f", failed_set)] {
            if !set.is_empty() {
                adds.push(format!("{name} :{name}"));
                values.insert(format!(":{name}"), AttributeValue::Ss(set));
            }
        }
        let sums = sums.values().map(|(sum, value)| (sum.name(), value));
        for (name, value) in sums.chain([("ip", processed), ("ix", failed)]).filter(|(_, value)| *value != 0)
        {
            adds.push(format!("{name} :{name}"));
            values.insert(format!(":{name}"), layout::number(value));
        }
        let mut update = format!("SET l = :l, sv = :sv REMOVE {}", removes.join(", "));
        if !adds.is_empty() {
            update += &format!(" ADD {}", adds.join(", "));
        }
        if !corrected_set.is_empty() {
            update += " DELETE f :corrected";
            values.insert(":corrected".into(), AttributeValue::Ss(corrected_set));
        }
        // A compacted chunk has room for none: all its batches have settled.
        conditions.push(if compacted { "attribute_exists(z)" } else { "NOT cap <= :max" }.into());
        Self { update, condition: conditions.join(" AND "), values }
    }
}

/// What a report alone counts.
fn counts_of(report: &BatchReport) -> Counts {
    let mut facts = status_core::Facts::default();
    let nowhere = JobId::from_parts(Timestamp::UNIX_EPOCH, 0);
    facts.add(nowhere, report, Effect::Counted, Timestamp::UNIX_EPOCH);
    facts.counts
}

/// The number of an item's attribute after an `UPDATED_NEW`.
pub(crate) fn updated_number(item: Option<&Item>, name: &str) -> Option<u64> {
    attribute::number(item?, name)
}
