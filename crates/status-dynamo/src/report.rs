//! Recording outcomes: one guarded `UpdateItem` for what one worker reports of one chunk.

use std::{borrow::Cow, collections::BTreeMap, error::Error};

use aws_sdk_dynamodb::{operation::update_item::UpdateItemError, types::ReturnValue};
use futures::future::try_join_all;
use status_core::{
    BatchIndex, BatchReport, Consistency, Damaged, Effect, Job, JobId, Settled, Status, StoreError,
    Timestamp, Written, chunk as chunks,
};

use crate::{
    DynamoStore,
    chunk::Chunk,
    expression::{Expression, Look},
    head,
    layout::{self, CHUNK, Item},
    request::{self, Write},
};

/// The most outcomes in one write: an expression has at most 4 KB.
const MOST_IN_ONE_WRITE: usize = 32;
/// How often a write is tried again because its chunk changed. Each time at least one of its batches had
/// settled, or the chunk's size or last time became known.
const TRIES: usize = MOST_IN_ONE_WRITE + 4;

/// What one worker reports of one batch, as it is to be counted.
#[derive(Clone)]
pub(crate) struct Attempt<'a> {
    pub(crate) report: Cow<'a, BatchReport>,
    /// Under which number, from 1, its errors are kept, to be listed if it counts; 0 is none.
    pub(crate) listed: u8,
}

/// What was read before errors are kept or a failure is judged: only reports of such need it.
pub(crate) struct Before {
    pub(crate) job: Job,
    pub(crate) chunks: BTreeMap<u64, Chunk>,
    /// The chunks that cannot be read.
    pub(crate) damaged: BTreeMap<u64, Damaged>,
    /// Whether the job has as many errors as its policy allows.
    pub(crate) errors_are_full: bool,
}

/// What became of the reports of one chunk.
struct Part {
    effects: Vec<(BatchIndex, Effect)>,
    may_decide: bool,
    status: Option<Status>,
}

impl DynamoStore {
    pub(crate) async fn report_outcomes(
        &self,
        id: JobId,
        reports: &[BatchReport],
        at: Timestamp,
    ) -> Result<Written, StoreError> {
        // Successes and failures apart: one expression cannot add to a set and delete from it.
        let mut groups: BTreeMap<(u64, Settled), Vec<&BatchReport>> = BTreeMap::new();
        for report in reports {
            let group = (chunks::number_of(report.batch()), report.settles_as());
            groups.entry(group).or_default().push(report);
        }
        let is_plain = |r: &BatchReport| r.errors().is_empty() && r.settles_as() == Settled::Completed;
        let before = if !reports.is_empty() && reports.iter().all(is_plain) {
            None
        } else {
            Some(self.before_report(id, groups.keys().map(|(number, _)| *number)).await?)
        };
        let parts = groups.iter().flat_map(|((number, _), group)| {
            group.chunks(MOST_IN_ONE_WRITE).map(move |part| (*number, part))
        });
        let reported = parts.map(|(number, part)| self.report_part(id, number, part, before.as_ref(), at));
        let parts = try_join_all(reported).await?;
        let may_decide = parts.iter().any(|part| part.may_decide);
        let status = parts.iter().filter_map(|part| part.status).max();
        Ok(Written::new(parts.into_iter().flat_map(|part| part.effects).collect(), may_decide, status))
    }

    async fn before_report(
        &self,
        id: JobId,
        numbers: impl Iterator<Item = u64>,
    ) -> Result<Before, StoreError> {
        let mut keys: Vec<_> = numbers.map(|number| layout::chunk_key(id, number)).collect();
        keys.dedup();
        keys.extend([layout::head_key(id), layout::errors_count_key(id)]);
        let found = self.look(id, keys, Consistency::Eventual).await?;
        let job = self.found_or_gone(id, found.job).await?.ok_or(StoreError::NotFound(id))?;
        let errors_are_full = found.errors >= job.policy.max_errors;
        Ok(Before { job, chunks: found.chunks, damaged: found.damaged, errors_are_full })
    }

