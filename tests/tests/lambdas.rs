//! The import as deployed: the release binaries as `provided.al2023` functions in MiniStack, with S3 notifications and an SQS event
//! source mapping. `MINISTACK_URL` says where it listens, `BOOTSTRAPS` in which folder the binaries are: `cargo xtask test` does both.
#![cfg(feature = "ministack")]

use std::{
    env, fs,
    io::{Cursor, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use aws_sdk_s3::types::{Event, LambdaFunctionConfiguration, NotificationConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use e2e::{PATIENCE, Server, Visitor};
use serde_json::{Value, json};

/// A bucket, a queue with its dead-letter queue, two tables and two functions, all of this test's own.
struct Stack {
    sqs: aws_sdk_sqs::Client,
    queue: String,
    server: Server,
}

fn url() -> String {
    env::var("MINISTACK_URL").expect("MINISTACK_URL: run this by cargo xtask test")
}

/// The function's package: one file, `bootstrap`.
fn package(binary: &str) -> Vec<u8> {
    let folder: PathBuf = env::var_os("BOOTSTRAPS").expect("BOOTSTRAPS: run this by cargo xtask test").into();
    let mut package = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    package.start_file("bootstrap", options).expect("a zip");
    package.write_all(&fs::read(folder.join(binary)).expect("built")).expect("a zip");
    package.finish().expect("a zip").into_inner()
}

/// Makes a function of a binary; its ARN. By the plain interface: one call does not need an SDK.
async fn function(name: &str, binary: &str, environment: Value) -> String {
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
    async fn deploy(name: &str) -> Self {
        // Every test of this file sets the same.
        let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        let (s3, sqs) = (aws_sdk_s3::Client::from_conf(s3), aws_sdk_sqs::Client::new(&config));
        sqs.create_queue().queue_name(format!("{name}-dead")).send().await.expect("a queue");
        let redrive = json!({"maxReceiveCount": 3, "deadLetterTargetArn": format!("arn:aws:sqs:us-east-1:000000000000:{name}-dead")});
        let queue = sqs
            .create_queue()
            .queue_name(name)
            .attributes(QueueAttributeName::VisibilityTimeout, "2")
            .attributes(QueueAttributeName::RedrivePolicy, redrive.to_string())
            .send()
            .await
            .expect("a queue");
        let queue = queue.queue_url().expect("a queue has a URL").to_owned();
        let server = Server::start(&[
            "--store",
            "dynamodb",
            "--table",
            name,
            "--uploads",
            &format!("s3:{name}"),
            "--queue",
            &format!("sqs:{queue}"),
        ])
        .await;
        let aws = json!({
            "AWS_ENDPOINT_URL": url(), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "STATUS_TABLE": name, "LEADS_TABLE": format!("{name}-leads"), "LEADS_QUEUE_URL": queue,
        });
        let splitter = function(&format!("{name}-splitter"), "splitter", aws.clone()).await;
        function(&format!("{name}-caller"), "caller", aws).await;
        s3.create_bucket().bucket(name).send().await.expect("a bucket");
        let notify = LambdaFunctionConfiguration::builder()
            .lambda_function_arn(splitter)
            .events(Event::from("s3:ObjectCreated:*"))
            .build()
            .expect("complete");
        let notify = NotificationConfiguration::builder().lambda_function_configurations(notify).build();
        let configured =
            s3.put_bucket_notification_configuration().bucket(name).notification_configuration(notify);
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
        Self { sqs, queue, server }
    }
}

impl Stack {
    /// Waits until the queue is empty and nothing is in flight.
    async fn until_drained(&self) {
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

/// Uploads a file as the page does: to the presigned address, then a word to the server.
async fn upload(visitor: &Visitor, name: &str, bytes: Vec<u8>) -> String {
    let request = json!({"file_name": name, "size": bytes.len(), "content_type": "text/csv"});
    let (_, created) = visitor.post("/jobs", &request).await;
    let mut put =
        reqwest::Client::new().put(created["upload"]["url"].as_str().expect("an address")).body(bytes);
    for (name, value) in created["upload"]["headers"].as_object().expect("headers") {
        put = put.header(name, value.as_str().expect("text"));
    }
    let sent = put.send().await.expect("answered");
    assert!(sent.status().is_success(), "{}", sent.text().await.expect("text"));
    let job = format!("/jobs/{}", created["job"]["id"].as_str().expect("an id"));
    visitor.post(&format!("{job}/uploaded"), &json!({})).await;
    job
}

const LEADS: &[u8] = include_bytes!("../data/leads-100.csv");

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_leads_through_the_lambdas() {
    let stack = Stack::deploy(&format!("import-once-{}", std::process::id())).await;
    let visitor = stack.server.visitor();
    let job = upload(&visitor, "leads 100+ümlaut.csv", LEADS.to_vec()).await;
    let done = visitor.until_over(&job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(
        done["progress"]["batches"],
        json!({"total": 10, "completed": 10, "failed": 0, "pending": 0, "running": 0})
    );
    assert_eq!(done["progress"]["items"]["processed"], 100);
    assert_eq!(visitor.get("/leads").await["total"], 100);
    // Every message once more: nothing changes, and none is left.
    for batch in 0..10 {
        let id = job.trim_start_matches("/jobs/");
        let message = json!({"job_id": id, "batch": batch, "file_name": "again.csv", "first_row": 1, "leads": [{"Email": "x@example.com"}]});
        stack
            .sqs
            .send_message()
            .queue_url(&stack.queue)
            .message_body(message.to_string())
            .send()
            .await
            .expect("sent");
    }
    stack.until_drained().await;
    let after = visitor.get(&job).await;
    assert_eq!((&after["progress"], &after["status"]), (&done["progress"], &done["status"]));
    assert_eq!(visitor.get("/leads").await["total"], 100);
}
