//! Errors of items: one item of the table for each attempt at a batch that has any, in a partition of
//! their own so that polls do not read them.
//!
//! They are written before the batch is counted, so that a job that is over has all of them, and under a
//! number of their own where another attempt's are there already. The write that counts the batch says
//! which attempt's are listed. So what is listed is what was counted, whatever was repeated, lost, or
//! delivered to two workers at once; and an attempt that never counted leaves nothing but an item that
//! expires. Should there be more attempts than numbers, one more counts the last one's numbers instead of
//! its own.

use std::{borrow::Cow, collections::BTreeMap, error::Error};

use aws_sdk_dynamodb::{
    config::{Builder, retry::RetryConfig},
    operation::put_item::PutItemError,
    types::AttributeValue,
};
use serde::{Deserialize, Serialize};
use status_core::{
    BatchIndex, BatchOutcome, BatchReport, Consistency, Damaged, ErrorsPosition, ItemError, Job, JobId, Page,
    PageRequest, Settled, StoreError, chunk as chunks,
};

use crate::{
    DynamoStore,
    chunk::{ATTEMPTS, Chunk},
    layout::{self, ERRORS_STEP, Item, attribute},
    report::{Attempt, Before},
    request::{self, Write},
};

impl DynamoStore {
    /// Keeps the errors of batches that are news, as far as the job's policy allows; gives what is to be
    /// counted.
    pub(crate) async fn keep_errors<'a>(
        &self,
        before: &Before,
        reports: &[&'a BatchReport],
    ) -> Result<Vec<Attempt<'a>>, StoreError> {
        let mut attempts = Vec::with_capacity(reports.len());
        for report in reports {
            attempts.push(self.keep_errors_of(before, report).await?);
        }
        Ok(attempts)
    }

    async fn keep_errors_of<'a>(
        &self,
        Before { job, chunks, errors_are_full, .. }: &Before,
        report: &'a BatchReport,
    ) -> Result<Attempt<'a>, StoreError> {
        let batch = report.batch();
        let settled = chunks.get(&chunks::number_of(batch)).and_then(|chunk| chunk.settled(batch));
        let counts = report.effect(settled).is_change() && job.total().is_none_or(|t| batch.get() < t);
        if !counts || report.errors().is_empty() || *errors_are_full {
            return Ok(Attempt { report: Cow::Borrowed(report), listed: 0 });
        }
        let mut item = encode(job, report)?;
        let mut earlier = None;
        for attempt in 1..=ATTEMPTS {
            item.extend(layout::errors_key(job.id, batch, report.settles_as(), attempt));
            let put = self.put(item.clone()).condition_expression("attribute_not_exists(pk)");
            let subject = || format!("errors of job {}", job.id);
            let written = match self.write_by(subject, put.send()).await {
                // Errors are worth less than the batch they belong to.
                Err(error) if request::is_invalid::<PutItemError>(&error) => {
                    let source = error.source();
                    tracing::error!(job = %job.id, %batch, %error, source, "its errors cannot be kept");
                    break;
                }
                written => written?,
            };
            match written {
                Write::Applied(_) => {
                    return Ok(Attempt { report: Cow::Borrowed(report), listed: attempt });
                }
                // The answer to the same write was lost, or the batch came out the same way again.
                Write::Refused(Some(there)) if is_same(&there, &item) => {
                    return Ok(Attempt { report: Cow::Borrowed(report), listed: attempt });
                }
                Write::Refused(there) => earlier = there.and_then(|item| adopted(report, &item)),
            }
        }
        Ok(match earlier {
            Some(earlier) => Attempt { report: Cow::Owned(earlier), listed: ATTEMPTS },
            // What cannot be read stands for nobody.
            None => Attempt { report: Cow::Borrowed(report), listed: 0 },
        })
    }

    /// Deletes what was kept for a job that turned out to be gone.
    pub(crate) async fn forget_errors(&self, id: JobId, attempts: &[Attempt<'_>]) -> Result<(), StoreError> {
        for attempt in attempts.iter().filter(|attempt| attempt.listed > 0) {
            let (batch, way) = (attempt.report.batch(), attempt.report.settles_as());
            self.delete(id, layout::errors_key(id, batch, way, attempt.listed)).await?;
        }
        Ok(())
    }

    /// Adds to the number of the job's errors what the chunk has more of, or takes away what it has less of,
    /// in steps. The number says when to stop keeping more, and nothing else: it may be too low, and is never
    /// too high for what was added twice. So what is added is sent once, whatever becomes of the answer; what
    /// is taken away may be repeated. A worker that dies before it has taken away leaves the number too high:
    /// for each such correction a job may keep up to [`ERRORS_STEP`] errors less than its bound.
    pub(crate) async fn count_errors(&self, id: JobId, chunk: &Chunk, before: Option<&Before>, more: i128) {
        let (now, step) = (i128::from(chunk.errors), i128::from(ERRORS_STEP));
        let steps = now.div_euclid(step) - (now - more).div_euclid(step);
        if steps == 0 {
            return;
        }
        let update = self
            .update(layout::errors_count_key(id))
            .expression_attribute_values(":n", layout::number(steps * step));
        let update = match before {
            Some(Before { job, .. }) => update
                .update_expression("SET ttl_at = :ttl ADD n :n")
                .expression_attribute_values(":ttl", layout::seconds(job.expires_at())),
            // Where nothing was added there is nothing to take away from.
            None => update.update_expression("ADD n :n").condition_expression("attribute_exists(pk)"),
        };
        let mut update = update.customize();
        if steps > 0 {
            update = update.config_override(Builder::new().retry_config(RetryConfig::disabled()));
        }
        if let Err(error) = self.write_by(|| format!("errors of job {id}"), update.send()).await {
            tracing::warn!(job = %id, %error, "how many errors are kept is known less exactly");
        }
    }

    pub(crate) async fn list_errors(
        &self,
        id: JobId,
        page: &PageRequest,
    ) -> Result<Page<ItemError>, StoreError> {
        let from: ErrorsPosition = page.position()?.unwrap_or_default();
        let subject = || format!("errors of job {id}");
        let mut listed = Page::new(Vec::new(), None);
        let mut start = None;
        loop {
            let query = self
                .query(layout::errors_pk(id), Consistency::Strong)
                .key_condition_expression("pk = :pk AND sk >= :from")
                .expression_attribute_values(":from", AttributeValue::S(layout::errors_from(from.batch)))
                .limit(i32::try_from(page.limit.saturating_add(1).min(1_000)).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start);
            let found = self.read_by(subject, query.send()).await?;
            let (errors, damaged) = read_all(id, found.items());
            listed.damaged.extend(damaged);
            let numbers = errors.keys().map(|(batch, _)| chunks::number_of(*batch));
            let mut keys = vec![layout::head_key(id)];
            keys.extend(numbers.map(|number| layout::chunk_key(id, number)));
            keys.dedup();
            let around = self.look(id, keys, Consistency::Strong).await?;
            for part in around.damaged.into_values() {
                if !listed.damaged.contains(&part) {
                    listed.damaged.push(part);
                }
            }
            let Some(job) = around.job else { return Ok(Page::new(Vec::new(), None)) };
            for ((batch, way), errors) in errors {
                let chunk = around.chunks.get(&chunks::number_of(batch));
                if !chunk.is_some_and(|chunk| is_listed(chunk, batch, way)) {
                    continue;
                }
                let skip = if batch.get() == from.batch { from.place } else { 0 };
                for (place, error) in errors.into_iter().enumerate().skip(skip) {
                    let so_far = from.listed + listed.rows.len() as u64;
                    if so_far >= job.policy.max_errors {
                        return Ok(listed);
                    }
                    if listed.rows.len() == page.limit {
                        let next = ErrorsPosition { batch: batch.get(), place, listed: so_far };
                        listed.next = Some(next.to_string());
                        return Ok(listed);
                    }
                    listed.rows.push(error);
                }
            }
            start = found.last_evaluated_key;
            if start.is_none() {
                return Ok(listed);
            }
        }
    }
}

