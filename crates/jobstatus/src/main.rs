//! `jobstatus`: the operator's command line over a DynamoDB table. See `--help`.

mod output;

use std::{error::Error, io::Write, process::ExitCode, sync::Arc, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::{Client, config::retry::RetryConfig};
use clap::{Args, Parser, Subcommand};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use status_core::{Actor, Cancelled, Health, JobId, OwnerId, PageRequest, Snapshot, Status, Tracker};
use status_dynamo::DynamoStore;

/// Looks at jobs in a DynamoDB table, and cancels and sweeps them.
#[derive(Parser)]
#[command(name = "jobstatus", version)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// The table.
    #[arg(long, env = "STATUS_TABLE", global = true, default_value = "job-status")]
    table: String,
    /// The server, if not AWS itself.
    #[arg(long, env = "AWS_ENDPOINT_URL_DYNAMODB", global = true)]
    endpoint_url: Option<String>,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the table, unless it is there.
    CreateTable,
    /// Lists the jobs of an owner, newest first.
    List {
        /// The owner.
        #[arg(long)]
        owner: String,
        /// Only jobs in this status.
        #[arg(long)]
        status: Option<Status>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Where the page before ended.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Shows a job.
    Show {
        /// The job.
        id: JobId,
    },
    /// Follows a job to its end, with a progress bar; with `--json`, a snapshot a line.
    Watch {
        /// The job.
        id: JobId,
    },
    /// Asks to cancel a job.
    Cancel {
        /// The job.
        id: JobId,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Lists every decision about a job.
    History {
        /// The job.
        id: JobId,
    },
    /// Lists what failed in a job.
    Errors {
        /// The job.
        id: JobId,
        /// At most so many.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        /// Where the page before ended.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Lists the batches that have not settled: the store knows exactly which.
    Missing {
        /// The job.
        id: JobId,
        /// From this batch on.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most so many.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Decides what nobody decided, confirms cancels nobody heard, fails what is past its deadline. For cron.
    Sweep,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            let mut message = format!("jobstatus: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                message += &format!(": {cause}");
                source = cause.source();
            }
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { global, command }: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let store = DynamoStore::new(client(global).await, &global.table);
    let tracker = Tracker::new(Arc::new(store.clone()));
    let print = output::Printer::new(global.json);
    match command {
        Command::CreateTable => {
            store.create_table().await?;
            print.value(&json!({ "table": global.table }), || {
                format!("The table {} is ready.", global.table)
            })?;
        }
        Command::List { owner, status, limit, cursor } => {
            let jobs = tracker.owned_by(OwnerId::new(owner.as_str())?);
            let page =
                jobs.list(*status, &PageRequest { limit: (*limit).max(1), cursor: cursor.clone() }).await?;
            print.jobs(&page)?;
        }
        Command::Show { id } => print.job(&tracker.snapshot_now(*id).await?)?,
        Command::Watch { id } => return watch(&tracker, *id, &print).await,
        Command::Cancel { id, reason } => {
            let (snapshot, said) = match tracker.cancel(*id, &Actor::OPERATOR, reason.clone()).await? {
                Cancelled::Now(snapshot) => (snapshot, "is cancelled"),
                Cancelled::Requested(snapshot) => {
                    (snapshot, "will be cancelled as soon as a worker or the sweeper sees it")
                }
            };
            print.value(&snapshot, || format!("Job {id} {said}."))?;
        }
        Command::History { id } => print.history(&tracker.job(*id).await?.history)?,
        Command::Errors { id, limit, cursor } => {
            tracker.job(*id).await?;
            let page = PageRequest { limit: (*limit).max(1), cursor: cursor.clone() };
            print.errors(&tracker.errors(*id, &page).await?)?;
        }
        Command::Missing { id, from, limit } => {
            print.missing(&tracker.unsettled(*id, *from, *limit).await?)?;
        }
        Command::Sweep => {
            let swept = tracker.sweep().await?;
            print.value(&swept, || {
                let status_core::Swept { looked_at, completed, failed, cancelled, errors, .. } = swept;
                format!("Looked at {looked_at} jobs: {completed} completed, {failed} failed, {cancelled} cancelled, {errors} errors.")
            })?;
            if swept.errors > 0 {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn client(global: &Global) -> Client {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(6));
    if let Some(endpoint) = &global.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    Client::new(&loader.load().await)
}

/// Follows a job to its end; fails unless it completed.
async fn watch(tracker: &Tracker, id: JobId, print: &output::Printer) -> Result<ExitCode, Box<dyn Error>> {
    let mut snapshots = std::pin::pin!(tracker.watch(id).await?);
    let bar = if print.is_json() { ProgressBar::hidden() } else { ProgressBar::new(0) };
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut last = None;
    while let Some(snapshot) = snapshots.next().await {
        if print.is_json() {
            print.line(&*snapshot)?;
        } else {
            show(&bar, &snapshot)?;
        }
        last = Some(snapshot);
    }
    bar.finish_and_clear();
    let completed = last.as_ref().is_some_and(|snapshot| snapshot.status == Status::Completed);
    if let Some(snapshot) = last.filter(|_| !print.is_json()) {
        print.job(&snapshot)?;
    }
    Ok(if completed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(bar: &ProgressBar, snapshot: &Snapshot) -> Result<(), Box<dyn Error>> {
    let progress = &snapshot.progress;
    let template = match progress.batches.total {
        Some(total) => {
            bar.set_length(total);
            "{prefix:.bold} {wide_bar:.cyan/blue} {pos}/{len} batches {msg}"
        }
        None => "{spinner} {prefix:.bold} {pos} batches {msg}",
    };
    bar.set_style(ProgressStyle::with_template(template)?);
    bar.set_prefix(if snapshot.cancel_requested.is_some() {
        "Cancelling…".into()
    } else {
        snapshot.label.clone()
    });
    bar.set_position(progress.batches.completed + progress.batches.failed);
    let mut message = vec![format!("{} items", progress.items.processed)];
    if progress.items.failed > 0 {
        message.push(format!("{} failed", progress.items.failed));
    }
    if snapshot.health == Health::Stalled {
        message.push("stalled".into());
    } else if let Some(estimate) = &snapshot.estimate {
        message.push(estimate.text.clone());
    }
    bar.set_message(message.join(", "));
    Ok(())
}
