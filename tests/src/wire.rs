//! A proxy in front of DynamoDB that breaks requests on their way: lost before they arrive, their answers
//! lost, throttled, late, done by half. From a seed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// The connection breaks before the request has arrived: nothing is done.
    LostRequest,
    /// The connection breaks after the request was done: nobody knows.
    LostAnswer,
    /// DynamoDB refuses, with the words AWS uses.
    Throttled,
    /// The answer takes its time.
    Delayed,
    /// DynamoDB does half of a batch request and names the rest as unprocessed. Other requests pass.
    Partial,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::LostRequest, Self::LostAnswer, Self::Throttled, Self::Delayed, Self::Partial];
}

/// Where in the life of a request its sender is to die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Nothing is done yet.
    Before,
    /// It is done, and not yet answered.
    After,
}

/// A running proxy; ends with the test.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Where it is.
    pub url: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    client: reqwest::Client,
    /// One request of this many is broken.
    one_in: Option<u32>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    passed: BTreeMap<String, u64>,
    injected: BTreeMap<(String, Fault), u64>,
    hold: Option<Hold>,
}

#[derive(Debug)]
struct Hold {
    passes: u64,
    moment: Moment,
    reached: oneshot::Sender<()>,
}

/// The connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks")]
struct Broken;

type Answer = Response<Full<Bytes>>;

impl Wire {
    /// A proxy that breaks nothing.
    pub async fn sound(upstream: &str) -> Self {
        Self::serve(upstream, None, 0).await
    }

    /// A proxy that breaks one request of `one_in`, each kind of fault as often as the others.
    pub async fn faulty(upstream: &str, one_in: u32, seed: u64) -> Self {
        Self::serve(upstream, Some(one_in), seed).await
    }

    async fn serve(upstream: &str, one_in: Option<u32>, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            passed: BTreeMap::new(),
            injected: BTreeMap::new(),
            hold: None,
        };
        let (upstream, client) = (upstream.to_owned(), reqwest::Client::new());
        let shared = Arc::new(Shared { upstream, client, one_in, state: Mutex::new(state) });
        let this = Self { url, shared: shared.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| shared.pass(request));
                    // An error of the service closes the connection without an answer.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        this
    }

    /// Lets `passes` more requests pass and holds the one after them for ever. Resolves when that has come
    /// so far. A request that nobody waits for any more is not held.
    pub fn hold_after(&self, passes: u64, moment: Moment) -> oneshot::Receiver<()> {
        let (reached, receiver) = oneshot::channel();
        self.shared.state().hold = Some(Hold { passes, moment, reached });
        receiver
    }

    /// How many requests of each operation have come.
    pub fn passed(&self) -> BTreeMap<String, u64> {
        self.shared.state().passed.clone()
    }

    /// How many faults of each kind there were, by operation.
    pub fn injected(&self) -> BTreeMap<(String, Fault), u64> {
        self.shared.state().injected.clone()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to happen to the next request.
    fn draw(&self, operation: &str) -> (Option<Fault>, Option<Hold>) {
        let mut state = self.state();
        *state.passed.entry(operation.to_owned()).or_default() += 1;
        let hold = match &mut state.hold {
            Some(hold) if hold.passes > 0 => {
                hold.passes -= 1;
                None
            }
            hold => hold.take().filter(|hold| !hold.reached.is_closed()),
        };
        let breaks = self.one_in.is_some_and(|one_in| state.random.u32(..one_in) == 0);
        let fault = breaks.then(|| Fault::ALL[state.random.usize(..Fault::ALL.len())]);
        let fault = fault.filter(|fault| *fault != Fault::Partial || operation.starts_with("Batch"));
        if let Some(fault) = fault {
            *state.injected.entry((operation.to_owned(), fault)).or_default() += 1;
        }
        (fault, hold)
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Answer, Broken> {
        let (mut head, body) = request.into_parts();
        // A halved request is shorter.
        head.headers.remove(CONTENT_LENGTH);
        let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
        let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default();
        let (fault, hold) = self.draw(operation);
        if let Some(Hold { moment: Moment::Before, reached, .. }) = hold {
            return held(reached).await;
        }
        let forward = |body: Bytes| async {
            let request = self.client.post(&self.upstream).headers(head.headers.clone()).body(body);
            let answer = request.send().await.map_err(|_| Broken)?;
            let status = answer.status();
            Ok::<_, Broken>((status, answer.bytes().await.map_err(|_| Broken)?))
        };
        let (status, bytes) = match fault {
            Some(Fault::LostRequest) => return Err(Broken),
            Some(Fault::Throttled) => (StatusCode::BAD_REQUEST, throttled()),
            Some(Fault::LostAnswer) => {
                forward(body).await?;
                return Err(Broken);
            }
            Some(Fault::Delayed) => {
                let pause = self.state().random.u64(1..50);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                forward(body).await?
            }
            Some(Fault::Partial) => {
                let (half, rest) = halved(&body);
                match (forward(half).await?, rest) {
                    ((StatusCode::OK, bytes), Some((name, rest))) => {
                        (StatusCode::OK, with_unprocessed(&bytes, name, rest))
                    }
                    (answer, _) => answer,
                }
            }
            None => forward(body).await?,
        };
        if let Some(hold) = hold {
            return held(hold.reached).await;
        }
        let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/x-amz-json-1.0");
        answer.body(Full::new(bytes)).map_err(|_| Broken)
    }
}

async fn held(reached: oneshot::Sender<()>) -> Result<Answer, Broken> {
    let _ = reached.send(());
    std::future::pending().await
}

fn throttled() -> Bytes {
    let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
    let message = "The level of configured provisioned throughput for the table was exceeded. Consider \
                   increasing your provisioning level with the UpdateTable API.";
    json!({"__type": kind, "message": message}).to_string().into()
}

/// The first half of a batch request of one table; what is left of it, under the name that DynamoDB gives
/// it in its answer.
fn halved(body: &Bytes) -> (Bytes, Option<(&'static str, Value)>) {
    let mut request: Value = serde_json::from_slice(body).expect("JSON");
    let mut rest = request["RequestItems"].clone();
    let tables = request["RequestItems"].as_object_mut().expect("tables");
    let (table, half) = tables.iter_mut().next().expect("a table");
    let (name, half, rest_of_table) = if half.is_array() {
        ("UnprocessedItems", half, &mut rest[table])
    } else {
        ("UnprocessedKeys", &mut half["Keys"], &mut rest[table]["Keys"])
    };
    let half = half.as_array_mut().expect("items");
    let left = half.split_off(half.len().div_ceil(2));
    let is_all = left.is_empty();
    *rest_of_table = left.into();
    (request.to_string().into(), (!is_all).then_some((name, rest)))
}

fn with_unprocessed(answer: &Bytes, name: &str, rest: Value) -> Bytes {
    let mut answer: Value = serde_json::from_slice(answer).expect("JSON");
    answer[name] = rest;
    answer.to_string().into()
}
