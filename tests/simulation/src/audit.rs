//! The look back, when all is quiet: is everything decided, and is what is stored what was
//! reported?

mod books;
mod errors;

use std::time::Duration;

use status_core::{Clock, Consistency, Error, JobId, OwnerId, PageRequest, StatusStore, Timestamp, clock};
use tokio::time::sleep;

use crate::{backend::RawItem, dynamo, invariant::Invariant, ledger::Book, words::Words, world::Process};

/// By then the last request that is late has come.
const LATE: Duration = Duration::from_secs(30);
/// By then a job is due again, and no sweeper has it to itself.
const AGAIN: Duration = Duration::from_secs(200);
/// By then every deadline is over.
const LONG_AFTER: Duration = Duration::from_secs(31 * 24 * 3_600);
/// By then everything has expired.
const VERY_LONG_AFTER: Duration = Duration::from_secs(200 * 24 * 3_600);

/// By then everything has expired that was left behind, whatever rules its job had.
const LONGEST_OF_ALL: Duration = Duration::from_secs(500 * 24 * 3_600);

/// Judges a run that has come to its end.
pub async fn audit(auditor: &Process) {
    if let Err(error) = look_back(auditor).await {
        auditor.world.verdict.violated(Invariant::WorksWhenQuiet, &format!("{error:?}"));
    }
}

async fn look_back(auditor: &Process) -> Result<(), Error> {
    let world = &auditor.world;
    let over = world.time.now();
    sleep(LATE).await;
    sweep(auditor, 5).await?;
    let there = || world.ledger.known().into_iter().filter(|(id, _)| !world.ledger.is_gone(*id));
    for (id, _) in there() {
        check_decided(auditor, id).await?;
    }
    sleep(LONG_AFTER).await;
    let jobs: Vec<_> = there().collect();
    world.backend.expire();
    sweep(auditor, 3).await?;
    for (id, _) in &jobs {
        let book = world.ledger.of(*id, |book| book.clone());
        books::check(auditor, *id, &book, over).await?;
    }
    check_lists(auditor, &jobs.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await?;
    check_expiry(auditor, &jobs);
    sleep(VERY_LONG_AFTER).await;
    sweep(auditor, 1).await?;
    for (id, _) in &jobs {
        let there = auditor.store.read(*id, Consistency::Strong).await?;
        world.verdict.check(there.is_none(), Invariant::EverythingDies, || format!("{id} is still there"));
    }
    Ok(())
}

async fn sweep(auditor: &Process, times: u32) -> Result<(), Error> {
    for _ in 0..times {
        sleep(AGAIN).await;
        let swept = auditor.tracker.sweep().await?;
        auditor.world.history.note(&auditor.name, || format!("sweep: {}", swept.words()));
        let strangers =
            if auditor.world.scenario.has_strangers { auditor.world.backend.strangers_due() } else { 0 };
        let is_right = swept.errors == strangers;
        auditor.world.verdict.check(is_right, Invariant::WorksWhenQuiet, || format!("{swept:?}"));
    }
    Ok(())
}

/// What happened has decided the job, if it decides it.
async fn check_decided(auditor: &Process, id: JobId) -> Result<(), Error> {
    let Some(state) = auditor.store.read(id, Consistency::Strong).await? else {
        return Err(Error::NotFound(id));
    };
    let is_decided = !state.job.is_decided_by(&state.facts.counts);
    auditor.world.verdict.check(is_decided, Invariant::NothingUndecided, || format!("{state:?}"));
    Ok(())
}

/// Every raw item has an expiry: those of a job that has ended by its rules, others by the longest
/// that any job can have.
fn check_expiry(auditor: &Process, jobs: &[(JobId, Book)]) {
    let world = &auditor.world;
    let now = world.time.now();
    let ids: Vec<_> = jobs.iter().map(|(id, _)| id.to_string()).collect();
    let of_jobs = |item: &RawItem| ids.contains(&item.partition);
    let stays = |item: &&RawItem| {
        if item.words.contains(dynamo::STRANGER) {
            return false;
        }
        let at_most = if of_jobs(item) { VERY_LONG_AFTER } else { LONGEST_OF_ALL };
        item.expires.is_none_or(|at| at > clock::after(now, at_most).as_second())
    };
    let items = world.backend.items();
    let left: Vec<_> = items.iter().filter(stays).map(|item| item.words.as_str()).collect();
    world.verdict.check(left.is_empty(), Invariant::EverythingDies, || left.join("\n    "));
}

/// All jobs are listed once, none is open, none is due.
async fn check_lists(auditor: &Process, jobs: &[JobId]) -> Result<(), Error> {
    let world = &auditor.world;
    let mut listed = Vec::new();
    for name in ["alice", "bob"] {
        let mut page = PageRequest::first(2);
        let mut all = Vec::new();
        loop {
            let part = auditor.jobs_of(name).list(None, &page).await?;
            world.ledger.check_readable(&part.damaged);
            all.extend(part.rows);
            match part.next {
                Some(next) => page.cursor = Some(next),
                None => break,
            }
        }
        listed.extend(all.iter().map(|snapshot| snapshot.id));
        let owner = OwnerId::new(name)?;
        let open = auditor.store.count_open(&owner, 10).await?;
        world.verdict.check(open == 0, Invariant::NothingUndecided, || {
            format!("{open} jobs of {name} are open: {all:?}")
        });
    }
    for id in jobs {
        let times = listed.iter().filter(|listed| *listed == id).count();
        world.verdict.check(times == 1, Invariant::NothingLost, || format!("{id} is listed {times} times"));
    }
    let due = auditor.store.due(Timestamp::MAX, &PageRequest::first(100)).await?;
    world.ledger.check_readable(&due.damaged);
    world
        .verdict
        .check(due.rows.is_empty(), Invariant::NothingUndecided, || format!("still due: {:?}", due.rows));
    Ok(())
}
