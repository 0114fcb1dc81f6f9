//! The errors of items of one job at its end, and the counters of its items: those of the attempts
//! that counted.

use std::collections::BTreeMap;

use status_core::{BatchOutcome, Error, ItemError, PageRequest, Settled, Snapshot};

use super::books::Batches;
use crate::{
    invariant::Invariant,
    ledger::{Attempt, Book},
    scenario::Plan,
    world::Process,
};

/// Judges the errors of one job.
pub(super) async fn check(
    auditor: &Process,
    snapshot: &Snapshot,
    batches: &Batches,
    plan: &Plan,
    book: &Book,
) -> Result<(), Error> {
    let (world, id) = (&auditor.world, snapshot.id);
    let listed = list(auditor, snapshot).await?;
    let count = listed.values().map(Vec::len).sum::<usize>() as u64;
    let most = plan.policy.max_errors;
    world.verdict.check(count <= most, Invariant::ErrorsMatch, || {
        format!("{count} errors of {id} are listed, of at most {most}")
    });
    // Once the bound was reached, errors are missing even if others were taken back later.
    let of_all = book.attempts.values().flatten().map(|attempt| attempt.report.errors().len() as u64);
    let is_cut = of_all.sum::<u64>() >= most;
    let settled = batches.completed.iter().map(|batch| (*batch, Settled::Completed));
    let settled = settled.chain(batches.failed.iter().map(|batch| (*batch, Settled::Failed)));
    // The items in the results and those that are not, at least and at most.
    let (mut low, mut high) = ((0, 0), (0, 0));
    // The errors of the attempts that counted, at least.
    let mut reported = 0;
    for (batch, way) in settled {
        let attempts = book.attempts.get(&batch).map_or(&[][..], Vec::as_slice);
        let attempts = attempts.iter().filter(|attempt| attempt.report.settles_as() == way);
        reported += attempts.clone().map(|a| a.report.errors().len() as u64).min().unwrap_or(0);
        let errors = listed.get(&batch).map_or(&[][..], Vec::as_slice);
        let counted: Vec<_> = attempts.clone().filter(|a| may_list(a, errors, is_cut)).map(items).collect();
        world.verdict.check(!counted.is_empty(), Invariant::ErrorsMatch, || {
            let attempts: Vec<_> = attempts.collect();
            format!("batch {batch} of {id} lists {errors:?}, its attempts have {attempts:?}")
        });
        let bound = |of: fn(&(u64, u64)) -> u64| {
            let of_all = counted.iter().map(of);
            (of_all.clone().min().unwrap_or(0), of_all.max().unwrap_or(0))
        };
        let ((p, most_p), (f, most_f)) = (bound(|items| items.0), bound(|items| items.1));
        (low, high) = ((low.0 + p, low.1 + f), (high.0 + most_p, high.1 + most_f));
    }
    // What was kept and is not listed any more took room, too.
    let nothing_was_taken_back = book.attempts.range(plan.total..).next().is_none()
        && book.attempts.values().all(|attempts| {
            attempts.windows(2).all(|pair| pair[0].report.settles_as() == pair[1].report.settles_as())
        });
    let is_all_there = !nothing_was_taken_back || count >= most.min(reported);
    world.verdict.check(is_all_there, Invariant::ErrorsMatch, || {
        format!("{count} errors of {id} are listed, of {reported} that counted and {most} at most")
    });
    // Batches past the total may have counted before there was one.
    for attempt in book.attempts.range(plan.total..).flat_map(|(_, attempts)| attempts) {
        high = (high.0 + items(attempt).0, high.1 + items(attempt).1 + plan.items);
    }
    // Of workers that do not agree nobody can say who is right.
    if plan.trouble.is_wild {
        return Ok(());
    }
    let shown = (snapshot.progress.items.processed, snapshot.progress.items.failed);
    let fits = (low.0..=high.0).contains(&shown.0) && (low.1..=high.1).contains(&shown.1);
    world.verdict.check(fits, Invariant::CountersMatch, || {
        format!("{id} counts {shown:?} items; its attempts have from {low:?} to {high:?}")
    });
    Ok(())
}

/// All errors that are listed, by batch.
async fn list(auditor: &Process, snapshot: &Snapshot) -> Result<BTreeMap<u64, Vec<ItemError>>, Error> {
    let mut listed: BTreeMap<u64, Vec<ItemError>> = BTreeMap::new();
    let mut page = PageRequest::first(70);
    loop {
        let part = auditor.tracker.errors(snapshot.id, &page).await?;
        auditor.world.ledger.check_readable(&part.damaged);
        for error in part.rows {
            listed.entry(error.batch.get()).or_default().push(error);
        }
        match part.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(listed),
        }
    }
}

/// Whether these may be what is listed of this attempt: all of its errors, or some where the
/// policy's bound was reached.
fn may_list(attempt: &Attempt, listed: &[ItemError], is_cut: bool) -> bool {
    let errors = attempt.report.errors();
    if is_cut {
        return listed.iter().all(|error| errors.contains(error));
    }
    listed.len() == errors.len() && errors.iter().all(|error| listed.contains(error))
}

fn items(attempt: &Attempt) -> (u64, u64) {
    match attempt.report.outcome() {
        BatchOutcome::Completed { processed, failed } => (processed, failed),
        BatchOutcome::Failed { items } => (0, items),
    }
}
