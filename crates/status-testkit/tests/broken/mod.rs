//! Faults of backends: each breaks one rule of a sound store, by a layer around it, and names the cases
//! that find it.

mod beginning;
mod counting;
mod creating;
mod deciding;
mod errors;
mod forgetting;
mod handles;
mod listing;
mod sweeping;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use status_core::{
    BatchIndex, Consistency, ItemError, Job, JobId, JobState, OwnerId, StatusStore, StoreError, Timestamp,
};
use status_testkit::layer::{Answer, Call, Layer};

/// What a broken store answers.
type Answered = Result<Answer, StoreError>;

/// A fault.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// What the store does wrong.
    pub(crate) what: &'static str,
    /// The cases that find it.
    pub(crate) found_by: &'static [&'static str],
    call: for<'a> fn(Scene<'a>, Call<'a>) -> BoxFuture<'a, Answered>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

/// What a fault has at hand.
#[derive(Clone, Copy)]
struct Scene<'a> {
    /// The sound store.
    store: &'a dyn StatusStore,
    notes: &'a Mutex<Notes>,
    /// Which handle on the data this is, from 0.
    handle: usize,
}

/// What a fault remembers of earlier calls.
#[derive(Debug, Default)]
struct Notes {
    calls: u64,
    busy: u64,
    jobs: BTreeMap<JobId, Job>,
    states: BTreeMap<JobId, JobState>,
    keys: BTreeMap<(OwnerId, String), Job>,
    batches: BTreeSet<(JobId, BatchIndex)>,
    starts: BTreeMap<(JobId, BatchIndex), Timestamp>,
    times: BTreeMap<JobId, Timestamp>,
    errors: BTreeMap<(JobId, BatchIndex), Vec<ItemError>>,
    counts: BTreeMap<JobId, u64>,
}

impl<'a> Scene<'a> {
    fn notes(&self) -> MutexGuard<'a, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job as it is, whatever the fault shows.
    async fn job(&self, id: JobId) -> Option<Job> {
        self.store.job(id, Consistency::Strong).await.expect("a sound store answers")
    }
}

/// Declares a fault: what it does, what finds it, and how it answers a call.
macro_rules! fault {
    ($what:literal, [$($case:ident),+ $(,)?], |$scene:ident, $call:ident| $answer:expr) => {
        $crate::broken::Fault {
            what: $what,
            found_by: &[$(stringify!($case)),+],
            call: |$scene, $call| Box::pin(async move { $answer }),
        }
    };
}
use fault;

/// Every fault.
pub(crate) fn all() -> Vec<Fault> {
    [
        creating::FAULTS,
        deciding::FAULTS,
        beginning::FAULTS,
        counting::FAULTS,
        errors::FAULTS,
        sweeping::FAULTS,
        listing::FAULTS,
        forgetting::FAULTS,
        handles::FAULTS,
    ]
    .concat()
}

/// A layer that breaks the store under it by a fault; without one it only makes callers take turns.
#[derive(Debug)]
pub(crate) struct Broken {
    fault: Option<Fault>,
    notes: Mutex<Notes>,
    handle: usize,
}

impl Broken {
    pub(crate) fn new(fault: Option<Fault>, handle: usize) -> Self {
        Self { fault, notes: Mutex::default(), handle }
    }
}

#[async_trait]
impl Layer for Broken {
    async fn call(&self, store: &dyn StatusStore, call: Call<'_>) -> Answered {
        let scene = Scene { store, notes: &self.notes, handle: self.handle };
        scene.notes().calls += 1;
        assert!(scene.notes().calls < 100_000, "the store is called again and again");
        // As over a network, others come in between.
        tokio::task::yield_now().await;
        match &self.fault {
            Some(fault) => (fault.call)(scene, call).await,
            None => call.on(store).await,
        }
    }
}

/// The answer with what it says of a job's state changed.
fn with_state(answer: Answered, change: impl FnOnce(&mut JobState)) -> Answered {
    answer.map(|mut answer| {
        if let Answer::Read(Some(state)) = &mut answer {
            change(state);
        }
        answer
    })
}

/// The answer with what it says of the job itself changed, by whatever method.
fn with_job(answer: Answered, change: impl FnOnce(&mut Job)) -> Answered {
    answer.map(|mut answer| {
        match &mut answer {
            Answer::Read(Some(state)) => change(&mut state.job),
            Answer::Job(Some(job)) => change(job),
            _ => {}
        }
        answer
    })
}
