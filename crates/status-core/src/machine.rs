//! The state machine: record + facts + command + time → the next record, or a typed rejection. Pure; every store
//! is tested against it and none re-implements it.
//!
//! Commands say "at least this far": what is already so succeeds as [`Verdict::AlreadyApplied`], what contradicts
//! a terminal decision is a [`Rejection`] that names both statuses.

use std::cmp::Ordering;

use crate::{
    Actor, BatchIndex, CancelRequest, Decision, Facts, Failure, HistoryEntry, ItemError, Job, Outcome, Stage,
    Status, Timestamp, Totals, clock, text,
};

/// The shortest time between two records of upload progress or of a stage: they are a courtesy, not decisions.
pub const COURTESY_INTERVAL: std::time::Duration = std::time::Duration::from_secs(2);

/// What somebody wants of a job.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// So many bytes have arrived. Kept at most once in [`COURTESY_INTERVAL`].
    UploadProgress(u64),
    /// The file is there.
    FinishUpload,
    /// What is going on, in words. Kept at most once in [`COURTESY_INTERVAL`].
    Stage(String),
    /// The input is cut into batches of at most so many items, unless it has been cut already.
    BatchSize(u32),
    /// Processing begins; with totals it is sealed at once. With totals on a job in Processing it is the seal.
    Start(Option<Totals>),
    /// Nothing but what the facts decide.
    Reconcile,
    /// Stop, and why.
    Cancel(Option<String>),
    /// A worker has seen the request to cancel.
    ConfirmCancel,
    /// Give up, and why.
    Fail(Failure),
    /// Do what time demands: confirm a cancel nobody heard, fail what is past its deadline.
    Expire,
}

/// What a command comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// What has happened decides first, whatever the command is: swap this record in, then give the
    /// command again.
    Reconciled(Box<Job>),
    /// Swap this record in.
    Next(Box<Job>),
    /// It is so already, or there is nothing to do.
    AlreadyApplied,
}

/// Why a command cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The terminal decision fell another way.
    #[error("the job is {status} and cannot become {wanted}")]
    Contradiction {
        /// What the job is.
        status: Status,
        /// What the command would have made of it.
        wanted: Status,
    },
    /// It was sealed with another total.
    #[error("the job is sealed with {sealed} batches and cannot be sealed with {given}")]
    TotalMismatch {
        /// The total it has.
        sealed: u64,
        /// The total that was given.
        given: u64,
    },
    /// A batch at or past this total is settled already.
    #[error("batch {seen} is settled, so the total cannot be {given}")]
    TotalTooSmall {
        /// The total that was given.
        given: u64,
        /// The highest batch that is settled.
        seen: BatchIndex,
    },
    /// More batches than a job may have.
    #[error(transparent)]
    TooManyBatches(#[from] crate::TooManyBatches),
    /// A batch at or past the total.
    #[error("batch {batch} is past the job's {total} batches, 0 to {}", total.saturating_sub(1))]
    BatchOutOfRange {
        /// The batch that was named.
        batch: BatchIndex,
        /// The total of the job.
        total: u64,
    },
    /// The job is not over, so it cannot be erased.
    #[error("the job is {status} and can be erased only when it is over; cancel it first")]
    NotOver {
        /// What the job is.
        status: Status,
    },
    /// There is no request to confirm.
    #[error("nobody asked to cancel the job, which is {status}")]
    NoCancelRequest {
        /// What the job is.
        status: Status,
    },
}

