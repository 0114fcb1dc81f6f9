//! Who acts in a run, and in which processes.

mod owner;
mod splitter;
pub(crate) mod sweeper;
mod viewer;
mod watcher;
mod worker;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use crate::{scenario::Scenario, world::Process};

/// Somebody who acts. What an actor remembers outlives its process.
#[async_trait]
pub trait Actor: Debug + Send + Sync {
    /// Acts until there is nothing left to do, in one process. Is called again in another one if
    /// that dies.
    async fn live(&self, process: &Process);
}

/// All actors by the process they live in.
pub fn cast(scenario: &Scenario) -> Vec<(String, Vec<Arc<dyn Actor>>)> {
    let mut sites: Vec<Vec<Arc<dyn Actor>>> = vec![Vec::new(); scenario.sites];
    for (number, plan) in scenario.jobs.iter().enumerate() {
        let site = |n: usize| (number + n) % scenario.sites;
        let owner = Arc::new(owner::Owner::new(number));
        sites[site(0)].push(owner.clone());
        sites[site(1)].push(Arc::new(owner::Canceller::new(number, owner.clone())));
        for viewer in 0..plan.viewers.0 {
            // The same person is served by two sites in turn.
            let poller = Arc::new(viewer::Poller::new(number, viewer, owner.clone()));
            sites[site(viewer)].push(poller.clone());
            sites[site(viewer + 1)].push(poller);
        }
        for viewer in 0..plan.viewers.1 {
            let watcher = Arc::new(watcher::Watcher::new(number, viewer, owner.clone()));
            sites[site(viewer)].push(watcher.clone());
            sites[site(viewer + 1)].push(watcher);
        }
    }
    let named = |name: &str, count: usize, actor: fn() -> Arc<dyn Actor>| -> Vec<_> {
        (1..=count).map(|n| (format!("{name}-{n}"), vec![actor()])).collect()
    };
    let mut processes: Vec<_> =
        sites.into_iter().enumerate().map(|(n, actors)| (format!("site-{}", n + 1), actors)).collect();
    processes.extend(named("splitter", scenario.splitters, || Arc::new(splitter::Splitter)));
    processes.extend(named("worker", scenario.workers, || Arc::new(worker::Worker)));
    processes.extend(named("sweeper", scenario.sweepers, || Arc::new(sweeper::Sweeper)));
    processes
}
