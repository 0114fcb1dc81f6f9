//! Those whose job it is: they create it, upload its file, and sometimes stop or erase it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use status_core::{Actor as Role, Cancelled, Error, JobId, Status};
use tokio::time::sleep;

use super::Actor;
use crate::{
    scenario::{Plan, Split},
    words::Words,
    world::{Process, Upload},
};

/// Creates one job and uploads its file. Knocks again until it is served.
#[derive(Debug)]
pub(super) struct Owner {
    number: usize,
    served: Mutex<Option<Served>>,
    /// How often the creation succeeded.
    creations: AtomicU64,
}

/// What came of the creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Served {
    /// This job.
    Job(JobId),
    /// The key was used for another request.
    Refused,
}

impl Owner {
    pub(super) fn new(number: usize) -> Self {
        Self { number, served: Mutex::default(), creations: AtomicU64::new(0) }
    }

    /// The job, once it is there; `None` if it never will be, or all is over.
    pub(super) async fn job(&self, process: &Process) -> Option<JobId> {
        loop {
            match self.served() {
                Some(Served::Job(id)) => return Some(id),
                Some(Served::Refused) => return None,
                None if process.world.is_over() => return None,
                None => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn served(&self) -> Option<Served> {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, served: Served) {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = Some(served);
    }

    async fn create(&self, process: &Process, plan: &Plan) -> Served {
        let ledger = &process.world.ledger;
        loop {
            let created = process.jobs_of(plan.owner).create(plan.new.clone()).await;
            process
                .world
                .history
                .note(&process.name, || format!("creates {}: {}", plan.name, created.words()));
            match created {
                Ok(snapshot) => {
                    ledger.created(self.number, &snapshot);
                    if process.world.scenario.has_strangers {
                        process.world.backend.strew_beside(snapshot.id);
                    }
                    return Served::Job(snapshot.id);
                }
                Err(Error::KeyReused) if ledger.has_rival(self.number) => return Served::Refused,
                Err(error) => ledger.check_error(&error, None, process.world.is_calm()),
            }
            process.pause(Duration::from_secs(1)).await;
        }
    }

    /// The file's way. Whoever is told that the job is over can stop.
    async fn upload(&self, process: &Process, plan: &Plan, id: JobId) {
        let (world, jobs) = (&process.world, process.jobs_of(plan.owner));
        let splits = plan.split != Split::Abandoned;
        // The file's arrival is told by the storage too, which may be faster than the browser.
        let is_told_first = world.random.per_mille(300);
        if splits && (is_told_first || plan.new.file.is_none()) {
            world.uploads.send(Upload { plan: self.number, id });
        }
        let Some(file) = &plan.new.file else { return };
        for part in 1..=world.random.within(0..=3) {
            let bytes = file.size * part / 4;
            let told = process.said(id, "upload_progress", jobs.upload_progress(id, bytes).await);
            if matches!(told, Err(Error::Rejected { .. } | Error::NotFound(_))) {
                break;
            }
            process.pause(Duration::from_millis(2_500)).await;
        }
        if !splits {
            return;
        }
        while !world.is_over() {
            match process.said(id, "finish_upload", jobs.finish_upload(id).await) {
                Ok(snapshot) => {
                    world.ledger.saw(&snapshot);
                    world.ledger.reached(id, Status::Uploaded);
                    break;
                }
                Err(Error::Rejected { .. } | Error::NotFound(_)) => break,
                Err(_) => process.pause(Duration::from_secs(1)).await,
            }
        }
        if !is_told_first {
            world.uploads.send(Upload { plan: self.number, id });
        }
    }
}

#[async_trait]
impl Actor for Owner {
    async fn live(&self, process: &Process) {
        let world = &process.world;
        let plan = &world.scenario.jobs[self.number];
        sleep(plan.at.saturating_sub(world.time.elapsed())).await;
        let mut served = self.served();
        while self.creations.load(Ordering::Relaxed) <= plan.repeats && served != Some(Served::Refused) {
            let answer = self.create(process, plan).await;
            self.creations.fetch_add(1, Ordering::Relaxed);
            // The first answer is the one that people work with.
            if served.is_none() {
                served = Some(answer);
                self.serve(answer);
            }
        }
        if let Some(Served::Job(id)) = served {
            self.upload(process, plan, id).await;
        }
        world.ledger.served(self.number);
    }
}

/// Stops or erases the job, if that is planned.
#[derive(Debug)]
pub(super) struct Canceller {
    number: usize,
    owner: std::sync::Arc<Owner>,
}

impl Canceller {
    pub(super) fn new(number: usize, owner: std::sync::Arc<Owner>) -> Self {
        Self { number, owner }
    }

    async fn cancel(&self, process: &Process, plan: &Plan, id: JobId, by_owner: bool) {
        let world = &process.world;
        while !world.is_over() {
            let reason = Some("not needed".to_owned());
            let cancelled = match by_owner {
                true => process.jobs_of(plan.owner).cancel(id, reason).await,
                false => process.tracker.cancel(id, &Role::OPERATOR, reason).await,
            };
            match process.said(id, "cancel", cancelled) {
                Ok(Cancelled::Now(snapshot)) => {
                    world.ledger.of(id, |book| book.is_cancelled = true);
                    return world.ledger.saw(&snapshot);
                }
                Ok(Cancelled::Requested(snapshot)) => return world.ledger.saw(&snapshot),
                Err(Error::Rejected { .. } | Error::NotFound(_)) => return,
                Err(_) => process.pause(Duration::from_secs(1)).await,
            }
        }
    }

    async fn erase(&self, process: &Process, id: JobId) {
        let world = &process.world;
        world.ledger.of(id, |book| book.erasing = true);
        while !world.is_over() {
            if process.said(id, "erase", process.tracker.erase(id).await).is_ok() {
                break;
            }
            process.pause(Duration::from_secs(1)).await;
        }
    }
}

#[async_trait]
impl Actor for Canceller {
    async fn live(&self, process: &Process) {
        let plan = &process.world.scenario.jobs[self.number];
        let Some(id) = self.owner.job(process).await else { return };
        if let Some((after, by_owner)) = plan.cancel {
            sleep(after).await;
            self.cancel(process, plan, id, by_owner).await;
        }
        if let Some(after) = plan.erase {
            sleep(after).await;
            self.erase(process, id).await;
        }
    }
}
