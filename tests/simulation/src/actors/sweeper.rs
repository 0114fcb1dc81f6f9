//! Sweepers: any process may be one, any number at once.

use std::time::Duration;

use async_trait::async_trait;

use super::Actor;
use crate::{scenario::Plan, words::Words, world::Process};

/// How long a sweeper waits at most.
pub(crate) const LONGEST: Duration = Duration::from_secs(25);

/// A sweeper.
#[derive(Debug)]
pub(super) struct Sweeper;

#[async_trait]
impl Actor for Sweeper {
    async fn live(&self, process: &Process) {
        let world = &process.world;
        while !world.is_over() {
            process.pause(LONGEST).await;
            if world.scenario.jobs.iter().any(Plan::is_short_lived) {
                world.backend.expire();
            }
            let swept = process.tracker.sweep().await;
            world.history.note(&process.name, || format!("sweep: {}", swept.words()));
            if let Err(error) = swept {
                world.ledger.check_error(&error, None, world.is_calm());
            }
        }
    }
}
