//! What the import needs of AWS, in MiniStack and DynamoDB Local: by the template that deploys it, or only
//! what a process needs that a test starts itself.

use std::{
    collections::BTreeSet,
    env, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::{BillingMode, GlobalSecondaryIndex, TimeToLiveSpecification};
use aws_sdk_s3::types::CorsRule;
use aws_sdk_sqs::types::{Message, QueueAttributeName, SendMessageBatchRequestEntry};
use e2e::{PATIENCE, Server, Visitor};
use serde_json::{Value, json};
use status_core::{Consistency, Status, StatusStore, Tracker};
use status_dynamo::DynamoStore;

use crate::function::Function;

/// All of this is a test's own.
pub(crate) struct Stack {
    name: String,
    sqs: aws_sdk_sqs::Client,
    s3: aws_sdk_s3::Client,
    queue: String,
    dead: String,
    bucket: String,
    /// The jobs as they are stored: reading them here decides nothing.
    store: DynamoStore,
    pub(crate) server: Server,
}

/// Where browsers may upload from.
pub(crate) const ORIGIN: &str = "https://crm.example.com";

/// Clients by the environment that `cargo xtask test` sets.
async fn clients() -> (aws_sdk_s3::Client, aws_sdk_sqs::Client) {
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    (aws_sdk_s3::Client::from_conf(s3), aws_sdk_sqs::Client::new(&config))
}

fn url() -> String {
    env::var("MINISTACK_URL").expect("MINISTACK_URL: run this by cargo xtask test")
}

/// Where DynamoDB Local is.
pub(crate) fn dynamodb() -> String {
    env::var("DYNAMODB_LOCAL_URL").expect("DYNAMODB_LOCAL_URL: run this by cargo xtask test")
}

/// The jobs of a table in DynamoDB Local.
async fn store(table: &str) -> DynamoStore {
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    DynamoStore::new(aws_sdk_dynamodb::Client::new(&config), table)
}

/// Creates a table in DynamoDB Local as the template has created it in MiniStack.
async fn copy_table(name: &str) {
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let at = |url: String| {
        let config = aws_sdk_dynamodb::config::Builder::from(&config).endpoint_url(url);
        aws_sdk_dynamodb::Client::from_conf(config.build())
    };
    let (template, local) = (at(url()), at(dynamodb()));
    let described = template.describe_table().table_name(name).send().await.expect("the template's");
    let table = described.table.expect("described");
    let indexes = table.global_secondary_indexes().iter().map(|index| {
        let copy = GlobalSecondaryIndex::builder()
            .set_index_name(index.index_name.clone())
            .set_key_schema(index.key_schema.clone())
            .set_projection(index.projection.clone());
        copy.build().expect("complete")
    });
    let indexes: Vec<_> = indexes.collect();
    local
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_attribute_definitions(table.attribute_definitions.clone())
        .set_key_schema(table.key_schema.clone())
        .set_global_secondary_indexes(Some(indexes).filter(|indexes| !indexes.is_empty()))
        .send()
        .await
        .expect("created");
    let expiry = template.describe_time_to_live().table_name(name).send().await.expect("described");
    if let Some(attribute) = expiry.time_to_live_description.and_then(|expiry| expiry.attribute_name) {
        let expiry = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true);
        let expiry = expiry.build().expect("complete");
        let update = local.update_time_to_live().table_name(name).time_to_live_specification(expiry);
        update.send().await.expect("enabled");
    }
}

/// A function's package as `cargo xtask lambdas` made it.
pub(crate) fn package(name: &str) -> Vec<u8> {
    let folder: PathBuf = env::var_os("BOOTSTRAPS").expect("BOOTSTRAPS: run this by cargo xtask test").into();
    fs::read(folder.join(format!("{name}.zip"))).expect("packed")
}

/// A request of AWS's query interface, unsigned: one call does not need an SDK.
async fn cloudformation(action: &str, parameters: &[(&str, &str)]) -> String {
    let common = [("Action", action), ("Version", "2010-05-15"), ("StackName", parameters[0].1)];
    let credential = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/cloudformation/aws4_request, SignedHeaders=host, Signature=s";
    let form = common.iter().chain(&parameters[1..]).collect::<Vec<_>>();
    let sent =
        reqwest::Client::new().post(url()).header("authorization", credential).form(&form).send().await;
    sent.expect("answered").text().await.expect("text")
}