/// Decides what `command`, given by `by` at `now`, makes of `job`, whose batches stand as `facts` say.
///
/// Facts come first: a job whose batches have settled is completed, one with more failures than its policy
/// tolerates has failed, and one of which a batch was reported has begun, before the command is looked at.
///
/// Facts of which a part cannot be read are lower bounds: they still fail a job and begin it, they complete
/// it only if all its batches are among what can be read, and no command and no deadline waits for them.
///
/// # Errors
/// A [`Rejection`] if the command contradicts what was decided.
pub fn decide(
    job: &Job,
    facts: &Facts,
    command: &Command,
    by: &Actor,
    now: Timestamp,
) -> Result<Verdict, Rejection> {
    // Times in the record never go back, whatever the clocks of two machines say.
    let now = now.max(job.updated_at);
    let mut next = Draft { job: job.clone(), facts, by: &Actor::WORKER, now };
    next.reconcile();
    if let Some(reconciled) = next.changed_from(job) {
        return Ok(Verdict::Reconciled(reconciled));
    }
    let mut next = Draft { job: job.clone(), facts, by, now };
    match command {
        Command::UploadProgress(bytes) => next.upload_progress(*bytes)?,
        Command::FinishUpload => next.finish_upload()?,
        Command::Stage(stage) => next.stage(stage),
        Command::BatchSize(size) => next.batch_size(*size),
        Command::Start(totals) => next.start(*totals)?,
        Command::Reconcile => {}
        Command::Cancel(reason) => next.cancel(reason.as_deref())?,
        Command::ConfirmCancel => next.confirm_cancel()?,
        Command::Fail(failure) => next.fail(failure)?,
        Command::Expire => next.expire(),
    }
    Ok(next.changed_from(job).map_or(Verdict::AlreadyApplied, Verdict::Next))
}

/// Whether a job failed for too many failed batches, so that [`name_culprit`] can name one.
pub fn lacks_culprit(job: &Job) -> bool {
    job.status == Status::Failed
        && job.failure.as_ref().is_some_and(|failure| failure.code == TOO_MANY_FAILED)
}

/// Names the error that made a job fail for too many failed batches, in its failure and its history.
/// Decoration: without it the decision is the same.
pub fn name_culprit(job: &mut Job, error: &ItemError) {
    let Some(failure) = job.failure.as_mut().filter(|failure| failure.code == TOO_MANY_FAILED) else {
        return;
    };
    let message = format!("{} Batch {}: {}", failure.message, error.batch, error.message);
    *failure = Failure::new(failure.stage, TOO_MANY_FAILED, &message, failure.retryable);
    if let Some(entry) = job.history.last_mut().filter(|entry| entry.to == Decision::Failed) {
        entry.reason = Some(reason_of(failure));
    }
}

/// The slug of a job that failed since more batches failed than its policy tolerates.
const TOO_MANY_FAILED: &str = "too-many-failed-batches";

/// A record on its way to the next one.
struct Draft<'a> {
    job: Job,
    facts: &'a Facts,
    by: &'a Actor,
    now: Timestamp,
}

