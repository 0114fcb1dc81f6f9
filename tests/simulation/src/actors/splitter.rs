//! Splitters: they are told of uploads at least once, and each time cut the file into batches
//! again.

use std::time::Duration;

use async_trait::async_trait;
use status_core::{Actor as Role, Error, Failure, Rejection, Stage, Status, Totals};

use super::Actor;
use crate::{
    scenario::{Plan, Split},
    world::{Batch, Process, Upload},
};

/// A splitter.
#[derive(Debug)]
pub(super) struct Splitter;

#[async_trait]
impl Actor for Splitter {
    async fn live(&self, process: &Process) {
        let world = &process.world;
        while !world.is_over() {
            process.pause(Duration::from_millis(400)).await;
            for upload in world.uploads.receive(1) {
                match split(process, upload.body).await {
                    // Nothing that a repetition could change.
                    Ok(()) | Err(Error::Rejected { .. } | Error::NotFound(_)) => {
                        world.uploads.delete(upload.receipt);
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

async fn split(process: &Process, upload: Upload) -> Result<(), Error> {
    let plan = &process.world.scenario.jobs[upload.plan];
    let totals = Totals { batches: plan.total, items: Some(plan.total * plan.items) };
    match plan.split {
        Split::TotalFirst => {
            start(process, upload, Some(totals)).await?;
            send(process, plan, upload).await;
        }
        Split::Stream => {
            start(process, upload, None).await?;
            send(process, plan, upload).await;
            seal(process, upload, Totals { items: None, ..totals }).await?;
        }
        Split::Forgotten => {
            send(process, plan, upload).await;
            seal(process, upload, totals).await?;
        }
        Split::NeverSealed => send(process, plan, upload).await,
        Split::Abandoned => {}
    }
    Ok(())
}

async fn start(process: &Process, upload: Upload, totals: Option<Totals>) -> Result<(), Error> {
    let id = upload.id;
    let started = process.tracker.start(id, totals, &Role::named("splitter")).await;
    let snapshot = process.said(id, "start", started)?;
    let ledger = &process.world.ledger;
    ledger.reached(id, Status::Processing);
    ledger.of(id, |book| book.is_sealed |= totals.is_some());
    ledger.saw(&snapshot);
    Ok(())
}

async fn seal(process: &Process, upload: Upload, totals: Totals) -> Result<(), Error> {
    let stage = process.tracker.stage(upload.id, "reading", &Role::named("splitter")).await;
    let _ = process.said(upload.id, "stage", stage);
    match start(process, upload, Some(totals)).await {
        Err(Error::Rejected { id, rejection: Rejection::TotalTooSmall { given, seen } }) => {
            // A batch that the file does not have was worked on: nothing that a repetition could
            // mend.
            let why = format!("there are {given} batches, and batch {seen} was worked on");
            let failure = Failure::new(Stage::Split, "stray-batch", &why, false);
            let failed = process.tracker.fail(id, failure, &Role::named("splitter")).await;
            process.said(id, "fail", failed).map(|snapshot| process.world.ledger.saw(&snapshot))
        }
        sealed => sealed,
    }
}

async fn send(process: &Process, plan: &Plan, upload: Upload) {
    let Upload { plan: number, id } = upload;
    for index in 0..plan.total {
        process.world.batches.send(Batch { plan: number, id, index });
        if index % 16 == 15 {
            process.pause(Duration::from_millis(300)).await;
        }
    }
    for stray in 0..plan.strays {
        process.world.batches.send(Batch { plan: number, id, index: plan.total + 7 * stray });
    }
}
