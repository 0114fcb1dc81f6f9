//! Processes that are killed in the middle of their work: what was acknowledged is there.

mod common;

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use common::{check, open};
use futures::future::join_all;
use status_core::{
    Actor, BatchIndex, BatchReport, Consistency, ItemError, JobId, NewJob, OwnerId, Policy, Settled, Status,
    StatusStore, Tolerance, Totals, Tracker,
};

/// The file of the process that is to be killed.
const FILE: &str = "STATUS_SQLITE_CHILD";
/// How many processes are killed; 20 if not set.
const ROUNDS: &str = "STATUS_SQLITE_KILLS";
const TOTAL: u64 = 300;

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

/// Every third batch has an error, every fifth fails.
fn report(index: u64) -> BatchReport {
    if index.is_multiple_of(5) {
        return BatchReport::failed(batch(index), 10, "llm-refused", "The model refused.");
    }
    let error = ItemError::new(batch(index), Some(index * 10), "bad", "No e-mail address.");
    let errors = index.is_multiple_of(3).then_some(error);
    BatchReport::completed(batch(index), 10 - errors.iter().len() as u64, errors.iter().len() as u64)
        .with_errors(errors)
}

/// Not a test by itself: works on a job, and says what was acknowledged.
#[test]
fn child() {
    let Some(file) = env::var_os(FILE) else { return };
    status_testkit::run(async {
        let tracker = Tracker::new(Arc::new(open(Path::new(&file)).await));
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Percent(100);
        policy.track_starts = true;
        let new = NewJob::titled("Killed").with_policy(policy);
        let id =
            tracker.owned_by(OwnerId::new("alice").expect("a name")).create(new).await.expect("created").id;
        say(&format!("job {id}"));
        let totals = Totals { batches: TOTAL, items: None };
        tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("started");
        let workers = (0..8).map(|worker| {
            let tracker = tracker.clone();
            tokio::spawn(async move {
                for index in (worker..TOTAL).step_by(8) {
                    tracker.begin(id, batch(index)).await.expect("begun");
                    tracker.report(id, vec![report(index)]).await.expect("reported");
                    say(&format!("batch {index}"));
                }
            })
        });
        join_all(workers).await.into_iter().for_each(|worker| worker.expect("no panic"));
        say("end");
    });
}

/// On a line of its own: the test harness writes, too.
fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n> {what}\n").as_bytes()).and_then(|()| out.flush()).expect("said");
}

/// Lets a process work until it has said so many things, and kills it; gives all that it has said.
fn killed_after(lines: usize, path: &Path) -> Vec<String> {
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "child", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut said = Vec::new();
    for line in out.lines().map_while(Result::ok) {
        if let Some(line) = line.strip_prefix("> ") {
            said.push(line.to_owned());
            if said.len() == lines {
                child.kill().expect("killed");
            }
        }
    }
    child.wait().expect("it has ended");
    said
}

#[test]
fn what_was_acknowledged_survives_the_process() {
    let rounds: usize = env::var(ROUNDS).map_or(20, |rounds| rounds.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("status.db");
    let mut interrupted = 0;
    for round in 0..rounds {
        // Spread over the whole job, and repeatable.
        let lines = 1 + round * 113 % 297;
        let said = killed_after(lines, &path);
        assert!(said.len() >= lines, "round {round}: {said:?}");
        let id: JobId = said[0].strip_prefix("job ").and_then(|id| id.parse().ok()).expect("a job");
        let told: BTreeSet<u64> =
            said.iter().filter_map(|line| line.strip_prefix("batch ")?.parse().ok()).collect();
        status_testkit::run(async {
            let store = open(&path).await;
            assert!(store.was_checked(), "round {round}: nobody closed it");
            let settled: Vec<_> = told.iter().map(|index| batch(*index)).collect();
            let tracker = Tracker::new(Arc::new(store.clone()));
            let state = store.read(id, Consistency::Strong).await.expect("read").expect("there");
            interrupted += usize::from(state.job.status == Status::Processing);
            assert!(state.facts.counts.settled() >= told.len() as u64, "round {round}");
            let begun = store.begin(id, &settled, state.job.updated_at).await.expect("read").expect("there");
            for (batch, settled) in begun.settled {
                let expected = report(batch.get()).settles_as();
                assert_eq!(settled, Some(expected), "round {round}: batch {batch} was acknowledged");
            }
            // The messages come again, and somebody else does the rest.
            let totals = Totals { batches: TOTAL, items: None };
            tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("started");
            let all = (0..TOTAL).map(report).collect();
            tracker.report(id, all).await.expect("reported");
            let state = store.read(id, Consistency::Strong).await.expect("read").expect("there");
            let failed = (0..TOTAL).filter(|index| report(*index).settles_as() == Settled::Failed).count();
            let counts = state.facts.counts;
            assert_eq!(
                (state.job.status, counts.failed),
                (Status::Completed, failed as u64),
                "round {round}"
            );
            assert_eq!(counts.items_processed + counts.items_failed, TOTAL * 10, "round {round}");
        });
        check(&path);
    }
    assert!(interrupted * 2 > rounds, "only {interrupted} of {rounds} were killed in the middle of a job");
}