impl Draft<'_> {
    /// The next record, if it differs from the one it was made from.
    fn changed_from(mut self, before: &Job) -> Option<Box<Job>> {
        if self.job == *before {
            return None;
        }
        self.job.revision += 1;
        self.job.updated_at = self.now;
        Some(Box::new(self.job))
    }

    /// What the facts alone decide.
    fn reconcile(&mut self) {
        if matches!(self.job.status, Status::Uploading | Status::Uploaded) && self.facts.highest.is_some() {
            self.begin_processing();
        }
        self.settle();
    }

    fn upload_progress(&mut self, bytes: u64) -> Result<(), Rejection> {
        match self.job.status {
            Status::Uploading => {
                if self.job.uploaded_bytes == 0 || self.courtesy_is_due() {
                    let bytes = bytes.min(self.file_size());
                    self.job.uploaded_bytes = self.job.uploaded_bytes.max(bytes);
                }
                Ok(())
            }
            Status::Failed | Status::Cancelled => self.contradiction(Status::Uploading),
            _ => Ok(()),
        }
    }

    fn finish_upload(&mut self) -> Result<(), Rejection> {
        match self.job.status {
            Status::Uploading => {
                self.finish_the_upload();
                Ok(())
            }
            Status::Uploaded | Status::Processing | Status::Completed => Ok(()),
            Status::Failed | Status::Cancelled => self.contradiction(Status::Uploaded),
        }
    }

    fn stage(&mut self, stage: &str) {
        if !self.job.status.is_terminal() && (self.job.stage.is_none() || self.courtesy_is_due()) {
            self.job.stage = Some(text::bounded(stage, 200));
        }
    }

    fn batch_size(&mut self, size: u32) {
        if !self.job.status.is_terminal() {
            self.job.batch_size.get_or_insert(size.max(1));
        }
    }

    fn start(&mut self, totals: Option<Totals>) -> Result<(), Rejection> {
        match self.job.status {
            Status::Uploading | Status::Uploaded => self.begin_processing(),
            Status::Processing | Status::Completed => {}
            // The answer to the seal that decided the job was lost.
            Status::Failed | Status::Cancelled if totals.is_some() && self.job.totals == totals => {
                return Ok(());
            }
            Status::Failed | Status::Cancelled => return self.contradiction(Status::Processing),
        }
        match totals {
            Some(totals) => self.seal(totals),
            None => Ok(()),
        }
    }

    fn seal(&mut self, given: Totals) -> Result<(), Rejection> {
        if let Some(sealed) = self.job.totals {
            let mismatch = Rejection::TotalMismatch { sealed: sealed.batches, given: given.batches };
            return if sealed.batches == given.batches { Ok(()) } else { Err(mismatch) };
        }
        if let Some(last) = given.batches.checked_sub(1) {
            BatchIndex::new(last)?;
        }
        if let Some(seen) = self.facts.highest.filter(|seen| seen.get() >= given.batches) {
            return Err(Rejection::TotalTooSmall { given: given.batches, seen });
        }
        self.job.totals = Some(given);
        self.job.stage = None;
        self.note(Decision::Sealed, None);
        self.settle();
        Ok(())
    }

    /// Completes or fails a job in Processing if its batches decide it.
    fn settle(&mut self) {
        if self.job.status != Status::Processing {
            return;
        }
        let (counts, total) = (self.facts.counts, self.job.total());
        if self.job.policy.tolerance.is_exceeded(counts.failed, total) {
            return self.finish_failed(too_many_failed(counts.failed, total));
        }
        // What cannot be read holds none of the job's batches once all of them are among those that can.
        if total.is_none_or(|total| counts.settled() < total) {
            return;
        }
        let astray = self.items_astray();
        let outcome = match (counts.failed, counts.items_failed, total) {
            _ if astray.is_some() => Outcome::Partial,
            (0, 0, Some(0)) => Outcome::Empty,
            (0, 0, _) => Outcome::Succeeded,
            _ => Outcome::Partial,
        };
        let failed = (counts.failed > 0 || counts.items_failed > 0)
            .then(|| format!("{} batches and {} items failed", counts.failed, counts.items_failed));
        let reasons: Vec<_> = failed.into_iter().chain(astray.clone()).collect();
        self.job.outcome = Some(outcome);
        self.finish(Status::Completed, Some(reasons.join("; ")).filter(|reason| !reason.is_empty()));
        self.job.stage = astray;
    }

    /// What is wrong with the number of items of a job whose batches all settled, if somebody counted them:
    /// each is either processed or failed. A file that was cut in two ways loses some.
    fn items_astray(&self) -> Option<String> {
        let (expected, counts) = (self.job.totals?.items?, self.facts.counts);
        let found = counts.items_processed.saturating_add(counts.items_failed);
        match expected.cmp(&found) {
            Ordering::Equal => None,
            Ordering::Greater => Some(format!(
                "{} of {expected} items are missing: neither processed nor failed",
                expected - found
            )),
            Ordering::Less => Some(format!("{found} items were reported instead of {expected}")),
        }
    }

    fn cancel(&mut self, reason: Option<&str>) -> Result<(), Rejection> {
        let reason = reason.map(|r| text::bounded(r, 300));
        match self.job.status {
            Status::Uploading | Status::Uploaded => {
                self.job.cancel_requested = Some(self.request(reason.clone()));
                self.finish(Status::Cancelled, reason);
            }
            Status::Processing if self.job.cancel_requested.is_none() => {
                self.job.cancel_requested = Some(self.request(reason.clone()));
                self.note(Decision::CancelRequested, reason);
            }
            Status::Processing | Status::Cancelled => {}
            Status::Completed | Status::Failed => return self.contradiction(Status::Cancelled),
        }
        Ok(())
    }

    fn confirm_cancel(&mut self) -> Result<(), Rejection> {
        match self.job.status {
            Status::Processing if self.job.cancel_requested.is_some() => {
                let reason = self.job.cancel_requested.as_ref().and_then(|c| c.reason.clone());
                self.finish(Status::Cancelled, reason);
                Ok(())
            }
            // The last batch was faster than the request: nothing is left to confirm.
            Status::Completed | Status::Failed | Status::Cancelled if self.job.cancel_requested.is_some() => {
                Ok(())
            }
            status => Err(Rejection::NoCancelRequest { status }),
        }
    }

    fn fail(&mut self, failure: &Failure) -> Result<(), Rejection> {
        match self.job.status {
            Status::Failed => Ok(()),
            Status::Completed | Status::Cancelled => self.contradiction(Status::Failed),
            Status::Uploading | Status::Uploaded | Status::Processing => {
                self.finish_failed(failure.clone());
                Ok(())
            }
        }
    }

    fn expire(&mut self) {
        let policy = &self.job.policy;
        let silent =
            clock::between(self.job.updated_at.max(self.facts.last_at.unwrap_or(Timestamp::MIN)), self.now);
        let unheard = self
            .job
            .cancel_requested
            .as_ref()
            .is_some_and(|c| clock::between(c.at, self.now) >= policy.cancel_grace);
        let overdue = self.now >= self.job.overdue_at();
        match self.job.status {
            Status::Uploading if silent >= policy.upload_timeout => self.finish_failed(Failure::new(
                Stage::Upload,
                "upload-timeout",
                "The upload did not finish in time. Please upload the file again.",
                true,
            )),
            Status::Processing if unheard => {
                let reason = self.job.cancel_requested.as_ref().and_then(|c| c.reason.clone());
                self.finish(Status::Cancelled, reason);
            }
            Status::Uploading | Status::Uploaded | Status::Processing if overdue => {
                self.finish_failed(Failure::new(
                    self.stage_of_life(),
                    "deadline",
                    "The job was not done by its deadline. What was done is kept; please upload the file again.",
                    true,
                ));
            }
            Status::Uploaded | Status::Processing if silent >= policy.processing_timeout => {
                self.finish_failed(Failure::new(
                    self.stage_of_life(),
                    "processing-timeout",
                    "Processing stopped and did not resume in time. What was done is kept; please upload the file again.",
                    true,
                ));
            }
            _ => {}
        }
    }

    /// The part of its life the job is in.
    fn stage_of_life(&self) -> Stage {
        match self.job.status {
            Status::Uploading => Stage::Upload,
            Status::Uploaded => Stage::Split,
            _ => Stage::Process,
        }
    }

    fn finish_the_upload(&mut self) {
        self.job.uploaded_bytes = self.file_size();
        self.move_to(Status::Uploaded, None);
    }

    fn begin_processing(&mut self) {
        if self.job.status == Status::Uploading {
            self.finish_the_upload();
        }
        self.move_to(Status::Processing, None);
        self.job.started_at = Some(self.now);
    }

    fn file_size(&self) -> u64 {
        self.job.file.as_ref().map_or(0, |file| file.size)
    }

    fn finish_failed(&mut self, failure: Failure) {
        let reason = reason_of(&failure);
        self.job.failure = Some(failure);
        self.finish(Status::Failed, Some(reason));
    }

    fn finish(&mut self, status: Status, reason: Option<String>) {
        self.job.stage = None;
        self.job.finished_at = Some(self.now);
        self.job.frozen = Some(self.facts.counts);
        self.move_to(status, reason);
    }

    fn move_to(&mut self, status: Status, reason: Option<String>) {
        self.job.status = status;
        self.note(status.into(), reason);
    }

    fn note(&mut self, to: Decision, reason: Option<String>) {
        self.job.history.push(HistoryEntry { at: self.now, to, by: self.by.clone(), reason });
    }

    fn request(&self, reason: Option<String>) -> CancelRequest {
        CancelRequest { at: self.now, by: self.by.clone(), reason }
    }

    fn courtesy_is_due(&self) -> bool {
        clock::between(self.job.updated_at, self.now) >= COURTESY_INTERVAL
    }

    fn contradiction(&self, wanted: Status) -> Result<(), Rejection> {
        Err(Rejection::Contradiction { status: self.job.status, wanted })
    }
}

fn too_many_failed(failed: u64, total: Option<u64>) -> Failure {
    let batches = if failed == 1 { "1 batch".into() } else { format!("{failed} batches") };
    let of = total.map(|t| format!(" of {t}")).unwrap_or_default();
    Failure::new(Stage::Process, TOO_MANY_FAILED, &format!("{batches}{of} failed."), true)
}

fn reason_of(failure: &Failure) -> String {
    format!("{}: {}", failure.code, failure.message)
}
