//! One job at its end: status, history and batches, against what was reported of it.

use std::{collections::BTreeSet, time::Duration};

use status_core::{
    BatchState, Consistency, Decision, Error, Job, JobId, Settled, Snapshot, Status, Timestamp, clock,
};

use super::errors;
use crate::{
    actors::sweeper,
    invariant::{Invariant, Verdict},
    ledger::Book,
    scenario::Plan,
    words::Words,
    world::Process,
};

/// The batches of a job by what became of them.
pub(super) struct Batches {
    pub(super) completed: BTreeSet<u64>,
    pub(super) failed: BTreeSet<u64>,
    unsettled: BTreeSet<u64>,
}

/// Judges one job.
/// `over` is when sweepers stopped.
pub(super) async fn check(auditor: &Process, id: JobId, book: &Book, over: Timestamp) -> Result<(), Error> {
    let world = &auditor.world;
    let Some(plan) = book.plan.map(|number| &world.scenario.jobs[number]) else { return Ok(()) };
    let floor = world.ledger.floor(id);
    let snapshot = auditor.tracker.snapshot_now(id).await?;
    let job = auditor.store.job(id, Consistency::Strong).await?.ok_or(Error::NotFound(id))?;
    auditor.world.history.note(&auditor.name, || format!("finds {}, {}", job.words(), snapshot.words()));
    world.ledger.saw(&snapshot);
    world.ledger.saw_job(&job);
    world.ledger.check_floor(floor, &snapshot);
    let batches = Batches {
        completed: batches(auditor, id, BatchState::Completed).await?,
        failed: batches(auditor, id, BatchState::Failed).await?,
        unsettled: batches(auditor, id, BatchState::Unsettled).await?,
    };
    check_end(&world.verdict, &job, plan, book, world.scenario.skew);
    if let Some(quiet) = world.quiet_at() {
        check_in_time(&world.verdict, &job, book, (quiet, over), world.scenario.skew);
    }
    check_batches(&world.verdict, &snapshot, &batches, plan, book);
    errors::check(auditor, &snapshot, &batches, plan, book).await
}

async fn batches(auditor: &Process, id: JobId, which: BatchState) -> Result<BTreeSet<u64>, Error> {
    let all = auditor.tracker.batches(id, which, 0, usize::MAX).await?;
    Ok(all.into_iter().map(u64::from).collect())
}

/// The job is over, and its record says why.
fn check_end(verdict: &Verdict, job: &Job, plan: &Plan, book: &Book, skew: Duration) {
    let id = job.id;
    verdict.check(job.status.is_terminal(), Invariant::NothingUndecided, || format!("{job:?}"));
    let says = |decision| job.history.iter().any(|entry| entry.to == decision);
    let frozen = job.frozen.unwrap_or_default();
    let explains = job.history.last().is_some_and(|last| last.to == Decision::from(job.status))
        && says(Decision::Processing) == job.started_at.is_some()
        && says(Decision::Sealed) == job.totals.is_some()
        && job.finished_at == job.history.last().map(|last| last.at);
    verdict.check(explains, Invariant::HistoryExplains, || format!("{job:?}"));
    let exceeds = job.policy.tolerance.is_exceeded(frozen.failed, job.total());
    let is_right = match job.status {
        Status::Completed => job.total() == Some(frozen.settled()) && !exceeds,
        Status::Cancelled => job.cancel_requested.is_some() && plan.cancel.is_some(),
        Status::Failed => match job.failure.as_ref().map(|failure| failure.code.as_str()) {
            Some("too-many-failed-batches") => exceeds,
            Some("stray-batch") => plan.strays > 0,
            // One of which a batch was reported has begun, whoever forgot to say so.
            Some("upload-timeout") => job.started_at.is_none(),
            Some("processing-timeout") => was_silent(job, book, skew),
            Some("deadline") => {
                plan.policy.deadline
                    <= clock::between(job.created_at(), clock::after(job.updated_at, 2 * skew))
            }
            _ => false,
        },
        _ => true,
    };
    verdict.check(is_right, Invariant::HistoryExplains, || format!("{id} is not rightly so: {job:?}"));
    let total = job.total().filter(|total| *total != plan.total);
    verdict.check(total.is_none(), Invariant::OnlyItsOwnBatches, || format!("{id} has {total:?} batches"));
}

