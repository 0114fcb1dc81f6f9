//! Faults of time: what is due, and who looks at it.

use std::time::Duration;

use status_core::{Due, Page, PageRequest, Status, StoreError, Timestamp, clock};
use status_testkit::layer::{Answer, Call};

use super::{Fault, fault, with_state};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "lists nothing as due",
        [
            a_sweep_alone_decides,
            an_unheard_cancel_is_confirmed_by_the_sweeper,
            the_sweeper_fails_what_is_past_its_deadline,
            due_jobs_are_listed_page_by_page,
            an_end_stays_due_until_it_is_propagated,
            sweepers_share_the_jobs,
            quiet_jobs_are_looked_at_once_by_all_sweepers,
        ],
        |scene, call| {
            match call {
                Call::Due(..) => Ok(Answer::Due(Page::new(Vec::new(), None))),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!(
        "lists every job as due",
        [the_sweeper_leaves_the_living_alone, a_postponed_job_is_not_due_before],
        |scene, call| {
            if let Call::Create(job) = call {
                scene.notes().jobs.insert(job.id, job.clone());
            }
            match call {
                Call::Due(..) => {
                    let notes = scene.notes();
                    let rows = notes.jobs.values().map(|job| Due::new(job.id, job.created_at())).collect();
                    Ok(Answer::Due(Page::new(rows, None)))
                }
                Call::Postpone(..) => Ok(Answer::Postpone(true)),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!(
        "moves a job that was looked at an hour further",
        [
            a_cancel_is_confirmed_after_its_grace_however_long_the_job_has_run,
            a_timeout_that_is_shorter_than_a_stall_is_met,
        ],
        |scene, call| {
            let Call::Postpone(due, until) = call else { return call.on(scene.store).await };
            let lease = scene.notes().times.insert(due.id, until);
            let until =
                if lease == Some(due.at) { clock::after(until, Duration::from_secs(3_600)) } else { until };
            Call::Postpone(due, until).on(scene.store).await
        }
    ),
    fault!("lists due jobs all at once", [due_jobs_are_listed_page_by_page], |scene, call| {
        let Call::Due(now, request) = call else { return call.on(scene.store).await };
        let mut request = request.clone();
        request.limit = 1_000;
        Call::Due(now, &request).on(scene.store).await
    }),
    fault!("forgets what else is due", [due_jobs_are_listed_page_by_page], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::Due(page)) = &mut answer {
            page.next = None;
        }
        answer
    }),
    fault!("lists a due job on two pages", [due_jobs_are_listed_page_by_page], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let (Call::Due(_, request), Ok(Answer::Due(page))) = (call, &mut answer)
            && page.rows.len() > 1
            && request.cursor.is_none()
        {
            page.next = page.next.take().map(|_| page.rows[page.rows.len() - 2].id.to_string());
        }
        answer
    }),
    fault!("does not list an end as due", [an_end_stays_due_until_it_is_propagated], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::Due(page)) = &mut answer {
            let mut open = Vec::new();
            for due in &page.rows {
                if scene.job(due.id).await.is_some_and(|job| !job.status.is_terminal()) {
                    open.push(*due);
                }
            }
            page.rows = open;
        }
        answer
    }),
    fault!(
        "lists an end as due for ever",
        [an_end_stays_due_until_it_is_propagated, the_sweeper_leaves_the_living_alone],
        |scene, call| {
            match call {
                Call::Propagate(_) => Ok(Answer::Propagate(())),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!(
        "tells every sweeper to look",
        [of_many_who_postpone_a_job_one_is_told_so, quiet_jobs_are_looked_at_once_by_all_sweepers],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Postpone(..), Ok(_)) => Ok(Answer::Postpone(true)),
                (_, answer) => answer,
            }
        }
    ),
    fault!(
        "tells no sweeper to look",
        [
            of_many_who_postpone_a_job_one_is_told_so,
            a_postponed_job_is_not_due_before,
            sweepers_share_the_jobs,
            a_sweep_alone_decides,
        ],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Postpone(..), Ok(_)) => Ok(Answer::Postpone(false)),
                (_, answer) => answer,
            }
        }
    ),
    fault!(
        "compares when a job is due, then moves it",
        [of_many_who_postpone_a_job_one_is_told_so, quiet_jobs_are_looked_at_once_by_all_sweepers],
        |scene, call| {
            let Call::Postpone(due, until) = call else { return call.on(scene.store).await };
            let page = PageRequest::first(1_000);
            let is_ours = scene.store.due(Timestamp::MAX, &page).await?.rows.contains(due);
            tokio::task::yield_now().await;
            scene.store.postpone(due, until).await?;
            Ok(Answer::Postpone(is_ours))
        }
    ),
    fault!(
        "does not move what is postponed",
        [a_postponed_job_is_not_due_before, of_many_who_postpone_a_job_one_is_told_so],
        |scene, call| {
            match call {
                Call::Postpone(..) => Ok(Answer::Postpone(true)),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!("postpones a job for too short", [a_postponed_job_is_not_due_before], |scene, call| {
        let Call::Postpone(due, until) = call else { return call.on(scene.store).await };
        let sooner = until.as_millisecond() - 60_000;
        let sooner = Timestamp::from_millisecond(sooner).expect("a time");
        Call::Postpone(due, sooner).on(scene.store).await
    }),
    fault!("postpones a job for too long", [a_postponed_job_is_not_due_before], |scene, call| {
        let Call::Postpone(due, until) = call else { return call.on(scene.store).await };
        Call::Postpone(due, clock::after(until, Duration::from_secs(60))).on(scene.store).await
    }),
    fault!(
        "leaves a postponed job where it is when it is decided about",
        [a_decision_sets_anew_when_a_job_is_due],
        |scene, call| {
            if let Call::Postpone(due, until) = call {
                scene.notes().times.insert(due.id, until);
            }
            let answer = call.on(scene.store).await;
            if let Call::Decide(next) = call {
                let postponed = scene.notes().times.get(&next.id).copied();
                let due = Due::new(next.id, next.due_at());
                if let Some(until) = postponed {
                    scene.store.postpone(&due, until).await?;
                }
            }
            answer
        }
    ),
    fault!("takes any cursor of due jobs", [due_jobs_are_listed_page_by_page], |scene, call| {
        match (call, call.on(scene.store).await) {
            (Call::Due(..), Err(StoreError::InvalidCursor)) => Ok(Answer::Due(Page::new(Vec::new(), None))),
            (_, answer) => answer,
        }
    }),
    fault!("makes every job look alive", [the_sweeper_fails_what_is_past_its_deadline], |scene, call| {
        with_state(call.on(scene.store).await, |state| {
            if state.job.status == Status::Processing {
                state.facts.last_at =
                    Some(clock::after(state.job.created_at(), Duration::from_secs(1_000_000)));
            }
        })
    }),
];
