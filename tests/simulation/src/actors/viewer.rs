//! Those who poll a job: one person, served by one site and then by another.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use status_core::{BatchState, Consistency, Error, JobId, OwnerId, PageRequest, Snapshot, Timestamp};
use tokio::sync::Mutex;

use super::{Actor, owner::Owner};
use crate::{scenario::Plan, words::Words, world::Process};

/// What one person has been shown last.
#[derive(Debug)]
pub(super) struct View {
    name: String,
    last: Option<Snapshot>,
}

impl View {
    pub(super) fn new(name: String) -> Self {
        Self { name, last: None }
    }

    pub(super) fn last(&self) -> Option<&Snapshot> {
        self.last.as_ref()
    }

    /// Takes the next snapshot, which must not be an older one.
    pub(super) fn show(&mut self, process: &Process, snapshot: &Snapshot) {
        process.world.history.note(&process.name, || format!("{} sees {}", self.name, snapshot.words()));
        process.world.ledger.saw(snapshot);
        if let Some(last) = &self.last {
            process.world.ledger.check_order(&self.name, last, snapshot);
        }
        self.last = Some(snapshot.clone());
    }

    pub(super) fn is_at_the_end(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.status.is_terminal())
    }
}

/// Somebody who polls.
#[derive(Debug)]
pub(super) struct Poller {
    number: usize,
    owner: Arc<Owner>,
    state: Mutex<Habits>,
}

/// What somebody who polls remembers.
#[derive(Debug)]
struct Habits {
    view: View,
    polls: u64,
    /// What they looked at last besides the snapshot, and how many rows a page of it has.
    looked_at: Option<(usize, usize)>,
}

impl Poller {
    pub(super) fn new(number: usize, nth: usize, owner: Arc<Owner>) -> Self {
        let name = format!("poller {nth} of plan {number}");
        let habits = Habits { view: View::new(name), polls: 0, looked_at: None };
        Self { number, owner, state: Mutex::new(habits) }
    }
}

#[async_trait]
impl Actor for Poller {
    async fn live(&self, process: &Process) {
        let world = &process.world;
        let plan = &world.scenario.jobs[self.number];
        let Some(id) = self.owner.job(process).await else { return };
        while !world.is_over() {
            process.pause(Duration::from_millis(2_000)).await;
            let mut habits = self.state.lock().await;
            habits.polls += 1;
            // People look on for a while after the end.
            if habits.polls > 14 || (habits.view.is_at_the_end() && habits.polls > 8) {
                return;
            }
            poll(process, plan, id, &mut habits).await;
        }
    }
}

async fn poll(process: &Process, plan: &Plan, id: JobId, Habits { view, looked_at, .. }: &mut Habits) {
    let world = &process.world;
    let jobs = process.jobs_of(plan.owner);
    if world.random.per_mille(600) {
        let shown = match view.last().map(Snapshot::token) {
            Some(seen) => process.said(id, "snapshot_after", jobs.snapshot_after(id, &seen).await),
            None => process.said(id, "snapshot", jobs.snapshot(id).await),
        };
        if let Ok(snapshot) = shown {
            view.show(process, &snapshot);
        }
        return;
    }
    // Many look at the same thing again.
    let again = looked_at.take().filter(|_| world.random.per_mille(600));
    let what = again.unwrap_or_else(|| (world.random.below(11), world.random.one_of(&[2, 100])));
    *looked_at = Some(what);
    look_around(process, plan, id, what).await;
}

/// Asks for something else than the snapshot.
async fn look_around(process: &Process, plan: &Plan, id: JobId, (what, rows): (usize, usize)) {
    let (ledger, tracker) = (&process.world.ledger, &process.tracker);
    let (jobs, owner) = (process.jobs_of(plan.owner), owner_id(plan));
    let page = PageRequest::first(rows);
    match what {
        0 | 1 => {
            let floor = ledger.floor(id);
            let read = process.said(id, "snapshot_now", tracker.snapshot_now(id).await);
            if let Ok(snapshot) = read {
                ledger.saw(&snapshot);
                ledger.check_floor(floor, &snapshot);
            }
        }
        2 => {
            if let Ok(history) = process.said(id, "history", jobs.history(id).await) {
                ledger.saw_history(id, &history);
            }
        }
        3 => drop(process.said(id, "errors", jobs.errors(id, &page).await)),
        4 => {
            let which = [BatchState::Unsettled, BatchState::Completed, BatchState::Failed];
            let which = process.world.random.one_of(&which);
            drop(process.said(id, "batches", tracker.batches(id, which, 0, 50).await));
        }
        5 => {
            if let Ok(listed) = process.said(id, "list", jobs.list(None, &page).await) {
                listed.rows.iter().for_each(|snapshot| ledger.saw(snapshot));
                ledger.check_readable(&listed.damaged);
            }
        }
        6 => drop(process.said(id, "count_open", jobs.count_open(10).await)),
        7 => {
            let changed = process.store.changed_since(&owner, Timestamp::UNIX_EPOCH, 20).await;
            see_all(process, id, "changed_since", changed.map_err(Error::from));
        }
        8 => {
            let completed = process.store.last_completed(&owner, "import", 3).await;
            see_all(process, id, "last_completed", completed.map_err(Error::from));
        }
        9 => {
            let job = process.store.job(id, Consistency::Strong).await.map_err(Error::from);
            if let Ok(Some(job)) = process.said(id, "job", job) {
                ledger.saw_job(&job);
            }
        }
        _ => {
            if let Ok(open) = process.said(id, "list_open", tracker.list_open(&page).await) {
                open.rows.iter().for_each(|job| ledger.saw_job(job));
                ledger.check_readable(&open.damaged);
            }
        }
    }
}

fn see_all(process: &Process, id: JobId, what: &str, jobs: Result<Vec<status_core::Job>, Error>) {
    if let Ok(jobs) = process.said(id, what, jobs) {
        jobs.iter().for_each(|job| process.world.ledger.saw_job(job));
    }
}

fn owner_id(plan: &Plan) -> OwnerId {
    OwnerId::new(plan.owner).expect("a good owner")
}
