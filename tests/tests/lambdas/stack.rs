//! What the import needs of AWS, in MiniStack: a bucket, a queue with its dead-letter queue, two tables; and, if wanted, the two
//! functions with what calls them.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use aws_sdk_s3::types::{Event, LambdaFunctionConfiguration, NotificationConfiguration};
use aws_sdk_sqs::types::{Message, QueueAttributeName};
use e2e::{PATIENCE, Server, Visitor};
use serde_json::{Value, json};

/// All of this is a test's own.
pub(crate) struct Stack {
    name: String,
    sqs: aws_sdk_sqs::Client,
    s3: aws_sdk_s3::Client,
    queue: String,
    pub(crate) server: Server,
}

fn url() -> String {
    env::var("MINISTACK_URL").expect("MINISTACK_URL: run this by cargo xtask test")
}

/// A function's package as `cargo xtask lambdas` made it.
pub(crate) fn package(name: &str) -> Vec<u8> {
    let folder: PathBuf = env::var_os("BOOTSTRAPS").expect("BOOTSTRAPS: run this by cargo xtask test").into();
    fs::read(folder.join(format!("{name}.zip"))).expect("packed")
}

/// Makes a function of a binary; its ARN. By the plain interface: one call does not need an SDK.
async fn function(name: &str, binary: &str, environment: &Value) -> String {
    let answer = reqwest::Client::new()
        .post(format!("{}/2015-03-31/functions", url()))
        .json(&json!({
            "FunctionName": name, "Runtime": "provided.al2023", "Handler": "bootstrap", "Timeout": 60,
            "Role": "arn:aws:iam::000000000000:role/lambda", "Environment": {"Variables": environment},
            "Code": {"ZipFile": data_encoding::BASE64.encode(&package(binary))},
        }))
        .send()
        .await
        .expect("answered");
    let answer: Value = answer.json().await.expect("JSON");
    answer["FunctionArn"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

impl Stack {
    /// Everything but the functions, and a frontend that only serves.
    pub(crate) async fn prepare(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        // Every test of this file sets the same.
        let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        let (s3, sqs) = (aws_sdk_s3::Client::from_conf(s3), aws_sdk_sqs::Client::new(&config));
        sqs.create_queue().queue_name(format!("{name}-dead")).send().await.expect("a queue");
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
        Self { name, sqs, s3, queue, server }
    }

    /// The environment of the functions, with these variables in addition.
    pub(crate) fn environment(&self, more: &Value) -> Value {
        let mut environment = json!({
            "AWS_ENDPOINT_URL": url(), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "STATUS_TABLE": self.name, "LEADS_TABLE": format!("{}-leads", self.name), "LEADS_QUEUE_URL": self.queue,
        });
        let all = environment.as_object_mut().expect("an object");
        all.extend(more.as_object().cloned().unwrap_or_default());
        environment
    }

    /// The functions too, called by what calls them in AWS; the caller with these variables in its environment.
    pub(crate) async fn deploy(name: &str, more: &Value) -> Self {
        let this = Self::prepare(name).await;
        let name = &this.name;
        let environment = this.environment(more);
        let splitter = function(&format!("{name}-splitter"), "splitter", &environment).await;
        function(&format!("{name}-caller"), "caller", &environment).await;
        let notify = LambdaFunctionConfiguration::builder()
            .lambda_function_arn(splitter)
            .events(Event::from("s3:ObjectCreated:*"))
            .build()
            .expect("complete");
        let notify = NotificationConfiguration::builder().lambda_function_configurations(notify).build();
        let configured =
            this.s3.put_bucket_notification_configuration().bucket(name).notification_configuration(notify);
        configured.send().await.expect("notifications");
        let mapping = json!({
            "EventSourceArn": format!("arn:aws:sqs:us-east-1:000000000000:{name}"), "FunctionName": format!("{name}-caller"),
            "BatchSize": 10, "FunctionResponseTypes": ["ReportBatchItemFailures"],
        });
        let mapped = reqwest::Client::new()
            .post(format!("{}/2015-03-31/event-source-mappings", url()))
            .json(&mapping)
            .send()
            .await
            .expect("answered");
        assert!(mapped.status().is_success(), "{}", mapped.text().await.expect("text"));
        this
    }

    /// S3's event for an upload of this job.
    pub(crate) fn uploaded(&self, job: &str, file_name: &str) -> Value {
        let job = job.trim_start_matches("/jobs/");
        json!({"Records": [{
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventTime": "2026-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put", "userIdentity": {"principalId": "p"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"}, "responseElements": {},
            "s3": {"s3SchemaVersion": "1.0", "configurationId": "c",
                "bucket": {"name": self.name, "ownerIdentity": {"principalId": "p"}, "arn": format!("arn:aws:s3:::{}", self.name)},
                "object": {"key": format!("uploads/{job}/{file_name}"), "size": 1, "eTag": "e", "sequencer": "1"}},
        }]})
    }

    /// How many messages wait.
    pub(crate) async fn waiting(&self) -> usize {
        let asked = self.sqs.get_queue_attributes().queue_url(&self.queue);
        let asked = asked.attribute_names(QueueAttributeName::All).send().await.expect("answered");
        let waiting = asked.attributes().and_then(|all| all.get(&QueueAttributeName::ApproximateNumberOfMessages));
        waiting.and_then(|text| text.parse().ok()).unwrap_or(0)
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
        let sent = self.sqs.send_message().queue_url(&self.queue).message_body(body.to_string());
        sent.send().await.expect("sent");
    }

    /// Waits until the queue is empty and nothing is in flight.
    pub(crate) async fn until_drained(&self) {
        let begun = Instant::now();
        loop {
            let asked = self.sqs.get_queue_attributes().queue_url(&self.queue);
            let asked = asked.attribute_names(QueueAttributeName::All).send().await.expect("answered");
            let is_zero = |name: QueueAttributeName| {
                asked.attributes().and_then(|all| all.get(&name)).map_or("0", String::as_str) == "0"
            };
            if is_zero(QueueAttributeName::ApproximateNumberOfMessages)
                && is_zero(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
            {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the queue is not drained: {asked:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// SQS's event for these messages, each received for the `receives`th time.
pub(crate) fn received(bodies: &[Value], receives: u32) -> Value {
    let record = |(n, body): (usize, &Value)| {
        json!({
            "messageId": format!("m{n}"), "receiptHandle": "h", "body": body.to_string(), "md5OfBody": "", "messageAttributes": {},
            "attributes": {"ApproximateReceiveCount": receives.to_string(), "SentTimestamp": "1", "SenderId": "s",
                "ApproximateFirstReceiveTimestamp": "1"},
            "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:q", "awsRegion": "us-east-1",
        })
    };
    json!({"Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>()})
}

/// Uploads a file as the page does: to the presigned address, then a word to the server; the path of its job.
pub(crate) async fn upload(visitor: &Visitor, name: &str, bytes: Vec<u8>) -> String {
    let request = json!({"file_name": name, "size": bytes.len(), "content_type": "text/csv"});
    let (_, created) = visitor.post("/jobs", &request).await;
    let url = created["upload"]["url"].as_str().expect("an address");
    let mut put = reqwest::Client::new().put(url).body(bytes);
    for (name, value) in created["upload"]["headers"].as_object().expect("headers") {
        put = put.header(name, value.as_str().expect("text"));
    }
    let sent = put.send().await.expect("answered");
    assert!(sent.status().is_success(), "{}", sent.text().await.expect("text"));
    let job = format!("/jobs/{}", created["job"]["id"].as_str().expect("an id"));
    visitor.post(&format!("{job}/uploaded"), &json!({})).await;
    job
}
