//! Every command on every status: the whole table, so that nothing in the machine can change unseen.

use std::time::Duration;

use status_core::{
    Actor, BatchIndex, Command, Counts, Decision, Facts, Failure, FileInfo, Job, JobId, NewJob, Outcome,
    OwnerId, Policy, Rejection, Stage, Status, Timestamp, Tolerance, TooManyBatches, Totals, Verdict, clock,
    machine,
};

const TOTALS: Totals = Totals { batches: 4, items: Some(40) };

fn at(seconds: u64) -> Timestamp {
    clock::after(
        Timestamp::from_millisecond(1_770_000_000_000).expect("a time"),
        Duration::from_secs(seconds),
    )
}

fn failure() -> Failure {
    Failure::new(Stage::Split, "file-empty", "The file is empty.", false)
}

/// The record that the command makes of the job whose facts decide nothing; `None` where nothing changes.
fn decide(job: &Job, facts: &Facts, command: &Command, seconds: u64) -> Result<Option<Job>, Rejection> {
    match machine::decide(job, facts, command, &Actor::WORKER, at(seconds))? {
        Verdict::Next(next) => Ok(Some(*next)),
        Verdict::AlreadyApplied => Ok(None),
        Verdict::Reconciled(next) => panic!("its facts make it {} first", next.status),
    }
}

/// The record that its facts make of the job, before `command` is looked at.
fn reconciled_before(command: &Command, job: &Job, facts: &Facts, seconds: u64) -> Job {
    match machine::decide(job, facts, command, &Actor::OWNER, at(seconds)) {
        Ok(Verdict::Reconciled(next)) => *next,
        other => panic!("expected that the facts decide, got {other:?}"),
    }
}

fn next(job: &Job, command: &Command) -> Job {
    decide(job, &Facts::default(), command, 10).expect("no contradiction").expect("a change")
}

fn uploading() -> Job {
    let file = FileInfo::new("leads.csv", 1_000, "text/csv").expect("a file");
    let owner = OwnerId::new("alice").expect("a name");
    let id = JobId::from_parts(at(0), 7);
    NewJob::new(file).into_job(id, owner, &Policy::default(), Actor::OWNER).expect("a good job")
}

fn uploaded() -> Job {
    next(&uploading(), &Command::FinishUpload)
}

fn processing() -> Job {
    next(&uploaded(), &Command::Start(Some(TOTALS)))
}

/// A job in each status.
fn jobs() -> [Job; 6] {
    let completed = reconciled_before(&Command::Reconcile, &processing(), &settled(4, 0), 10);
    let failed = next(&processing(), &Command::Fail(failure()));
    let cancelled = next(&uploaded(), &Command::Cancel(None));
    [uploading(), uploaded(), processing(), completed, failed, cancelled]
}

fn settled(completed: u64, failed: u64) -> Facts {
    let mut facts = Facts::default();
    facts.counts = Counts { completed, failed, items_processed: completed * 10, items_failed: failed * 10 };
    facts.highest = BatchIndex::new((completed + failed).saturating_sub(1)).ok();
    facts
}

#[test]
fn facts_of_which_a_part_is_missing_complete_a_job_only_without_it_and_hinder_no_other_decision() {
    let incomplete = |mut facts: Facts| {
        facts.is_incomplete = true;
        facts
    };
    let most = incomplete(settled(3, 0));
    for command in [Command::Reconcile, Command::Expire, Command::Start(Some(TOTALS))] {
        assert_eq!(decide(&processing(), &most, &command, 10), Ok(None), "{command:?}");
    }
    let all = incomplete(settled(4, 0));
    let completed = reconciled_before(&Command::Reconcile, &processing(), &all, 10);
    assert_eq!(completed.status, Status::Completed, "what is missing is no batch of the job");
    let failed = reconciled_before(&Command::Reconcile, &processing(), &incomplete(settled(1, 1)), 10);
    assert_eq!(failed.status, Status::Failed);
    let requested = next(&processing(), &Command::Cancel(None));
    for (job, command, seconds, status) in [
        (&requested, Command::ConfirmCancel, 10, Status::Cancelled),
        (&requested, Command::Expire, 60, Status::Cancelled),
        (&processing(), Command::Fail(failure()), 10, Status::Failed),
        (&processing(), Command::Expire, 31 * 86_400, Status::Failed),
    ] {
        let next = decide(job, &most, &command, seconds).expect("no contradiction").expect("a change");
        assert_eq!(next.status, status, "{command:?}");
    }
    let mut sum = settled(1, 0);
    sum.merge(&incomplete(Facts::default()));
    assert!(sum.is_incomplete);
}

