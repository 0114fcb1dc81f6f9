//! Faults of the errors of items.

use status_core::{Effect, ItemError, Page, Settled};
use status_testkit::layer::{Answer, Call};

use super::{Answered, Fault, Scene, fault};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "keeps no errors",
        [failed_items_are_listed_page_by_page, by_default_the_first_failed_batch_fails_the_job],
        |scene, call| {
            match call {
                Call::Errors(..) => Ok(Answer::Errors(Page::new(Vec::new(), None))),
                _ => call.on(scene.store).await,
            }
        }
    ),
    fault!("lists errors last batch first", [failed_items_are_listed_page_by_page], |scene, call| {
        let mut answer = call.on(scene.store).await;
        if let Ok(Answer::Errors(page)) = &mut answer {
            page.rows.reverse();
        }
        answer
    }),
    fault!(
        "leaves out an error where a page begins",
        [failed_items_are_listed_page_by_page],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let (Call::Errors(_, request), Ok(Answer::Errors(page))) = (call, &mut answer)
                && request.cursor.is_some()
                && !page.rows.is_empty()
            {
                page.rows.remove(0);
            }
            answer
        }
    ),
    fault!(
        "lists the first page of errors for ever",
        [failed_items_are_listed_page_by_page],
        |scene, call| {
            let Call::Errors(id, request) = call else { return call.on(scene.store).await };
            let mut first = request.clone();
            first.cursor = None;
            Call::Errors(id, &first).on(scene.store).await
        }
    ),
    fault!("takes any cursor", [failed_items_are_listed_page_by_page], |scene, call| {
        match (call, call.on(scene.store).await) {
            (Call::Errors(..), Err(_)) => Ok(Answer::Errors(Page::new(Vec::new(), None))),
            (_, answer) => answer,
        }
    }),
    fault!("forgets the line of an error", [an_error_is_listed_as_it_was_reported], |scene, call| {
        changed(scene, call, |error| error.line = None).await
    }),
    fault!("forgets what came in", [an_error_is_listed_as_it_was_reported], |scene, call| {
        changed(scene, call, |error| error.input = None).await
    }),
    fault!("gives every error an item", [an_error_is_listed_as_it_was_reported], |scene, call| {
        changed(scene, call, |error| error.item = Some(error.item.unwrap_or(0))).await
    }),
    fault!("lists more errors than the policy allows", [errors_are_bounded], |scene, call| {
        let Call::Create(job) = call else { return call.on(scene.store).await };
        let mut job = job.clone();
        job.policy.max_errors = u64::MAX;
        Call::Create(&job).on(scene.store).await
    }),
    fault!("bounds errors by whole batches", [errors_are_bounded], |scene, call| {
        let Call::Create(job) = call else { return call.on(scene.store).await };
        let mut job = job.clone();
        job.policy.max_errors -= job.policy.max_errors % 10;
        Call::Create(&job).on(scene.store).await
    }),
    fault!(
        "lists the errors of the last attempt",
        [
            a_repeated_batch_changes_no_errors,
            listed_errors_are_those_of_the_attempt_that_counted,
            errors_come_with_every_order_of_deliveries,
        ],
        |scene, call| {
            if let Call::Report(id, reports, _) = call {
                for report in reports {
                    scene.notes().errors.insert((id, report.batch()), report.errors().to_vec());
                }
            }
            noted_instead(scene, call).await
        }
    ),
    fault!(
        "deletes the errors of a batch that comes again",
        [a_repeated_batch_changes_no_errors],
        |scene, call| {
            let answer = call.on(scene.store).await;
            if let (Call::Report(id, ..), Ok(Answer::Report(written))) = (call, &answer) {
                let again = written.effects.iter().filter(|(_, effect)| *effect == Effect::Duplicate);
                scene.notes().batches.extend(again.map(|(batch, _)| (id, *batch)));
            }
            without_noted(scene, call, answer)
        }
    ),
    fault!(
        "adds the errors of a batch that comes again",
        [a_repeated_batch_changes_no_errors, listed_errors_are_those_of_the_attempt_that_counted],
        |scene, call| {
            let answer = call.on(scene.store).await;
            note_errors(scene, call, &answer, Effect::Duplicate);
            noted_too(scene, call, answer)
        }
    ),
    fault!(
        "keeps the errors of a failure beside those of the success",
        [
            a_success_replaces_the_errors_of_the_failure,
            a_failed_batch_that_succeeds_moves_to_completed,
            errors_come_with_every_order_of_deliveries,
        ],
        |scene, call| {
            let answer = call.on(scene.store).await;
            if let (Call::Report(id, reports, _), Ok(_)) = (call, &answer) {
                for report in reports.iter().filter(|report| report.settles_as() == Settled::Failed) {
                    scene.notes().errors.entry((id, report.batch())).or_insert(report.errors().to_vec());
                }
            }
            noted_too(scene, call, answer)
        }
    ),
    fault!(
        "has no errors of a success that came after a failure",
        [a_success_replaces_the_errors_of_the_failure, errors_come_with_every_order_of_deliveries],
        |scene, call| {
            let answer = call.on(scene.store).await;
            if let (Call::Report(id, ..), Ok(Answer::Report(written))) = (call, &answer) {
                let corrected = written.effects.iter().filter(|(_, effect)| *effect == Effect::Corrected);
                scene.notes().batches.extend(corrected.map(|(batch, _)| (id, *batch)));
            }
            without_noted(scene, call, answer)
        }
    ),
    fault!(
        "writes errors before it knows whose attempt counts",
        [listed_errors_are_those_of_the_attempt_that_counted],
        |scene, call| {
            // Right one after the other; of two at once the later one's errors stay.
            if let Call::Report(id, reports, _) = call {
                for report in reports {
                    scene.notes().errors.entry((id, report.batch())).or_insert(report.errors().to_vec());
                }
                tokio::task::yield_now().await;
                scene.notes().busy += 1;
                if scene.notes().busy % 2 == 0 {
                    for report in reports {
                        scene.notes().errors.insert((id, report.batch()), report.errors().to_vec());
                    }
                }
            }
            noted_instead(scene, call).await
        }
    ),
];

