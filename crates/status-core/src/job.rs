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

/// A job to create.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NewJob {
    /// What people call it.
    pub title: String,
    /// What sort of job it is, for programs: "lead-import".
    pub kind: Option<String>,
    /// The file it starts with, if it starts with an upload.
    pub file: Option<FileInfo>,
    /// Its rules, if not the tracker's.
    pub policy: Option<Policy>,
    /// A key under which the same request finds the same job again.
    pub idempotency_key: Option<String>,
    /// The job whose failed items it tries again.
    pub parent: Option<JobId>,
    /// Who is to be told of its end, by name.
    pub hooks: Vec<String>,
}

impl NewJob {
    /// The longest kind and the longest name of a hook, in bytes.
    pub const MAX_NAME: usize = 64;
    /// The most hooks of one job.
    pub const MAX_HOOKS: usize = 8;

    /// A job that starts with the upload of `file` and is called by its name.
    pub fn new(file: FileInfo) -> Self {
        Self { file: Some(file.clone()), ..Self::titled(file.name) }
    }

    /// A job whose input is there already: it is [`Status::Uploaded`] from the beginning.
    pub fn titled(title: impl Into<String>) -> Self {
        let (kind, file, policy, idempotency_key, parent) = Default::default();
        let (title, hooks) = (title.into(), Vec::new());
        Self { title, kind, file, policy, idempotency_key, parent, hooks }
    }

    /// The same with a kind of 1 to [`NewJob::MAX_NAME`] bytes.
    #[must_use]
    pub fn with_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// The same with rules of its own.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// The same under an idempotency key of 1 to 255 bytes. Which requests are the same says
    /// [`Job::is_same_request`].
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The same as the next attempt at `parent`.
    #[must_use]
    pub fn child_of(mut self, parent: JobId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// The same, with somebody to tell of its end.
    #[must_use]
    pub fn with_hook(mut self, name: impl Into<String>) -> Self {
        self.hooks.push(name.into());
        self
    }

    /// The job under an id.
    ///
    /// # Errors
    /// [`text::InvalidText`] for a text that is empty, too long, or has control characters.
    pub fn into_job(
        self,
        id: JobId,
        owner: OwnerId,
        policy: &Policy,
        by: Actor,
    ) -> Result<Job, text::InvalidText> {
        let named = |field, name| text::checked(field, name, Self::MAX_NAME);
        if self.hooks.len() > Self::MAX_HOOKS {
            let why = format!("are {}; at most {} are accepted", self.hooks.len(), Self::MAX_HOOKS);
            return Err(text::InvalidText { field: "hooks", why });
        }
        let at = id.created_at();
        let status = if self.file.is_some() { Status::Uploading } else { Status::Uploaded };
        let hook = |name| named("hook", name).map(|name| Hook { name, state: HookState::Waiting });
        Ok(Job {
            id,
            owner,
            title: text::checked("title", self.title, 255)?,
            kind: self.kind.map(|kind| named("kind", kind)).transpose()?,
            noun: None,
            // Its fields can be changed after it was made.
            file: self.file.map(|file| FileInfo::new(file.name, file.size, file.content_type)).transpose()?,
            parent: self.parent,
            child: None,
            attempts: 0,
            batch_size: None,
            hooks: self.hooks.into_iter().map(hook).collect::<Result<_, _>>()?,
            policy: self.policy.unwrap_or_else(|| policy.clone()).bounded(),
            status,
            outcome: None,
            stage: None,
            uploaded_bytes: 0,
            totals: None,
            cancel_requested: None,
            failure: None,
            history: vec![HistoryEntry { at, to: status.into(), by, reason: None }],
            updated_at: at,
            started_at: None,
            finished_at: None,
            frozen: None,
            revision: 1,
            idempotency_key: self
                .idempotency_key
                .map(|key| text::checked("Idempotency-Key", key, 255))
                .transpose()?,
        })
    }
}

/// Somebody who is to be told of a job's end, at least once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// Whom: a name that the deployment knows.
    pub name: String,
    /// Whether it has been told.
    pub state: HookState,
}

/// Whether a hook has been told of the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// Not yet.
    Waiting,
    /// It said so.
    Acknowledged,
    /// It was tried as often as the deployment allows.
    GivenUp,
}