    async fn report_part(
        &self,
        id: JobId,
        number: u64,
        reports: &[&BatchReport],
        before: Option<&Before>,
        at: Timestamp,
    ) -> Result<Part, StoreError> {
        let total = before.and_then(|before| before.job.total());
        let (reports, past): (Vec<&BatchReport>, Vec<&BatchReport>) =
            reports.iter().partition(|report| total.is_none_or(|total| report.batch().get() < total));
        let past = past.iter().map(|report| (report.batch(), Effect::OutOfRange));
        if before.is_some_and(|before| before.damaged.contains_key(&number)) {
            let damaged = reports.iter().map(|report| (report.batch(), Effect::Damaged));
            let effects = damaged.chain(past).collect();
            return Ok(Part { effects, may_decide: false, status: None });
        }
        let attempts = match before {
            Some(before) => self.keep_errors(before, &reports).await?,
            None => reports.iter().map(|report| plain(report)).collect(),
        };
        let written = match self.write_part(id, number, &attempts, at).await {
            Err(StoreError::NotFound(_)) => {
                self.forget_errors(id, &attempts).await?;
                return Err(StoreError::NotFound(id));
            }
            written => written?,
        };
        let PartWritten { chunk, mut effects, added, errors, status } = written;
        if added == 0 && past.len() == 0 && status.is_none() {
            self.check_duplicates(id, before, &mut effects).await?;
        }
        effects.extend(past);
        let Some(chunk) = chunk else {
            return Ok(Part { effects, may_decide: false, status });
        };
        if chunk.expires.is_some_and(|at| at <= self.clock.now().as_second()) {
            return Err(StoreError::NotFound(id));
        }
        let mut part = Part { effects, may_decide: false, status: chunk.over.or(status) };
        // A failing batch always looks: those of other chunks may have left one failure to the tolerance.
        let fails = reports.iter().any(|report| report.settles_as() == Settled::Failed);
        let failed = before.is_some_and(|before| fails || may_have_failed(&before.job, &chunk));
        part.may_decide = failed || self.may_be_last(id, &chunk).await?;
        self.count_errors(id, &chunk, before, errors).await;
        if chunk.is_full(None) && chunk.capacity.is_none() && !chunk.compacted {
            self.compact(id, &chunk).await;
        }
        Ok(part)
    }

