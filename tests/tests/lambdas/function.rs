//! One process of a function on a Runtime API of the test's own: for what no emulator does, such as being killed half-way.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Json, Router,
    extract::{self, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::stack;

/// What Lambda gives a function by default here.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What a process answers: `Err` is what it reports as its own error.
type Answer = Result<Value, Value>;
type Invocation = (Value, oneshot::Sender<Answer>);

/// A running function; killed with the test.
pub(crate) struct Function {
    child: Child,
    started: Instant,
    runtime: Arc<Runtime>,
    invocations: mpsc::UnboundedSender<Invocation>,
}

struct Runtime {
    invocations: Mutex<mpsc::UnboundedReceiver<Invocation>>,
    under_way: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
    ids: AtomicU64,
    /// When it asked for work first.
    asked: watch::Sender<Option<Instant>>,
}

impl Function {
    /// Starts the package's `bootstrap` with this environment.
    pub(crate) async fn start(name: &str, environment: &Value) -> Self {
        let (invocations, received) = mpsc::unbounded_channel();
        let runtime = Arc::new(Runtime {
            invocations: Mutex::new(received),
            under_way: Mutex::default(),
            ids: AtomicU64::new(1),
            asked: watch::Sender::new(None),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let app = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{what}", post(answered))
            .with_state(runtime.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });

        let mut command = Command::new(bootstrap(name));
        command.env_clear().stdout(Stdio::null()).stderr(Stdio::null());
        command.envs(
            environment.as_object().expect("an object").iter().map(|(k, v)| (k, v.as_str().expect("text"))),
        );
        command.env("AWS_LAMBDA_RUNTIME_API", address).env("AWS_LAMBDA_FUNCTION_NAME", name);
        command.env("AWS_LAMBDA_FUNCTION_VERSION", "1").env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256");
        command.env("AWS_LAMBDA_LOG_GROUP_NAME", "g").env("AWS_LAMBDA_LOG_STREAM_NAME", "s");
        let started = Instant::now();
        let child = command.spawn().expect("it starts");
        Self { child, started, runtime, invocations }
    }

    /// Gives it an event; what it answers.
    pub(crate) async fn invoke(&self, event: Value) -> Answer {
        let answered = self.begin(event);
        tokio::time::timeout(TIME_LIMIT, answered).await.expect("in time").expect("answered")
    }

    /// Gives it an event and does not wait.
    pub(crate) fn begin(&self, event: Value) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        self.invocations.send((event, answer)).expect("the runtime is there");
        answered
    }

    /// From the start of the process to its first request for work.
    pub(crate) async fn cold_start(&self) -> Duration {
        let mut asked = self.runtime.asked.subscribe();
        let asked = tokio::time::timeout(TIME_LIMIT, asked.wait_for(Option::is_some)).await.expect("it asks");
        asked.expect("the runtime is there").expect("asked") - self.started
    }

    /// As the machine beneath it dies.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
    }
}

/// A package's program, unpacked once for all tests.
fn bootstrap(name: &str) -> PathBuf {
    static UNPACKED: std::sync::Mutex<BTreeSet<String>> = std::sync::Mutex::new(BTreeSet::new());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{name}-bootstrap"));
    let mut unpacked = UNPACKED.lock().expect("no test failed in here");
    if unpacked.insert(name.to_owned()) {
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(stack::package(name))).expect("a zip");
        let mut file = tempfile::NamedTempFile::new_in(folder).expect("a file");
        std::io::copy(&mut zip.by_name("bootstrap").expect("packed"), &mut file).expect("unpacked");
        file.as_file().set_permissions(fs::Permissions::from_mode(0o755)).expect("executable");
        // Not written in place: a process of an earlier run may still run it.
        file.persist(&path).expect("in place");
    }
    path
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn next(State(runtime): State<Arc<Runtime>>) -> Response {
    runtime.asked.send_if_modified(|asked| asked.replace(Instant::now()).is_none());
    let Some((event, answer)) = runtime.invocations.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let id = runtime.ids.fetch_add(1, Ordering::Relaxed).to_string();
    runtime.under_way.lock().await.insert(id.clone(), answer);
    let deadline = SystemTime::now() + TIME_LIMIT;
    let deadline =
        deadline.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis().to_string();
    let headers = [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", deadline),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:f".into()),
    ];
    (headers, Json(event)).into_response()
}

async fn answered(
    State(runtime): State<Arc<Runtime>>,
    extract::Path((id, what)): extract::Path<(String, String)>,
    body: axum::body::Bytes,
) -> (StatusCode, Json<Value>) {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if let Some(answer) = runtime.under_way.lock().await.remove(&id) {
        let _ = answer.send(if what == "response" { Ok(body) } else { Err(body) });
    }
    (StatusCode::ACCEPTED, Json(json!({"status": "OK"})))
}