/// What only a sweep decides is decided by the next one after its time, at the latest: once nothing goes wrong
/// any more, and the sweepers that died by then have lost the jobs they were looking at.
fn check_in_time(
    verdict: &Verdict,
    job: &Job,
    book: &Book,
    (quiet, over): (Timestamp, Timestamp),
    skew: Duration,
) {
    let Some(finished) = job.finished_at else { return };
    let (policy, settled) = (&job.policy, clock::after(quiet, LEASE));
    let heard = book.heard.iter().map(|(sent, _)| *sent).max().map_or(settled, |heard| heard.max(settled));
    let due = match (job.status, &job.cancel_requested, &job.failure) {
        (Status::Cancelled, Some(request), _) => clock::after(request.at, policy.cancel_grace),
        (Status::Failed, _, Some(failure)) => match failure.code.as_str() {
            "deadline" => job.overdue_at(),
            "upload-timeout" => clock::after(settled, policy.upload_timeout),
            "processing-timeout" => clock::after(heard, policy.processing_timeout),
            _ => return,
        },
        _ => return,
    };
    let at_most = clock::after(due.max(settled), sweeper::LONGEST + SWEEP + 2 * skew);
    verdict.check(at_most >= over || finished <= at_most, Invariant::EndsInTime, || {
        format!("{} was due at {due} and ended at {finished}: {job:?}", job.id)
    });
}

/// How long a sweep takes at most.
const SWEEP: Duration = Duration::from_secs(10);

/// How long a sweeper that died keeps a job from others.
const LEASE: Duration = Duration::from_secs(60);

/// Whether nothing had been heard of the job for its timeout when it was failed for that, as far as
/// clocks can tell.
fn was_silent(job: &Job, book: &Book, skew: Duration) -> bool {
    let Some(finished) = job.finished_at else { return false };
    let surely_before =
        |(_, acknowledged): &&(Timestamp, Timestamp)| clock::after(*acknowledged, skew) <= finished;
    let Some((last, _)) = book.heard.iter().filter(surely_before).max() else { return true };
    let slack = 3 * skew + Duration::from_secs(2);
    clock::between(*last, finished) + slack >= job.policy.processing_timeout
}

/// The counters are those of the batches, and the batches those that were reported.
fn check_batches(verdict: &Verdict, snapshot: &Snapshot, batches: &Batches, plan: &Plan, book: &Book) {
    let (id, shown) = (snapshot.id, &snapshot.progress.batches);
    let Batches { completed, failed, unsettled } = batches;
    let is_one_of_each = completed.is_disjoint(failed)
        && completed.is_disjoint(unsettled)
        && failed.is_disjoint(unsettled)
        && (shown.total.is_none()
            || completed.iter().chain(failed).chain(unsettled).copied().collect::<BTreeSet<_>>()
                == (0..plan.total).collect());
    verdict.check(is_one_of_each, Invariant::CountersMatch, || {
        format!("{id}: completed {completed:?}, failed {failed:?}, unsettled {unsettled:?}: {shown:?}")
    });
    let counts = (shown.completed, shown.failed);
    let lengths = (completed.len() as u64, failed.len() as u64);
    verdict.check(counts == lengths, Invariant::CountersMatch, || {
        format!("{id} counts {counts:?} and lists {lengths:?} batches")
    });
    let was_reported = |batch: &u64, way| {
        book.attempts.get(batch).is_some_and(|all| all.iter().any(|a| a.report.settles_as() == way))
    };
    let made_up = completed.iter().find(|batch| !was_reported(batch, Settled::Completed));
    let made_up = made_up.or(failed.iter().find(|batch| !was_reported(batch, Settled::Failed)));
    verdict.check(made_up.is_none(), Invariant::CountersMatch, || {
        format!("nobody reported batch {made_up:?} of {id} so")
    });
    let lost: Vec<_> = book.acknowledged(plan.total, true).difference(completed).copied().collect();
    verdict.check(lost.is_empty(), Invariant::NothingLost, || {
        format!("{lost:?} of {id} were acknowledged as completed and are not")
    });
    let settled: BTreeSet<_> = completed.union(failed).copied().collect();
    let lost: Vec<_> = book.acknowledged(plan.total, false).difference(&settled).copied().collect();
    verdict.check(lost.is_empty(), Invariant::NothingLost, || {
        format!("{lost:?} of {id} were acknowledged as settled and are not")
    });
}
