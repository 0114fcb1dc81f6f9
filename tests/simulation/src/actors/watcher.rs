//! Those who watch a job: they hold a stream open for a while, lose it, and come back to another
//! site with the token of what they saw last.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use status_core::{Error, Snapshot};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{Actor, owner::Owner, viewer::View};
use crate::world::Process;

/// Somebody who watches.
#[derive(Debug)]
pub(super) struct Watcher {
    number: usize,
    owner: Arc<Owner>,
    state: Mutex<(View, u64)>,
}

impl Watcher {
    pub(super) fn new(number: usize, nth: usize, owner: Arc<Owner>) -> Self {
        let name = format!("watcher {nth} of plan {number}");
        Self { number, owner, state: Mutex::new((View::new(name), 0)) }
    }
}

#[async_trait]
impl Actor for Watcher {
    async fn live(&self, process: &Process) {
        let world = &process.world;
        let plan = &world.scenario.jobs[self.number];
        let Some(id) = self.owner.job(process).await else { return };
        while !world.is_over() {
            process.pause(Duration::from_millis(1_000)).await;
            let mut state = self.state.lock().await;
            let (view, streams) = &mut *state;
            *streams += 1;
            if *streams > 4 || view.is_at_the_end() {
                return;
            }
            let seen = view.last().map(Snapshot::token);
            let watched = process.jobs_of(plan.owner).watch_after(id, seen.as_ref()).await;
            let mut stream = match watched {
                Ok(stream) => pin!(stream),
                Err(error) => {
                    let _ = process.said::<()>(id, "watch_after", Err::<(), Error>(error));
                    continue;
                }
            };
            let longest = Duration::from_millis(world.random.within(500..=5_000));
            let watching = async {
                while let Some(snapshot) = stream.next().await {
                    view.show(process, &snapshot);
                }
            };
            let _ = timeout(longest, watching).await;
            sleep(Duration::from_millis(1)).await;
        }
    }
}