/// What stands between the first `<tag>` and `</tag>` after `after`.
fn element<'a>(xml: &'a str, after: &str, tag: &str) -> &'a str {
    let rest = xml.split_once(after).map_or("", |(_, rest)| rest);
    let rest = rest.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
    rest.split_once('<').map_or("", |(text, _)| text)
}

impl Stack {
    /// Everything but the functions, and a frontend that only serves.
    pub(crate) async fn prepare(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let (s3, sqs) = clients().await;
        let dead = sqs.create_queue().queue_name(format!("{name}-dead")).send().await.expect("a queue");
        let dead = dead.queue_url().expect("a queue has a URL").to_owned();
        let redrive = json!({"maxReceiveCount": 4, "deadLetterTargetArn": format!("arn:aws:sqs:us-east-1:000000000000:{name}-dead")});
        let queue = sqs
            .create_queue()
            .queue_name(&name)
            .attributes(QueueAttributeName::VisibilityTimeout, "2")
            .attributes(QueueAttributeName::RedrivePolicy, redrive.to_string())
            .send()
            .await
            .expect("a queue");
        let queue = queue.queue_url().expect("a queue has a URL").to_owned();
        s3.create_bucket().bucket(&name).send().await.expect("a bucket");
        let (bucket, sends) = (format!("s3:{name}"), format!("sqs:{queue}"));
        let flags = ["--store", "dynamodb", "--table", &name, "--uploads", &bucket, "--queue", &sends];
        let server = Server::start(&flags).await;
        let store = store(&name).await;
        Self { bucket: name.clone(), name, sqs, s3, queue, dead, store, server }
    }

    /// The environment of the functions, with these variables in addition.
    pub(crate) fn environment(&self, more: &Value) -> Value {
        let mut environment = json!({
            "AWS_ENDPOINT_URL": url(), "AWS_ENDPOINT_URL_DYNAMODB": dynamodb(), "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "STATUS_TABLE": self.name, "LEADS_TABLE": format!("{}-leads", self.name), "LEADS_QUEUE_URL": self.queue,
        });
        let all = environment.as_object_mut().expect("an object");
        all.extend(more.as_object().cloned().unwrap_or_default());
        environment
    }

    /// Everything, from `examples/template.yaml` with these parameters, and the frontend as the stack's
    /// outputs say.
    pub(crate) async fn deploy(name: &str, parameters: &[(&str, &str)]) -> Self {
        Self::deploy_at(&dynamodb(), name, parameters).await
    }

