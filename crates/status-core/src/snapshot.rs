//! What a poller gets: the job as people see it at one moment. The JSON is a contract.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    CancelRequest, Failure, FileInfo, JobId, JobState, Outcome, Status, Timestamp, Token, clock,
    estimate::{self, InFlight, Work},
    token::Seen,
};

/// The estimate is shown once processing has taken this long.
pub const ESTIMATE_AFTER: Duration = Duration::from_secs(30);

/// A job at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Snapshot {
    /// The job.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: JobId,
    /// What people call it.
    pub title: String,
    /// What sort of job it is, for programs.
    pub kind: Option<String>,
    /// The job whose failed items it tries again.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub parent: Option<JobId>,
    /// The job that tries its failed items again.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub child: Option<JobId>,
    /// What was decided last.
    pub status: Status,
    /// How it came out, once completed.
    pub outcome: Option<Outcome>,
    /// The status in words.
    pub label: String,
    /// What is going on within the status, in words.
    pub stage: Option<String>,
    /// The file it started with, if it started with an upload.
    pub file: Option<FileInfo>,
    /// How far it is.
    pub progress: Progress,
    /// When it will be done, as far as that can be known.
    pub estimate: Option<Estimate>,
    /// Whether anything is heard of it.
    pub health: Health,
    /// The request to cancel it.
    pub cancel_requested: Option<CancelRequest>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When something was last heard of it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
    /// When processing began.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// When the terminal decision fell.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
    /// Only grows, with every decision and every fact. Two statuses that one decision passed (an upload that
    /// is finished by the start of processing) are shown with one version, and with two tokens.
    pub version: u64,
    /// When to ask again, in milliseconds; absent once terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_after_ms: Option<u64>,
    /// What its items are called.
    #[serde(skip)]
    noun: String,
    /// Whether a part of what is stored of its batches cannot be read: the counters are lower bounds then,
    /// and the job completes only if all its batches are among what can be read. Absent where all is well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
    /// How far the job was, as far as numbers that only grow can say.
    #[serde(skip)]
    seen: Seen,
}

/// How far a job is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// Settled batches as a share of all; `None` while the total is unknown, 1 only when the job is completed.
    pub fraction: Option<f64>,
    /// The file on its way.
    pub upload: UploadProgress,
    /// The batches.
    pub batches: BatchProgress,
    /// What they are made of.
    pub items: ItemProgress,
}

/// Bytes that have arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UploadProgress {
    /// So far.
    pub bytes: u64,
    /// In all.
    pub total: u64,
}

/// Batches by what became of them; completed, failed and pending add up to the total.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchProgress {
    /// In all, once known.
    pub total: Option<u64>,
    /// Completed.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Neither yet; `None` while the total is unknown.
    pub pending: Option<u64>,
    /// Being worked on now; `None` where starts are not tracked.
    pub running: Option<u64>,
}

/// Items by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemProgress {
    /// In all, once known.
    pub total: Option<u64>,
    /// In the results.
    pub processed: u64,
    /// Not in the results, and listed with the errors: of each batch at most
    /// [`ItemError::MAX_PER_BATCH`](crate::ItemError::MAX_PER_BATCH), of the job at most
    /// [`Policy::max_errors`](crate::Policy::max_errors).
    pub failed: u64,
}

/// The time remaining.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Estimate {
    /// The middle, in milliseconds.
    pub remaining_ms: u64,
    /// One time in ten it is less.
    pub low_ms: u64,
    /// One time in ten it is more.
    pub high_ms: u64,
    /// Now and the middle.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub finish_at: Timestamp,
    /// In words, as precise as the bounds allow.
    pub text: String,
}

/// Whether anything is heard of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Something was heard lately, or the job is terminal.
    Active,
    /// Nothing was heard for longer than the job's own batches make likely and the policy's
    /// [`stall_after`](crate::Policy::stall_after).
    Stalled,
}

impl Snapshot {
    /// The job as it is to be shown at `now`; `noun` is what its items are called, unless the job has
    /// its own word for them.
    pub fn new(state: &JobState, noun: &str, now: Timestamp) -> Self {
        let JobState { job, facts, damaged } = state;
        let noun = job.noun.as_deref().unwrap_or(noun);
        let heard_at = facts.last_at.map_or(job.updated_at, |at| at.max(job.updated_at));
        let started = facts.running.iter().copied().fold(heard_at, Timestamp::max);
        let silent = clock::between(started, now);
        let terminal = job.status.is_terminal();
        let likely = estimate::longest_likely(&facts.moments).unwrap_or_default();
        let health = if !terminal && silent > job.policy.stall_after.max(likely) {
            Health::Stalled
        } else {
            Health::Active
        };
        let running = in_flight(state, now);
        let progress = Progress {
            fraction: fraction(state),
            upload: UploadProgress {
                bytes: job.uploaded_bytes,
                total: job.file.as_ref().map_or(0, |file| file.size),
            },
            batches: BatchProgress {
                total: job.total(),
                completed: facts.counts.completed,
                failed: facts.counts.failed,
                pending: job.total().map(|t| t.saturating_sub(facts.counts.settled())),
                running: running.map(|r| r.batches),
            },
            items: ItemProgress {
                total: job.totals.and_then(|t| t.items),
                processed: facts.counts.items_processed,
                failed: facts.counts.items_failed,
            },
        };
        let estimate = estimate(state, running, health, now);
        let waiting = job.status == Status::Uploaded && job.file.is_none();
        Self {
            id: job.id,
            title: job.title.clone(),
            kind: job.kind.clone(),
            parent: job.parent,
            child: job.child,
            status: job.status,
            outcome: job.outcome,
            label: if waiting { "Waiting".into() } else { job.status.label(noun) },
            stage: job.stage.clone(),
            file: job.file.clone(),
            poll_after_ms: poll_after(state, estimate.as_ref(), health),
            progress,
            estimate,
            health,
            cancel_requested: job.cancel_requested.clone(),
            failure: job.failure.clone(),
            created_at: job.created_at(),
            updated_at: heard_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            version: state.version(),
            noun: noun.to_owned(),
            damaged: !damaged.is_empty(),
            seen: Seen {
                revision: job.revision,
                completed: facts.counts.completed + facts.stray.completed,
                settled: facts.counts.settled() + facts.stray.settled(),
                items_processed: facts.counts.items_processed,
            },
        }
    }

