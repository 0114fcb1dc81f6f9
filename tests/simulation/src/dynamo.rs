//! DynamoDB's layout: the real store and the real SDK, whose HTTP client ends in the engine instead
//! of a socket.

use std::{collections::BTreeMap, sync::Arc};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{
        BehaviorVersion, HttpClient, Region, RuntimeComponents, SharedHttpClient,
        http::{HttpRequest, HttpResponse},
        retry::{RetryConfig, RetryPartition, TokenBucket},
    },
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use status_core::{Clock, JobId};
use status_dynamo::DynamoStore;

use crate::{
    backend::RawItem,
    engine::{Answer, Engine, Request},
    faults::{Faults, Kind, Operation},
    history::brief,
    invariant::Invariant,
    time::VirtualTime,
    wire::{Call, Carried, Wire},
};

/// The table of all runs.
pub const TABLE: &str = "jobs";

/// Whose items they are that are nobody's: their keys say so.
pub const STRANGER: &str = "stranger";

/// The keys of somebody else's items in the indexes of jobs.
pub const STRANGERS: [(&str, &str); 3] =
    [("stranger", "job"), ("stranger", "stranger"), ("another stranger", "job")];

/// How DynamoDB refuses a request that comes too fast.
const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"The level of configured provisioned throughput for the table was exceeded."}"#;

/// A store of one process over `engine`, with an SDK client of its own.
pub fn store(
    engine: &Engine,
    wire: Wire,
    time: VirtualTime,
    clock: Arc<dyn Clock>,
    attempts: u32,
) -> DynamoStore {
    // The SDK's jitter comes from this thread's generator, which each run seeds. Its budget of
    // retries is shared by all clients of a process of ours, so that each client gets one of its
    // own.
    let budget = RetryPartition::custom("simulated").token_bucket(TokenBucket::unlimited()).build();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("simulated-1"))
        .endpoint_url("http://simulated")
        .allow_no_auth()
        .time_source(time)
        .retry_config(RetryConfig::standard().with_max_attempts(attempts))
        .retry_partition(budget)
        .http_client(SharedHttpClient::new(EngineClient { engine: engine.clone(), wire }))
        .build();
    DynamoStore::new(Client::from_conf(config), TABLE).with_clock(clock)
}