    /// The same with functions that reach DynamoDB at another address.
    pub(crate) async fn deploy_at(endpoint: &str, name: &str, parameters: &[(&str, &str)]) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let (s3, sqs) = clients().await;
        // As `sam package` does: the packages go to a bucket, and the template says where.
        let artifacts = format!("{name}-artifacts");
        s3.create_bucket().bucket(&artifacts).send().await.expect("a bucket");
        let mut template = include_str!("../../../examples/template.yaml").to_owned();
        for function in ["splitter", "caller"] {
            let key = format!("{function}.zip");
            let put = s3.put_object().bucket(&artifacts).key(&key).body(package(function).into());
            put.send().await.expect("put");
            let local = format!("../target/lambdas/{key}");
            assert!(template.contains(&local), "the template takes {local}");
            template = template.replace(&local, &format!("s3://{artifacts}/{key}"));
        }
        let variable = "RUST_LOG: info";
        assert!(template.contains(variable), "the template sets the functions' environment");
        let variables = format!("{variable}\n        AWS_ENDPOINT_URL_DYNAMODB: {endpoint}");
        template = template.replace(variable, &variables);
        let mut form = vec![
            ("StackName".to_owned(), name.clone()),
            ("TemplateBody".into(), template),
            ("Capabilities.member.1".into(), "CAPABILITY_IAM".into()),
        ];
        for (n, (key, value)) in (1..).zip([("Origin", ORIGIN)].iter().chain(parameters)) {
            form.push((format!("Parameters.member.{n}.ParameterKey"), (*key).to_owned()));
            form.push((format!("Parameters.member.{n}.ParameterValue"), (*value).to_owned()));
        }
        let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let created = cloudformation("CreateStack", &form).await;
        assert!(created.contains("<StackId>"), "{created}");
        let begun = Instant::now();
        let described = loop {
            let described = cloudformation("DescribeStacks", &[("StackName", &name)]).await;
            match element(&described, "<StackName>", "StackStatus") {
                "CREATE_COMPLETE" => break described,
                "CREATE_IN_PROGRESS" if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => panic!("{described}"),
            }
        };
        let dead = element(&described, "<OutputKey>DeadBatches</OutputKey>", "OutputValue").to_owned();
        let run = element(&described, "<OutputKey>Frontend</OutputKey>", "OutputValue");
        let flags: Vec<_> = run.split_whitespace().skip(1).collect();
        let queue = flags.iter().find_map(|flag| flag.strip_prefix("sqs:")).expect("a queue").to_owned();
        // What failed is to come again within the test's patience, and nothing while it is worked on.
        let quickly = sqs.set_queue_attributes().queue_url(&queue);
        let quickly = quickly.attributes(QueueAttributeName::VisibilityTimeout, "8");
        quickly.send().await.expect("set");
        let bucket = flags.iter().find_map(|flag| flag.strip_prefix("s3:")).expect("a bucket").to_owned();
        for table in [&name, &format!("{name}-leads")] {
            copy_table(table).await;
        }
        let server = Server::start(&flags).await;
        let store = store(&name).await;
        Self { name, sqs, s3, queue, dead, bucket, store, server }
    }

    /// From where, and how, browsers may use the bucket.
    pub(crate) async fn cors(&self) -> Vec<CorsRule> {
        let asked = self.s3.get_bucket_cors().bucket(&self.bucket).send().await;
        asked.expect("answered").cors_rules.unwrap_or_default()
    }

    /// S3's event for an upload of this job.
    pub(crate) fn uploaded(&self, job: &str, file_name: &str) -> Value {
        let job = job.trim_start_matches("/jobs/");
        json!({"Records": [{
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventTime": "2026-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put", "userIdentity": {"principalId": "p"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"}, "responseElements": {},
            "s3": {"s3SchemaVersion": "1.0", "configurationId": "c",
                "bucket": {"name": self.bucket, "ownerIdentity": {"principalId": "p"}, "arn": format!("arn:aws:s3:::{}", self.bucket)},
                "object": {"key": format!("uploads/{job}/{file_name}"), "size": 1, "eTag": "e", "sequencer": "1"}},
        }]})
    }

    /// How many messages wait.
    pub(crate) async fn waiting(&self) -> usize {
        self.messages(&self.queue, QueueAttributeName::ApproximateNumberOfMessages).await
    }

    /// How many messages nobody could handle.
    pub(crate) async fn dead(&self) -> usize {
        self.messages(&self.dead, QueueAttributeName::ApproximateNumberOfMessages).await
    }

    async fn messages(&self, queue: &str, state: QueueAttributeName) -> usize {
        let asked = self.sqs.get_queue_attributes().queue_url(queue);
        let asked = asked.attribute_names(QueueAttributeName::All).send().await.expect("answered");
        let count = asked.attributes().and_then(|all| all.get(&state));
        count.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The job's status as it is stored: unlike a poll, this does not decide it.
    pub(crate) async fn stored_status(&self, job: &str) -> Status {
        let id = job.trim_start_matches("/jobs/").parse().expect("an id");
        let read = self.store.read(id, Consistency::Strong).await.expect("read");
        read.expect("there is such a job").job.status
    }

    /// A tracker of the stack's jobs.
    pub(crate) fn tracker(&self) -> Tracker {
        Tracker::new(Arc::new(self.store.clone()))
    }

    /// Takes everything out of the queue: the bodies.
    pub(crate) async fn take_all(&self) -> Vec<Value> {
        let mut bodies = Vec::new();
        loop {
            let asked = self.sqs.receive_message().queue_url(&self.queue).max_number_of_messages(10);
            let received = asked.send().await.expect("answered").messages.unwrap_or_default();
            if received.is_empty() {
                return bodies;
            }
            for message in received {
                let Message { body, receipt_handle, .. } = message;
                let handle = receipt_handle.unwrap_or_default();
                let deleted = self.sqs.delete_message().queue_url(&self.queue).receipt_handle(handle);
                deleted.send().await.expect("deleted");
                bodies.push(serde_json::from_str(&body.unwrap_or_default()).expect("JSON"));
            }
        }
    }

    /// Puts a message into the queue.
    pub(crate) async fn send(&self, body: &Value) {
        self.send_together(std::slice::from_ref(body)).await;
    }

    /// Puts up to ten messages into the queue at once.
    pub(crate) async fn send_together(&self, bodies: &[Value]) {
        let entries = bodies.iter().enumerate().map(|(n, body)| {
            let entry = SendMessageBatchRequestEntry::builder().id(n.to_string());
            entry.message_body(body.to_string()).build().expect("complete")
        });
        let send = self.sqs.send_message_batch().queue_url(&self.queue);
        let sent = send.set_entries(Some(entries.collect())).send().await.expect("sent");
        assert!(sent.failed().is_empty(), "{sent:?}");
    }

    /// Waits until the queue is empty and nothing is in flight.
    pub(crate) async fn until_drained(&self) {
        let begun = Instant::now();
        loop {
            let mut left = self.waiting().await;
            let in_flight = QueueAttributeName::ApproximateNumberOfMessagesNotVisible;
            left += self.messages(&self.queue, in_flight).await;
            if left == 0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{left} messages are left in the queue");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// SQS's event for these messages, each received for the `receives`th time.
pub(crate) fn received(bodies: &[Value], receives: u32) -> Value {
    received_each(bodies.iter().map(|body| (body, receives)))
}

/// SQS's event for these messages and how often each has been received; their ids are `m0`, `m1`, ….
pub(crate) fn received_each<'a>(messages: impl Iterator<Item = (&'a Value, u32)>) -> Value {
    let record = |(n, (body, receives)): (usize, (&Value, u32))| {
        json!({
            "messageId": format!("m{n}"), "receiptHandle": "h", "body": body.to_string(), "md5OfBody": "", "messageAttributes": {},
            "attributes": {"ApproximateReceiveCount": receives.to_string(), "SentTimestamp": "1", "SenderId": "s",
                "ApproximateFirstReceiveTimestamp": "1"},
            "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:q", "awsRegion": "us-east-1",
        })
    };
    json!({"Records": messages.enumerate().map(record).collect::<Vec<_>>()})
}

/// A job of this file, split: its owner, its path, and its messages in the order of their batches.
pub(crate) async fn split(stack: &Stack, file: Vec<u8>) -> (Visitor, String, Vec<Value>) {
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "leads.csv", file).await;
    let splitter = Function::start("splitter", &stack.environment(&Value::Null)).await;
    splitter.invoke(stack.uploaded(&job, "leads.csv")).await.expect("split");
    let mut messages = stack.take_all().await;
    messages.sort_by_key(|message| message["batch"].as_u64());
    (visitor, job, messages)
}