    /// What this snapshot shows, as one opaque text for ETags and the ids of events.
    pub fn token(&self) -> Token {
        Token::of(self)
    }

    /// What the job's items are called, as in its [`label`](Self::label): "Leads". Not part of the JSON.
    pub fn noun(&self) -> &str {
        &self.noun
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether this is not behind a snapshot with that token, in anything that only grows.
    pub fn covers(&self, token: &Token) -> bool {
        self.seen.covers(token.seen())
    }

    /// What a watcher would have seen between this snapshot and `next` had it looked more often: the statuses the job went
    /// through, so that nobody is shown a job that skips one. Every one of them is a decision that was made.
    pub(crate) fn passed_on_the_way_to(&self, next: &Self) -> impl Iterator<Item = Self> {
        // A job that was started has been uploaded; one that was not went straight to its end.
        let passed = [Status::Uploaded, Status::Processing].into_iter();
        let passed = passed
            .filter(|status| next.started_at.is_some() && self.status < *status && *status < next.status);
        // Where one decision passed two statuses there is one version for both; their tokens differ.
        (self.version + 1..).zip(passed).map(move |(version, status)| {
            let processing = status == Status::Processing;
            let UploadProgress { total, .. } = self.progress.upload;
            let upload = UploadProgress { bytes: total, total };
            let revision = (self.seen.revision + 1 + u64::from(processing)).min(next.seen.revision);
            Self {
                status,
                label: status.label(&self.noun),
                progress: Progress { upload, ..self.progress.clone() },
                started_at: next.started_at.filter(|_| processing),
                version: version.min(next.version),
                seen: Seen { revision, ..self.seen },
                ..self.clone()
            }
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn fraction(JobState { job, facts, .. }: &JobState) -> Option<f64> {
    if job.status == Status::Completed {
        return Some(1.0);
    }
    let total = job.total()?;
    if total == 0 {
        return Some(0.0);
    }
    // 999 of 1,000 is not done, and neither is 1,000 of 1,000 before it is decided.
    Some((facts.counts.settled() as f64 / total as f64).min(0.999))
}

/// What is being worked on. Starts that are older than the job waits for any sign of life are of workers that died.
fn in_flight(JobState { job, facts, .. }: &JobState, now: Timestamp) -> Option<InFlight> {
    if !job.policy.track_starts {
        return None;
    }
    if job.status.is_terminal() {
        return Some(InFlight::default());
    }
    let pending = job.total().map_or(u64::MAX, |t| t.saturating_sub(facts.counts.settled()));
    let alive = facts
        .running
        .iter()
        .map(|at| clock::between(*at, now))
        .filter(|age| *age < job.policy.processing_timeout);
    Some(alive.fold(InFlight::default(), |sum, age| InFlight {
        batches: (sum.batches + 1).min(pending),
        age: sum.age.saturating_add(age),
    }))
}

fn estimate(
    state: &JobState,
    in_flight: Option<InFlight>,
    health: Health,
    now: Timestamp,
) -> Option<Estimate> {
    let JobState { job, facts, .. } = state;
    let started_at =
        job.started_at.filter(|_| job.status == Status::Processing && job.cancel_requested.is_none())?;
    if clock::between(started_at, now) < ESTIMATE_AFTER {
        return None;
    }
    let since = |at| clock::between(job.created_at(), at);
    let work = Work {
        total: job.total(),
        total_items: job.totals.and_then(|t| t.items),
        counts: facts.counts,
        moments: facts.moments,
        started: since(started_at),
        last: since(facts.last_at.unwrap_or(started_at)),
        now: since(now),
        in_flight,
    };
    let remaining = estimate::remaining(&work)?;
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Some(Estimate {
        remaining_ms: ms(remaining.estimate),
        low_ms: ms(remaining.low),
        high_ms: ms(remaining.high),
        finish_at: clock::after(now, remaining.estimate),
        text: estimate::text(&remaining, health == Health::Stalled),
    })
}

/// Advice to pollers: a twentieth of what remains, so that the end is seen soon after it comes and a long job is not asked
/// for every second.
fn poll_after(state: &JobState, estimate: Option<&Estimate>, health: Health) -> Option<u64> {
    match (state.job.status, estimate, health) {
        (status, _, _) if status.is_terminal() => None,
        (_, _, Health::Stalled) => Some(5_000),
        (Status::Processing, Some(estimate), _) => Some((estimate.remaining_ms / 20).clamp(1_000, 15_000)),
        (Status::Processing, None, _) => Some(1_000),
        _ => Some(2_000),
    }
}
