//! Reports a second, beside bare operations a second.

use std::{sync::Arc, time::Duration};

use status_core::{BatchIndex, JobId, Tracker};

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
    let tracker = Tracker::new(opened.store.clone());
    // A job for each turn, made beforehand: what is written between two slices warms the disk for the
    // second one.
    let mut jobs = Vec::new();
    for _ in 0..=turns {
        jobs.push(job(&tracker, BatchIndex::MAX).await?);
    }
    let (mut bare, mut stores, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut reported = 0;
    let mut commits = None;
    for (turn, id) in jobs.into_iter().enumerate() {
        // Each goes first as often as the other.
        let (of_bare, of_store) = if turn % 2 == 0 {
            let of_bare = subject.bare(workers, slice).await?;
            (of_bare, reports(&tracker, id, workers, slice).await?)
        } else {
            let of_store = reports(&tracker, id, workers, slice).await?;
            (subject.bare(workers, slice).await?, of_store)
        };
        if turn == 0 {
            // Connections, threads and caches.
            commits = opened.commits();
            continue;
        }
        reported += of_store.done;
        bare.push(of_bare.per_second());
        stores.push(of_store.per_second());
        ratios.push(of_store.per_second() / of_bare.per_second());
    }
    let commits = opened.commits().zip(commits).map(|(after, before)| after - before);
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
    let reported = reports(&tracker, id, workers, slice).await?.done;
    let written = subject.bytes_written().zip(before).map(|(after, before)| after - before);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    Ok(written.map(|written| written as f64 / reported as f64))
}

/// Reports of one batch each, by workers that wait for each answer.
async fn reports(tracker: &Tracker, id: JobId, workers: u64, slice: Duration) -> Result<Slice> {
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
