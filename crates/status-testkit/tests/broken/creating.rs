//! Faults of creation.

use status_core::{Created, StoreError};
use status_testkit::layer::{Answer, Call};

use super::{Fault, fault};

pub(super) const FAULTS: &[Fault] = &[
    fault!("begins a job at another revision", [a_new_job_is_uploading], |scene, call| {
        let Call::Create(job) = call else { return call.on(scene.store).await };
        let mut job = job.clone();
        job.revision += 1;
        Call::Create(&job).on(scene.store).await
    }),
    fault!("forgets the kind of a job", [a_job_without_a_file_is_waiting], |scene, call| {
        let Call::Create(job) = call else { return call.on(scene.store).await };
        let mut job = job.clone();
        job.kind = None;
        Call::Create(&job).on(scene.store).await
    }),
    fault!("forgets the hooks of a job", [a_job_without_a_file_is_waiting], |scene, call| {
        let Call::Create(job) = call else { return call.on(scene.store).await };
        let mut job = job.clone();
        job.hooks.clear();
        Call::Create(&job).on(scene.store).await
    }),
    fault!("ignores keys", [a_key_gives_its_job_again], |scene, call| {
        let Call::Create(job) = call else { return call.on(scene.store).await };
        let mut job = job.clone();
        job.idempotency_key = None;
        Call::Create(&job).on(scene.store).await
    }),
    fault!("shares keys between owners", [a_key_is_its_owners_own], |scene, call| {
        let Call::Create(job) = call else { return call.on(scene.store).await };
        let same = |known: &&status_core::Job| known.idempotency_key == job.idempotency_key;
        let known = scene.notes().jobs.values().find(same).cloned();
        if let Some(known) = known.filter(|known| known.owner != job.owner) {
            return Ok(Answer::Create(Created::Existing(Box::new(known))));
        }
        scene.notes().jobs.insert(job.id, job.clone());
        call.on(scene.store).await
    }),
    fault!(
        "looks for the key, then creates",
        [one_key_creates_one_job_whoever_asks_at_once],
        |scene, call| {
            let Call::Create(job) = call else { return call.on(scene.store).await };
            let Some(key) = job.idempotency_key.clone() else { return call.on(scene.store).await };
            let known = scene.notes().keys.get(&(job.owner.clone(), key.clone())).cloned();
            if let Some(known) = known {
                return Ok(Answer::Create(Created::Existing(Box::new(known))));
            }
            tokio::task::yield_now().await;
            scene.notes().keys.insert((job.owner.clone(), key), job.clone());
            let mut job = job.clone();
            job.idempotency_key = None;
            Call::Create(&job).on(scene.store).await
        }
    ),
    fault!(
        "takes the body of the second request for that of the first",
        [a_key_gives_its_job_again, one_key_creates_one_job_whoever_asks_at_once],
        |scene, call| {
            match (call, call.on(scene.store).await) {
                (Call::Create(job), Ok(Answer::Create(Created::Existing(mut existing)))) => {
                    (existing.title, existing.file) = (job.title.clone(), job.file.clone());
                    Ok(Answer::Create(Created::Existing(existing)))
                }
                (_, answer) => answer,
            }
        }
    ),
    fault!("refuses a repeated creation", [creating_again_is_creating_once], |scene, call| {
        if let Call::Create(job) = call
            && let Some(known) = scene.job(job.id).await
        {
            return Ok(Answer::Create(Created::Existing(Box::new(known))));
        }
        call.on(scene.store).await
    }),
    fault!("starts over at a repeated creation", [creating_again_is_creating_once], |scene, call| {
        if let Call::Create(job) = call {
            scene.store.erase(job.id).await?;
        }
        call.on(scene.store).await
    }),
    fault!("says New for another job under a used id", [an_id_stands_for_one_job], |scene, call| {
        match (call, call.on(scene.store).await) {
            (Call::Create(job), Ok(Answer::Create(Created::Existing(existing)))) if existing.id == job.id => {
                Ok(Answer::Create(Created::New))
            }
            (_, answer) => answer,
        }
    }),
    fault!("lets another job have a used id", [an_id_stands_for_one_job], |scene, call| {
        match (call, call.on(scene.store).await) {
            (Call::Create(job), Ok(Answer::Create(Created::Existing(existing)))) if existing.id == job.id => {
                scene.store.erase(job.id).await?;
                call.on(scene.store).await?;
                Ok(Answer::Create(Created::Existing(existing)))
            }
            (_, answer) => answer,
        }
    }),
    fault!("keeps no job whose name is long", [a_new_job_is_uploading], |scene, call| {
        match call {
            Call::Create(job) if job.title.len() > 8 => Err(StoreError::Full(0)),
            _ => call.on(scene.store).await,
        }
    }),
];
