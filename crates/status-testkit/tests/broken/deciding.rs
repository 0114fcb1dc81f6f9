//! Faults of decisions: swaps that are lost, blind or forgetful, and heads that are old.

use status_core::{Consistency, Status, StoreError};
use status_testkit::layer::{Answer, Call};

use super::{Fault, fault, with_job};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "keeps no decision",
        [
            commands_say_at_least_this_far,
            the_same_command_twice_is_once,
            a_contradiction_names_both_statuses,
            terminal_is_final,
            upload_progress_is_a_courtesy,
            a_read_alone_decides,
            a_poll_alone_decides,
            a_failure_nobody_decided_is_decided,
            nothing_completes_before_the_seal,
            the_seal_sees_what_settled_before,
            a_seal_that_died_half_way_is_repeated,
            zero_batches_complete_at_the_seal,
            cancelling_before_processing_is_at_once,
            cancelling_in_processing_is_confirmed_by_a_worker,
            the_last_batch_beats_the_cancel,
            cancelling_a_terminal_job_is_an_error,
            by_default_the_first_failed_batch_fails_the_job,
            tolerated_failures_complete_the_job_partially,
            a_share_is_judged_when_the_total_is_known,
            a_watcher_sees_progress_and_the_end,
            the_history_is_complete_and_bounded,
            a_completed_job_says_how,
            many_deciders_decide_once,
            a_terminal_job_keeps_what_was_done,
        ],
        |scene, call| {
            match call {
                Call::Decide(_) => Ok(Answer::Decide(())),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!(
        "tells every swap that it succeeded",
        [a_swap_needs_the_revision_it_was_made_from, of_many_swaps_of_one_revision_one_is_told_ok],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Decide(_), Err(StoreError::Conflict(_))) => Ok(Answer::Decide(())),
                (_, answer) => answer,
            }
        }
    ),
    fault!("refuses a repeated swap", [a_swap_needs_the_revision_it_was_made_from], |scene, call| {
        match call {
            Call::Decide(next) if scene.job(next.id).await.as_ref() == Some(next) => {
                Err(StoreError::Conflict(next.id))
            }
            _ => call.on(scene.store).await,
        }
    }),
    fault!(
        "compares the revision, then swaps",
        [of_many_swaps_of_one_revision_one_is_told_ok, many_deciders_decide_once],
        |scene, call| {
            let Call::Decide(next) = call else { return call.on(scene.store).await };
            let before = scene.job(next.id).await.ok_or(StoreError::NotFound(next.id))?;
            if before == *next || before.revision + 1 != next.revision {
                return call.on(scene.store).await;
            }
            tokio::task::yield_now().await;
            let now = scene.job(next.id).await.ok_or(StoreError::NotFound(next.id))?;
            let mut next = next.clone();
            next.revision = now.revision + 1;
            Call::Decide(&next).on(scene.store).await
        }
    ),
    fault!(
        "tells a lost swap that it succeeded while others swap",
        [of_many_swaps_of_one_revision_one_is_told_ok],
        |scene, call| {
            let Call::Decide(_) = call else { return call.on(scene.store).await };
            scene.notes().busy += 1;
            tokio::task::yield_now().await;
            let alone = scene.notes().busy == 1;
            let answer = call.on(scene.store).await;
            tokio::task::yield_now().await;
            scene.notes().busy -= 1;
            if alone { answer } else { Ok(Answer::Decide(())) }
        }
    ),
    fault!("keeps the last three decisions", [the_history_is_complete_and_bounded], |scene, call| {
        with_job(call.on(scene.store).await, |job| {
            let old = job.history.len().saturating_sub(3);
            job.history.drain(..old);
        })
    }),
    fault!("forgets why somebody cancelled", [cancelling_before_processing_is_at_once], |scene, call| {
        with_job(call.on(scene.store).await, |job| {
            if let Some(request) = &mut job.cancel_requested {
                request.reason = None;
            }
        })
    }),
    fault!("reads the head alone from the past", [the_head_alone_is_what_was_decided], |scene, call| {
        if let Call::Decide(next) = call {
            let before = scene.job(next.id).await.ok_or(StoreError::NotFound(next.id))?;
            scene.notes().jobs.insert(next.id, before);
        }
        match (call, call.on(scene.store).await) {
            (Call::Job(id, Consistency::Strong), answer) => {
                let past = scene.notes().jobs.get(&id).cloned();
                past.map_or(answer, |past| Ok(Answer::Job(Some(past))))
            }
            (_, answer) => answer,
        }
    }),
    fault!("finds a head that is not there", [the_head_alone_is_what_was_decided], |scene, call| {
        if let Call::Create(job) = call {
            scene.notes().jobs.insert(job.id, job.clone());
        }
        match (call, call.on(scene.store).await) {
            (Call::Job(..), Ok(Answer::Job(None))) => {
                Ok(Answer::Job(scene.notes().jobs.values().next().cloned()))
            }
            (_, answer) => answer,
        }
    }),
    fault!(
        "forgets the counters that were frozen at the end",
        [the_last_batch_decides, a_terminal_job_keeps_what_was_done],
        |scene, call| {
            let Call::Decide(next) = call else { return call.on(scene.store).await };
            let mut next = next.clone();
            next.frozen = None;
            Call::Decide(&next).on(scene.store).await
        }
    ),
    fault!("lets a job that is over be changed", [terminal_is_final], |scene, call| {
        // A sweeper that overwrites what has ended.
        if let Call::Due(now, _) = call {
            let over = scene.notes().jobs.values().find(|job| job.status.is_terminal()).cloned();
            if let Some(mut next) = over {
                next.revision += 1;
                next.status = Status::Failed;
                next.updated_at = now;
                let _ = scene.store.decide(&next).await;
            }
        }
        if let Call::Decide(next) = call {
            scene.notes().jobs.insert(next.id, next.clone());
        }
        call.on(scene.store).await
    }),
    fault!(
        "says that a job has started when a worker asks",
        [a_begin_starts_a_job_that_nobody_started],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Begin(Some(begun))) = &mut answer
                && !begun.job.status.is_terminal()
            {
                begun.job.status = Status::Processing;
            }
            answer
        }
    ),
    fault!(
        "does not show batches of a job that has not started",
        [a_report_starts_a_job_that_nobody_started],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            match &mut answer {
                Ok(Answer::Report(written)) => written.status = None,
                Ok(Answer::Read(Some(state))) if state.job.started_at.is_none() => {
                    state.facts = status_core::Facts::default();
                }
                _ => {}
            }
            answer
        }
    ),
];
