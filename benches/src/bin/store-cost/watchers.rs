//! How long after a report a watcher is shown it.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;
use status_core::{JobId, Tracker};
use status_sqlite::SqliteStore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    Error, Result,
    figures::{Quantiles, WatcherFigures},
    job, report,
    subjects::Subject,
};

/// A watcher is shown at most one snapshot in 100 ms. The next report comes later than that, so that
/// it is the store that is measured.
const PAUSE: Duration = Duration::from_millis(120);

/// How many batches a watcher was shown to be completed, and when.
type Shown = UnboundedReceiver<(u64, Instant)>;

pub(crate) async fn measure(subject: &impl Subject, reports: u64) -> Result<Vec<WatcherFigures>> {
    let opened = subject.open("watchers").await?;
    let tracker = Tracker::new(opened.store.clone());
    let spread = subject.looks_every();
    let id = job(&tracker, reports + 1).await?;
    let here = delays(&tracker, id, here(&tracker, id).await?, reports, spread).await?;
    let mut figures = vec![WatcherFigures { process: "same", milliseconds: here }];
    if let Some(file) = &opened.file {
        let id = job(&tracker, reports + 1).await?;
        let (_process, shown) = elsewhere(file, id)?;
        let there = delays(&tracker, id, shown, reports, spread).await?;
        figures.push(WatcherFigures { process: "another", milliseconds: there });
    }
    Ok(figures)
}

/// From the answer to a report until it is shown.
async fn delays(
    tracker: &Tracker,
    id: JobId,
    mut shown: Shown,
    reports: u64,
    spread: Duration,
) -> Result<Quantiles> {
    // The watcher has begun.
    shown.recv().await.ok_or(Gone)?;
    let mut delays = Vec::new();
    for batch in 0..reports {
        // At any moment of the time between two looks of those who look at intervals.
        let moment = spread.mul_f64((batch as f64 * 0.618).fract());
        tokio::time::sleep(PAUSE + moment).await;
        tracker.report(id, vec![report(batch)?]).await?;
        let reported = Instant::now();
        let at = loop {
            let (completed, at) = shown.recv().await.ok_or(Gone)?;
            if completed > batch {
                break at;
            }
        };
        delays.push(at.saturating_duration_since(reported));
    }
    Quantiles::of(delays)
}

#[derive(Debug)]
struct Gone;

impl From<Gone> for Error {
    fn from(_: Gone) -> Self {
        "the watcher has ended before its job".into()
    }
}

/// A watcher in this process.
async fn here(tracker: &Tracker, id: JobId) -> Result<Shown> {
    let snapshots = tracker.watch(id).await?;
    let (show, shown) = unbounded_channel();
    tokio::spawn(async move {
        let mut snapshots = pin!(snapshots);
        while let Some(snapshot) = snapshots.next().await {
            if show.send((snapshot.progress.batches.completed, Instant::now())).is_err() {
                return;
            }
        }
    });
    Ok(shown)
}

/// A watcher in a process of its own: this program's [`print()`], until it is dropped.
fn elsewhere(file: &Path, id: JobId) -> Result<(Watching, Shown)> {
    let mut program = Command::new(std::env::current_exe()?);
    let watching = program.arg("watch").arg(file).arg(id.to_string()).stdout(Stdio::piped()).spawn();
    let mut watching = Watching(watching?);
    let printed = watching.0.stdout.take().ok_or("no pipe")?;
    let (show, shown) = unbounded_channel();
    thread::spawn(move || {
        for line in BufReader::new(printed).lines() {
            let at = Instant::now();
            let Some(completed) = line.ok().and_then(|line| line.parse().ok()) else { return };
            if show.send((completed, at)).is_err() {
                return;
            }
        }
    });
    Ok((watching, shown))
}

struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints how many batches of the job are completed, whenever it has changed.
pub(crate) async fn print(file: &Path, id: JobId) -> Result<()> {
    let tracker = Tracker::new(Arc::new(SqliteStore::open(file).await?));
    let mut snapshots = pin!(tracker.watch(id).await?);
    while let Some(snapshot) = snapshots.next().await {
        writeln!(io::stdout(), "{}", snapshot.progress.batches.completed)?;
    }
    Ok(())
}