/// How the batch of errors was settled, and by which attempt; release 0.1 did not say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Unknown,
    Settled(Settled, u8),
}

impl Way {
    /// What a sort key says.
    fn of(sk: &str) -> Self {
        let mut last = sk.chars().rev();
        let attempt = last.next().and_then(|digit| digit.to_digit(10)).and_then(|n| u8::try_from(n).ok());
        match (last.next(), attempt) {
            (Some('c'), Some(attempt)) => Self::Settled(Settled::Completed, attempt),
            (Some('f'), Some(attempt)) => Self::Settled(Settled::Failed, attempt),
            _ => Self::Unknown,
        }
    }
}

fn is_listed(chunk: &Chunk, batch: BatchIndex, way: Way) -> bool {
    match (chunk.settled(batch), way) {
        (Some(settled), Way::Settled(way, attempt)) => settled == way && chunk.listed(batch) == attempt,
        (settled, Way::Unknown) => settled.is_some() && chunk.listed(batch) == 0 && !chunk.is_replaced(batch),
        (None, Way::Settled(..)) => false,
    }
}

/// Whether two items hold the same errors and numbers.
fn is_same(there: &Item, item: &Item) -> bool {
    ["rows", "more", "p", "x"].into_iter().all(|name| there.get(name) == item.get(name))
}