/// What a command comes to on a job.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// A new record, in this status.
    To(Status),
    /// It is so already.
    Same,
    /// A contradiction that names this wanted status.
    Not(Status),
    /// There is no request to cancel.
    NoRequest,
}

#[test]
fn each_command_leads_where_the_table_says() {
    use Command as C;
    use Expect::{NoRequest as NoReq, Not, Same, To};
    use Status::Uploading as Uping;
    use Status::{Cancelled as Can, Completed as Com, Failed as Fai, Processing as Pro, Uploaded as Uped};
    #[rustfmt::skip]
    let table = [
        // command               uploading    uploaded   processing  completed  failed      cancelled
        (C::UploadProgress(1),   [To(Uping),  Same,      Same,       Same,      Not(Uping), Not(Uping)]),
        (C::FinishUpload,        [To(Uped),   Same,      Same,       Same,      Not(Uped),  Not(Uped)]),
        (C::Stage("x".into()),   [To(Uping),  To(Uped),  To(Pro),    Same,      Same,       Same]),
        (C::Start(None),         [To(Pro),    To(Pro),   Same,       Same,      Not(Pro),   Not(Pro)]),
        (C::Start(Some(TOTALS)), [To(Pro),    To(Pro),   Same,       Same,      Same,       Not(Pro)]),
        (C::Reconcile,           [Same,       Same,      Same,       Same,      Same,       Same]),
        (C::Cancel(None),        [To(Can),    To(Can),   To(Pro),    Not(Can),  Not(Can),   Same]),
        (C::ConfirmCancel,       [NoReq,      NoReq,     NoReq,      NoReq,     NoReq,      Same]),
        (C::Fail(failure()),     [To(Fai),    To(Fai),   To(Fai),    Not(Fai),  Same,       Not(Fai)]),
        (C::Expire,              [Same,       Same,      Same,       Same,      Same,       Same]),
    ];
    for (command, row) in table {
        for (job, expected) in jobs().into_iter().zip(row) {
            let facts = if job.status == Com { settled(4, 0) } else { Facts::default() };
            let decided = decide(&job, &facts, &command, 20).map(|next| next.map(|next| next.status));
            let expected = match expected {
                To(status) => Ok(Some(status)),
                Same => Ok(None),
                Not(wanted) => Err(Rejection::Contradiction { status: job.status, wanted }),
                NoReq => Err(Rejection::NoCancelRequest { status: job.status }),
            };
            assert_eq!(decided, expected, "{command:?} on {}", job.status);
        }
    }
}

#[test]
fn a_job_without_a_file_starts_where_a_file_would_have_arrived() {
    let id = JobId::from_parts(at(0), 7);
    let owner = OwnerId::new("alice").expect("a name");
    let new = NewJob::titled("Nightly export");
    let waiting = new.into_job(id, owner, &Policy::default(), Actor::OWNER).expect("a good job");
    assert_eq!(decide(&waiting, &Facts::default(), &Command::FinishUpload, 5), Ok(None));
    assert_eq!(decide(&waiting, &Facts::default(), &Command::UploadProgress(7), 5), Ok(None));
    let started = next(&waiting, &Command::Start(None));
    let told: Vec<_> = started.history.iter().map(|h| h.to).collect();
    assert_eq!(told, [Decision::Uploaded, Decision::Processing]);
    assert_eq!(started.uploaded_bytes, 0);
}

#[test]
fn a_job_of_which_a_batch_was_reported_has_begun() {
    for job in [uploading(), uploaded()] {
        for command in [Command::Reconcile, Command::FinishUpload, Command::Expire, Command::Cancel(None)] {
            let started = reconciled_before(&command, &job, &settled(1, 0), 99_999);
            assert_eq!((started.status, started.started_at), (Status::Processing, Some(at(99_999))));
            let by: Vec<_> = started.history.iter().skip(job.history.len()).map(|h| h.by.clone()).collect();
            assert!(by.iter().all(|by| *by == Actor::WORKER), "the worker's report did it: {by:?}");
        }
    }
    let failed = reconciled_before(&Command::Reconcile, &uploading(), &settled(0, 1), 20);
    assert_eq!(failed.status, Status::Failed, "by default one failed batch is too much, started or not");
}

