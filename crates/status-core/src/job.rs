//! The job's own record: everything that was decided about it, and nothing that merely happened.

use serde::{Deserialize, Serialize};

use crate::{Actor, Counts, JobId, Outcome, OwnerId, Policy, Status, Timestamp, clock, text};

/// A file as its owner named it. The name is text for people: never a path, never markup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct FileInfo {
    /// 1 to 255 bytes.
    pub name: String,
    /// Bytes, as announced.
    pub size: u64,
    /// Media type, as announced; at most 255 bytes.
    pub content_type: String,
}

impl FileInfo {
    /// # Errors
    /// [`text::InvalidText`] for an empty or oversized name or type, or one with control characters.
    pub fn new(
        name: impl Into<String>,
        size: u64,
        content_type: impl Into<String>,
    ) -> Result<Self, text::InvalidText> {
        let content_type = content_type.into();
        let content_type =
            if content_type.is_empty() { "application/octet-stream".into() } else { content_type };
        Ok(Self {
            name: text::checked("file_name", name.into(), 255)?,
            size,
            content_type: text::checked("content_type", content_type, 255)?,
        })
    }
}

/// How much there is to do, once it is known. Set once: that is the seal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// Batches `0..batches`.
    pub batches: u64,
    /// Items in all of them, if whoever split the file counted.
    pub items: Option<u64>,
}

/// Somebody asked to stop the job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelRequest {
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Who.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub by: Actor,
    /// Why, if they said.
    pub reason: Option<String>,
}

/// Why a job failed, for people and for programs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Failure {
    /// A stable slug.
    pub code: String,
    /// What happened and what to do, for people.
    pub message: String,
    /// Where it happened.
    pub stage: Stage,
    /// Whether trying the same file again may succeed.
    pub retryable: bool,
}

impl Failure {
    /// A failure; its texts are cut to 64 and 500 bytes.
    pub fn new(stage: Stage, code: &str, message: &str, retryable: bool) -> Self {
        Self { code: text::bounded(code, 64), message: text::bounded(message, 500), stage, retryable }
    }
}

/// The part of a job's life in which it failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The file was on its way.
    Upload,
    /// The file was being read and cut into batches.
    Split,
    /// The batches were worked on.
    Process,
}

/// One decision: the audit trail's line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryEntry {
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// What was decided.
    pub to: Decision,
    /// By whom.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub by: Actor,
    /// Why, where there is something to say.
    pub reason: Option<String>,
}

/// The decisions a job can see: its statuses, the seal and the request to cancel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Created.
    Uploading,
    /// The file has arrived.
    Uploaded,
    /// Splitting began.
    Processing,
    /// The total became known.
    Sealed,
    /// Somebody asked to stop.
    CancelRequested,
    /// All batches settled.
    Completed,
    /// Given up.
    Failed,
    /// Stopped.
    Cancelled,
}

impl From<Status> for Decision {
    fn from(status: Status) -> Self {
        match status {
            Status::Uploading => Self::Uploading,
            Status::Uploaded => Self::Uploaded,
            Status::Processing => Self::Processing,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

/// The record of a job: what its head holds in every store.
///
/// Only [`machine::decide`](crate::machine::decide) makes the next one from the last, and a store swaps it in only over
/// the revision it was made from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Its id, which carries when it was created.
    pub id: JobId,
    /// Whom it belongs to.
    pub owner: OwnerId,
    /// The file it is about.
    pub file: FileInfo,
    /// Its rules.
    pub policy: Policy,
    /// What was decided last.
    pub status: Status,
    /// How it came out, once completed.
    pub outcome: Option<Outcome>,
    /// What is going on within the status, in words: "reading worksheet 2 of 3".
    pub stage: Option<String>,
    /// Bytes that have arrived, as far as anybody said.
    pub uploaded_bytes: u64,
    /// How much there is to do; `None` until sealed.
    pub totals: Option<Totals>,
    /// The request to cancel, from when it was made.
    pub cancel_requested: Option<CancelRequest>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Every decision, oldest first; at most seven.
    pub history: Vec<HistoryEntry>,
    /// When this record was last written.
    pub updated_at: Timestamp,
    /// When processing began.
    pub started_at: Option<Timestamp>,
    /// When the terminal decision fell.
    pub finished_at: Option<Timestamp>,
    /// The counters as they were at the terminal decision.
    pub frozen: Option<Counts>,
    /// Grows by one with every write of this record.
    pub revision: u64,
    /// The key under which a repeated creation finds this job again.
    pub idempotency_key: Option<String>,
}

impl Job {
    /// A new job in `Uploading`.
    pub fn new(id: JobId, owner: OwnerId, file: FileInfo, policy: Policy, by: Actor) -> Self {
        let at = id.created_at();
        Self {
            id,
            owner,
            file,
            policy,
            status: Status::Uploading,
            outcome: None,
            stage: None,
            uploaded_bytes: 0,
            totals: None,
            cancel_requested: None,
            failure: None,
            history: vec![HistoryEntry { at, to: Decision::Uploading, by, reason: None }],
            updated_at: at,
            started_at: None,
            finished_at: None,
            frozen: None,
            revision: 1,
            idempotency_key: None,
        }
    }

    /// When it was created.
    pub fn created_at(&self) -> Timestamp {
        self.id.created_at()
    }

    /// The number of batches, once known.
    pub fn total(&self) -> Option<u64> {
        self.totals.map(|t| t.batches)
    }

    /// The moment from which a sweeper should look at the job; `None` once it is terminal.
    ///
    /// A job in Processing is looked at from the time it could be stalled: a worker may have died between settling the
    /// last batch and deciding.
    pub fn due_at(&self) -> Option<Timestamp> {
        let policy = &self.policy;
        match self.status {
            Status::Uploading => Some(clock::after(self.updated_at, policy.upload_timeout)),
            Status::Uploaded => Some(clock::after(self.updated_at, policy.processing_timeout)),
            Status::Processing => {
                let stalled = clock::after(self.started_at.unwrap_or(self.updated_at), policy.stall_after);
                let unheard = self.cancel_requested.as_ref().map(|c| clock::after(c.at, policy.cancel_grace));
                Some(unheard.map_or(stalled, |u| u.min(stalled)))
            }
            Status::Completed | Status::Failed | Status::Cancelled => None,
        }
    }

    /// The moment from which the record of a terminal job may be forgotten.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.finished_at.map(|at| clock::after(at, self.policy.retention))
    }
}
