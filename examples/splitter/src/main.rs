//! `splitter`: the Lambda (deployed as `bootstrap`), and `splitter preview FILE`.

use std::{fs::File, io, path::PathBuf, process::ExitCode, sync::Arc};

use aws_config::BehaviorVersion;
use aws_lambda_events::event::s3::{S3Event, S3EventRecord};
use clap::{Parser, Subcommand};
use lambda_runtime::{LambdaEvent, service_fn};
use percent_encoding::percent_decode_str;
use splitter::{Split, Splitter, SqsQueue};
use status_core::{BoxError, JobId, Tracker};
use status_dynamo::DynamoStore;
use tokio_util::io::SyncIoBridge;

/// Cuts lead files into batches: without a command, as a Lambda for S3 events.
#[derive(Parser)]
#[command(name = "splitter", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the messages a file would be cut into, one JSON object a line; sends nothing.
    Preview {
        /// CSV or Excel.
        file: PathBuf,
        /// Leads in a batch.
        #[arg(long, env = "BATCH_SIZE", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        batch_size: u32,
    },
}

/// What the Lambda needs to know.
#[derive(Parser)]
#[command(name = "splitter", about = "Set these in the environment of the Lambda.")]
struct Environment {
    /// The DynamoDB table of the jobs.
    #[arg(long, env = "STATUS_TABLE")]
    status_table: String,
    /// The queue of batches.
    #[arg(long, env = "LEADS_QUEUE_URL")]
    leads_queue_url: String,
    /// Leads in a batch.
    #[arg(long, env = "BATCH_SIZE", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch_size: u32,
}

fn main() -> ExitCode {
    if let Some(Command::Preview { file, batch_size }) = Arguments::parse().command {
        return preview(&file, batch_size);
    }
    let environment = Environment::parse_from(["splitter"]);
    lambda_runtime::tracing::init_default_subscriber();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(BoxError::from).and_then(|runtime| runtime.block_on(serve(environment))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("splitter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn preview(path: &PathBuf, batch_size: u32) -> ExitCode {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let out = io::BufWriter::new(io::stdout().lock());
    let printed = File::open(path)
        .map_err(leads::read::ReadError::from)
        .and_then(|file| splitter::preview(file, &name, batch_size, out));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("splitter: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

async fn serve(environment: Environment) -> Result<(), BoxError> {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let store = DynamoStore::new(aws_sdk_dynamodb::Client::new(&config), environment.status_table);
    let queue = SqsQueue::new(aws_sdk_sqs::Client::new(&config), environment.leads_queue_url);
    let splitter = Splitter::new(Tracker::new(Arc::new(store)), Arc::new(queue), environment.batch_size);
    // Emulators and buckets with dots in their names have no host names of their own.
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    let files = aws_sdk_s3::Client::from_conf(s3);
    lambda_runtime::run(service_fn(async |event: LambdaEvent<S3Event>| {
        for record in &event.payload.records {
            split(&splitter, &files, record).await?;
        }
        Ok::<_, BoxError>(())
    }))
    .await
}

/// Splits one file. An error has the event delivered again.
async fn split(
    splitter: &Splitter,
    files: &aws_sdk_s3::Client,
    record: &S3EventRecord,
) -> Result<(), BoxError> {
    let bucket = record.s3.bucket.name.as_deref().unwrap_or_default();
    // Keys in events are encoded as in forms.
    let key = record.s3.object.key.as_deref().unwrap_or_default().replace('+', " ");
    let key = percent_decode_str(&key).decode_utf8()?;
    let Some((job, file_name)) = job_of(&key) else {
        tracing::warn!(%key, "an object that belongs to no job is left alone");
        return Ok(());
    };
    let object = match files.get_object().bucket(bucket).key(key.as_ref()).send().await {
        Ok(object) => object,
        Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => {
            tracing::warn!(%job, "the file is gone; there is nothing to split");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let file = SyncIoBridge::new(object.body.into_async_read());
    let split: Split = splitter.split(job, file_name, file).await?;
    tracing::info!(%job, ?split, "split");
    Ok(())
}

/// Keys are `uploads/{job_id}/{file_name}`.
fn job_of(key: &str) -> Option<(JobId, &str)> {
    let (job, file_name) = key.strip_prefix("uploads/")?.split_once('/')?;
    Some((job.parse().ok()?, file_name))
}