/// The record of a job: what its head holds in every store.
///
/// Only [`machine::decide`](crate::machine::decide) makes the next one from the last, and a store swaps
/// it in only over the revision it was made from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Its id, which carries when it was created.
    pub id: JobId,
    /// Whom it belongs to.
    pub owner: OwnerId,
    /// What people call it: of an upload, the name of its file.
    pub title: String,
    /// What sort of job it is, for programs.
    #[serde(default)]
    pub kind: Option<String>,
    /// What its items are called ("Leads"), where its creator's tracker had a word for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noun: Option<String>,
    /// The file it started with, if it started with an upload.
    #[serde(default)]
    pub file: Option<FileInfo>,
    /// The job whose failed items it tries again.
    #[serde(default)]
    pub parent: Option<JobId>,
    /// The job that tries its failed items again.
    #[serde(default)]
    pub child: Option<JobId>,
    /// How often reading its input has been begun.
    #[serde(default)]
    pub attempts: u32,
    /// The most items in a batch, once somebody has begun to cut its input. Whoever cuts it again cuts it alike: a
    /// batch of another size under the same index would not be worked on.
    #[serde(default)]
    pub batch_size: Option<u32>,
    /// Who is to be told of its end.
    #[serde(default)]
    pub hooks: Vec<Hook>,
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
    /// When it was created.
    pub fn created_at(&self) -> Timestamp {
        self.id.created_at()
    }

    /// The number of batches, once known.
    pub fn total(&self) -> Option<u64> {
        self.totals.map(|t| t.batches)
    }

    /// Whether `other` was asked for by the same request: what an idempotency key stands for. That is its
    /// owner, title, kind, file and parent, and the names of its hooks. Its policy is not compared: it
    /// is often the tracker's, which may change between two tries.
    pub fn is_same_request(&self, other: &Self) -> bool {
        let hooks = |job: &Self| job.hooks.iter().map(|hook| hook.name.clone()).collect::<Vec<_>>();
        (&self.owner, &self.title, &self.kind, &self.file, self.parent, hooks(self))
            == (&other.owner, &other.title, &other.kind, &other.file, other.parent, hooks(other))
    }

    /// Whether the job notes when work on its batches begins, as it stands.
    pub fn notes_starts(&self) -> bool {
        self.policy.track_starts && self.status == Status::Processing && self.cancel_requested.is_none()
    }

    /// Whether these counters decide the job: it is in Processing, and all its batches have settled, or
    /// more failed than its policy tolerates.
    pub fn is_decided_by(&self, counts: &Counts) -> bool {
        let total = self.total();
        self.status == Status::Processing
            && (total.is_some_and(|total| counts.settled() >= total)
                || self.policy.tolerance.is_exceeded(counts.failed, total))
    }

    /// The moment from which a sweeper should look at the job after its last decision: the first of those
    /// at which time alone may decide it.
    ///
    /// A job in Processing is also looked at from the time it could be stalled: a worker may have died
    /// between settling the last batch and deciding. A terminal job is due at once, until its end is
    /// propagated.
    pub fn due_at(&self) -> Timestamp {
        if self.status.is_terminal() {
            return self.finished_at.unwrap_or(self.updated_at);
        }
        let first = self.timeouts(self.updated_at).into_iter().min().unwrap_or(Timestamp::MAX);
        if self.status != Status::Processing {
            return first;
        }
        let stalled = |since| clock::after(since, self.policy.stall_after);
        let began = stalled(self.started_at.unwrap_or(self.updated_at));
        let is_ahead = began > self.updated_at;
        first.min(if is_ahead { began } else { stalled(self.updated_at) })
    }

    /// When a sweeper that has looked at the job at `now`, and found nothing to decide, should look again:
    /// when it may be stalled, or at the first moment that is still ahead at which time alone may decide
    /// it. `last_at` is when a batch was last heard of.
    pub fn next_look(&self, now: Timestamp, last_at: Option<Timestamp>) -> Timestamp {
        let again = clock::after(now, self.policy.stall_after.max(Self::SHORTEST_LOOK));
        let heard_at = last_at.map_or(self.updated_at, |at| at.max(self.updated_at));
        let ahead = self.timeouts(heard_at).into_iter().filter(|at| *at > now);
        ahead.fold(again, Timestamp::min)
    }

    /// The moments at which time alone decides a job that is not over, if it was last heard of at
    /// `heard_at`: nobody has heard the request to cancel, nothing was heard at all, it is past its
    /// deadline.
    fn timeouts(&self, heard_at: Timestamp) -> [Timestamp; 3] {
        let policy = &self.policy;
        let silence = match self.status {
            Status::Uploading => policy.upload_timeout,
            _ => policy.processing_timeout,
        };
        let unheard = self.cancel_requested.as_ref().map(|c| clock::after(c.at, policy.cancel_grace));
        [unheard.unwrap_or(Timestamp::MAX), clock::after(heard_at, silence), self.overdue_at()]
    }

    /// Sweepers look at a job at most this often.
    const SHORTEST_LOOK: std::time::Duration = std::time::Duration::from_secs(10);

    /// The moment by which the job must be over.
    pub fn overdue_at(&self) -> Timestamp {
        clock::after(self.created_at(), self.policy.deadline)
    }

    /// The moment from which everything about the job may be forgotten: its retention counts from the
    /// terminal decision. Until then it counts from the last moment at which the job can end.
    pub fn expires_at(&self) -> Timestamp {
        let ends = self.finished_at.unwrap_or_else(|| clock::after(self.overdue_at(), Policy::SWEPT_WITHIN));
        clock::after(ends, self.policy.retention)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(new: NewJob) -> Job {
        let id = JobId::from_parts(Timestamp::UNIX_EPOCH, 1);
        let owner = OwnerId::new("alice").expect("a good name");
        new.into_job(id, owner, &Policy::default(), Actor::OWNER).expect("a good job")
    }

    #[test]
    fn a_job_without_a_file_has_been_uploaded() {
        let job = job(NewJob::titled("Nightly export").with_kind("export"));
        assert_eq!(
            (job.status, job.file.as_ref(), job.kind.as_deref()),
            (Status::Uploaded, None, Some("export"))
        );
        assert_eq!(job.history[0].to, Decision::Uploaded);
    }

    #[test]
    fn a_new_job_is_bounded() {
        let id = JobId::from_parts(Timestamp::UNIX_EPOCH, 1);
        let make = |new: NewJob| {
            let owner = OwnerId::new("alice").expect("a good name");
            new.into_job(id, owner, &Policy::default(), Actor::OWNER)
        };
        let long = "x".repeat(300);
        assert!(make(NewJob::titled("")).is_err());
        assert!(make(NewJob::titled(long.clone())).is_err());
        assert!(make(NewJob::titled("a").with_kind(long.clone())).is_err());
        assert!(make(NewJob::titled("a").with_key(long.clone())).is_err());
        let mut file = FileInfo::new("a.csv", 1, "text/csv").expect("a good file");
        file.name = long.clone();
        assert_eq!(
            make(NewJob { title: "a".into(), ..NewJob::new(file.clone()) }).expect_err("long").field,
            "file_name"
        );
        (file.name, file.content_type) = ("a.csv".into(), long);
        assert_eq!(make(NewJob::new(file)).expect_err("long").field, "content_type");
        let hooks = (0..9).fold(NewJob::titled("a"), |job, n| job.with_hook(n.to_string()));
        assert_eq!(make(hooks).expect_err("too many").to_string(), "hooks are 9; at most 8 are accepted");
        let endless = Policy { deadline: Duration::MAX, retention: Duration::MAX, ..Policy::default() };
        let policy = make(NewJob::titled("a").with_policy(endless)).expect("bounded").policy;
        assert_eq!((policy.deadline, policy.retention), (Policy::MAX_DEADLINE, Policy::MAX_RETENTION));
        let forgotten = Policy { retention: Duration::ZERO, ..Policy::default() };
        let policy = make(NewJob::titled("a").with_policy(forgotten)).expect("bounded").policy;
        assert_eq!(policy.retention, Policy::MIN_RETENTION, "its end has to be seen");
    }

    #[test]
    fn a_live_job_expires_after_it_can_end_and_a_terminal_one_when_its_retention_is_over() {
        let mut job = job(NewJob::titled("a"));
        let days = |n: u64| clock::after(Timestamp::UNIX_EPOCH, Duration::from_secs(n * 86_400));
        assert_eq!(job.expires_at(), days(30 + 30 + 90));
        job.finished_at = Some(days(2));
        assert_eq!(job.expires_at(), days(2 + 90));
    }

    #[test]
    fn looks_move_on_and_meet_what_time_demands() {
        let mut job = job(NewJob::titled("a"));
        let at = |seconds| clock::after(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds));
        job.status = Status::Processing;
        job.started_at = Some(at(100));
        assert_eq!(job.due_at(), at(220));
        assert_eq!(job.next_look(at(300), None), at(420));
        (job.updated_at, job.cancel_requested) =
            (at(310), Some(CancelRequest { at: at(310), by: Actor::OWNER, reason: None }));
        assert_eq!(job.due_at(), at(340), "when nobody has heard the request");
        assert_eq!(job.next_look(at(320), None), at(340), "also after a look that came before");
        assert_eq!(job.next_look(at(345), None), at(465));
        job.cancel_requested = None;
        assert_eq!(job.due_at(), at(430), "what is over is not ahead");
        job.policy.processing_timeout = Duration::from_secs(60);
        assert_eq!((job.due_at(), job.next_look(at(320), None)), (at(370), at(370)));
        assert_eq!(job.next_look(at(360), Some(at(350))), at(410), "a batch was heard of");
        job.policy.processing_timeout = Policy::MAX_DEADLINE;
        let overdue = 30 * 86_400;
        assert_eq!(job.next_look(at(overdue - 5), None), at(overdue));
        assert_eq!(job.next_look(at(overdue), None), at(overdue + 120));
    }
}