/// All items of the table.
pub fn items(engine: &Engine) -> Vec<RawItem> {
    let request = Request { operation: "Scan".into(), body: format!(r#"{{"TableName":"{TABLE}"}}"#).into() };
    let answer: Value = serde_json::from_str(&engine.answer(&request).body).unwrap_or_default();
    let items = answer["Items"].as_array().cloned().unwrap_or_default();
    let raw = |item: &Value| RawItem {
        partition: item["pk"]["S"].as_str().unwrap_or_default().to_owned(),
        expires: item["ttl_at"]["N"].as_str().and_then(|seconds| seconds.parse().ok()),
        words: sorted(item),
    };
    items.iter().map(raw).collect()
}

/// Puts somebody else's items into the indexes of jobs.
pub fn strew(engine: &Engine) {
    for (number, (pk, sk)) in STRANGERS.into_iter().enumerate() {
        let owner = if number == 0 { "alice" } else { "bob" };
        put(
            engine,
            &json!({"pk": {"S": pk}, "sk": {"S": sk}, "o": {"S": owner}, "dp": {"S": "due"},
            "due": {"N": number.to_string()}}),
        );
    }
}

/// Puts somebody else's items beside those of this job.
pub fn strew_beside(engine: &Engine, id: JobId) {
    for pk in [id.to_string(), format!("{id}#errors")] {
        put(engine, &json!({"pk": {"S": pk}, "sk": {"S": STRANGER}, "sv": {"N": "1"}}));
    }
}

fn put(engine: &Engine, item: &Value) {
    let body = json!({"TableName": TABLE, "Item": item}).to_string();
    let answer = engine.answer(&Request { operation: "PutItem".into(), body: body.into() });
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The SDK's way to the engine.
#[derive(Clone, Debug)]
struct EngineClient {
    engine: Engine,
    wire: Wire,
}

impl HttpClient for EngineClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for EngineClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let says = request.headers().get("amz-sdk-request");
        let is_sent_once = says.is_some_and(|says| says.ends_with("max=1"));
        let Some(request) = parsed(&request) else {
            return HttpConnectorFuture::ready(Err(ConnectorError::user("not a DynamoDB request".into())));
        };
        let (wire, call) =
            (self.wire.clone(), EngineCall { engine: self.engine.clone(), request, is_sent_once });
        HttpConnectorFuture::new(async move {
            match wire.carry(call.clone()).await {
                Carried::Answer(Answer { status, body }) => response(status, body),
                Carried::Throttled => match call.partly(&wire.faults) {
                    Some(body) => response(200, body),
                    None => response(400, THROTTLED.to_owned()),
                },
                Carried::Lost => Err(ConnectorError::io("the connection broke".into())),
            }
        })
    }
}

fn parsed(request: &HttpRequest) -> Option<Request> {
    let (_, operation) = request.headers().get("x-amz-target")?.split_once('.')?;
    let body = std::str::from_utf8(request.body().bytes()?).ok()?;
    Some(Request { operation: operation.into(), body: body.into() })
}

fn response(status: u16, body: String) -> Result<HttpResponse, ConnectorError> {
    let status = status.try_into().map_err(|_| ConnectorError::user("not a status".into()))?;
    Ok(HttpResponse::new(status, SdkBody::from(body)))
}

/// A request to the engine.
#[derive(Clone)]
struct EngineCall {
    engine: Engine,
    request: Request,
    /// Whether its client never repeats it.
    is_sent_once: bool,
}

impl EngineCall {
    /// The other way in which DynamoDB throttles a `BatchGetItem`: it leaves keys unprocessed, some or all.
    fn partly(&self, faults: &Faults) -> Option<String> {
        if &*self.request.operation != "BatchGetItem" || faults.coin() {
            return None;
        }
        let mut asked: Value = serde_json::from_str(&self.request.body).ok()?;
        let keys = format!("/RequestItems/{TABLE}/Keys");
        let mut left = asked.clone();
        let answered = asked.pointer_mut(&keys)?.as_array_mut()?;
        let unprocessed = answered.split_off(answered.len() / 2);
        *left.pointer_mut(&keys)? = Value::Array(unprocessed);
        let mut answer = json!({"Responses": {TABLE: []}});
        if asked.pointer(&keys)?.as_array().is_some_and(|keys| !keys.is_empty()) {
            let part = Request { body: asked.to_string().into(), ..self.request.clone() };
            answer = serde_json::from_str(&self.engine.answer(&part).body).ok()?;
        }
        answer["UnprocessedKeys"] = left.get("RequestItems")?.clone();
        Some(answer.to_string())
    }
}

impl Call for EngineCall {
    type Answer = Answer;

    fn operation(&self) -> Operation {
        let strong = self.request.body.contains(r#""ConsistentRead":true"#);
        let read = |name, kind| Operation { name, kind };
        match (&*self.request.operation, strong) {
            ("GetItem", true) => read("GetItem, strong", Kind::Read),
            ("GetItem", false) => read("GetItem, eventual", Kind::ReadEventually),
            ("BatchGetItem", true) => read("BatchGetItem, strong", Kind::ReadMany),
            ("BatchGetItem", false) => read("BatchGetItem, eventual", Kind::ReadManyEventually),
            ("Query", true) => read("Query, strong", Kind::ReadMany),
            ("Query", false) if self.request.body.contains(r#""by_owner""#) => {
                read("Query by owner", Kind::ReadManyEventually)
            }
            ("Query", false) if self.request.body.contains(r#""by_due""#) => {
                read("Query by due time", Kind::ReadManyEventually)
            }
            ("Query", false) => read("Query, eventual", Kind::ReadManyEventually),
            ("PutItem", _) => read("PutItem", Kind::Write),
            ("UpdateItem", _) if self.is_sent_once => read("UpdateItem, sent once", Kind::WriteOnce),
            ("UpdateItem", _) => read("UpdateItem", Kind::Write),
            ("DeleteItem", _) => read("DeleteItem", Kind::Write),
            _ => read("others", Kind::Write),
        }
    }

    async fn carry_out(&self) -> Answer {
        self.engine.answer(&self.request)
    }

    fn earlier(&self, faults: &Faults) -> Option<Answer> {
        let (replica, back, lag) = faults.staleness();
        self.engine.answer_late(&self.request, replica, back, lag)
    }

    fn torn(&self, first: Answer, second: Answer, faults: &Faults) -> Answer {
        match torn(&first.body, &second.body, faults) {
            Some(body) if first.status == 200 && second.status == 200 => Answer { status: 200, body },
            _ => second,
        }
    }

    fn request(&self) -> String {
        let Ok(Value::Object(mut body)) = serde_json::from_str(&self.request.body) else {
            return self.request.operation.to_string();
        };
        for obvious in ["TableName", "ReturnValues", "ReturnValuesOnConditionCheckFailure"] {
            body.remove(obvious);
        }
        format!("{} {}", self.request.operation, brief(&sorted(&Value::Object(body)), 2_000))
    }

    fn answer(answer: &Answer) -> String {
        let body = serde_json::from_str(&answer.body).map_or_else(|_| answer.body.clone(), |b| sorted(&b));
        format!("{} {}", answer.status, brief(&body, 1_000))
    }

    fn complaint(&self, answer: &Answer) -> Option<(Invariant, String)> {
        let usual = answer.status == 200
            || ["ConditionalCheckFailedException", "ResourceNotFoundException", "ResourceInUseException"]
                .iter()
                .any(|usual| answer.body.contains(usual));
        (!usual).then(|| (Invariant::NoInvalidRequest, answer.body.clone()))
    }
}

/// A read of several items of which each is seen as at one of two moments. One that was not there
/// yet at the first may be missed. Parts of a longer answer are left as they are at the second.
fn torn(first: &str, second: &str, faults: &Faults) -> Option<String> {
    let first: Value = serde_json::from_str(first).ok()?;
    let mut second: Value = serde_json::from_str(second).ok()?;
    let is_part = |answer: &Value| answer.get("LastEvaluatedKey").is_some();
    if is_part(&first) || is_part(&second) {
        return None;
    }
    let is_query = second.get("Items").is_some();
    let path = if is_query { "/Items".to_owned() } else { format!("/Responses/{TABLE}") };
    let before = first.pointer(&path)?.as_array()?;
    let seen = second.pointer(&path)?.as_array()?.iter().filter_map(|item| {
        let is_this = |other: &&Value| (&other["pk"], &other["sk"]) == (&item["pk"], &item["sk"]);
        if faults.coin() { before.iter().find(is_this) } else { Some(item) }
    });
    let seen: Vec<Value> = seen.cloned().collect();
    if is_query {
        second["Count"] = seen.len().into();
        second["ScannedCount"] = seen.len().into();
    }
    *second.pointer_mut(&path)? = Value::Array(seen);
    Some(second.to_string())
}

/// JSON with its names in order, so that it is the same in every run.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let object: BTreeMap<_, _> = object.iter().map(|(name, value)| (name, sorted(value))).collect();
            let fields: Vec<_> = object.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(values) => {
            format!("[{}]", values.iter().map(sorted).collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}
