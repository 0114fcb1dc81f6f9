//! The head: a job's record as one item, compact enough that a decision is one write unit or two.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};
use status_core::{
    Actor, CancelRequest, Counts, Decision, Failure, FileInfo, HistoryEntry, Hook, Job, JobId, NewJob,
    Outcome, OwnerId, Policy, Status, StoreError, Timestamp, Totals,
};

use crate::layout::{self, Item, attribute};

/// The record without what the key says already; absent is none, or the default.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(rename = "o")]
    owner: OwnerId,
    #[serde(rename = "title", default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    file: Option<FileInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noun: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    child: Option<JobId>,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_size: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hooks: Vec<Hook>,
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    policy: Policy,
    #[serde(rename = "s")]
    status: Status,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    #[serde(rename = "b", default)]
    uploaded_bytes: u64,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    totals: Option<Totals>,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    cancel_requested: Option<CancelRequest>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(rename = "h")]
    history: Vec<(i64, Decision, Actor, Option<String>)>,
    #[serde(rename = "u")]
    updated_at: i64,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<i64>,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    frozen: Option<Counts>,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The title, unless the file's name says the same: as release 0.1 wrote all of them.
fn own_title(job: &Job) -> Option<String> {
    let named = job.file.as_ref().is_some_and(|file| file.name == job.title);
    (!named).then(|| job.title.clone())
}

fn is_default(policy: &Policy) -> bool {
    *policy == Policy::default()
}

pub(crate) fn encode(job: &Job) -> Item {
    let ms = |at: &Timestamp| at.as_millisecond();
    let head = Head {
        owner: job.owner.clone(),
        title: own_title(job),
        file: job.file.clone(),
        kind: job.kind.clone(),
        noun: job.noun.clone(),
        parent: job.parent,
        child: job.child,
        attempts: job.attempts,
        batch_size: job.batch_size,
        hooks: job.hooks.clone(),
        policy: job.policy.clone(),
        status: job.status,
        outcome: job.outcome,
        stage: job.stage.clone(),
        uploaded_bytes: job.uploaded_bytes,
        totals: job.totals,
        cancel_requested: job.cancel_requested.clone(),
        failure: job.failure.clone(),
        history: job.history.iter().map(|h| (ms(&h.at), h.to, h.by.clone(), h.reason.clone())).collect(),
        updated_at: ms(&job.updated_at),
        started_at: job.started_at.as_ref().map(ms),
        finished_at: job.finished_at.as_ref().map(ms),
        frozen: job.frozen,
        idempotency_key: job.idempotency_key.clone(),
    };
    let json = serde_json::to_string(&head).expect("a head has nothing that JSON cannot hold");
    let mut item: Item = HashMap::from([
        ("sv".into(), layout::number(layout::SCHEMA)),
        (layout::JOB.into(), AttributeValue::S(json)),
        ("rev".into(), layout::number(job.revision)),
        ("st".into(), AttributeValue::S(job.status.as_str().into())),
        (layout::OWNER.into(), AttributeValue::S(job.owner.to_string())),
    ]);
    item.extend(layout::head_key(job.id));
    // A terminal job stays due until its end has been propagated.
    item.insert("dp".into(), AttributeValue::S(layout::DUE.into()));
    item.insert("due".into(), layout::millis(job.due_at()));
    item.insert(layout::TTL.into(), layout::seconds(job.expires_at()));
    item
}

/// The attribute of what stands in place of a head.
const BARRED: &str = "barred";

/// What stands where a head would be that must not be created any more.
pub(crate) fn barred(id: JobId, until: Timestamp) -> Item {
    let mut item = layout::head_key(id);
    item.insert("sv".into(), layout::number(layout::SCHEMA));
    item.insert(BARRED.into(), layout::number(1));
    item.insert(layout::TTL.into(), layout::seconds(until));
    item
}

/// Whether this is no head, but keeps one from being created.
pub(crate) fn is_barred(item: &Item) -> bool {
    item.contains_key(BARRED)
}

pub(crate) fn decode(id: JobId, item: &Item) -> Result<Job, StoreError> {
    let corrupt = |why: &str| layout::corrupt(id, why);
    match attribute::number::<u64>(item, "sv") {
        Some(layout::SCHEMA) => {}
        Some(_) => return Err(corrupt(layout::NEWER)),
        None => return Err(corrupt("its head has no layout version (sv)")),
    }
    let json = attribute::text(item, layout::JOB).ok_or_else(|| corrupt("its head has no record (job)"))?;
    let head: Head = serde_json::from_str(json)
        .map_err(|error| corrupt(&format!("its record cannot be read: {error}")))?;
    let at =
        |ms: i64| Timestamp::from_millisecond(ms).map_err(|_| corrupt("its record has a time out of range"));
    let title = head.title.or_else(|| head.file.as_ref().map(|file| file.name.clone()));
    let mut new = NewJob::titled(title.ok_or_else(|| corrupt("its record has neither title nor file"))?);
    new.file = head.file;
    let mut job = new
        .into_job(id, head.owner, &head.policy, Actor::OWNER)
        .map_err(|error| corrupt(&format!("its record cannot be used: {error}")))?;
    (job.kind, job.noun, job.parent, job.child) = (head.kind, head.noun, head.parent, head.child);
    (job.attempts, job.batch_size, job.hooks) = (head.attempts, head.batch_size, head.hooks);
    job.revision = attribute::number(item, "rev").ok_or_else(|| corrupt("its head has no revision (rev)"))?;
    job.status = head.status;
    job.outcome = head.outcome;
    job.stage = head.stage;
    job.uploaded_bytes = head.uploaded_bytes;
    job.totals = head.totals;
    job.cancel_requested = head.cancel_requested;
    job.failure = head.failure;
    job.history.clear();
    for (ms, to, by, reason) in head.history {
        job.history.push(HistoryEntry { at: at(ms)?, to, by, reason });
    }
    job.updated_at = at(head.updated_at)?;
    job.started_at = head.started_at.map(at).transpose()?;
    job.finished_at = head.finished_at.map(at).transpose()?;
    job.frozen = head.frozen;
    job.idempotency_key = head.idempotency_key;
    Ok(job)
}
