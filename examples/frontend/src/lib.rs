//! The CRM import as a running program: the page, the interface, and, in memory, the pipeline: the very code of the two
//! Lambdas.

#[cfg(feature = "aws")]
mod aws;
#[cfg(not(feature = "aws"))]
#[path = "no_aws.rs"]
mod aws;
mod backend;
mod config;
mod data;
mod leads_page;
mod owner;
mod page;
mod pipeline;
mod queue;
mod reading;
mod server;
mod uploads;

use std::{
    error::Error as StdError, future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration,
};

use ::leads::{DeepSeekError, LeadTable, Normaliser, NormaliserKind};
use axum::{Router, middleware, routing::get};
use caller::Caller;
use status_core::{BoxError, Policy, Tolerance, Tracker};
use status_http::{Api, Limits, Origins, refuse_cross_site};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use backend::Backend;
pub use config::{Config, QueueKind, StoreKind, UploadsKind};
use owner::{Keys, Visitor};
use pipeline::{Delayed, Patient, Pipeline};
use queue::Queue;
use reading::Reader;
pub use reading::{FILE_NAME, read_file};
use uploads::{Local, Uploads};

/// How long what is under way may take to end when the server is asked to.
const DRAIN: Duration = Duration::from_secs(8);
/// How often the sweeper looks.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// A batch is given up when it has failed so often.
const MAX_RECEIVES: u32 = 3;
/// An import goes on while no more than a tenth of its batches fail: one bad batch must not cost the other ninety-nine.
const TOLERANCE: Tolerance = Tolerance::Percent(10);
/// What goes together, for whoever asked for something else.
const TOGETHER: &str = "the Lambdas work with --store dynamodb, --uploads s3:BUCKET and --queue sqs:URL, all three; \
    without them, this process does, with --uploads memory and --queue memory";

const ALL_IN_DATA: &str = "--data keeps everything in its folder: leave out --store, --table, --uploads and --queue, \
    and in the environment STATUS_STORE, STATUS_TABLE, STATUS_UPLOADS and STATUS_QUEUE";

