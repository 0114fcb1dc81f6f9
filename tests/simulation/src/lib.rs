//! Whole systems of owners, splitters, workers, sweepers and watchers, simulated from a seed, with
//! a fault at any request.
//!
//! One run is one seed: it decides which jobs there are, who works on them, whose clock is wrong,
//! and what befalls each request on the wire. All of it happens on one thread and in virtual time,
//! so that the same seed gives the same run, request for request. After the run everything that was
//! acknowledged, shown and stored is held against [what must hold](invariant::Invariant).
//!
//! | module | subject |
//! |---|---|
//! | [`scenario`] | what a run is about |
//! | [`world`] | what its processes share; how a run goes |
//! | [`actors`] | who acts in it |
//! | [`wire`], [`faults`] | where requests pass, and what befalls them |
//! | [`engine`], [`dynamo`] | DynamoDB's layout: the SDK over an embedded engine, without a socket |
//! | [`wrapped`] | any other store |
//! | [`ledger`], [`audit`] | what is known from outside, and the judgement |
//! | [`history`] | what happened, for people to read |

pub mod actors;
pub mod audit;
pub mod backend;
pub mod dynamo;
pub mod engine;
pub mod faults;
pub mod history;
pub mod invariant;
pub mod ledger;
pub mod queue;
pub mod random;
pub mod scenario;
pub mod time;
pub mod wire;
pub mod words;
pub mod world;
pub mod wrapped;

use std::collections::BTreeMap;

use crate::{faults::Tally, history::Detail, invariant::Violation, world::World};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// The first thing that did not hold.
    pub violation: Option<Violation>,
    /// What befell its requests.
    pub tally: Tally,
    /// How many batches its jobs had.
    pub batches: u64,
    /// How many workers there were.
    pub workers: usize,
    /// What workers were told, and how jobs ended, how often.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How many steps it took.
    pub steps: u64,
    /// What happened, if that was asked for.
    pub history: Vec<String>,
}

/// Simulates the run with this seed over the store of this name; `None` if there is no such store.
pub fn simulate(seed: u64, store: &str, detail: Detail) -> Option<Run> {
    // The SDK draws its jitter from this thread's generator.
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().ok()?;
    runtime.block_on(async {
        let world = World::new(seed, store, detail)?;
        world.run().await;
        let tally = world.faults.tally().clone();
        Some(Run {
            seed,
            violation: world.verdict.first(),
            tally,
            batches: world.scenario.jobs.iter().map(|plan| plan.total).sum(),
            workers: world.scenario.workers,
            outcomes: outcomes(&world),
            steps: world.history.steps(),
            history: world.history.lines(),
        })
    })
}

fn outcomes(world: &World) -> BTreeMap<&'static str, u64> {
    let mut outcomes = world.ledger.effects();
    for end in world.ledger.ends() {
        *outcomes.entry(end.as_str()).or_default() += 1;
    }
    outcomes
}
