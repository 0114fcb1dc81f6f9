//! What the tracker tells callers when its store does not keep the contract, or only just does.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use status_core::{
    Actor, Begin, Clock, Consistency, Damaged, Due, Effect, Error, Failure, JobId, JobState, NewJob, Page,
    PageRequest, Policy, Snapshot, Stage, Status, StoreError, Totals, Tracker,
};
use status_memory::MemoryStore;
use status_testkit::{
    Kit,
    layer::{Answer, Call, Layer, after, before},
};

use super::{batch, corrupt, done, failed, kit, tracking, unavailable};

/// A layer whose eventual reads find nothing.
fn finds_nothing_eventually() -> impl Layer {
    before(|call| match call {
        Call::Job(_, Consistency::Eventual) => Some(Ok(Answer::Job(None))),
        Call::Read(_, Consistency::Eventual) => Some(Ok(Answer::Read(None))),
        _ => None,
    })
}

/// A layer whose eventual reads answer with this state, as long as there is one.
fn lagging(behind: Arc<Mutex<Option<JobState>>>) -> impl Layer {
    before(move |call| {
        let state = behind.lock().expect("nobody panicked").clone()?;
        match call {
            Call::Job(_, Consistency::Eventual) => Some(Ok(Answer::Job(Some(state.job)))),
            Call::Read(_, Consistency::Eventual) => Some(Ok(Answer::Read(Some(state)))),
            _ => None,
        }
    })
}

#[tokio::test]
async fn an_answer_that_leaves_out_a_batch_is_a_fault_of_the_store() {
    let sound = kit().await;
    let id = sound.processing(5).await;
    let kit = sound.behind(after(|_, mut answer| {
        match &mut answer {
            Ok(Answer::Begin(Some(begun))) => begun.settled.retain(|(of, _)| *of != batch(3)),
            Ok(Answer::Report(written)) => written.effects.retain(|(of, _)| *of != batch(3)),
            _ => {}
        }
        answer
    }));
    let left_out = |result: Result<(), Error>, wanted| match result {
        Err(Error::Store(StoreError::Incomplete { operation, id: of, batch: missing })) => {
            assert_eq!((operation, of, missing), (wanted, id, batch(3)));
        }
        other => panic!("{other:?}"),
    };
    left_out(kit.tracker.begin_all(id, &[batch(1), batch(3)]).await.map(drop), "begin");
    left_out(kit.tracker.begin(id, batch(3)).await.map(drop), "begin");
    left_out(kit.tracker.report(id, vec![done(1), done(3)]).await.map(drop), "report");
    assert_eq!(kit.tracker.begin(id, batch(2)).await.expect("begun"), Begin::Work);
}

