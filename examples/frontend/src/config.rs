//! The command line and the environment: each flag is also `STATUS_` and its name in capitals.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use axum::http::HeaderName;
use clap::Parser;
use leads::NormaliserKind;
use status_core::Policy;
use status_http::Limits;

/// Serves the CRM import: upload a list of leads, watch it being processed, see the leads.
#[derive(Clone, Debug, Parser)]
#[command(name = "frontend", version)]
#[non_exhaustive]
pub struct Config {
    /// Address to listen on.
    #[arg(long, env = "STATUS_LISTEN", default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,
    /// Where the status of jobs and the leads are kept.
    #[arg(long, env = "STATUS_STORE", default_value = "memory")]
    pub store: StoreKind,
    /// The DynamoDB table of the jobs; the leads are in one with `-leads` after its name.
    #[arg(long, env = "STATUS_TABLE", required_if_eq("store", "dynamodb"))]
    pub table: Option<String>,
    /// Where browsers send files: `memory` (this process), or `s3:BUCKET`, from where the splitter Lambda takes them.
    #[arg(long, env = "STATUS_UPLOADS", default_value = "memory")]
    pub uploads: UploadsKind,
    /// Where batches wait: `memory` (this process works on them), or `sqs:URL`: this process only serves, the Lambdas work.
    #[arg(long, env = "STATUS_QUEUE", default_value = "memory")]
    pub queue: QueueKind,
    /// Keeps everything in this folder, for one process at a time; after a crash, a restart finishes what was unfinished.
    #[arg(long, env = "STATUS_DATA")]
    pub data: Option<PathBuf>,
    /// What turns rows into leads; if not given, DeepSeek where there is a `DEEPSEEK_API_KEY`, else the rules.
    #[arg(long, env = "STATUS_NORMALISER", value_enum)]
    pub normaliser: Option<NormaliserKind>,
    /// Leads in a batch.
    #[arg(long, env = "STATUS_BATCH_SIZE", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch_size: u32,
    /// Batches worked on at once.
    #[arg(long, env = "STATUS_WORKERS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub workers: u32,
    /// Makes each batch take that long, to watch it work: 300ms, 2s.
    #[arg(long, env = "STATUS_BATCH_DELAY", default_value = "0s", value_parser = humantime::parse_duration)]
    pub batch_delay: Duration,
    /// The largest file that is accepted.
    #[arg(long, env = "STATUS_MAX_UPLOAD_BYTES", default_value_t = 100 << 20)]
    pub max_upload_bytes: u64,
    /// The most bytes of all files that are not through.
    #[arg(long, env = "STATUS_MAX_STORED_BYTES", default_value_t = 10 << 30)]
    pub max_stored_bytes: u64,
    /// A job that nothing is heard of for longer is shown as stalled.
    #[arg(long, env = "STATUS_STALL_AFTER", default_value = "2m", value_parser = humantime::parse_duration)]
    pub stall_after: Duration,
    /// How long a job is kept after it has ended; at least 1h, at most 3653days.
    #[arg(long, env = "STATUS_RETENTION", default_value = "90days", value_parser = retention)]
    pub retention: Duration,
    /// A file of keys by which visitors' cookies are signed: one a line, of at least 32 characters, the newest first; older
    /// ones are still believed. Without it visitors are forgotten when this process ends, unless there is --data.
    #[arg(long, env = "STATUS_COOKIE_KEY_FILE")]
    pub cookie_key_file: Option<PathBuf>,
    /// The most jobs of one visitor that are not over.
    #[arg(long, env = "STATUS_MAX_OPEN_JOBS", default_value_t = Limits::default().open_jobs)]
    pub max_open_jobs: usize,
    /// The most streams of one visitor.
    #[arg(long, env = "STATUS_MAX_STREAMS", default_value_t = Limits::default().streams)]
    pub max_streams: usize,
    /// The header by which a proxy in front says where a request comes from, such as x-forwarded-for; only if every request
    /// comes through it.
    #[arg(long, env = "STATUS_PEER_HEADER")]
    pub peer_header: Option<HeaderName>,
    /// The program that reads files, each in a process of its own that a hostile file can end; it is called with
    /// `read-file`. If there is none, they are read by this process.
    #[arg(skip)]
    pub reader: Option<PathBuf>,
}

impl Config {
    /// Whether nothing is kept anywhere else than in this process, or in its folder.
    pub(crate) fn keeps_all_here(&self) -> bool {
        (self.store, &self.uploads, &self.queue)
            == (StoreKind::Memory, &UploadsKind::Memory, &QueueKind::Memory)
            && self.table.is_none()
    }
}

fn retention(text: &str) -> Result<Duration, String> {
    let retention = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let (least, most) = (Policy::MIN_RETENTION, Policy::MAX_RETENTION);
    if (least..=most).contains(&retention) {
        return Ok(retention);
    }
    let (least, days) = (humantime::format_duration(least), most.as_secs() / (24 * 3_600));
    Err(format!("say at least {least} and at most {days}days"))
}

/// Where the status of jobs is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// In this process; gone when it ends.
    Memory,
    /// In DynamoDB, found by the AWS SDK's own means (`AWS_ENDPOINT_URL`, `AWS_REGION`, credentials). Needs a program
    /// that was built with `--features aws`.
    Dynamodb,
}

impl FromStr for StoreKind {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "memory" => Ok(Self::Memory),
            "dynamodb" => Ok(Self::Dynamodb),
            _ => Err("say memory or dynamodb (STATUS_STORE, too); for SQLite say --data DIR"),
        }
    }
}

/// Where browsers send files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UploadsKind {
    /// To this process.
    Memory,
    /// To this S3 bucket, by presigned URLs.
    S3(String),
}

impl FromStr for UploadsKind {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("s3", bucket)) if !bucket.is_empty() => Ok(Self::S3(bucket.to_owned())),
            _ => Err("say memory or s3:BUCKET"),
        }
    }
}

/// Where batches wait for a caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueKind {
    /// In this process.
    Memory,
    /// In the SQS queue with this URL.
    Sqs(String),
}

impl FromStr for QueueKind {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqs", url)) if !url.is_empty() => Ok(Self::Sqs(url.to_owned())),
            _ => Err("say memory or sqs:URL"),
        }
    }
}