/// A server that is bound to its address and ready to serve.
#[derive(Debug)]
pub struct Frontend {
    listener: TcpListener,
    address: SocketAddr,
    app: Router,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Uploads cannot be kept.
    #[error("cannot keep uploads")]
    Uploads(#[source] std::io::Error),
    /// The folder for data cannot be used.
    #[error("cannot keep data in {folder}")]
    Data {
        /// The folder.
        folder: PathBuf,
        /// What the system or the engine says.
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error("another process keeps its data in {folder}; end it, or choose another folder")]
    DataInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder was written by release 0.1.
    #[error(
        "{folder} holds tables of release 0.1, which this one cannot read; choose another folder, or go on with \
         that release (nothing was changed)"
    )]
    OldData {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is somebody else's.
    #[error(
        "{folder} holds something else; choose an empty folder, or one that is not there (nothing was changed)"
    )]
    ForeignData {
        /// The folder.
        folder: PathBuf,
    },
    /// Something in the folder is elsewhere.
    #[error(
        "{path} is a symbolic link; put what it names into the folder, or choose the folder where that is"
    )]
    LinkedData {
        /// The link.
        path: PathBuf,
    },
    /// What should be a file of the folder is none, or what should be a folder is none.
    #[error("{path} is no {what}; move it away, or choose another folder")]
    MisplacedData {
        /// What is there.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
    },
    /// The keys of cookies cannot be used.
    #[error("cannot use the keys in {path}")]
    CookieKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// AWS was asked for.
    #[error(
        "this program was built without AWS; with it: \
         cargo run --release -p frontend --features aws -- --store dynamodb --table NAME …"
    )]
    WithoutAws,
    /// What was asked for does not go together.
    #[error("{0}")]
    Combination(&'static str),
    /// The bucket cannot be addressed.
    #[error("cannot use the S3 bucket")]
    Bucket(#[source] BoxError),
    /// The normaliser cannot be used as it is set up.
    #[error("cannot normalise leads")]
    Normaliser(#[from] DeepSeekError),
    /// The tables cannot be created or reached.
    #[error("cannot use the DynamoDB tables")]
    Tables(#[source] BoxError),
}

/// What the handlers share.
#[derive(Clone, Debug)]
struct State {
    leads: Arc<dyn LeadTable>,
}

impl Frontend {
    /// Binds the address and starts the workers.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        if config.data.is_some() && !config.keeps_all_here() {
            return Err(StartError::Combination(ALL_IN_DATA));
        }
        // Nothing is made, and nobody works, where the address is taken.
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mut policy = Policy::default();
        policy.stall_after = config.stall_after;
        policy.retention = config.retention;
        policy.track_starts = true;
        policy.tolerance = TOLERANCE;
        let Backend { store, leads, uploads, keys } = Backend::open(config).await?;
        let tracker = Tracker::new(store).with_policy(policy).with_noun("Leads");
        let mut connect = String::new();
        let (storage, receive): (Arc<dyn status_http::Uploads>, _) = match (&config.uploads, &config.queue) {
            (UploadsKind::Memory, QueueKind::Memory) => {
                let local = work_here(config, &tracker, leads.clone(), uploads, &tasks, &shutdown)?;
                local.resume().await.map_err(StartError::Uploads)?;
                (local.uploads.clone(), uploads::router(local))
            }
            (UploadsKind::S3(bucket), QueueKind::Sqs(_)) if config.store == StoreKind::Dynamodb => {
                let (uploads, origin) = aws::uploads(bucket).await?;
                connect = origin;
                (uploads, Router::new())
            }
            _ => return Err(StartError::Combination(TOGETHER)),
        };
        tasks.spawn(sweep(tracker.clone(), shutdown.clone()));
        let mut limits = Limits::default();
        limits.peer_header = config.peer_header.clone();
        limits.open_jobs = config.max_open_jobs;
        limits.streams = config.max_streams;
        let api = Api::new(tracker.clone(), storage)
            .with_max_upload_bytes(config.max_upload_bytes)
            .with_limits(limits)
            .with_shutdown(shutdown.clone());
        let app = app(api, State { leads }, receive, keys, &connect);
        Ok(Self { listener, address, app, shutdown, tasks })
    }

    /// The address it listens on: with port 0 in the configuration, the one the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then accepts nothing more, ends its streams, and lets what is under way end.
    ///
    /// # Errors
    /// Of the listener.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let Self { listener, app, shutdown, tasks, .. } = self;
        let stopping = shutdown.clone();
        tokio::spawn(async move {
            stop.await;
            tracing::info!("stopping");
            stopping.cancel();
        });
        let server = tokio::spawn(server::serve(listener, app, shutdown.clone()));
        shutdown.cancelled().await;
        tasks.close();
        let drained = tokio::time::timeout(DRAIN, async {
            tasks.wait().await;
            server.await
        });
        match drained.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(panicked)) => Err(std::io::Error::other(panicked)),
            Err(_) => {
                tracing::warn!("some work did not end in time and is left");
                Ok(())
            }
        }
    }
}

/// The splitter and the callers, in this process: the very code of the Lambdas.
fn work_here(
    config: &Config,
    tracker: &Tracker,
    leads: Arc<dyn LeadTable>,
    uploads: Uploads,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Local, StartError> {
    let normaliser = NormaliserKind::open(config.normaliser)?;
    let normaliser: Arc<dyn Normaliser> = Arc::new(Delayed::new(normaliser, config.batch_delay));
    let leads = Arc::new(Patient::new(leads, tracker.clone()));
    let caller = Caller::new(tracker.clone(), normaliser, leads, MAX_RECEIVES);
    let queue = Queue::new(config.workers as usize);
    for _ in 0..config.workers {
        tasks.spawn(pipeline::work(caller.clone(), queue.clone(), tasks.clone(), shutdown.clone()));
    }
    let reader = config.reader.clone().map_or(Reader::Here, Reader::Program);
    let pipeline =
        Pipeline::new(tracker.clone(), queue, config.batch_size, reader, tasks.clone(), shutdown.clone());
    Ok(Local { tracker: tracker.clone(), uploads: Arc::new(uploads), pipeline, retention: config.retention })
}

fn app(api: Api, state: State, receive: Router, keys: Keys, connect: &str) -> Router {
    Router::new()
        .route("/leads", get(leads_page::leads))
        .with_state(state)
        .merge(receive)
        .merge(page::router())
        .merge(status_http::router::<Visitor>(api.clone()))
        .fallback(async || status_http::Problem::not_found())
        .layer(middleware::from_fn_with_state((keys, api), owner::recognise))
        .layer(middleware::from_fn_with_state(Origins::default(), refuse_cross_site))
        .layer(middleware::from_fn_with_state(page::policy(connect), page::protect))
}

async fn sweep(tracker: Tracker, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(SWEEP_EVERY)).await.is_some() {
        if let Err(error) = tracker.sweep().await {
            tracing::warn!(error = &error as &dyn StdError, "sweeping failed; it will be tried again");
        }
    }
}
