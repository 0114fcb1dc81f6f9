//! `jobstatus`: the operator's command line over a DynamoDB table. See `--help`.

mod list;
mod output;

use std::{error::Error, io::Write, process::ExitCode, sync::Arc, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::{Client, config::retry::RetryConfig};
use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use status_core::{
    Actor, BatchState, Cancelled, Health, JobId, OwnerId, PageRequest, Snapshot, Status, Tracker,
};
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
    /// The DynamoDB table of the jobs.
    #[arg(long, env = "STATUS_TABLE", global = true, default_value = "job-status")]
    table: String,
    /// The address of the DynamoDB server, if it is not AWS.
    #[arg(long, env = "AWS_ENDPOINT_URL_DYNAMODB", global = true)]
    endpoint_url: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the table, unless it exists.
    CreateTable,
    /// Lists the jobs of an owner, newest first; without --owner, the jobs of all owners that are
    /// not over.
    List {
        /// The owner of the jobs.
        #[arg(long)]
        owner: Option<String>,
        /// Only jobs with this status. A page may then hold fewer jobs than --limit, even none.
        #[arg(long)]
        status: Option<Status>,
        /// The most jobs on a page.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// The cursor that the previous page ended with.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Shows a job.
    Show {
        /// The id of the job.
        id: JobId,
    },
    /// Follows a job to its end with a progress bar; with --json, prints one snapshot a line.
    Watch {
        /// The id of the job.
        id: JobId,
    },
    /// Asks to cancel a job.
    Cancel {
        /// The id of the job.
        id: JobId,
        /// The reason, for the history of the job.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Lists every decision about a job, oldest first.
    History {
        /// The id of the job.
        id: JobId,
    },
    /// Lists the items that failed, and why.
    Errors {
        /// The id of the job.
        id: JobId,
        /// The most errors on a page.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        /// The cursor that the previous page ended with.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Lists the batches that neither completed nor failed: the same as `batches --state unsettled`.
    Missing {
        /// The id of the job.
        id: JobId,
        #[command(flatten)]
        range: Range,
    },
    /// Lists the batches that are in one state.
    Batches {
        /// The id of the job.
        id: JobId,
        /// The state of the batches.
        #[arg(long, value_enum)]
        state: State,
        #[command(flatten)]
        range: Range,
    },
    /// Completes jobs whose last worker crashed, confirms unanswered cancels and fails jobs past
    /// their deadline. Run it periodically.
    Sweep,
}

#[derive(Args)]
struct Range {
    /// The first batch to list.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The most batches to list.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// The state of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum State {
    /// Neither completed nor failed.
    Unsettled,
    /// Completed.
    Completed,
    /// Failed, and not completed since.
    Failed,
}

impl From<State> for BatchState {
    fn from(state: State) -> Self {
        match state {
            State::Unsettled => Self::Unsettled,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
        }
    }
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
            let page = PageRequest { limit: (*limit).max(1), cursor: cursor.clone() };
            let listed = match owner {
                Some(owner) => {
                    list::of_owner(&tracker, &OwnerId::new(owner.as_str())?, *status, &page).await?
                }
                None => list::open(&tracker, *status, &page).await?,
            };
            print.jobs(&listed)?;
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
        Command::Missing { id, range: Range { from, limit } } => {
            let missing = tracker.batches(*id, BatchState::Unsettled, *from, *limit).await?;
            print.batches("missing", "unsettled", &missing)?;
        }
        Command::Batches { id, state, range: Range { from, limit } } => {
            let batches = tracker.batches(*id, (*state).into(), *from, *limit).await?;
            print.batches("batches", &format!("{state:?}").to_lowercase(), &batches)?;
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
