//! Faults before work: answers that are wrong, incomplete or of another batch, and starts that are no starts.

use status_core::{BatchIndex, BatchState, Begun, Job, Settled, Status};
use status_testkit::layer::{Answer, Call};

use super::{Answered, Fault, Scene, fault, with_state};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "says that nothing is settled",
        [
            every_batch_counts_once,
            each_batch_of_a_delivery_gets_its_own_answer,
            the_store_answers_for_each_batch_it_is_asked_for,
        ],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Begin(Some(begun))) = &mut answer {
                begun.settled.iter_mut().for_each(|(_, settled)| *settled = None);
            }
            answer
        }
    ),
    fault!(
        "answers for the first batch of a delivery only",
        [each_batch_of_a_delivery_gets_its_own_answer, the_store_answers_for_each_batch_it_is_asked_for,],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Begin(Some(begun))) = &mut answer {
                begun.settled.truncate(1);
            }
            answer
        }
    ),
    fault!(
        "mixes up the batches of a delivery",
        [each_batch_of_a_delivery_gets_its_own_answer, the_store_answers_for_each_batch_it_is_asked_for,],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Begin(Some(begun))) = &mut answer {
                let shifted: Vec<_> = begun.settled.iter().map(|(_, settled)| *settled).collect();
                for (place, (_, settled)) in begun.settled.iter_mut().enumerate() {
                    *settled = shifted[(place + 1) % shifted.len()];
                }
            }
            answer
        }
    ),
    fault!(
        "knows only the first part of a job before work",
        [the_store_answers_for_each_batch_it_is_asked_for, each_batch_of_a_delivery_gets_its_own_answer],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Begin(Some(begun))) = &mut answer {
                let others = begun.settled.iter_mut().filter(|(batch, _)| batch.get() >= 256);
                others.for_each(|(_, settled)| *settled = None);
            }
            answer
        }
    ),
    fault!(
        "says that a failed batch is completed",
        [the_store_answers_for_each_batch_it_is_asked_for],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Begin(Some(begun))) = &mut answer {
                let failed =
                    begun.settled.iter_mut().filter(|(_, settled)| *settled == Some(Settled::Failed));
                failed.for_each(|(_, settled)| *settled = Some(Settled::Completed));
            }
            answer
        }
    ),
    fault!(
        "does not show a worker that somebody asked to cancel",
        [cancelling_in_processing_is_confirmed_by_a_worker, the_same_command_twice_is_once],
        |scene, call| {
            let mut answer = call.on(scene.store).await;
            if let Ok(Answer::Begin(Some(begun))) = &mut answer {
                begun.job.cancel_requested = None;
            }
            answer
        }
    ),
    fault!(
        "counts starts twice",
        [starts_are_counted_once, a_start_is_that_of_the_last_begin],
        |scene, call| {
            with_state(call.on(scene.store).await, |state| {
                state.facts.running.extend_from_within(..);
            })
        }
    ),
    fault!("keeps the starts of settled batches", [starts_are_counted_once], |scene, call| {
        if let Call::Begin(id, batches, at) = call {
            let noted = batches.iter().map(|batch| ((id, *batch), at));
            scene.notes().starts.extend(noted);
        }
        let Call::Read(id, _) = call else { return call.on(scene.store).await };
        let unsettled = scene.store.batches(id, BatchState::Unsettled, 0, 1_000).await.unwrap_or_default();
        with_state(call.on(scene.store).await, |state| {
            let notes = scene.notes();
            let noted =
                notes.starts.iter().filter(|((of, batch), _)| *of == id && !unsettled.contains(batch));
            state.facts.running.extend(noted.map(|(_, at)| *at));
        })
    }),
    fault!("keeps the first start of a batch", [a_start_is_that_of_the_last_begin], |scene, call| {
        let Call::Begin(id, batches, at) = call else { return call.on(scene.store).await };
        let Some(job) = scene.job(id).await else { return Ok(Answer::Begin(None)) };
        let mut all = Begun::new(job, Vec::new(), false);
        for batch in batches {
            let first = *scene.notes().starts.entry((id, *batch)).or_insert(at);
            if let Some(begun) = scene.store.begin(id, &[*batch], first).await? {
                all.settled.extend(begun.settled);
            }
        }
        Ok(Answer::Begin(Some(all)))
    }),
    fault!(
        "notes starts of batches past the total",
        [a_start_is_noted_only_where_work_begins],
        |scene, call| {
            noting(scene, call, |job, batch, _| {
                job.notes_starts() && job.total().is_some_and(|total| batch.get() >= total)
            })
            .await
        }
    ),
    fault!(
        "notes starts of batches that stand as failed",
        [a_start_is_noted_only_where_work_begins, a_start_is_that_of_the_last_begin],
        |scene, call| {
            noting(scene, call, |job, _, settled| job.notes_starts() && settled == Some(Settled::Failed))
                .await
        }
    ),
    fault!(
        "notes starts of completed batches",
        [a_start_is_noted_only_where_work_begins, starts_are_counted_once],
        |scene, call| {
            noting(scene, call, |job, _, settled| job.notes_starts() && settled == Some(Settled::Completed))
                .await
        }
    ),
    fault!(
        "notes starts of a job that is to be cancelled",
        [a_start_is_noted_only_where_work_begins],
        |scene, call| {
            noting(scene, call, |job, _, _| {
                job.status == Status::Processing && job.cancel_requested.is_some()
            })
            .await
        }
    ),
    fault!("notes starts of a job that is over", [a_start_is_noted_only_where_work_begins], |scene, call| {
        noting(scene, call, |job, _, _| job.status.is_terminal()).await
    }),
    fault!(
        "notes starts of a job that has not started",
        [a_start_is_noted_only_where_work_begins],
        |scene, call| noting(scene, call, |job, _, _| job.status < Status::Processing).await
    ),
    fault!(
        "notes starts of a job that does not track them",
        [a_start_is_noted_only_where_work_begins],
        |scene, call| noting(scene, call, |job, _, _| !job.policy.track_starts).await
    ),
];

/// Notes starts of batches that are none, and shows them with the others.
async fn noting(
    scene: Scene<'_>,
    call: Call<'_>,
    notes: fn(&Job, BatchIndex, Option<Settled>) -> bool,
) -> Answered {
    let answer = call.on(scene.store).await;
    if let (Call::Begin(id, _, at), Ok(Answer::Begin(Some(begun)))) = (call, &answer) {
        for (batch, settled) in &begun.settled {
            if notes(&begun.job, *batch, *settled) {
                scene.notes().starts.insert((id, *batch), at);
            }
        }
    }
    with_state(answer, |state| {
        let notes = scene.notes();
        let noted = notes.starts.iter().filter(|((id, _), _)| *id == state.job.id);
        state.facts.running.extend(noted.map(|(_, at)| *at));
    })
}