#[test]
fn a_decision_grows_the_revision_keeps_time_and_is_told() {
    for job in jobs() {
        for command in [
            Command::FinishUpload,
            Command::Start(None),
            Command::Cancel(Some("why".into())),
            Command::Fail(failure()),
        ] {
            // A clock that runs behind.
            let Ok(Some(next)) = decide(&job, &Facts::default(), &command, 5) else { continue };
            assert_eq!(next.revision, job.revision + 1);
            assert_eq!(next.updated_at, job.updated_at.max(at(5)), "time never goes back");
            assert!(next.history.len() > job.history.len());
            assert!(next.history.is_sorted_by_key(|h| h.at));
            assert_eq!(next.finished_at.is_some(), next.status.is_terminal());
            assert_eq!(next.frozen.is_some(), next.status.is_terminal());
        }
    }
}

#[test]
fn starting_implies_the_upload() {
    let started = next(&uploading(), &Command::Start(None));
    let told: Vec<_> = started.history.iter().map(|h| h.to).collect();
    assert_eq!(told, [Decision::Uploading, Decision::Uploaded, Decision::Processing]);
    assert_eq!((started.uploaded_bytes, started.started_at), (1_000, Some(at(10))));
}

#[test]
fn upload_progress_is_kept_every_two_seconds_and_within_the_file() {
    let first = decide(&uploading(), &Facts::default(), &Command::UploadProgress(100), 0)
        .expect("fine")
        .expect("kept at once");
    assert_eq!(decide(&first, &Facts::default(), &Command::UploadProgress(200), 1), Ok(None));
    let second =
        decide(&first, &Facts::default(), &Command::UploadProgress(5_000), 2).expect("fine").expect("kept");
    assert_eq!(second.uploaded_bytes, 1_000, "no more than the file has");
    assert_eq!(decide(&second, &Facts::default(), &Command::UploadProgress(100), 9), Ok(None), "never back");
    assert_eq!(
        decide(&second, &Facts::default(), &Command::UploadProgress(1_000), 9),
        Ok(None),
        "nothing new"
    );
    assert_eq!(second.history.len(), 1, "a courtesy is no decision");
    let over = decide(&jobs()[5], &Facts::default(), &Command::UploadProgress(1), 99);
    assert_eq!(over, Err(Rejection::Contradiction { status: Status::Cancelled, wanted: Status::Uploading }));
    assert_eq!(decide(&processing(), &Facts::default(), &Command::UploadProgress(1), 99), Ok(None));
}

#[test]
fn a_stage_is_kept_every_two_seconds_until_the_seal() {
    let started = next(&uploaded(), &Command::Start(None));
    let stage = |text: &str| Command::Stage(text.into());
    let first =
        decide(&started, &Facts::default(), &stage("reading"), 10).expect("fine").expect("kept at once");
    assert_eq!(decide(&first, &Facts::default(), &stage("still reading"), 11), Ok(None));
    let second = decide(&first, &Facts::default(), &stage("still reading"), 12).expect("fine").expect("kept");
    assert_eq!(second.stage.as_deref(), Some("still reading"));
    assert_eq!(next(&second, &Command::Start(Some(TOTALS))).stage, None);
    assert_eq!(decide(&jobs()[3], &settled(4, 0), &stage("late"), 99), Ok(None));
}

#[test]
fn an_input_is_cut_as_it_was_cut_first() {
    let started = next(&uploaded(), &Command::Start(None));
    let first = next(&started, &Command::BatchSize(20));
    assert_eq!(first.batch_size, Some(20));
    assert_eq!(decide(&first, &Facts::default(), &Command::BatchSize(50), 99), Ok(None));
    assert_eq!(next(&started, &Command::BatchSize(0)).batch_size, Some(1));
    assert_eq!(decide(&jobs()[3], &settled(4, 0), &Command::BatchSize(50), 99), Ok(None));
}

