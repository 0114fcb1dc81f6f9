//! Measures the store on this machine's disk, beside one bare statement of the same durability:
//!
//!     cargo run --release -p status-sqlite --example rates [FOLDER]

use std::{
    error::Error,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use rusqlite::Connection;
use status_core::{
    Actor, BatchIndex, BatchReport, Consistency, JobId, NewJob, OwnerId, StatusStore, Totals, Tracker,
};
use status_sqlite::SqliteStore;

/// How long a rate is measured at a time; the bare statement and the store take turns.
const SPAN: Duration = Duration::from_millis(500);
/// So many commits of at least two pages make a log of a thousand, after which it begins again.
const WARM: u64 = 550;
/// How often each has its turn.
const TURNS: u32 = 6;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let bare = Connection::open(folder.path().join("bare.db"))?;
    bare.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
         CREATE TABLE counters (id INTEGER PRIMARY KEY, n)",
    )?;
    upserts(&bare)?;
    bare.execute_batch("PRAGMA synchronous = FULL")?;
    for workers in [1, 8, 32] {
        rate(&folder.path().join(format!("rate-{workers}.db")), workers, &bare).await?;
    }
    for batches in [1_000, 100_000, 1_000_000] {
        poll(&folder.path().join(format!("poll-{batches}.db")), batches).await?;
    }
    watch(&folder.path().join("watch.db")).await
}

/// Upserts of a counter's row, each in a transaction of its own: how many in one turn.
fn upserts(connection: &Connection) -> rusqlite::Result<usize> {
    let upsert = "INSERT INTO counters VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1";
    let (begun, mut done) = (Instant::now(), 0);
    while begun.elapsed() < SPAN {
        done += connection.prepare_cached(upsert)?.execute([])?;
    }
    Ok(done)
}

/// Reports of so many workers, each of which waits for its answer: how many in one turn, from batch
/// `first` on.
async fn reports(tracker: &Tracker, id: JobId, workers: u64, first: u64) -> Result<u64, Box<dyn Error>> {
    let begun = Instant::now();
    let done = try_join_all((0..workers).map(|worker| {
        let tracker = tracker.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while begun.elapsed() < SPAN {
                tracker.report(id, vec![report(first + done * workers + worker)?]).await?;
                done += 1;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(done)
        })
    }))
    .await?;
    done.into_iter().sum::<Result<u64, _>>().map_err(|error| error.to_string().into())
}

/// Reports a second beside bare upserts a second, in turns.
async fn rate(path: &Path, workers: u64, bare: &Connection) -> Result<(), Box<dyn Error>> {
    let store = SqliteStore::open(path).await?;
    let tracker = Tracker::new(Arc::new(store.clone()));
    let id = job(&tracker, BatchIndex::MAX).await?;
    // A log that still grows is slower than one that is written again from its beginning: first let
    // both logs be as long as they get.
    let mut warm = 9_000_000;
    while store.commits() < WARM {
        warm += reports(&tracker, id, 32, warm).await?;
    }
    let (commits, mut upserted, mut reported, mut written) = (store.commits(), 0, 0, 0);
    for turn in 0..TURNS {
        upserted += upserts(bare)?;
        let before = bytes_written();
        // No batch twice: each turn has a million of its own.
        reported += reports(&tracker, id, workers, u64::from(turn) * 1_000_000).await?;
        written += bytes_written() - before;
    }
    let seconds = (SPAN * TURNS).as_secs_f64();
    let commits = store.commits() - commits;
    println!(
        "{workers:>2} workers: {:>6.0} reports/s beside {:>4.0} bare upserts/s = {:.2}; \
         {:.1} reports a commit, {} bytes written a report",
        reported as f64 / seconds,
        upserted as f64 / seconds,
        reported as f64 / upserted as f64,
        reported as f64 / commits as f64,
        written / reported.max(1),
    );
    Ok(())
}

/// How long reading a job takes, and the file's size.
async fn poll(path: &Path, batches: u64) -> Result<(), Box<dyn Error>> {
    let store = SqliteStore::open(path).await?;
    let tracker = Tracker::new(Arc::new(store.clone()));
    let id = job(&tracker, batches).await?;
    let all: Vec<_> = (0..batches - 1).map(report).collect::<Result<_, _>>()?;
    for part in all.chunks(2_560) {
        tracker.report(id, part.to_vec()).await?;
    }
    let (begun, polls) = (Instant::now(), 2_000);
    for _ in 0..polls {
        store.read(id, Consistency::Eventual).await?;
    }
    let took = begun.elapsed() / polls;
    drop((store, tracker));
    let size = fs::metadata(path)?.len();
    println!(
        "poll of {batches:>9} batches     {took:>8.1?}; the file has {size} bytes, {:.2} a batch",
        size as f64 / batches as f64
    );
    Ok(())
}

/// How long after a report those who wait for it are woken.
async fn watch(path: &Path) -> Result<(), Box<dyn Error>> {
    let (store, other) = (SqliteStore::open(path).await?, SqliteStore::open(path).await?);
    let tracker = Tracker::new(Arc::new(store.clone()));
    let id = job(&tracker, 1_000).await?;
    for (name, watched) in [("of this handle", &store), ("of another one", &other)] {
        let mut delays = Vec::new();
        for _ in 0..40 {
            let state = watched.read(id, Consistency::Strong).await?.ok_or("no job")?;
            let version = state.version();
            let waiting = watched.clone();
            let waiting = tokio::spawn(async move {
                waiting.changed(id, version, Duration::from_secs(10)).await;
                Instant::now()
            });
            tokio::time::sleep(Duration::from_millis(60)).await;
            tracker.report(id, vec![report(state.facts.counts.completed)?]).await?;
            let reported = Instant::now();
            delays.push(waiting.await?.saturating_duration_since(reported));
        }
        delays.sort_unstable();
        println!("watcher {name}: median {:.1?}, longest {:.1?} after the report", delays[20], delays[39]);
    }
    Ok(())
}

async fn job(tracker: &Tracker, batches: u64) -> Result<JobId, Box<dyn Error>> {
    let id = tracker.owned_by(OwnerId::new("rates")?).create(NewJob::titled("Rates")).await?.id;
    tracker.start(id, Some(Totals { batches, items: None }), &Actor::WORKER).await?;
    Ok(id)
}

fn report(index: u64) -> Result<BatchReport, status_core::TooManyBatches> {
    Ok(BatchReport::completed(BatchIndex::new(index)?, 10, 0).took(Duration::from_millis(900 + index % 300)))
}

/// What this process has sent to the disk; zero where the system does not say.
fn bytes_written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