/// Uploads a file as the page does: to the presigned address, then a word to the server; the path of its job.
pub(crate) async fn upload(visitor: &Visitor, name: &str, bytes: Vec<u8>) -> String {
    upload_often(visitor, name, bytes, 1).await
}

/// The same, with this many uploads to the one address: S3 tells of each.
pub(crate) async fn upload_often(visitor: &Visitor, name: &str, bytes: Vec<u8>, times: usize) -> String {
    let request = json!({"file_name": name, "size": bytes.len(), "content_type": "text/csv"});
    let (_, created) = visitor.post("/jobs", &request).await;
    let url = created["upload"]["url"].as_str().expect("an address");
    let mut put = reqwest::Client::new().put(url).body(bytes);
    for (name, value) in created["upload"]["headers"].as_object().expect("headers") {
        put = put.header(name, value.as_str().expect("text"));
    }
    for _ in 0..times {
        let sent = put.try_clone().expect("bytes").send().await.expect("answered");
        assert!(sent.status().is_success(), "{}", sent.text().await.expect("text"));
    }
    let job = format!("/jobs/{}", created["job"]["id"].as_str().expect("an id"));
    visitor.post(&format!("{job}/uploaded"), &json!({})).await;
    job
}

/// Checks the listed errors of a job of a hundred batches of ten rows, of which the last has nobody in it:
/// each is there once.
pub(crate) async fn lists_the_error_of_each_batch(visitor: &Visitor, job: &str) {
    let mut listed = Vec::new();
    let mut page = format!("{job}/errors?limit=100");
    loop {
        let errors = visitor.get(&page).await;
        let rows = errors["errors"].as_array().expect("errors");
        listed.extend(rows.iter().map(|row| (row["batch"].as_u64(), row["item"].as_u64())));
        let Some(cursor) = errors["next_cursor"].as_str() else { break };
        page = format!("{job}/errors?limit=100&cursor={cursor}");
    }
    let expected: BTreeSet<_> = (0..100).map(|batch| (Some(batch), Some(batch * 10 + 10))).collect();
    assert_eq!(listed.len(), expected.len(), "every error is listed once");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
}