#[test]
fn the_seal_is_set_once_and_covers_what_settled() {
    let started = next(&uploaded(), &Command::Start(None));
    let seal = |batches| Command::Start(Some(Totals { batches, items: None }));
    assert_eq!(decide(&processing(), &Facts::default(), &seal(4), 20), Ok(None));
    assert_eq!(
        decide(&processing(), &Facts::default(), &seal(5), 20),
        Err(Rejection::TotalMismatch { sealed: 4, given: 5 })
    );
    assert_eq!(
        decide(&jobs()[3], &settled(4, 0), &seal(5), 20),
        Err(Rejection::TotalMismatch { sealed: 4, given: 5 })
    );
    let seen = BatchIndex::new(3).expect("small");
    assert_eq!(
        decide(&started, &settled(4, 0), &seal(3), 20),
        Err(Rejection::TotalTooSmall { given: 3, seen })
    );
    let too_many = Rejection::TooManyBatches(TooManyBatches(10_000_000));
    assert_eq!(decide(&started, &Facts::default(), &seal(10_000_001), 20), Err(too_many));
    assert!(decide(&started, &Facts::default(), &seal(10_000_000), 20).is_ok());
    let completed = decide(&started, &settled(4, 0), &seal(4), 20).expect("fine").expect("sealed");
    assert_eq!((completed.status, completed.outcome), (Status::Completed, Some(Outcome::Succeeded)));
    let empty = next(&started, &seal(0));
    assert_eq!((empty.status, empty.outcome), (Status::Completed, Some(Outcome::Empty)));
}