/// The answer to a listing with every error changed.
async fn changed(scene: Scene<'_>, call: Call<'_>, change: impl Fn(&mut ItemError)) -> Answered {
    let mut answer = call.on(scene.store).await;
    if let Ok(Answer::Errors(page)) = &mut answer {
        page.rows.iter_mut().for_each(change);
    }
    answer
}

/// Notes the errors of reports that had this effect.
fn note_errors(scene: Scene<'_>, call: Call<'_>, answer: &Answered, wanted: Effect) {
    if let (Call::Report(id, reports, _), Ok(Answer::Report(written))) = (call, answer) {
        for (report, (_, effect)) in reports.iter().zip(&written.effects) {
            if *effect == wanted {
                scene.notes().errors.insert((id, report.batch()), report.errors().to_vec());
            }
        }
    }
}

/// Lists the noted errors instead of those of the store, all on one page.
async fn noted_instead(scene: Scene<'_>, call: Call<'_>) -> Answered {
    let Call::Errors(id, _) = call else { return call.on(scene.store).await };
    let notes = scene.notes();
    let noted = notes.errors.iter().filter(|((of, _), _)| *of == id);
    let rows = noted.flat_map(|(_, errors)| errors.clone()).collect();
    Ok(Answer::Errors(Page::new(rows, None)))
}

/// Lists the noted errors after those of the store.
fn noted_too(scene: Scene<'_>, call: Call<'_>, mut answer: Answered) -> Answered {
    if let (Call::Errors(id, _), Ok(Answer::Errors(page))) = (call, &mut answer) {
        let notes = scene.notes();
        let noted = notes.errors.iter().filter(|((of, _), _)| *of == id);
        let noted = noted.flat_map(|(_, errors)| errors.clone());
        page.rows.extend(noted.filter(|error| !page.rows.contains(error)).collect::<Vec<_>>());
    }
    answer
}

/// Lists no errors of the noted batches.
fn without_noted(scene: Scene<'_>, call: Call<'_>, mut answer: Answered) -> Answered {
    if let (Call::Errors(id, _), Ok(Answer::Errors(page))) = (call, &mut answer) {
        page.rows.retain(|error| !scene.notes().batches.contains(&(id, error.batch)));
    }
    answer
}
