//! Reports a second, beside bare operations a second.

use std::{sync::Arc, time::Duration};

use status_core::{BatchIndex, JobId, StatusStore, Tracker};

use crate::{
    Result,
    drive::{Slice, drive},
    figures::{RateFigures, Spread},
    job, report,
    subjects::{Opened, Subject},
};

pub(crate) async fn measure(
    subject: &impl Subject,
    workers: &[u64],
    turns: u64,
    slice: Duration,
) -> Result<Vec<RateFigures>> {
    let opened = subject.open("rates").await?;
    let tracker = Tracker::new(opened.store.clone());
    while !opened.is_warm() {
        // Writes more pages than anything else.
        job(&tracker, 1).await?;
    }
    let mut figures = Vec::new();
    for workers in workers {
        figures.push(rate(subject, &opened, *workers, turns, slice).await?);
    }
    Ok(figures)
}

async fn rate(
    subject: &impl Subject,
    opened: &Opened,
    workers: u64,
    turns: u64,
    slice: Duration,
) -> Result<RateFigures> {
    // Connections, threads and caches.
    subject.bare(workers, slice / 4).await?;
    reports(&opened.store, workers, slice / 4).await?;
    let (mut bare, mut stores, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (commits, mut reported) = (opened.commits(), 0);
    for turn in 0..turns {
        // Each goes first as often as the other.
        let (of_bare, of_store) = if turn % 2 == 0 {
            let of_bare = subject.bare(workers, slice).await?;
            (of_bare, reports(&opened.store, workers, slice).await?)
        } else {
            let of_store = reports(&opened.store, workers, slice).await?;
            (subject.bare(workers, slice).await?, of_store)
        };
        reported += of_store.done;
        bare.push(of_bare.per_second());
        stores.push(of_store.per_second());
        ratios.push(of_store.per_second() / of_bare.per_second());
    }
    // Each turn has a job of its own: its creation and its start are two commits more.
    let commits = opened.commits().zip(commits).map(|(after, before)| after - before - 2 * turns);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    Ok(RateFigures {
        workers,
        reports_per_second: Spread::of(stores),
        bare_per_second: Spread::of(bare),
        ratio: Spread::of(ratios),
        reports_per_commit: commits.map(|commits| reported as f64 / commits as f64),
        bytes_per_batch: bytes(subject, opened, workers, slice).await?,
    })
}

/// What a report writes, one batch each.
async fn bytes(
    subject: &impl Subject,
    opened: &Opened,
    workers: u64,
    slice: Duration,
) -> Result<Option<f64>> {
    let tracker = Tracker::new(opened.metered.clone());
    let id = job(&tracker, BatchIndex::MAX).await?;
    let before = subject.bytes_written();
    let reported = reports_of(&tracker, id, workers, slice).await?.done;
    let written = subject.bytes_written().zip(before).map(|(after, before)| after - before);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    Ok(written.map(|written| written as f64 / reported as f64))
}

/// Reports of one batch each, by workers that wait for each answer.
async fn reports(store: &Arc<dyn StatusStore>, workers: u64, slice: Duration) -> Result<Slice> {
    let tracker = Tracker::new(store.clone());
    let id = job(&tracker, BatchIndex::MAX).await?;
    reports_of(&tracker, id, workers, slice).await
}

async fn reports_of(tracker: &Tracker, id: JobId, workers: u64, slice: Duration) -> Result<Slice> {
    let tracker = Arc::new(tracker.clone());
    drive(workers, slice, move |batch| {
        let tracker = tracker.clone();
        async move {
            tracker.report(id, vec![report(batch)?]).await?;
            Ok(())
        }
    })
    .await
}