#[test]
fn the_facts_decide_when_all_is_settled_or_too_much_has_failed() {
    let mut tolerant = processing();
    tolerant.policy.tolerance = Tolerance::Batches(2);
    let decided = |job: &Job, completed, failed| {
        let facts = settled(completed, failed);
        match machine::decide(job, &facts, &Command::Reconcile, &Actor::WORKER, at(20)) {
            Ok(Verdict::Reconciled(next)) => Some((next.status, next.outcome)),
            Ok(Verdict::AlreadyApplied) => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(decided(&processing(), 3, 0), None);
    assert_eq!(decided(&processing(), 4, 0), Some((Status::Completed, Some(Outcome::Succeeded))));
    assert_eq!(decided(&processing(), 0, 1), Some((Status::Failed, None)));
    assert_eq!(decided(&tolerant, 1, 2), None);
    assert_eq!(decided(&tolerant, 2, 2), Some((Status::Completed, Some(Outcome::Partial))));
    assert_eq!(decided(&tolerant, 0, 3), Some((Status::Failed, None)));
    let mut items = settled(4, 0);
    (items.counts.items_processed, items.counts.items_failed) = (39, 1);
    let partial = reconciled_before(&Command::Reconcile, &processing(), &items, 20);
    assert_eq!(partial.outcome, Some(Outcome::Partial), "a failed item");
    assert_eq!(
        partial.history.last().and_then(|h| h.reason.as_deref()),
        Some("0 batches and 1 items failed")
    );
}

#[test]
fn what_the_facts_decide_comes_before_what_somebody_wants() {
    let asked = next(&processing(), &Command::Cancel(None));
    let commands = [
        Command::Cancel(None),
        Command::Fail(failure()),
        Command::ConfirmCancel,
        Command::Expire,
        Command::Start(Some(Totals { batches: 9, items: None })),
        Command::Stage("late".into()),
    ];
    for job in [processing(), asked] {
        for command in &commands {
            let first = reconciled_before(command, &job, &settled(4, 0), 9_999_999);
            assert_eq!(first.status, Status::Completed, "before {command:?}");
            assert_eq!(first.history.last().map(|h| &h.by), Some(&Actor::WORKER));
        }
    }
    let completed = reconciled_before(&Command::Reconcile, &processing(), &settled(4, 0), 20);
    let no = |wanted| Err(Rejection::Contradiction { status: Status::Completed, wanted });
    assert_eq!(decide(&completed, &settled(4, 0), &Command::Cancel(None), 20), no(Status::Cancelled));
    assert_eq!(decide(&completed, &settled(4, 0), &Command::Fail(failure()), 20), no(Status::Failed));
}

#[test]
fn a_cancel_is_asked_for_then_confirmed() {
    let asked = next(&processing(), &Command::Cancel(Some("wrong file".into())));
    assert_eq!(
        asked.cancel_requested.as_ref().map(|c| (c.at, c.reason.as_deref())),
        Some((at(10), Some("wrong file")))
    );
    assert_eq!(
        decide(&asked, &Facts::default(), &Command::Cancel(None), 20),
        Ok(None),
        "asking twice is asking once"
    );
    let cancelled = next(&asked, &Command::ConfirmCancel);
    assert_eq!((cancelled.status, cancelled.finished_at), (Status::Cancelled, Some(at(10))));
    assert_eq!(cancelled.history.last().and_then(|h| h.reason.as_deref()), Some("wrong file"));
    let failed = next(&asked, &Command::Fail(failure()));
    assert_eq!(
        decide(&failed, &Facts::default(), &Command::ConfirmCancel, 20),
        Ok(None),
        "nothing is left to confirm"
    );
}

#[test]
fn time_decides_at_the_second_the_policy_says_and_not_before() {
    let expired = |job: &Job, facts: &Facts, seconds| {
        decide(job, facts, &Command::Expire, seconds)
            .expect("no contradiction")
            .map(|n| (n.status, n.failure.map(|f| f.code)))
    };
    let nothing = Facts::default();
    let failed = |code: &str| Some((Status::Failed, Some(code.to_owned())));
    assert_eq!(expired(&uploading(), &nothing, 3_599), None);
    assert_eq!(expired(&uploading(), &nothing, 3_600), failed("upload-timeout"));
    assert_eq!(expired(&uploaded(), &nothing, 10 + 43_199), None);
    assert_eq!(expired(&uploaded(), &nothing, 10 + 43_200), failed("processing-timeout"));
    let mut heard = settled(1, 0);
    heard.last_at = Some(at(1_000));
    assert_eq!(expired(&processing(), &heard, 1_000 + 43_199), None, "counted from what was heard last");
    assert_eq!(expired(&processing(), &heard, 1_000 + 43_200), failed("processing-timeout"));
    let asked = next(&processing(), &Command::Cancel(None));
    assert_eq!(expired(&asked, &nothing, 10 + 29), None);
    assert_eq!(expired(&asked, &nothing, 10 + 30), Some((Status::Cancelled, None)));
    for over in &jobs()[3..] {
        assert_eq!(expired(over, &settled(4, 0), 99_999_999), None);
    }
    let deadline = 30 * 86_400;
    heard.last_at = Some(at(deadline));
    assert_eq!(expired(&processing(), &heard, deadline - 1), None, "as active as it is");
    assert_eq!(expired(&processing(), &heard, deadline), failed("deadline"));
}

#[test]
fn the_sweeper_looks_in_time() {
    assert_eq!(uploading().due_at(), at(3_600));
    assert_eq!(uploaded().due_at(), at(10 + 43_200));
    assert_eq!(processing().due_at(), at(10 + 120));
    assert_eq!(next(&processing(), &Command::Cancel(None)).due_at(), at(10 + 30));
    let [.., completed, failed, cancelled] = jobs();
    for over in [completed, failed, cancelled] {
        assert_eq!(over.due_at(), at(10), "at once, until its end is propagated");
        assert_eq!(over.expires_at(), at(10 + 90 * 86_400));
    }
    assert_eq!(uploading().expires_at(), at((30 + 30 + 90) * 86_400), "however it ends, or never does");
}

#[test]
fn a_failure_names_what_failed() {
    let second = BatchIndex::new(2).expect("small");
    let culprit = status_core::ItemError::new(second, None, "llm-refused", "The model refused.");
    let mut failed = reconciled_before(&Command::Reconcile, &processing(), &settled(0, 1), 20);
    let message = |job: &Job| job.failure.as_ref().map(|f| f.message.clone()).expect("a failure");
    assert_eq!(message(&failed), "1 batch of 4 failed.");
    machine::name_culprit(&mut failed, &culprit);
    assert_eq!(message(&failed), "1 batch of 4 failed. Batch 2: The model refused.");
    let reason = failed.history.last().and_then(|h| h.reason.as_deref());
    assert_eq!(reason, Some("too-many-failed-batches: 1 batch of 4 failed. Batch 2: The model refused."));
    let failed = reconciled_before(&Command::Reconcile, &processing(), &settled(0, 2), 20);
    assert_eq!(message(&failed), "2 batches of 4 failed.");
    let mut given_up = next(&processing(), &Command::Fail(failure()));
    let before = given_up.clone();
    machine::name_culprit(&mut given_up, &culprit);
    assert_eq!(given_up, before, "only a job that failed by its batches has a batch to name");
}
