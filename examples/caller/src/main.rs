//! `caller`: the Lambda (deployed as `bootstrap`) for batches on SQS and, on a schedule, for sweeping.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::BehaviorVersion;
use aws_lambda_events::event::{
    eventbridge::EventBridgeEvent,
    sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage},
};
use caller::{Caller, Delivery, Handled};
use clap::Parser;
use lambda_runtime::{LambdaEvent, service_fn};
use leads::{DynamoLeads, NormaliserKind};
use serde::{Deserialize, Serialize};
use status_core::{BoxError, Swept, Tracker};
use status_dynamo::DynamoStore;

/// What is left of the Lambda's time for recording what became of the batches.
const MARGIN: Duration = Duration::from_secs(2);

/// What the Lambda is called for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Event {
    /// Batches from the queue.
    Batches(SqsEvent),
    /// It is time to sweep: any event of EventBridge, such as a schedule's.
    Sweep(Box<EventBridgeEvent>),
}

/// What it answers.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Batches(SqsBatchResponse),
    Swept(Swept),
}

/// Works on batches of leads, as a Lambda for SQS events, and sweeps on EventBridge events. Set these in its environment.
#[derive(Parser)]
#[command(name = "caller", version)]
struct Environment {
    /// The DynamoDB table of the jobs.
    #[arg(long, env = "STATUS_TABLE")]
    status_table: String,
    /// The DynamoDB table of the leads.
    #[arg(long, env = "LEADS_TABLE")]
    leads_table: String,
    /// What turns rows into leads; if not given, DeepSeek where there is a `DEEPSEEK_API_KEY`, else the rules.
    #[arg(long, env = "NORMALISER", value_enum)]
    normaliser: Option<NormaliserKind>,
    /// A batch that fails when it is received for this time is given up; the queue's own limit must not be lower.
    #[arg(long, env = "MAX_RECEIVE_COUNT", default_value_t = 3)]
    max_receive_count: u32,
}

fn main() -> ExitCode {
    let environment = Environment::parse();
    lambda_runtime::tracing::init_default_subscriber();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(BoxError::from).and_then(|runtime| runtime.block_on(serve(environment))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("caller: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(environment: Environment) -> Result<(), BoxError> {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let client = aws_sdk_dynamodb::Client::new(&config);
    let tracker = Tracker::new(Arc::new(DynamoStore::new(client.clone(), environment.status_table)));
    let leads = DynamoLeads::new(client, environment.leads_table);
    let normaliser = NormaliserKind::open(environment.normaliser)?;
    let caller = Caller::new(tracker.clone(), normaliser, Arc::new(leads), environment.max_receive_count);
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Event>| match event.payload {
        Event::Batches(batches) => {
            let time_left = event.context.deadline().duration_since(SystemTime::now()).unwrap_or_default();
            let time_left = time_left.saturating_sub(MARGIN);
            Ok::<_, BoxError>(Answer::Batches(handle(&caller, batches.records, time_left).await))
        }
        Event::Sweep(event) => {
            let swept = tracker.sweep().await?;
            tracing::info!(event = event.id, ?swept, "swept");
            Ok(Answer::Swept(swept))
        }
    }))
    .await
}

/// Works on one delivery of up to ten messages; names those that are to come again.
async fn handle(caller: &Caller, messages: Vec<SqsMessage>, time_left: Duration) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    let mut again = |message: &SqsMessage| {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier = message.message_id.clone().unwrap_or_default();
        response.batch_item_failures.push(failure);
    };
    let (mut known, mut deliveries) = (Vec::new(), Vec::new());
    for message in messages {
        match delivery(&message) {
            Ok(delivery) => {
                known.push(message);
                deliveries.push(delivery);
            }
            Err(error) => {
                // Nothing is lost: after its last receive it is in the dead-letter queue.
                tracing::error!(message = message.message_id, %error, "a message is no batch of leads");
                again(&message);
            }
        }
    }
    let handled = caller.handle(&deliveries, time_left).await;
    known.iter().zip(handled).filter(|(_, handled)| *handled != Handled::Done).for_each(|(m, _)| again(m));
    response
}

fn delivery(message: &SqsMessage) -> Result<Delivery, BoxError> {
    let receives = message.attributes.get("ApproximateReceiveCount");
    Ok(Delivery {
        message: serde_json::from_str(message.body.as_deref().unwrap_or_default())?,
        receives: receives.map_or(Ok(1), |count| count.parse())?,
    })
}
