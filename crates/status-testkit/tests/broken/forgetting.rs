//! Faults of forgetting: what is kept too long, or not long enough.

use std::time::Duration;

use status_core::{Created, Due, Job, OwnerId, Page, PageRequest, Policy, StoreError, clock};
use status_testkit::layer::{Answer, Call};

use super::{Fault, Scene, fault};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "keeps jobs for years",
        [retention_counts_from_the_terminal_decision, all_of_a_job_goes_when_its_retention_is_over],
        |scene, call| {
            let Call::Create(job) = call else { return call.on(scene.store).await };
            let mut job = job.clone();
            job.policy.retention = Policy::MAX_RETENTION;
            Call::Create(&job).on(scene.store).await
        }
    ),
    fault!(
        "forgets jobs a day too early",
        [retention_counts_from_the_terminal_decision, all_of_a_job_goes_when_its_retention_is_over],
        |scene, call| {
            let Call::Create(job) = call else { return call.on(scene.store).await };
            let mut job = job.clone();
            job.policy.retention = job.policy.retention.saturating_sub(Duration::from_secs(86_400));
            Call::Create(&job).on(scene.store).await
        }
    ),
    fault!(
        "counts retention from the creation",
        [retention_counts_from_the_terminal_decision],
        |scene, call| {
            let Call::Decide(next) = call else { return call.on(scene.store).await };
            let mut next = next.clone();
            if let Some(finished) = next.finished_at {
                let lived = clock::between(next.created_at(), finished);
                next.policy.retention = next.policy.retention.saturating_sub(lived);
            }
            Call::Decide(&next).on(scene.store).await
        }
    ),
    fault!(
        "keeps errors when the job is gone",
        [all_of_a_job_goes_when_its_retention_is_over, erasing_leaves_nothing, owners_erase_what_is_over],
        |scene, call| {
            if let Call::Report(id, reports, _) = call {
                for report in reports {
                    scene.notes().errors.insert((id, report.batch()), report.errors().to_vec());
                }
            }
            match (call, call.on(scene.store).await) {
                (Call::Errors(id, _), Ok(Answer::Errors(page))) if page.rows.is_empty() => {
                    let notes = scene.notes();
                    let noted = notes.errors.iter().filter(|((of, _), _)| *of == id);
                    let rows = noted.flat_map(|(_, errors)| errors.clone()).collect();
                    Ok(Answer::Errors(Page::new(rows, None)))
                }
                (_, answer) => answer,
            }
        }
    ),
    fault!(
        "keeps keys when the job is gone",
        [
            all_of_a_job_goes_when_its_retention_is_over,
            a_key_is_free_when_its_job_is_gone_though_nobody_purged,
            a_job_that_never_ends_is_forgotten_too,
            erasing_leaves_nothing,
        ],
        |scene, call| {
            let Call::Create(job) = call else { return call.on(scene.store).await };
            let Some(key) = job.idempotency_key.clone() else { return call.on(scene.store).await };
            let known = scene.notes().keys.entry((job.owner.clone(), key)).or_insert(job.clone()).clone();
            if scene.job(known.id).await.is_none() && known.id != job.id {
                return Ok(Answer::Create(Created::Existing(Box::new(known))));
            }
            call.on(scene.store).await
        }
    ),
    fault!("keeps jobs that never end", [a_job_that_never_ends_is_forgotten_too], |scene, call| {
        let answer = call.on(scene.store).await;
        if let Ok(Answer::Read(Some(state))) = &answer {
            scene.notes().states.insert(state.job.id, state.clone());
        }
        let live = |id| scene.notes().states.get(&id).filter(|s| !s.job.status.is_terminal()).cloned();
        match (call, answer) {
            (Call::Read(id, _), Ok(Answer::Read(None))) => Ok(Answer::Read(live(id))),
            (Call::Job(id, _), Ok(Answer::Job(None))) => Ok(Answer::Job(live(id).map(|state| state.job))),
            (_, answer) => answer,
        }
    }),
    fault!("lists jobs that have expired as due", [a_job_that_never_ends_is_forgotten_too], |scene, call| {
        let answer = call.on(scene.store).await;
        match (call, answer) {
            (Call::Due(..), Ok(Answer::Due(mut page))) => {
                let seen = scene.notes().times.clone();
                for (id, at) in seen {
                    if scene.job(id).await.is_none() {
                        page.rows.push(Due::new(id, at));
                    }
                }
                Ok(Answer::Due(page))
            }
            (Call::Create(job), answer) => {
                scene.notes().times.insert(job.id, job.due_at());
                answer
            }
            (_, answer) => answer,
        }
    }),
    fault!("purges whatever is over", [purging_deletes_what_has_expired_and_nothing_else], |scene, call| {
        if let Call::Purge(_) = call {
            let mut purged = 0;
            for job in alices_jobs(scene).await? {
                if job.status.is_terminal() {
                    scene.store.erase(job.id).await?;
                    purged += 1;
                }
            }
            return Ok(Answer::Purge(purged));
        }
        call.on(scene.store).await
    }),
    fault!(
        "counts what it did not purge",
        [purging_deletes_what_has_expired_and_nothing_else],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Purge(_), Ok(_)) => Ok(Answer::Purge(1)),
                (_, answer) => answer,
            }
        }
    ),
    fault!("erases nothing", [erasing_leaves_nothing, owners_erase_what_is_over], |scene, call| {
        match call {
            Call::Erase(_) => Ok(Answer::Erase(())),
            _ => call.on(scene.store).await,
        }
    }),
    fault!("erases only what is over", [erasing_leaves_nothing], |scene, call| {
        match call {
            Call::Erase(id) if scene.job(id).await.is_some_and(|job| !job.status.is_terminal()) => {
                Ok(Answer::Erase(()))
            }
            _ => call.on(scene.store).await,
        }
    }),
    fault!("refuses to erase twice", [erasing_leaves_nothing], |scene, call| {
        match call {
            Call::Erase(id) if scene.job(id).await.is_none() => Err(StoreError::NotFound(id)),
            _ => call.on(scene.store).await,
        }
    }),
    fault!("erases all jobs of the owner", [erasing_leaves_the_others_alone], |scene, call| {
        if let Call::Erase(_) = call {
            for job in alices_jobs(scene).await? {
                scene.store.erase(job.id).await?;
            }
        }
        call.on(scene.store).await
    }),
    fault!(
        "shows an erased job for a moment longer",
        [erasing_leaves_nothing, owners_erase_what_is_over],
        |scene, call| {
            if let Call::Erase(id) = call
                && let Some(job) = scene.job(id).await
            {
                scene.notes().jobs.insert(id, job);
            }
            match (call, call.on(scene.store).await) {
                (Call::Job(id, _), Ok(Answer::Job(None))) => Ok(Answer::Job(scene.notes().jobs.remove(&id))),
                (_, answer) => answer,
            }
        }
    ),
];

async fn alices_jobs(scene: Scene<'_>) -> Result<Vec<Job>, StoreError> {
    let alice = OwnerId::new("alice").expect("a good name");
    Ok(scene.store.list(&alice, None, &PageRequest::first(1_000)).await?.rows)
}
