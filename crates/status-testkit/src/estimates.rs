//! The estimate of a store against that of the pure facts: the same to the millisecond, in whatever order the outcomes of one instant
//! arrived, whatever was delivered together or again later, and from one read.

use std::{sync::Arc, time::Duration};

use proptest::{
    prelude::{Strategy, prop},
    test_runner::{Config, TestCaseError, TestRunner},
};
use status_core::{
    BatchReport, Clock, Effect, Facts, JobState, Policy, Snapshot, StatusStore, Timestamp, clock,
};

use crate::kit::{Kit, batch, run};

/// Batches of the jobs: three parts of 256 of a store that has such.
const TOTAL: u64 = 600;

/// An outcome: batch, milliseconds it took, the instant at which it arrives, items.
type Outcome = (u64, u64, u64, u64);
/// The time between two instants.
const INSTANT: Duration = Duration::from_secs(25);

/// What happened.
#[derive(Clone, Debug)]
struct Arrivals {
    /// The outcomes in their order of arrival.
    outcomes: Vec<Outcome>,
    /// So many of one instant are delivered together.
    together: usize,
    /// Whether everything that has arrived so far is delivered again at each instant.
    again: bool,
    track_starts: bool,
}

/// Checks so many random jobs against the store that `open` opens.
///
/// # Panics
/// If one of them is estimated otherwise than its facts are.
pub fn check<S: StatusStore>(jobs: u32, open: impl AsyncFn(Arc<dyn Clock>) -> Arc<S>) {
    let config = Config { cases: jobs, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&arrivals(), |arrivals| {
        run(replay(&arrivals, async |clock| open(clock).await)).map_err(TestCaseError::fail)
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

fn arrivals() -> impl Strategy<Value = Arrivals> {
    let outcome = (1..100_000_u64, 1..12_u64, 0..50_u64);
    let outcomes = prop::collection::btree_map(0..TOTAL, outcome, 1..40);
    let outcomes = outcomes.prop_map(|by_batch| {
        by_batch.into_iter().map(|(batch, (took, at, items))| (batch, took, at, items)).collect::<Vec<_>>()
    });
    let arriving = outcomes.prop_shuffle().prop_map(|mut outcomes| {
        outcomes.sort_by_key(|(_, _, at, _)| *at);
        outcomes
    });
    (arriving, 1..6_usize, prop::bool::ANY, prop::bool::ANY).prop_map(
        |(outcomes, together, again, track_starts)| Arrivals { outcomes, together, again, track_starts },
    )
}

async fn replay<S: StatusStore>(
    arrivals: &Arrivals,
    open: impl AsyncFnOnce(Arc<dyn Clock>) -> Arc<S>,
) -> Result<(), String> {
    let kit = Kit::open(open).await;
    let mut policy = Policy::default();
    policy.track_starts = arrivals.track_starts;
    let id = kit.processing_with(policy, TOTAL).await;
    let start = kit.clock.now();
    let report = |(number, took, _, items): &Outcome| {
        BatchReport::completed(batch(*number), *items, 0).took(Duration::from_millis(*took))
    };
    let at = |instant: u64| clock::after(start, INSTANT * u32::try_from(instant).unwrap_or(u32::MAX));
    let deliver = async |outcomes: &[Outcome], instant| {
        let reports: Vec<_> = outcomes.iter().map(report).collect();
        kit.store.report(id, &reports, at(instant)).await.map_err(|error| error.to_string())
    };

    let mut expected = Facts::default();
    let mut so_far = 0;
    for of_one_instant in arrivals.outcomes.chunk_by(|one, other| one.2 == other.2) {
        let instant = of_one_instant[0].2;
        for together in of_one_instant.chunks(arrivals.together) {
            deliver(together, instant).await?;
        }
        for outcome in of_one_instant {
            expected.add(id, &report(outcome), Effect::Counted, 0, at(instant));
        }
        so_far += of_one_instant.len();
        if arrivals.again {
            deliver(&arrivals.outcomes[..so_far], instant + 1).await?;
        }
    }
    let state = kit.state(id).await;
    let last = expected.last_at.unwrap_or(start);
    for wait in [0, 45, 400] {
        let now: Timestamp = clock::after(last, Duration::from_secs(40 + wait));
        let pure = JobState::new(state.job.clone(), expected.clone());
        let (said, wanted) = (Snapshot::new(&state, "Leads", now), Snapshot::new(&pure, "Leads", now));
        if said.estimate != wanted.estimate || said.estimate.is_none() {
            return Err(format!("the store says {:?}\nits facts say {:?}", said.estimate, wanted.estimate));
        }
    }
    Ok(())
}