#[tokio::test]
async fn that_there_is_no_such_job_is_never_concluded_from_an_eventual_read() {
    let sound = kit().await;
    let id = sound.processing(5).await;
    sound.complete(id, [0, 1]).await;
    let kit = sound.behind(finds_nothing_eventually());
    assert_eq!(kit.jobs.snapshot(id).await.expect("found").progress.batches.completed, 2);
    assert_eq!(kit.tracker.snapshot(id).await.expect("found").progress.batches.completed, 2);
    let token = sound.snapshot(id).await.token();
    assert_eq!(kit.jobs.snapshot_after(id, &token).await.expect("found").token(), token);
    assert_eq!(kit.tracker.job(id).await.expect("found").id, id);
    assert_eq!(kit.jobs.history(id).await.expect("found").len(), 4);
    assert!(kit.jobs.errors(id, &PageRequest::first(9)).await.expect("found").rows.is_empty());
    assert_eq!(kit.tracker.begin(id, batch(2)).await.expect("found"), Begin::Work);
    kit.tracker.report(id, vec![done(2)]).await.expect("found");
    let listed = kit.jobs.list(None, &PageRequest::first(9)).await.expect("listed").rows;
    assert_eq!(listed[0].progress.batches.completed, 3, "nor is it listed as one that has just begun");
    let mut watched = std::pin::pin!(kit.jobs.watch(id).await.expect("found"));
    assert_eq!(watched.next().await.expect("the newest").progress.batches.completed, 3);
    kit.complete(id, [3, 4]).await;
    let last = watched.map(|snapshot| snapshot.status).collect::<Vec<_>>().await.pop();
    assert_eq!(last, Some(Status::Completed));

    let nobody = JobId::new(kit.clock.now());
    assert!(matches!(kit.jobs.snapshot(nobody).await, Err(Error::NotFound(_))));
    assert!(matches!(kit.jobs.watch(nobody).await.map(drop), Err(Error::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn who_has_seen_more_than_an_eventual_read_is_not_sent_back() {
    let sound = kit().await;
    let behind = Arc::new(Mutex::new(None));
    let kit = sound.behind(lagging(behind.clone()));
    let id = sound.processing(5).await;
    sound.complete(id, [0]).await;
    *behind.lock().expect("nobody panicked") = Some(sound.state(id).await);
    sound.complete(id, [1]).await;
    let second = sound.state(id).await;
    sound.complete(id, [2]).await;
    let token = sound.snapshot(id).await.token();

    let completed = |snapshot: &Snapshot| snapshot.progress.batches.completed;
    assert_eq!(completed(&kit.jobs.snapshot(id).await.expect("found")), 1, "it may be a moment old");
    let snapshot = kit.jobs.snapshot_after(id, &token).await.expect("found");
    assert_eq!((completed(&snapshot), snapshot.token()), (3, token));

    // The feed of this process lags too, until it does not.
    let mut early = kit.jobs.watch(id).await.expect("watched").boxed();
    assert_eq!(completed(&early.next().await.expect("the newest it has")), 1);
    let mut late = kit.jobs.watch_after(id, Some(&token)).await.expect("watched").boxed();
    assert_eq!(completed(&late.next().await.expect("at once")), 3);
    *behind.lock().expect("nobody panicked") = Some(second);
    assert_eq!(completed(&early.next().await.expect("it catches up")), 2);
    let nothing = tokio::time::timeout(Duration::from_secs(30), late.next()).await;
    assert!(nothing.is_err(), "what is news to the feed is behind what this watcher has seen: {nothing:?}");
    *behind.lock().expect("nobody panicked") = None;
    sound.complete(id, [3, 4]).await;
    for watched in [early, late] {
        let seen: Vec<_> = watched.collect().await;
        assert!(seen.is_sorted_by_key(|snapshot| snapshot.version), "never back");
        assert!(seen.iter().all(|snapshot| completed(snapshot) >= 1));
        assert_eq!(seen.last().expect("some").status, Status::Completed);
    }
}

#[tokio::test]
async fn a_poll_that_lags_decides_nothing_wrong() {
    let sound = kit().await;
    let behind = Arc::new(Mutex::new(None));
    let kit = sound.behind(lagging(behind.clone()));
    let id = sound.processing(1).await;
    sound.report_and_die(id, done(0)).await;
    *behind.lock().expect("nobody panicked") = Some(sound.state(id).await);
    sound.snapshot(id).await;
    let decided = sound.state(id).await.job;
    // What it has read says that the last batch settled and nobody decided.
    assert_eq!(kit.jobs.snapshot(id).await.expect("found").status, Status::Completed);
    assert_eq!(sound.state(id).await.job, decided, "it was decided once");
}

#[tokio::test]
async fn an_error_that_cannot_be_read_does_not_block_the_decision() {
    for fails in ["batches", "errors"] {
        let sound = kit().await;
        let kit = sound.behind(before(move |call| match call {
            Call::Batches(id, ..) if fails == "batches" => Some(Err(corrupt(*id))),
            Call::Errors(..) if fails == "errors" => Some(Err(unavailable("errors"))),
            _ => None,
        }));
        let failure = |snapshot: Snapshot| {
            assert_eq!(snapshot.status, Status::Failed, "{fails}");
            snapshot.failure.expect("a failure").message
        };
        // By the worker itself, by whoever reads, and by the sweeper.
        let id = sound.processing(3).await;
        kit.fail(id, [1]).await;
        assert_eq!(failure(sound.snapshot(id).await), "1 batch of 3 failed.");
        let reported = status_core::BatchReport::failed(batch(1), 10, "x", "x");
        let id = sound.processing(3).await;
        sound.report_and_die(id, reported.clone()).await;
        assert_eq!(failure(kit.tracker.snapshot_now(id).await.expect("read")), "1 batch of 3 failed.");
        let id = sound.processing(3).await;
        sound.report_and_die(id, reported).await;
        kit.wait(200);
        let swept = kit.tracker.sweep().await.expect("swept");
        assert_eq!((swept.failed, swept.errors), (1, 0), "{fails}");
        assert_eq!(failure(sound.snapshot(id).await), "1 batch of 3 failed.");
    }
}

#[tokio::test]
async fn a_slow_answer_is_no_silence() {
    let sound = kit().await;
    let mut policy = Policy::default();
    policy.processing_timeout = Duration::from_secs(600);
    let id = sound.processing_with(policy, 9).await;
    sound.wait(599);
    sound.complete(id, [0]).await;
    sound.wait(1);
    // A sweeper looks at the job twice; the second answer is ten minutes on its way.
    let (clock, reads) = (sound.clock.clone(), AtomicU64::new(0));
    let kit = sound.behind(after(move |call, answer| {
        if matches!(call, Call::Read(..)) && reads.fetch_add(1, Ordering::Relaxed) == 1 {
            clock.advance(Duration::from_secs(601));
        }
        answer
    }));
    let before = sound.clock.now();
    let swept = kit.tracker.sweep().await.expect("swept");
    assert_eq!((swept.looked_at, swept.failed), (1, 0), "{swept:?}");
    assert!(sound.clock.now() > before, "the answer was slow");
    assert_eq!(sound.state(id).await.job.status, Status::Processing);
}

#[tokio::test]
async fn what_is_damaged_stops_no_sweep() {
    let sound = kit().await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        let id = sound.processing(1).await;
        sound.report_and_die(id, done(0)).await;
        jobs.push(id);
    }
    let damaged = jobs.remove(2);
    let kit = sound.behind(after(move |call, answer| match (call, answer) {
        (Call::Read(id, _), Ok(_)) if *id == damaged => Err(corrupt(damaged)),
        (Call::Due(..), Ok(Answer::Due(mut page))) => {
            let (subject, why) = ("an item without a key".into(), "nobody knows what it is".into());
            page.damaged.push(Damaged { subject, why });
            page.rows.push(Due::new(JobId::from_parts(damaged.created_at(), 1), damaged.created_at()));
            Ok(Answer::Due(page))
        }
        (_, answer) => answer,
    }));
    kit.wait(200);
    let swept = kit.tracker.sweep().await.expect("swept");
    assert_eq!((swept.completed, swept.errors), (4, 2), "the damaged row, and the damaged job");
    for id in jobs {
        assert_eq!(sound.state(id).await.job.status, Status::Completed);
    }
    // Once it can be read, a sweep does what was left.
    sound.wait(61);
    assert_eq!(sound.tracker.sweep().await.expect("swept").completed, 1);
}

#[tokio::test]
async fn what_is_damaged_hides_no_other_job_of_a_list() {
    let sound = kit().await;
    let damaged = sound.processing(3).await;
    let whole = sound.processing(3).await;
    let kit = sound.behind(after(move |call, answer| match call {
        Call::Read(id, _) if *id == damaged => Err(corrupt(damaged)),
        _ => answer,
    }));
    let page = kit.jobs.list(None, &PageRequest::first(9)).await.expect("listed");
    assert_eq!(page.rows.iter().map(|job| job.id).collect::<Vec<_>>(), [whole]);
    assert_eq!(page.damaged.len(), 1);
    assert!(page.damaged[0].subject.contains(&damaged.to_string()));
    assert!(matches!(kit.jobs.snapshot(damaged).await, Err(Error::Store(StoreError::Corrupt { .. }))));
    let gone = sound.behind(before(move |call| match call {
        Call::Read(id, _) if *id == damaged => Some(Ok(Answer::Read(None))),
        _ => None,
    }));
    let page = gone.jobs.list(None, &PageRequest::first(9)).await.expect("listed");
    assert_eq!((page.rows.len(), page.damaged.len()), (1, 0), "one that went meanwhile is not listed");
}

/// A layer that cannot read a part of the job's facts, with batch 3 in it.
fn damages(damaged: JobId) -> impl Layer {
    after(move |call, mut answer| {
        let is_it = match call {
            Call::Read(id, _) | Call::Begin(id, ..) | Call::Report(id, ..) => *id == damaged,
            _ => false,
        };
        match &mut answer {
            Ok(Answer::Read(Some(state))) if is_it => {
                let part = Damaged { subject: "chunk 0".into(), why: "it is no set".into() };
                *state = state.clone().with_damaged(vec![part]);
                state.facts.counts.completed = state.facts.counts.completed.min(3);
            }
            Ok(Answer::Begin(Some(begun))) if is_it => {
                begun.settled.retain(|(of, _)| *of != batch(3));
                begun.damaged.push(batch(3));
            }
            Ok(Answer::Report(written)) if is_it => {
                let of_part = written.effects.iter_mut().filter(|(of, _)| *of == batch(3));
                of_part.for_each(|(_, effect)| *effect = Effect::Damaged);
            }
            _ => {}
        }
        answer
    })
}

#[tokio::test]
async fn damaged_facts_complete_no_job_and_hinder_no_other_decision() {
    let sound = kit().await;
    let status = async |id| sound.state(id).await.job.status;
    let id = sound.processing(4).await;
    let kit = sound.behind(damages(id));
    let begun = kit.tracker.begin_all(id, &[batch(2), batch(3), batch(3)]).await.expect("begun").batches;
    assert_eq!(begun, [Begin::Work, Begin::Damaged, Begin::Repeated]);
    let reported = kit.tracker.report(id, vec![done(2), done(3)]).await.expect("the one counts");
    assert_eq!(reported.effects, [(batch(2), Effect::Counted), (batch(3), Effect::Damaged)]);
    let refused = kit.tracker.report(id, vec![done(3)]).await.expect_err("nothing is recorded of it");
    assert!(matches!(&refused, Error::Store(StoreError::Corrupt { .. })), "{refused:?}");
    kit.tracker.report(id, vec![done(0), done(1)]).await.expect("recorded");
    kit.wait(200);
    assert_eq!(kit.tracker.sweep().await.expect("swept").errors, 0);
    assert_eq!(status(id).await, Status::Processing, "what cannot be read may have failed");
    let snapshot = kit.jobs.snapshot(id).await.expect("what is readable");
    assert!(snapshot.damaged && snapshot.token() != sound.snapshot(id).await.token(), "{snapshot:?}");

    // Too many failures are too many, whatever else there is; cancels and deadlines wait for nothing.
    let id = sound.processing(4).await;
    let kit = sound.behind(damages(id));
    kit.tracker.report(id, vec![failed(1)]).await.expect("recorded");
    assert_eq!(status(id).await, Status::Failed);
    kit.jobs.erase(id).await.expect("the job's record is enough");
    let id = sound.processing(4).await;
    let kit = sound.behind(damages(id));
    let mut watched = Box::pin(kit.jobs.watch(id).await.expect("watched"));
    assert!(watched.next().await.expect("shown").damaged);
    kit.jobs.cancel(id, None).await.expect("requested");
    kit.wait(31);
    kit.tracker.sweep().await.expect("swept");
    assert_eq!(status(id).await, Status::Cancelled);
    let id = sound.processing(4).await;
    let kit = sound.behind(damages(id));
    kit.wait(31 * 86_400);
    kit.tracker.sweep().await.expect("swept");
    assert_eq!(status(id).await, Status::Failed, "it is past its deadline");
}

#[tokio::test]
async fn a_job_that_is_over_is_erased_whatever_is_damaged() {
    let sound = kit().await;
    let id = sound.processing(1).await;
    sound.complete(id, [0]).await;
    let kit = sound.behind(before(|call| match call {
        Call::Read(id, _) => Some(Err(corrupt(*id))),
        _ => None,
    }));
    kit.jobs.erase(id).await.expect("its record is enough");
    assert!(matches!(sound.jobs.snapshot(id).await, Err(Error::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_no_decision_is_given_up() {
    let sound = kit().await;
    let id = sound.processing(1).await;
    sound.report_and_die(id, done(0)).await;
    let swaps = Arc::new(AtomicU64::new(0));
    let counted = swaps.clone();
    let kit = sound.behind(before(move |call| match call {
        Call::Decide(_) => {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(Ok(Answer::Decide(())))
        }
        _ => None,
    }));
    let given_up = kit.tracker.snapshot_now(id).await;
    assert!(matches!(given_up, Err(Error::Store(StoreError::Conflict(of))) if of == id), "{given_up:?}");
    assert_eq!(swaps.load(Ordering::Relaxed), 32);
}

#[tokio::test(start_paused = true)]
async fn a_swap_that_others_beat_is_tried_again() {
    let sound = kit().await;
    let id = sound.processing(3).await;
    let conflicts = AtomicU64::new(5);
    let kit = sound.behind(before(move |call| match call {
        Call::Decide(next) if conflicts.load(Ordering::Relaxed) > 0 => {
            conflicts.fetch_sub(1, Ordering::Relaxed);
            Some(Err(StoreError::Conflict(next.id)))
        }
        _ => None,
    }));
    kit.jobs.cancel(id, None).await.expect("at the sixth time");
    assert!(sound.state(id).await.job.cancel_requested.is_some());
}

#[tokio::test]
async fn a_seal_whose_second_step_failed_says_so_and_can_be_repeated() {
    let sound = kit().await;
    let id = sound.create(Policy::default()).await;
    let kit = sound.behind(before(|call| match call {
        Call::Propagate(_) => Some(Err(unavailable("propagate"))),
        _ => None,
    }));
    let totals = Totals { batches: 1, items: None };
    let sealed = kit.tracker.start(id, Some(totals), &Actor::named("splitter")).await;
    assert!(matches!(sealed, Err(Error::Store(StoreError::Unavailable { .. }))), "{sealed:?}");
    sound.report_and_die(id, done(0)).await;
    let sealed = sound.tracker.start(id, Some(totals), &Actor::named("splitter")).await;
    assert_eq!(sealed.expect("sealed").status, Status::Completed);
}

/// Where those who report do not see the totals yet, and the splitter has looked before they did.
#[tokio::test]
async fn a_batch_that_settles_while_the_job_is_sealed_completes_it_at_once() {
    let sound = kit().await;
    let id = sound.create(Policy::default()).await;
    let (store, now) = (sound.store.clone(), sound.clock.now());
    let kit = sound.behind(after(move |call, answer| {
        if let Call::Propagate(job) = call
            && job.totals.is_some()
            && !job.status.is_terminal()
        {
            let reported = store.report(id, &[done(0)], now).now_or_never().expect("it is in memory");
            reported.expect("the last words of a worker");
        }
        answer
    }));
    let totals = Totals { batches: 1, items: None };
    let sealed = kit.tracker.seal(id, totals, &Actor::named("splitter")).await.expect("sealed");
    assert_eq!(sealed.status, Status::Completed, "nobody else would look before the sweeper");
}

#[tokio::test]
async fn an_end_whose_propagation_failed_stands() {
    let sound = kit().await;
    let id = sound.processing(1).await;
    let kit = sound.behind(before(|call| match call {
        Call::Propagate(_) => Some(Err(unavailable("propagate"))),
        _ => None,
    }));
    kit.complete(id, [0]).await;
    assert_eq!(sound.state(id).await.job.status, Status::Completed);
    assert_eq!(sound.due().await, [id]);
    let swept = kit.tracker.sweep().await.expect("swept");
    assert_eq!((swept.looked_at, swept.errors), (1, 1), "it is tried again");
    assert!(sound.due().await.is_empty(), "one sweeper has it to itself for a while");
    sound.wait(61);
    let swept = sound.tracker.sweep().await.expect("swept");
    assert_eq!((swept.looked_at, swept.completed, swept.errors), (1, 0, 0));
    sound.wait(86_400);
    assert!(sound.due().await.is_empty());
}

#[tokio::test]
async fn a_sweeper_that_died_leaves_its_jobs_to_the_next() {
    let sound = kit().await;
    let id = sound.processing(1).await;
    sound.report_and_die(id, done(0)).await;
    sound.wait(200);
    let dying = sound.behind(before(|call| match call {
        Call::Read(..) => Some(Err(unavailable("read"))),
        _ => None,
    }));
    assert_eq!(dying.tracker.sweep().await.expect("swept").errors, 1);
    assert_eq!(sound.tracker.sweep().await.expect("swept").looked_at, 0, "it is leased");
    sound.wait(60);
    assert_eq!(sound.tracker.sweep().await.expect("swept").completed, 1);
}

#[tokio::test]
async fn a_sweep_goes_through_all_pages() {
    let kit = Kit::open(async |clock| Arc::new(MemoryStore::new(1_000, clock))).await;
    for _ in 0..250 {
        kit.create(Policy::default()).await;
    }
    kit.wait(3_600);
    let swept = kit.tracker.sweep().await.expect("swept");
    assert_eq!((swept.looked_at, swept.failed, swept.errors), (250, 250, 0));
}

#[tokio::test]
async fn a_sweep_that_cannot_list_what_is_due_says_so() {
    let kit = kit().await.behind(before(|call| match call {
        Call::Due(..) => Some(Err(unavailable("due"))),
        _ => None,
    }));
    assert!(matches!(kit.tracker.sweep().await, Err(Error::Store(StoreError::Unavailable { .. }))));
}

#[tokio::test]
async fn ids_can_be_given_for_tests_that_repeat() {
    let sound = kit().await;
    let tracker = Tracker::new(sound.store.clone()).with_ids(|at| JobId::from_parts(at, 7));
    let jobs = tracker.owned_by(sound.state(sound.processing(1).await).await.job.owner);
    let job = jobs.create(NewJob::titled("Nightly export")).await.expect("created");
    assert_eq!(job.id, JobId::from_parts(job.created_at, 7));
}

#[tokio::test]
async fn a_watched_job_that_goes_ends_the_stream() {
    let kit = kit().await;
    let id = kit.create(tracking()).await;
    let watched = kit.jobs.watch(id).await.expect("watched");
    kit.tracker.erase(id).await.expect("erased");
    let seen: Vec<_> = watched.collect().await;
    assert_eq!(seen.len(), 1);
    let page: Page<Snapshot> = kit.jobs.list(None, &PageRequest::first(1)).await.expect("listed");
    assert!(page.rows.is_empty());
}

#[tokio::test]
async fn what_a_failure_says_is_bounded_whoever_made_it() {
    let kit = kit().await;
    let id = kit.processing(4).await;
    let mut failure = Failure::new(Stage::Split, "bad", "bad", false);
    (failure.code, failure.message) = ("x".repeat(300_000), "x".repeat(300_000));
    kit.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("recorded");
    let failure = kit.snapshot(id).await.failure.expect("it failed");
    assert_eq!((failure.code.len(), failure.message.len()), (64, 500));
}
