//! An engine in this process, and a wire to it that loses or holds the requests it is told to.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{
        BehaviorVersion, HttpClient, Region, RuntimeComponents, SharedHttpClient,
        http::{HttpRequest, HttpResponse},
        retry::RetryConfig,
    },
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use dynoxide::{Database, DynoxideError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use status_core::{Clock, JobId};
use status_dynamo::DynamoStore;
use tokio::sync::Notify;

/// The table of each rig.
const TABLE: &str = "jobs";

/// What happens to a request.
pub(crate) enum Fault {
    /// It is carried out, and its answer does not come.
    LosesAnswer,
    /// It does not come.
    LosesRequest,
    /// It comes when it is let go.
    Holds(Held),
}

/// A request that is held.
#[derive(Clone, Default)]
pub(crate) struct Held {
    came: Arc<Notify>,
    let_go: Arc<Notify>,
}

impl Held {
    /// Until the request has been made.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }

    pub(crate) fn let_go(&self) {
        self.let_go.notify_one();
    }
}

type Rule = (Box<dyn Fn(&str, &str) -> bool + Send>, Fault);

/// An engine with one table.
#[derive(Clone)]
pub(crate) struct Rig {
    engine: Arc<Database>,
    rules: Arc<Mutex<Vec<Rule>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rig")
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        let engine = Arc::new(Database::memory().expect("a database"));
        Self { engine, rules: Arc::default(), requests: Arc::default() }
    }

    /// What happens to the next request of this operation whose body has this text.
    pub(crate) fn next(&self, operation: &'static str, text: impl Into<String>, fault: Fault) {
        let text = text.into();
        self.next_that(move |name, body| name == operation && body.contains(&text), fault);
    }

    /// What happens to the next request, an operation and a body, for which `is` holds.
    pub(crate) fn next_that(&self, is: impl Fn(&str, &str) -> bool + Send + 'static, fault: Fault) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push((Box::new(is), fault));
    }

    /// Holds the next such request.
    pub(crate) fn hold(&self, operation: &'static str, text: impl Into<String>) -> Held {
        let held = Held::default();
        self.next(operation, text, Fault::Holds(held.clone()));
        held
    }

    /// The requests so far, as "operation body".
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All items, in DynamoDB's JSON.
    pub(crate) fn items(&self) -> Vec<Value> {
        let (_, answer) = dispatch(&self.engine, "Scan", &json!({"TableName": TABLE}).to_string());
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["Items"].as_array().cloned().unwrap_or_default()
    }

    /// The items with this sort key.
    pub(crate) fn with_sk(&self, sk: &str) -> Vec<Value> {
        self.items().into_iter().filter(|item| item["sk"]["S"] == sk).collect()
    }

    /// The item of a job with this sort key; nothing if it is not there.
    pub(crate) fn of_job(&self, id: JobId, sk: &str) -> Value {
        let found = self.with_sk(sk).into_iter().find(|item| item["pk"]["S"] == *id.to_string());
        found.unwrap_or_default()
    }

    pub(crate) fn put(&self, item: &Value) {
        let (status, answer) =
            dispatch(&self.engine, "PutItem", &json!({"TableName": TABLE, "Item": item}).to_string());
        assert_eq!(status, 200, "{answer}");
    }

    /// A store over this wire.
    pub(crate) async fn store(&self, clock: Arc<dyn Clock>) -> Arc<DynamoStore> {
        let retries = RetryConfig::standard()
            .with_max_attempts(4)
            .with_initial_backoff(std::time::Duration::from_millis(1));
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("test-1"))
            .endpoint_url("http://rig")
            .allow_no_auth()
            .retry_config(retries)
            .http_client(SharedHttpClient::new(self.clone()))
            .build();
        let store = DynamoStore::new(Client::from_conf(config), TABLE).with_clock(clock);
        store.create_table().await.expect("a table");
        Arc::new(store)
    }

    fn fault(&self, operation: &str, body: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rules.iter().position(|(is, _)| is(operation, body))?;
        Some(rules.remove(at).1)
    }
}

impl HttpClient for Rig {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Rig {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (_, operation) =
            request.headers().get("x-amz-target").and_then(|t| t.split_once('.')).expect("a target");
        let operation = operation.to_owned();
        let body = std::str::from_utf8(request.body().bytes().expect("a body")).expect("text").to_owned();
        let rig = self.clone();
        HttpConnectorFuture::new(async move {
            let fault = rig.fault(&operation, &body);
            match &fault {
                Some(Fault::LosesRequest) => return Err(ConnectorError::io("lost".into())),
                Some(Fault::Holds(held)) => {
                    held.came.notify_one();
                    held.let_go.notified().await;
                }
                _ => {}
            }
            let (status, answer) = dispatch(&rig.engine, &operation, &body);
            rig.requests.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{operation} {body}"));
            if matches!(fault, Some(Fault::LosesAnswer)) {
                return Err(ConnectorError::io("lost".into()));
            }
            Ok(HttpResponse::new(status.try_into().expect("a status"), SdkBody::from(answer)))
        })
    }
}

fn dispatch(engine: &Database, operation: &str, body: &str) -> (u16, String) {
    let answered = match operation {
        "GetItem" => call(body, |request| engine.get_item(request)),
        "BatchGetItem" => call(body, |request| engine.batch_get_item(request)),
        "Query" => call(body, |request| engine.query(request)),
        "PutItem" => call(body, |request| engine.put_item(request)),
        "UpdateItem" => call(body, |request| engine.update_item(request)),
        "DeleteItem" => call(body, |request| engine.delete_item(request)),
        "CreateTable" => call(body, |request| engine.create_table(request)),
        "DescribeTable" => call(body, |request| engine.describe_table(request)),
        "UpdateTimeToLive" => call(body, |request| engine.update_time_to_live(request)),
        "DescribeTimeToLive" => call(body, |request| engine.describe_time_to_live(request)),
        "Scan" => call(body, |request| engine.scan(request)),
        other => Err(DynoxideError::ValidationException(format!("the rig has no {other}"))),
    };
    match answered {
        Ok(answer) => (200, answer),
        Err(error) => (error.status_code(), error.to_json()),
    }
}

fn call<Q: DeserializeOwned, A: Serialize>(
    body: &str,
    run: impl FnOnce(Q) -> Result<A, DynoxideError>,
) -> Result<String, DynoxideError> {
    let request = serde_json::from_str(body)
        .map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
    Ok(serde_json::to_string(&run(request)?).expect("JSON"))
}