/// The report with the numbers of the attempt that wrote these errors; `None` if they cannot be read.
fn adopted(report: &BatchReport, errors: &Item) -> Option<BatchReport> {
    let (batch, failed) = (report.batch(), attribute::number(errors, "x")?);
    let adopted = match report.outcome() {
        BatchOutcome::Completed { .. } => {
            BatchReport::completed(batch, attribute::number(errors, "p")?, failed)
        }
        BatchOutcome::Failed { .. } => BatchReport::failed(batch, failed, "", ""),
    };
    let adopted = adopted.with_errors(decode(errors).ok()?);
    Some(match report.duration() {
        Some(took) => adopted.took(took),
        None => adopted,
    })
}

/// An error without its batch, as release 0.1 wrote it.
type Row<'a> = (Option<u64>, Cow<'a, str>, Cow<'a, str>);

/// What an error has besides.
#[derive(Serialize, Deserialize)]
struct More<'a> {
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    input: Option<Cow<'a, str>>,
}

/// So large an item of errors becomes at most; DynamoDB takes 400 KB. Inputs that do not fit are left out.
const MOST_BYTES: usize = 300 << 10;

/// The errors of a report as an item, but for its key.
fn encode(job: &Job, report: &BatchReport) -> Result<Item, StoreError> {
    let json = |text: serde_json::Result<String>| {
        text.map(AttributeValue::S).map_err(|error| layout::corrupt(job.id, &error.to_string()))
    };
    let errors = report.errors();
    let row = |e: &ItemError| -> Row<'static> { (e.item, e.code.clone().into(), e.message.clone().into()) };
    let rows = serde_json::to_string(&errors.iter().map(row).collect::<Vec<_>>());
    let mut room = MOST_BYTES.saturating_sub(rows.as_ref().map_or(0, String::len));
    let more = |error: &ItemError| -> More<'static> {
        let input = error.input.clone().map(Cow::Owned);
        let mut more = More { line: error.line, input };
        // As text in JSON, a control character is six.
        let length = |more: &More<'_>| serde_json::to_string(more).map_or(usize::MAX, |json| json.len() + 1);
        if length(&more) > room {
            more.input = None;
        }
        room = room.saturating_sub(length(&more));
        more
    };
    let more: Vec<_> = errors.iter().map(more).collect();
    let (processed, failed) = match report.outcome() {
        BatchOutcome::Completed { processed, failed } => (processed, failed),
        BatchOutcome::Failed { items } => (0, items),
    };
    let mut item = Item::new();
    item.insert("sv".into(), layout::number(layout::SCHEMA));
    item.insert("b".into(), layout::number(report.batch()));
    item.insert("p".into(), layout::number(processed));
    item.insert("x".into(), layout::number(failed));
    item.insert("rows".into(), json(rows)?);
    if more.iter().any(|more| more.line.is_some() || more.input.is_some()) {
        item.insert("more".into(), json(serde_json::to_string(&more))?);
    }
    item.insert(layout::TTL.into(), layout::seconds(job.expires_at()));
    Ok(item)
}

/// The errors of one item of the table, in order, or why they cannot be read.
fn decode(item: &Item) -> Result<Vec<ItemError>, &'static str> {
    if attribute::number::<u64>(item, "sv").is_some_and(|version| version > layout::SCHEMA) {
        return Err(layout::NEWER);
    }
    decoded(item).ok_or("its errors cannot be read")
}

fn decoded(item: &Item) -> Option<Vec<ItemError>> {
    let batch = BatchIndex::new(attribute::number(item, "b")?).ok()?;
    let rows: Vec<Row<'_>> = serde_json::from_str(attribute::text(item, "rows")?).ok()?;
    let more: Vec<More<'_>> = match item.get("more") {
        Some(more) => serde_json::from_str(more.as_s().ok()?).ok()?,
        None => Vec::new(),
    };
    let mut more = more.into_iter();
    let mut errors: Vec<_> = rows
        .into_iter()
        .map(|(item, code, message)| {
            let mut error = ItemError::new(batch, item, &code, &message);
            if let Some(More { line, input }) = more.next() {
                error.line = line;
                error.input = input.map(Cow::into_owned);
            }
            error
        })
        .collect();
    errors.sort_by(|a, b| (a.item, &a.code).cmp(&(b.item, &b.code)));
    Some(errors)
}

/// Errors by batch and way of settling it.
type ByBatch = BTreeMap<(BatchIndex, Way), Vec<ItemError>>;

/// The errors of these items, and the items that cannot be read.
fn read_all(id: JobId, items: &[Item]) -> (ByBatch, Vec<Damaged>) {
    let (mut errors, mut damaged) = (BTreeMap::new(), Vec::new());
    for item in items {
        let sk = attribute::text(item, layout::SK).unwrap_or_default();
        if !sk.starts_with(layout::ERRORS_PREFIX) {
            continue;
        }
        let way = Way::of(sk);
        match decode(item) {
            Ok(rows) => {
                if let Some(first) = rows.first() {
                    errors.insert((first.batch, way), rows);
                }
            }
            Err(why) => damaged.push(Damaged { subject: format!("{sk} of job {id}"), why: why.into() }),
        }
    }
    (errors, damaged)
}
