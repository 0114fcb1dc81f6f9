//! Faults of lists.

use status_core::{
    BatchIndex, BatchState, Effect, OwnerId, Page, PageRequest, Status, StoreError, Timestamp, Written,
};
use status_testkit::layer::{Answer, Call};

use super::{Answered, Fault, Scene, fault};

pub(super) const FAULTS: &[Fault] = &[
    fault!("lists everybody's jobs", [owners_see_only_their_own], |scene, call| {
        let Call::List(_, status, request) = call else { return call.on(scene.store).await };
        Call::List(&alice(), status, request).on(scene.store).await
    }),
    fault!("counts everybody's open jobs", [owners_see_only_their_own], |scene, call| {
        let Call::CountOpen(_, at_most) = call else { return call.on(scene.store).await };
        Call::CountOpen(&alice(), at_most).on(scene.store).await
    }),
    fault!("lists the oldest job first", [jobs_are_listed_newest_first], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::List(page)) = &mut answer {
            page.rows.reverse();
        }
        answer
    }),
    fault!("lists the first page for ever", [jobs_are_listed_newest_first], |scene, call| {
        let Call::List(owner, status, request) = call else { return call.on(scene.store).await };
        let mut first = request.clone();
        first.cursor = None;
        Call::List(owner, status, &first).on(scene.store).await
    }),
    fault!("takes any cursor of jobs", [jobs_are_listed_newest_first], |scene, call| {
        match (call, call.on(scene.store).await) {
            (Call::List(..), Err(StoreError::InvalidCursor)) => Ok(Answer::List(Page::new(Vec::new(), None))),
            (_, answer) => answer,
        }
    }),
    fault!("lists jobs of every status", [jobs_of_a_status_are_listed_over_all_pages], |scene, call| {
        let Call::List(owner, _, request) = call else { return call.on(scene.store).await };
        Call::List(owner, None, request).on(scene.store).await
    }),
    fault!(
        "ends a listing by status at the first page without one",
        [jobs_of_a_status_are_listed_over_all_pages],
        |scene, call| {
            let Call::List(owner, Some(status), request) = call else { return call.on(scene.store).await };
            let mut page = scene.store.list(owner, None, request).await?;
            page.rows.retain(|job| job.status == status);
            page.next = page.next.filter(|_| !page.rows.is_empty());
            Ok(Answer::List(page))
        }
    ),
    fault!("counts jobs that are over as open", [open_jobs_are_counted_up_to_a_bound], |scene, call| {
        let Call::CountOpen(owner, at_most) = call else { return call.on(scene.store).await };
        let all = scene.store.list(owner, None, &PageRequest::first(1_000)).await?.rows.len();
        Ok(Answer::CountOpen(all.min(at_most)))
    }),
    fault!("counts past the bound", [open_jobs_are_counted_up_to_a_bound], |scene, call| {
        let Call::CountOpen(owner, _) = call else { return call.on(scene.store).await };
        Call::CountOpen(owner, 1_000).on(scene.store).await
    }),
    fault!("counts jobs in Processing only", [open_jobs_are_counted_up_to_a_bound], |scene, call| {
        let Call::CountOpen(owner, at_most) = call else { return call.on(scene.store).await };
        let page = PageRequest::first(1_000);
        let all = scene.store.list(owner, Some(Status::Processing), &page).await?.rows.len();
        Ok(Answer::CountOpen(all.min(at_most)))
    }),
    fault!("lists jobs that are over as open", [open_jobs_of_all_owners_are_listed], |scene, call| {
        let Call::ListOpen(request) = call else { return call.on(scene.store).await };
        Ok(Answer::ListOpen(scene.store.list(&alice(), None, request).await?))
    }),
    fault!("lists the open jobs of one owner", [open_jobs_of_all_owners_are_listed], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::ListOpen(page)) = &mut answer {
            page.rows.retain(|job| job.owner == alice());
        }
        answer
    }),
    fault!("lists open jobs that are due only", [open_jobs_of_all_owners_are_listed], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::ListOpen(page)) = &mut answer {
            page.rows.retain(|job| job.status != Status::Processing);
        }
        answer
    }),
    fault!(
        "forgets changed jobs that are over",
        [changed_jobs_are_those_that_are_open_and_those_decided_since],
        |scene, call| {
            let Call::ChangedSince(owner, _, limit) = call else { return call.on(scene.store).await };
            Call::ChangedSince(owner, Timestamp::MAX, limit).on(scene.store).await
        }
    ),
    fault!(
        "lists all jobs as changed",
        [changed_jobs_are_those_that_are_open_and_those_decided_since],
        |scene, call| {
            let Call::ChangedSince(owner, _, limit) = call else { return call.on(scene.store).await };
            Call::ChangedSince(owner, Timestamp::MIN, limit).on(scene.store).await
        }
    ),
    fault!(
        "lists open jobs only if they changed",
        [changed_jobs_are_those_that_are_open_and_those_decided_since],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let (Call::ChangedSince(_, since, _), Ok(Answer::ChangedSince(jobs))) = (call, &mut answer) {
                jobs.retain(|job| job.updated_at >= since);
            }
            answer
        }
    ),
    fault!(
        "takes jobs that failed for completed ones",
        [the_last_completed_jobs_of_a_kind_are_known],
        |scene, call| last_of(scene, call, |status, kind, wanted| status.is_terminal()
            && kind == Some(wanted))
        .await
    ),
    fault!(
        "takes jobs of any kind for those of one",
        [the_last_completed_jobs_of_a_kind_are_known],
        |scene, call| last_of(scene, call, |status, _, _| status == Status::Completed).await
    ),
    fault!(
        "gives the first completed jobs for the last",
        [the_last_completed_jobs_of_a_kind_are_known],
        |scene, call| {
            let Call::LastCompleted(owner, kind, limit) = call else { return call.on(scene.store).await };
            let mut jobs = scene.store.last_completed(owner, kind, 1_000).await?;
            jobs.reverse();
            jobs.truncate(limit);
            Ok(Answer::LastCompleted(jobs))
        }
    ),
    fault!("names settled batches as missing", [unsettled_batches_are_known], |scene, call| {
        let Call::Batches(id, BatchState::Unsettled, from, limit) = call else {
            return call.on(scene.store).await;
        };
        let mut all = Vec::new();
        for which in [BatchState::Unsettled, BatchState::Failed] {
            all.extend(scene.store.batches(id, which, from, limit).await?);
        }
        all.sort_unstable();
        all.truncate(limit);
        Ok(Answer::Batches(all))
    }),
    fault!(
        "knows batches of the first part only",
        [batches_are_listed_by_how_they_stand, unsettled_batches_are_known],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Batches(batches)) = &mut answer {
                batches.retain(|batch| batch.get() < 256);
            }
            answer
        }
    ),
    fault!("lists failed batches as completed", [batches_are_listed_by_how_they_stand], |scene, call| {
        let Call::Batches(id, BatchState::Completed, from, limit) = call else {
            return call.on(scene.store).await;
        };
        let mut all = scene.store.batches(id, BatchState::Completed, from, limit).await?;
        all.extend(scene.store.batches(id, BatchState::Failed, from, limit).await?);
        all.sort_unstable();
        all.truncate(limit);
        Ok(Answer::Batches(all))
    }),
    fault!(
        "ignores where a list of batches begins",
        [batches_are_listed_by_how_they_stand, unsettled_batches_are_known],
        |scene, call| {
            let Call::Batches(id, which, _, limit) = call else { return call.on(scene.store).await };
            Call::Batches(id, which, 0, limit).on(scene.store).await
        }
    ),
    fault!(
        "lists unsettled batches past the highest",
        [batches_are_listed_by_how_they_stand],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let (Call::Batches(id, BatchState::Unsettled, _, limit), Ok(Answer::Batches(batches))) =
                (call, &mut answer)
                && scene.job(id).await.is_some_and(|job| job.total().is_none())
                && batches.len() < limit
            {
                batches.push(BatchIndex::new(9_999).expect("small"));
            }
            answer
        }
    ),
    fault!(
        "counts batches of a job that is not there",
        [what_is_not_there_is_not_found, erasing_leaves_nothing],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Report(_, reports, _), Err(StoreError::NotFound(_))) => {
                    let effects = reports.iter().map(|report| (report.batch(), Effect::Counted)).collect();
                    Ok(Answer::Report(Written::new(effects, false, None)))
                }
                (_, answer) => answer,
            }
        }
    ),
    fault!("lists no batches of a job that is not there", [what_is_not_there_is_not_found], |scene, call| {
        match (call, call.on(scene.store).await) {
            (Call::Batches(..), Err(StoreError::NotFound(_))) => Ok(Answer::Batches(Vec::new())),
            (_, answer) => answer,
        }
    }),
];

fn alice() -> OwnerId {
    OwnerId::new("alice").expect("a good name")
}

/// The owner's jobs by another rule than that of the last completed ones.
async fn last_of(
    scene: Scene<'_>,
    call: Call<'_>,
    is_one: fn(Status, Option<&str>, &str) -> bool,
) -> Answered {
    let Call::LastCompleted(owner, kind, limit) = call else { return call.on(scene.store).await };
    let mut jobs = scene.store.list(owner, None, &PageRequest::first(1_000)).await?.rows;
    jobs.retain(|job| is_one(job.status, job.kind.as_deref(), kind));
    jobs.truncate(limit);
    Ok(Answer::LastCompleted(jobs))
}
