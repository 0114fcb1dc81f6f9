//! Faults of watching, of what lasts when a store is closed, and of several handles on the same data.

use status_core::{Consistency, Counts, Due, Effect, Facts, Moments, Page, StoreError};
use status_testkit::layer::{Answer, Call};

use super::{Fault, fault, with_state};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "does not wait for a change",
        [waiting_for_a_change_of_a_quiet_job_takes_the_time_it_is_given],
        |scene, call| {
            match call {
                Call::Changed(..) => Ok(Answer::Changed(())),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!(
        "does not wait for a change of a job with batches past its total",
        [waiting_for_a_change_of_a_quiet_job_takes_the_time_it_is_given],
        |scene, call| {
            let Call::Changed(id, ..) = call else { return call.on(scene.store).await };
            let state = scene.store.read(id, Consistency::Strong).await?;
            if state.is_some_and(|state| state.facts.stray != Counts::default()) {
                return Ok(Answer::Changed(()));
            }
            call.on(scene.store).await
        }
    ),
    fault!(
        "waits for a change for ever",
        [waiting_ends_when_the_job_changes_or_the_time_is_up],
        |scene, call| {
            match call {
                Call::Changed(..) => std::future::pending().await,
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!("shows no progress", [a_watcher_sees_progress_and_the_end], |scene, call| {
        with_state(call.on(scene.store).await, |state| state.facts = Facts::default())
    }),
    fault!(
        "forgets batches when it is closed",
        [what_was_acknowledged_is_there_after_reopening],
        |scene, call| {
            let answer = call.on(scene.store).await;
            with_state(answer, |state| {
                if scene.handle > 0 {
                    state.facts.counts.completed -= 1;
                }
            })
        }
    ),
    fault!(
        "forgets the estimate's sums when it is closed",
        [what_was_acknowledged_is_there_after_reopening],
        |scene, call| {
            let answer = call.on(scene.store).await;
            with_state(answer, |state| {
                if scene.handle > 0 {
                    state.facts.moments = Moments::default();
                }
            })
        }
    ),
    fault!(
        "forgets starts when it is closed",
        [what_was_acknowledged_is_there_after_reopening],
        |scene, call| {
            let answer = call.on(scene.store).await;
            with_state(answer, |state| {
                if scene.handle > 0 {
                    state.facts.running.clear();
                }
            })
        }
    ),
    fault!(
        "forgets errors when it is closed",
        [what_was_acknowledged_is_there_after_reopening],
        |scene, call| {
            match call {
                Call::Errors(..) if scene.handle > 0 => Ok(Answer::Errors(Page::new(Vec::new(), None))),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!(
        "forgets keys when it is closed",
        [what_was_acknowledged_is_there_after_reopening, two_handles_see_each_others_writes],
        |scene, call| {
            let Call::Create(job) = call else { return call.on(scene.store).await };
            let mut job = job.clone();
            if scene.handle > 0 {
                job.idempotency_key = None;
            }
            Call::Create(&job).on(scene.store).await
        }
    ),
    fault!(
        "counts again what was counted before it was closed",
        [
            what_was_acknowledged_is_there_after_reopening,
            two_handles_see_each_others_writes,
            two_handles_count_each_batch_once
        ],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let (Call::Report(id, ..), Ok(Answer::Report(written))) = (call, &mut answer)
                && scene.handle > 0
            {
                for (batch, effect) in &mut written.effects {
                    if *effect == Effect::Duplicate && scene.notes().batches.insert((id, *batch)) {
                        *effect = Effect::Counted;
                    }
                }
            }
            answer
        }
    ),
    fault!("forgets what is due when it is closed", [what_is_due_is_due_after_reopening], |scene, call| {
        match call {
            Call::Due(..) if scene.handle > 0 => Ok(Answer::Due(Page::new(Vec::new(), None))),
            _ => call.on(scene.store).await,
        }
    }),
    fault!(
        "keeps what was postponed in the handle",
        [what_is_due_is_due_after_reopening, two_handles_sweep_each_job_once],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Due(now, _), Ok(Answer::Due(mut page))) => {
                    let postponed = |due: &Due| scene.notes().times.get(&due.id).copied();
                    page.rows.retain(|due| postponed(due).is_none_or(|until| until <= now));
                    Ok(Answer::Due(page))
                }
                (Call::Postpone(due, until), Ok(Answer::Postpone(moved))) => {
                    scene.notes().times.insert(due.id, until);
                    let back = Due::new(due.id, until);
                    scene.store.postpone(&back, due.at).await?;
                    Ok(Answer::Postpone(moved))
                }
                (_, answer) => answer,
            }
        }
    ),
    fault!(
        "does not see what another handle decided",
        [two_handles_see_each_others_writes, a_watcher_sees_what_another_handle_writes],
        |scene, call| {
            if scene.handle == 0
                && let Call::Read(id, _) = call
                && let Some(seen) = scene.notes().states.get(&id).cloned()
            {
                return Ok(Answer::Read(Some(seen)));
            }
            let answer = call.on(scene.store).await;
            if let Ok(Answer::Read(Some(state))) = &answer {
                scene.notes().states.insert(state.job.id, state.clone());
            }
            answer
        }
    ),
    fault!(
        "compares revisions within a handle",
        [of_many_swaps_through_two_handles_one_is_told_ok, two_handles_see_each_others_writes],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Decide(next), Err(StoreError::Conflict(_))) => {
                    let mine = scene.notes().jobs.get(&next.id).map_or(0, |job| job.revision);
                    if mine >= next.revision {
                        return Err(StoreError::Conflict(next.id));
                    }
                    scene.notes().jobs.insert(next.id, next.clone());
                    Ok(Answer::Decide(()))
                }
                (Call::Decide(next), Ok(answer)) => {
                    scene.notes().jobs.insert(next.id, next.clone());
                    Ok(answer)
                }
                (_, answer) => answer,
            }
        }
    ),
    fault!("counts batches within a handle", [two_handles_count_each_batch_once], |scene, call| {
        let Call::Report(id, reports, _) = call else { return call.on(scene.store).await };
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::Report(written)) = &mut answer {
            for ((batch, effect), _) in written.effects.iter_mut().zip(reports) {
                if scene.notes().batches.insert((id, *batch)) {
                    *effect = Effect::Counted;
                }
            }
        }
        answer
    }),
    fault!("keeps sweepers apart within a handle", [two_handles_sweep_each_job_once], |scene, call| {
        let Call::Postpone(due, until) = call else { return call.on(scene.store).await };
        let moved = scene.store.postpone(due, until).await?;
        let mine = scene.notes().times.insert(due.id, due.at);
        Ok(Answer::Postpone(moved || mine != Some(due.at)))
    }),
];
