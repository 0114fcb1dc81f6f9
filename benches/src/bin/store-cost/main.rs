//! Measures the shipped stores, each beside the bare operation that a counter would be on the same
//! engine: how many reports a second, what a report writes, how long a poll takes, and how soon
//! after a report a watcher hears of it.
//!
//! The store and the bare operation take turns in short slices, and each turn gives a ratio. What
//! else the machine does then slows both; the median of the ratios hardly moves.

mod drive;
mod figures;
mod polls;
mod rates;
mod subjects;
mod watchers;

use std::{error, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use status_core::{Actor, BatchIndex, BatchReport, JobId, NewJob, OwnerId, Totals, Tracker};

use crate::{
    figures::{Figures, StoreFigures},
    subjects::{Dynamodb, Memory, Sqlite, Subject},
};

type Error = Box<dyn error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// Measures what stores cost, each beside the bare operation of its engine.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    measured: Measured,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args)]
struct Measured {
    /// A store to measure; may be given several times.
    #[arg(long = "store", value_enum, default_values = ["memory", "sqlite", "dynamodb"])]
    stores: Vec<Store>,
    /// The DynamoDB server; without it, an embedded engine in this process.
    #[arg(long)]
    endpoint: Option<String>,
    /// Where SQLite's files are to be, in a folder of their own that is removed; without it, beside
    /// this program. A file system in memory says nothing about disks.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// How many workers report at once; may be given several times.
    #[arg(long, default_values_t = [1, 8, 32])]
    workers: Vec<u64>,
    /// How often the store and the bare operation have their turn.
    #[arg(long, default_value_t = 40)]
    turns: u64,
    /// How long a turn of either is.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// How many batches the job has that is polled; may be given several times.
    #[arg(long, default_values_t = [1_000, 100_000, 1_000_000])]
    batches: Vec<u64>,
    /// How many reports a watcher waits for.
    #[arg(long, default_value_t = 100)]
    reports: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Store {
    Memory,
    Sqlite,
    Dynamodb,
}

#[derive(Subcommand)]
enum Command {
    /// Prints how many batches of a job are completed, whenever it has changed: the watcher in
    /// another process.
    #[command(hide = true)]
    Watch {
        /// The SQLite file.
        file: PathBuf,
        /// The job.
        job: JobId,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { measured, command } = Arguments::parse();
    if let Some(Command::Watch { file, job }) = command {
        return watchers::print(&file, job).await;
    }
    let mut stores = Vec::new();
    for store in &measured.stores {
        stores.push(match store {
            Store::Memory => measure(&measured, &Memory::default()).await?,
            Store::Sqlite => {
                let program = std::env::current_exe()?;
                let beside = program.parent().ok_or("the program is in no folder; name one by --folder")?;
                let folder = measured.folder.as_deref().unwrap_or(beside);
                measure(&measured, &Sqlite::new(folder)?).await?
            }
            Store::Dynamodb => {
                let dynamodb = Dynamodb::new(measured.endpoint.as_deref()).await?;
                let figures = measure(&measured, &dynamodb).await;
                dynamodb.remove().await?;
                figures?
            }
        });
    }
    Figures { stores }.print(measured.json)
}

async fn measure(measured: &Measured, subject: &impl Subject) -> Result<StoreFigures> {
    Ok(StoreFigures {
        store: subject.name(),
        bare_operation: subject.bare_operation(),
        bytes_are: subject.bytes_are(),
        rates: rates::measure(subject, &measured.workers, measured.turns, measured.slice).await?,
        polls: polls::measure(subject, &measured.batches).await?,
        watchers: watchers::measure(subject, measured.reports).await?,
    })
}

/// A job that is being worked on.
async fn job(tracker: &Tracker, batches: u64) -> Result<JobId> {
    let id = tracker.owned_by(OwnerId::new("store-cost")?).create(NewJob::titled("Store cost")).await?.id;
    tracker.start(id, Some(Totals { batches, items: None }), &Actor::WORKER).await?;
    Ok(id)
}

/// What a worker says of a batch of ten items that took it a second or so.
fn report(index: u64) -> Result<BatchReport> {
    Ok(BatchReport::completed(BatchIndex::new(index)?, 10, 0).took(Duration::from_millis(900 + index % 300)))
}