    /// Counts the attempts that are news to the chunk. A chunk that nobody has checked yet is written only
    /// after a look at the head, so that a batch that the job does not have is never seen by anybody.
    async fn write_part(
        &self,
        id: JobId,
        number: u64,
        attempts: &[Attempt<'_>],
        at: Timestamp,
    ) -> Result<PartWritten, StoreError> {
        // Until the chunk says otherwise, all are news, and the job has it.
        let (mut seen, mut job, mut look): (Option<Chunk>, Option<Job>, _) = (None, None, Look::Spared);
        for _ in 0..TRIES {
            let total = job.as_ref().and_then(Job::total);
            let effects: Vec<_> =
                attempts.iter().map(|attempt| (attempt, effect_of(attempt, seen.as_ref(), total))).collect();
            let news: Vec<_> = effects.iter().filter(|(_, effect)| effect.is_change()).copied().collect();
            let told = effects.iter().map(|(attempt, effect)| (attempt.report.batch(), *effect)).collect();
            let status = job.as_ref().map(|job| job.status);
            if news.is_empty() {
                if let (Some(chunk), Some(job)) = (&seen, &job) {
                    self.tell_if_over(job, chunk).await?;
                }
                return Ok(PartWritten { chunk: seen, effects: told, added: 0, errors: 0, status });
            }
            let added = news.iter().filter(|(_, effect)| *effect == Effect::Counted).count() as u64;
            let expires = job.as_ref().map_or(id.latest_end(), Job::expires_at);
            let expression = Expression::new(id, &news, seen.as_ref(), look, at, expires);
            let errors = expression.errors;
            let written = match self.write(id, number, expression).await {
                // A chunk to which nothing can be added.
                Err(error) if is_of_chunk(&error) => return Ok(PartWritten::damaged(id, attempts, &error)),
                written => written?,
            };
            match written {
                Write::Applied(chunk) => {
                    let mut written = PartWritten { chunk: None, effects: told, added, errors, status };
                    if !chunk.checked || job.is_some_and(|job| job.status.is_terminal()) {
                        self.look_again(id, &chunk, &mut written).await?;
                    }
                    return Ok(PartWritten { chunk: Some(chunk), ..written });
                }
                Write::Refused(old) => match old.map(|item| Chunk::decode(id, &item)).transpose() {
                    Ok(chunk) => seen = chunk,
                    Err(error) => return Ok(PartWritten::damaged(id, attempts, &error)),
                },
            }
            look = match &seen {
                Some(chunk) if chunk.checked => Look::Spared,
                Some(_) => Look::AtChunk,
                None => Look::Before,
            };
            if look != Look::Spared {
                job = Some(self.look_first(id, number, seen.as_ref()).await?);
            }
        }
        Err(StoreError::Conflict(id))
    }

    /// The write itself.
    async fn write(
        &self,
        id: JobId,
        number: u64,
        expression: Expression,
    ) -> Result<Write<Chunk>, StoreError> {
        let update = self
            .update(layout::chunk_key(id, number))
            .update_expression(expression.update)
            .condition_expression(expression.condition)
            .set_expression_attribute_values(Some(expression.values))
            .return_values(ReturnValue::AllNew);
        Ok(match self.write_by(|| format!("job {id}"), update.send()).await? {
            Write::Applied(done) => {
                let missing = || layout::corrupt(id, "the server did not answer with the chunk");
                Write::Applied(Chunk::decode(id, &done.attributes.ok_or_else(missing)?)?)
            }
            Write::Refused(old) => Write::Refused(old),
        })
    }

    /// Whether `chunk` may have been the last one open. Batches come roughly in order, so that the head
    /// and the highest chunk (the two last items of a job: one read unit) nearly always tell that it was
    /// not, and spare reading them all.
    pub(crate) async fn may_be_last(&self, id: JobId, chunk: &Chunk) -> Result<bool, StoreError> {
        if !chunk.is_full(None) {
            return Ok(false);
        }
        let query = self.query(id.to_string(), Consistency::Strong).scan_index_forward(false).limit(2);
        let ends = self.read_by(|| format!("job {id}"), query.send()).await?;
        let [head, highest] = ends.items() else { return Ok(true) };
        // What cannot be read tells nothing: whoever reads the whole job sees what is left.
        let (Ok(job), Ok(highest)) = (head::decode(id, head), Chunk::decode(id, highest)) else {
            return Ok(true);
        };
        if job.status != Status::Processing {
            return Ok(!job.status.is_terminal());
        }
        let last = match job.total() {
            None => false,
            Some(total) => {
                highest.number >= chunks::chunks_of(total).saturating_sub(1) && highest.is_full(Some(total))
            }
        };
        Ok(last || may_have_failed(&job, chunk))
    }

    /// Looks whether there is a job that has this chunk, before it is written. One that is left of a job that
    /// is gone is deleted, one that the job does not have is closed.
    async fn look_first(&self, id: JobId, number: u64, seen: Option<&Chunk>) -> Result<Job, StoreError> {
        let key = layout::chunk_key(id, number);
        let Some(job) = self.head(id, Consistency::Strong).await? else {
            if seen.is_some() {
                self.delete(id, key).await?;
            }
            return Err(StoreError::NotFound(id));
        };
        let is_past = job.total().is_some_and(|total| total <= number * CHUNK);
        if is_past && seen.is_some_and(|chunk| chunk.capacity.is_none()) {
            self.close(&job, key).await?;
        }
        Ok(job)
    }

    /// Whoever made a chunk looks once more: a seal, an end or an erase may not have found it. What was
    /// counted in such a moment has been seen, and stays, unless the job is gone.
    async fn look_again(
        &self,
        id: JobId,
        chunk: &Chunk,
        written: &mut PartWritten,
    ) -> Result<(), StoreError> {
        let job = self.look_first(id, chunk.number, Some(chunk)).await?;
        self.tell_if_over(&job, chunk).await?;
        written.status = Some(job.status);
        let past = |batch: BatchIndex| job.total().is_some_and(|total| batch.get() >= total);
        let past = written.effects.iter_mut().filter(|(batch, _)| past(*batch));
        past.for_each(|(_, effect)| *effect = Effect::OutOfRange);
        Ok(())
    }

    /// What is news to nobody may be so because the job does not have it, or is gone: the chunk does not
    /// know either.
    async fn check_duplicates(
        &self,
        id: JobId,
        before: Option<&Before>,
        effects: &mut [(BatchIndex, Effect)],
    ) -> Result<(), StoreError> {
        let total = match before {
            Some(before) => before.job.total(),
            None => {
                let job = self.head(id, Consistency::Eventual).await?;
                self.found_or_gone(id, job).await?.ok_or(StoreError::NotFound(id))?.total()
            }
        };
        let past = effects.iter_mut().filter(|(batch, _)| total.is_some_and(|total| batch.get() >= total));
        past.for_each(|(_, effect)| *effect = Effect::OutOfRange);
        Ok(())
    }

    /// Drops the set of a full chunk: its size says the same. Polls get cheaper; whether it works
    /// this time does not matter.
    async fn compact(&self, id: JobId, chunk: &Chunk) {
        let update = self
            .update(layout::chunk_key(id, chunk.number))
            .update_expression("SET z = :n, cap = :none REMOVE c")
            .condition_expression("size(c) = :n AND sv = :sv")
            .expression_attribute_values(":sv", layout::number(layout::SCHEMA))
            .expression_attribute_values(":n", layout::number(CHUNK))
            .expression_attribute_values(":none", layout::number(0));
        if let Err(error) = self.write_by(|| format!("job {id}"), update.send()).await {
            tracing::debug!(job = %id, chunk = chunk.number, %error, "a full chunk was not compacted");
        }
    }

    /// Notes when work on these batches began: one write for each chunk. Those come back whose chunk
    /// cannot be added to.
    pub(crate) async fn note_starts(
        &self,
        job: &Job,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        let of_one_chunk = |a: &BatchIndex, b: &BatchIndex| chunks::number_of(*a) == chunks::number_of(*b);
        let (id, age) = (job.id, job.id.age_ms(at));
        let noted = try_join_all(batches.chunk_by(of_one_chunk).map(|batches| async move {
            let starts: Vec<_> =
                batches.iter().map(|batch| format!("s{} = :t", chunks::place_of(*batch))).collect();
            let update = self
                .update(layout::chunk_key(id, chunks::number_of(batches[0])))
                .update_expression(format!("SET {}, {}", layout::CHUNK_BIRTH, starts.join(", ")))
                .condition_expression(layout::CHUNK_IS_OURS)
                .set_expression_attribute_values(Some(layout::chunk_birth(job.expires_at())))
                .expression_attribute_values(":t", layout::number(age));
            let noted = match self.write_by(|| format!("job {id}"), update.send()).await {
                Ok(Write::Refused(Some(there))) => Chunk::decode(id, &there).map(drop),
                noted => noted.map(drop),
            };
            match noted {
                Err(error) if is_of_chunk(&error) => Ok(batches),
                noted => noted.map(|()| &[][..]),
            }
        }));
        Ok(noted.await?.concat())
    }

    pub(crate) async fn delete(&self, id: JobId, key: Item) -> Result<(), StoreError> {
        self.write_by(|| format!("job {id}"), self.deletion(key).send()).await.map(drop)
    }
}

/// What a write of a chunk did.
struct PartWritten {
    /// The chunk after it, or as it refused it.
    chunk: Option<Chunk>,
    effects: Vec<(BatchIndex, Effect)>,
    /// How many batches the chunk has more.
    added: u64,
    /// How many more errors are kept, or fewer.
    errors: i128,
    /// The job's status, if somebody looked.
    status: Option<Status>,
}

impl PartWritten {
    /// Nothing, since the chunk cannot be read.
    fn damaged(id: JobId, attempts: &[Attempt<'_>], error: &StoreError) -> Self {
        tracing::error!(job = %id, %error, source = error.source(), "batches cannot be counted");
        let damaged = |attempt: &Attempt<'_>| (attempt.report.batch(), Effect::Damaged);
        let effects = attempts.iter().map(damaged).collect();
        Self { chunk: None, effects, added: 0, errors: 0, status: None }
    }
}

/// Whether the error of a chunk's write says that the chunk is not as it should be.
fn is_of_chunk(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. }) || request::is_invalid::<UpdateItemError>(error)
}

fn plain<'a>(report: &'a BatchReport) -> Attempt<'a> {
    Attempt { report: Cow::Borrowed(report), listed: 0 }
}

/// What an attempt does to its chunk, which is as it was seen last, in a job of so many batches, if that is
/// known.
fn effect_of(attempt: &Attempt<'_>, chunk: Option<&Chunk>, total: Option<u64>) -> Effect {
    let batch = attempt.report.batch();
    match chunk {
        _ if total.is_some_and(|total| batch.get() >= total) => Effect::OutOfRange,
        Some(chunk) if chunk.capacity.is_some_and(|size| chunks::place_of(batch) >= size) => {
            Effect::OutOfRange
        }
        chunk => attempt.report.effect(chunk.and_then(|chunk| chunk.settled(batch))),
    }
}

/// Whether the failures in this chunk are more than its share of what the job tolerates.
pub(crate) fn may_have_failed(job: &Job, chunk: &Chunk) -> bool {
    let (failed, total) = (chunk.facts_of(job.total()).counts.failed, job.total());
    let parts = total.map(chunks::chunks_of);
    !job.status.is_terminal() && job.policy.tolerance.may_be_exceeded(failed, parts, total)
}
