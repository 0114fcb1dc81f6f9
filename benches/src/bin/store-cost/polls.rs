//! How long a poll takes, by the length of the job.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use status_core::Tracker;

use crate::{
    Result,
    figures::{PollFigures, Quantiles},
    job, report,
    subjects::Subject,
};

/// What is recorded together while the job is filled.
const TOGETHER: u64 = 2_560;
/// The job is polled so often, and less often where that would take longer than [`AT_MOST`].
const POLLS: usize = 1_000;
const FEWEST: usize = 100;
const AT_MOST: Duration = Duration::from_secs(2);

pub(crate) async fn measure(subject: &impl Subject, batches: &[u64]) -> Result<Vec<PollFigures>> {
    let mut figures = Vec::new();
    for batches in batches {
        figures.push(poll(subject, *batches).await?);
    }
    Ok(figures)
}

/// Polls a job of which all batches but one are settled, so that nobody decides that it is over.
async fn poll(subject: &impl Subject, batches: u64) -> Result<PollFigures> {
    let opened = subject.open(&format!("polls-{batches}")).await?;
    let tracker = Tracker::new(opened.store.clone());
    let id = job(&tracker, batches).await?;
    let settled = batches.saturating_sub(1);
    let parts = (0..settled).step_by(usize::try_from(TOGETHER)?);
    let fill = parts.map(async |first| -> Result<()> {
        let part = (first..settled.min(first + TOGETHER)).map(report).collect::<Result<_>>()?;
        tracker.report(id, part).await?;
        Ok(())
    });
    stream::iter(fill).buffer_unordered(8).try_collect::<()>().await?;
    let mut took = Vec::new();
    let begun = Instant::now();
    while took.len() < POLLS && (took.len() < FEWEST || begun.elapsed() < AT_MOST) {
        let polled = Instant::now();
        let snapshot = tracker.snapshot(id).await?;
        took.push(polled.elapsed());
        if snapshot.progress.batches.completed != settled {
            return Err(format!("{:?} of {settled} batches are settled", snapshot.progress.batches).into());
        }
    }
    let file = opened.file.clone();
    // The file is complete once it is closed.
    drop((opened, tracker));
    Ok(PollFigures {
        batches,
        milliseconds: Quantiles::of(took)?,
        file_bytes: file.map(fs::metadata).transpose()?.map(|file| file.len()),
    })
}
