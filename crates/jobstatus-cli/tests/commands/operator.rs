//! An operator with the program, and the application whose jobs it looks at.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region},
};
use serde_json::Value;
use status_core::{
    Actor, BatchIndex, BatchReport, FileInfo, JobId, NewJob, OwnerId, Policy, StatusStore, Tolerance, Totals,
    Tracker,
};
use status_dynamo::DynamoStore;
use status_sqlite::SqliteStore;
use tempfile::TempDir;

/// What the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The command, run to its end.
    pub(crate) async fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("no panic").expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("an exit code");
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// The error as an object, which is all that there is on standard error.
    pub(crate) fn error(&self) -> Value {
        let error: Value = serde_json::from_str(&self.err).expect("JSON");
        assert_eq!(error["error"]["exit_code"], self.code, "{error}");
        assert_eq!(self.out, "");
        error["error"].clone()
    }
}

/// The program, free of the environment of whoever runs the tests.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobstatus"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STATUS_") || name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.envs(credentials());
    command
}

pub(crate) fn credentials() -> [(&'static str, &'static str); 4] {
    [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

pub(crate) struct Operator {
    /// Of the application, which calls its items leads.
    pub(crate) tracker: Tracker,
    /// What names the store.
    pub(crate) flags: Vec<String>,
    /// The store, as sentences name it.
    pub(crate) name: String,
    pub(crate) file: Option<PathBuf>,
    pub(crate) client: Option<Client>,
    _folder: TempDir,
}

impl Operator {
    pub(crate) async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("status.db");
        let name = file.display().to_string();
        let flags = vec![format!("--store=sqlite:{name}")];
        made(&flags).await;
        let store = Arc::new(SqliteStore::open(&file).await.expect("it opens"));
        Self { tracker: application(store), flags, name, file: Some(file), client: None, _folder: folder }
    }

    pub(crate) async fn on_dynamodb() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let endpoint = engine().await;
        let flags = ["--table", "jobs", "--endpoint-url", &endpoint].map(str::to_owned).to_vec();
        made(&flags).await;
        let client = client(&endpoint);
        let store = Arc::new(DynamoStore::new(client.clone(), "jobs"));
        let name = format!("DynamoDB table jobs in eu-central-1 at {endpoint}");
        Self { tracker: application(store), flags, name, file: None, client: Some(client), _folder: folder }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).args(&self.flags);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments)).await
    }

    /// What the command prints; it must succeed.
    pub(crate) async fn text(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.out
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat()).await).expect("JSON")
    }

    /// A job of alice's in Processing, which tolerates five failed batches.
    pub(crate) async fn job(&self, name: &str, total: u64) -> JobId {
        let new = NewJob::new(FileInfo::new(name, 10, "text/csv").expect("a file"));
        self.job_of("alice", new, total).await
    }

    pub(crate) async fn job_of(&self, owner: &str, new: NewJob, total: u64) -> JobId {
        let mut policy = Policy::default();
        policy.tolerance = Tolerance::Batches(5);
        let policy = new.policy.clone().unwrap_or(policy);
        let jobs = self.tracker.owned_by(OwnerId::new(owner).expect("a name"));
        let id = jobs.create(new.with_policy(policy)).await.expect("created").id;
        let totals = Totals { batches: total, items: Some(total * 10) };
        self.tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("started");
        id
    }

    pub(crate) async fn complete(&self, id: JobId, batches: impl IntoIterator<Item = u64>) {
        let reports = batches.into_iter().map(|b| BatchReport::completed(batch(b), 10, 0)).collect();
        self.tracker.report(id, reports).await.expect("reported");
    }

    pub(crate) async fn fail(&self, id: JobId, batches: impl IntoIterator<Item = u64>) {
        let report = |b| BatchReport::failed(batch(b), 10, "llm-refused", "The model refused.");
        self.tracker.report(id, batches.into_iter().map(report).collect()).await.expect("reported");
    }
}

pub(crate) fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("small")
}

fn application(store: Arc<dyn StatusStore>) -> Tracker {
    Tracker::new(store).with_noun("Leads")
}

/// Makes the store with the program itself, twice: it may be there.
async fn made(flags: &[String]) {
    for _ in 0..2 {
        let mut command = program();
        command.arg("create-table").args(flags);
        let ran = Ran::of(command).await;
        assert!(ran.code == 0 && ran.out.contains("is ready"), "{ran:?}");
    }
}

/// Starts an engine in this process; its endpoint.
pub(crate) async fn engine() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().expect("a database")));
    endpoint
}

fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}
