//! Faults of counting and of the end by facts.

use status_core::{
    BatchIndex, BatchReport, BatchState, Consistency, Effect, Job, Settled, StoreError, Tolerance, Written,
    chunk,
};
use status_testkit::layer::{Answer, Call};

use super::{Fault, fault, with_state};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "counts a batch as often as it is delivered",
        [
            every_batch_counts_once,
            batches_add_up_to_the_total,
            several_outcomes_in_one_call_are_as_one_by_one,
            of_two_reports_of_one_batch_in_one_call_the_success_counts,
            the_version_only_grows,
            many_workers_count_exactly,
        ],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let (Call::Report(id, ..), Ok(Answer::Report(written))) = (call, &mut answer) {
                for (_, effect) in written.effects.iter_mut().filter(|(_, e)| *e == Effect::Duplicate) {
                    *effect = Effect::Counted;
                    *scene.notes().counts.entry(id).or_default() += 1;
                }
            }
            with_state(answer, |state| {
                let again = scene.notes().counts.get(&state.job.id).copied().unwrap_or(0);
                state.facts.counts.completed += again;
                state.facts.counts.items_processed += 10 * again;
            })
        }
    ),
    fault!(
        "lets no failed batch succeed",
        [a_failed_batch_that_succeeds_moves_to_completed, a_correction_with_other_items_stays_readable],
        |scene, call| {
            let Call::Report(id, reports, at) = call else { return call.on(scene.store).await };
            let failed = scene.store.batches(id, BatchState::Failed, 0, 1_000).await?;
            let is_new = |report: &&BatchReport| !failed.contains(&report.batch());
            let new: Vec<_> = reports.iter().filter(is_new).cloned().collect();
            let mut written = scene.store.report(id, &new, at).await?;
            let old = reports.iter().filter(|report| failed.contains(&report.batch()));
            written.effects.extend(old.map(|report| (report.batch(), Effect::Duplicate)));
            Ok(Answer::Report(written))
        }
    ),
    fault!(
        "takes back as many items of a failed batch as it completes with",
        [a_correction_takes_back_what_was_counted],
        |scene, call| {
            let failed = async |id| {
                let state = scene.store.read(id, Consistency::Strong).await?;
                Ok::<_, StoreError>(state.map_or(0, |state| state.facts.counts.items_failed))
            };
            if let Call::Report(id, [report], _) = call {
                let before = failed(id).await?;
                let answer = call.on(scene.store).await?;
                if let Answer::Report(written) = &answer
                    && written.effects == [(report.batch(), Effect::Corrected)]
                {
                    let taken_back = before - failed(id).await?;
                    *scene.notes().counts.entry(id).or_default() += report.items().saturating_sub(taken_back);
                }
                return Ok(answer);
            }
            with_state(call.on(scene.store).await, |state| {
                let too_many = scene.notes().counts.get(&state.job.id).copied().unwrap_or(0);
                let counts = &mut state.facts.counts;
                counts.items_failed = counts.items_failed.saturating_sub(too_many);
            })
        }
    ),
    fault!(
        "turns a completed batch back into a failed one",
        [a_failed_batch_that_succeeds_moves_to_completed],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let (Call::Report(id, reports, _), Ok(Answer::Report(written))) = (call, &mut answer) {
                for (batch, effect) in &mut written.effects {
                    let failed =
                        reports.iter().any(|r| r.batch() == *batch && r.settles_as() == Settled::Failed);
                    if failed && *effect == Effect::Duplicate {
                        *effect = Effect::Corrected;
                        *scene.notes().counts.entry(id).or_default() += 1;
                    }
                }
            }
            with_state(answer, |state| {
                let back = scene.notes().counts.get(&state.job.id).copied().unwrap_or(0);
                state.facts.counts.completed -= back;
                state.facts.counts.failed += back;
            })
        }
    ),
    fault!(
        "keeps the items of a failed batch that succeeded",
        [a_failed_batch_that_succeeds_moves_to_completed, a_success_replaces_the_errors_of_the_failure],
        |scene, call| {
            let answer = call.on(scene.store).await;
            if let (Call::Report(id, ..), Ok(Answer::Report(written))) = (call, &answer) {
                let corrected = written.effects.iter().filter(|(_, e)| *e == Effect::Corrected).count();
                *scene.notes().counts.entry(id).or_default() += corrected as u64;
            }
            with_state(answer, |state| {
                let corrected = scene.notes().counts.get(&state.job.id).copied().unwrap_or(0);
                state.facts.counts.items_failed += 10 * corrected;
            })
        }
    ),
    fault!(
        "counts batches for items",
        [many_workers_count_exactly, every_batch_counts_once],
        |scene, call| {
            with_state(call.on(scene.store).await, |state| {
                state.facts.counts.items_processed = state.facts.counts.completed;
            })
        }
    ),
    fault!(
        "reads, adds and writes, so that one of two at once is lost",
        [many_workers_count_exactly],
        |scene, call| {
            let Call::Report(_, reports, _) = call else { return call.on(scene.store).await };
            scene.notes().busy += 1;
            tokio::task::yield_now().await;
            let lost = scene.notes().busy > 15;
            let answer = if lost {
                let effects = reports.iter().map(|report| (report.batch(), Effect::Counted)).collect();
                Ok(Answer::Report(Written::new(effects, false, None)))
            } else {
                call.on(scene.store).await
            };
            scene.notes().busy -= 1;
            answer
        }
    ),
    fault!(
        "writes only the first part of a call",
        [several_outcomes_in_one_call_are_as_one_by_one],
        |scene, call| {
            let Call::Report(id, reports, at) = call else { return call.on(scene.store).await };
            let part = |report: &BatchReport| chunk::number_of(report.batch());
            let first: Vec<_> = reports.iter().filter(|r| part(r) == part(&reports[0])).cloned().collect();
            let mut written = scene.store.report(id, &first, at).await?;
            let others = reports.iter().filter(|r| part(r) != part(&reports[0]));
            written.effects.extend(others.map(|report| (report.batch(), Effect::Counted)));
            Ok(Answer::Report(written))
        }
    ),
    fault!(
        "leaves out what became of the last report",
        [several_outcomes_in_one_call_are_as_one_by_one, every_batch_counts_once],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Report(written)) = &mut answer {
                written.effects.pop();
            }
            answer
        }
    ),
    fault!("does not say that a worker was late", [a_late_batch_counts_and_moves_nothing], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::Report(written)) = &mut answer {
            written.status = None;
        }
        answer
    }),
    fault!("does not count what comes late", [a_late_batch_counts_and_moves_nothing], |scene, call| {
        let Call::Report(id, reports, _) = call else { return call.on(scene.store).await };
        let over = scene.job(id).await.filter(|job| job.status.is_terminal());
        let Some(job) = over else { return call.on(scene.store).await };
        let effects = reports.iter().map(|report| (report.batch(), Effect::Duplicate)).collect();
        Ok(Answer::Report(Written::new(effects, false, Some(job.status))))
    }),
    fault!(
        "takes batches past the total",
        [
            a_batch_past_the_total_is_an_error,
            a_report_past_the_total_takes_no_other_with_it,
            a_batch_past_the_total_never_stands_for_one_of_the_jobs_own,
        ],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Report(written)) = &mut answer {
                let past = written.effects.iter_mut().filter(|(_, effect)| *effect == Effect::OutOfRange);
                past.for_each(|(_, effect)| *effect = Effect::Counted);
            }
            answer
        }
    ),
    fault!(
        "refuses a call for one report past the total",
        [a_report_past_the_total_takes_no_other_with_it],
        |scene, call| {
            let Call::Report(id, reports, _) = call else { return call.on(scene.store).await };
            let total = scene.job(id).await.and_then(|job| job.total()).unwrap_or(u64::MAX);
            if reports.iter().all(|report| report.batch().get() < total) {
                return call.on(scene.store).await;
            }
            let effects = reports.iter().map(|report| (report.batch(), Effect::OutOfRange)).collect();
            Ok(Answer::Report(Written::new(effects, false, None)))
        }
    ),
    fault!(
        "counts the items of batches past the total",
        [a_report_past_the_total_takes_no_other_with_it, a_batch_past_the_total_is_an_error],
        |scene, call| {
            let answer = call.on(scene.store).await;
            if let (Call::Report(id, ..), Ok(Answer::Report(written))) = (call, &answer) {
                let past = written.effects.iter().filter(|(_, e)| *e == Effect::OutOfRange).count();
                *scene.notes().counts.entry(id).or_default() += past as u64;
            }
            with_state(answer, |state| {
                let past = scene.notes().counts.get(&state.job.id).copied().unwrap_or(0);
                state.facts.counts.items_processed += 10 * past;
            })
        }
    ),
    fault!(
        "counts batches that were past the total at the seal",
        [a_batch_past_the_total_never_stands_for_one_of_the_jobs_own],
        |scene, call| {
            with_state(call.on(scene.store).await, |state| {
                let stray = std::mem::take(&mut state.facts.stray);
                state.facts.counts = state.facts.counts.plus(stray);
            })
        }
    ),
    fault!("cannot read large numbers", [nothing_that_is_reported_makes_a_job_unreadable], |scene, call| {
        match call.on(scene.store).await {
            Ok(Answer::Read(Some(state))) if state.facts.counts.items_processed > 2_147_483_647 => {
                Err(unreadable(&state.job))
            }
            answer => answer,
        }
    }),
    fault!("cannot read counts below zero", [a_correction_with_other_items_stays_readable], |scene, call| {
        if let Call::Report(id, reports, _) = call
            && let Some(state) = scene.store.read(id, status_core::Consistency::Strong).await?
        {
            let failed = scene.store.batches(id, BatchState::Failed, 0, 100).await?;
            let corrected: Vec<_> = reports.iter().filter(|r| failed.contains(&r.batch())).collect();
            if corrected.iter().map(|r| r.items()).sum::<u64>() > state.facts.counts.items_failed {
                scene.notes().jobs.insert(id, state.job);
            }
        }
        match call {
            Call::Read(id, _) if scene.notes().jobs.contains_key(&id) => {
                Err(unreadable(&scene.notes().jobs[&id]))
            }
            _ => call.on(scene.store).await,
        }
    }),
    fault!(
        "hides an owner's list behind one long text",
        [nothing_that_is_reported_makes_a_job_unreadable],
        |scene, call| {
            match call.on(scene.store).await {
                Ok(Answer::List(page)) => {
                    let long = page.rows.iter().find(|job| {
                        job.cancel_requested
                            .as_ref()
                            .is_some_and(|c| c.reason.as_ref().is_some_and(|r| r.len() > 200))
                    });
                    long.map_or(Ok(Answer::List(page.clone())), |job| Err(unreadable(job)))
                }
                answer => answer,
            }
        }
    ),
    fault!(
        "refuses many errors of one batch",
        [nothing_that_is_reported_makes_a_job_unreadable],
        |scene, call| {
            match call {
                Call::Report(id, reports, _) if reports.iter().any(|r| r.errors().len() > 50) => {
                    let subject = format!("job {id}");
                    Err(StoreError::Unavailable { operation: "report", subject, source: "too large".into() })
                }
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!("keeps the time of the last writer", [what_was_heard_last_stays_the_last], |scene, call| {
        let answer = call.on(scene.store).await;
        if let Call::Report(id, _, at) = call {
            scene.notes().times.insert(id, at);
        }
        with_state(answer, |state| {
            state.facts.last_at = scene.notes().times.get(&state.job.id).copied();
        })
    }),
    fault!(
        "forgets when a batch was heard of",
        [silence_is_a_stall, what_was_heard_last_stays_the_last],
        |scene, call| with_state(call.on(scene.store).await, |state| state.facts.last_at = None)
    ),
    fault!(
        "never hints at the end",
        [
            the_last_batch_decides,
            redelivery_alone_decides,
            a_late_duplicate_alone_decides,
            one_failure_too_many_fails_the_job_at_once,
            a_failure_whose_answer_was_lost_decides_when_it_comes_again,
        ],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            match &mut answer {
                Ok(Answer::Report(written)) => written.may_decide = false,
                Ok(Answer::Begin(Some(begun))) => begun.may_decide = false,
                _ => {}
            }
            answer
        }
    ),
    fault!("does not hint at the end before work", [redelivery_alone_decides], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::Begin(Some(begun))) = &mut answer {
            begun.may_decide = false;
        }
        answer
    }),
    fault!(
        "does not hint at the end when nothing was new",
        [a_late_duplicate_alone_decides, a_failure_whose_answer_was_lost_decides_when_it_comes_again],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Report(written)) = &mut answer {
                written.may_decide &= written.effects.iter().any(|(_, effect)| effect.is_change());
            }
            answer
        }
    ),
    fault!(
        "judges failures by the part that was written",
        [one_failure_too_many_fails_the_job_at_once],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let (Call::Report(id, reports, _), Ok(Answer::Report(written))) = (call, &mut answer) {
                let job = scene.job(id).await.expect("it was reported of");
                let Tolerance::Batches(most) = job.policy.tolerance else { return answer };
                let first = chunk::number_of(reports[0].batch()) * chunk::SIZE;
                let all = scene.store.batches(id, BatchState::Failed, first, 1_000).await?;
                let mine = |batch: &&BatchIndex| batch.get() < first + chunk::SIZE;
                written.may_decide &= all.iter().filter(mine).count() as u64 > most;
            }
            answer
        }
    ),
    fault!(
        "does not see an end that the seal left to others",
        [a_seal_that_died_half_way_is_repeated],
        |scene, call| {
            // It fails to mark the last part of a job that is sealed already.
            match call {
                Call::Propagate(job)
                    if job.total().is_some() && scene.notes().times.contains_key(&job.id) =>
                {
                    Err(unreadable(job))
                }
                Call::Report(id, _, at) if scene.job(id).await.is_some_and(|job| job.total().is_some()) => {
                    scene.notes().times.insert(id, at);
                    call.on(scene.store).await
                }
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!("forgets which batch is the highest", [sealing_twice_is_sealing_once], |scene, call| {
        with_state(call.on(scene.store).await, |state| state.facts.highest = None)
    }),
];

fn unreadable(job: &Job) -> StoreError {
    StoreError::Corrupt { subject: format!("job {}", job.id), why: "it is no count".into() }
}
