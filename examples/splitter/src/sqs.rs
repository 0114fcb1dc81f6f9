//! The queue on SQS.

use async_trait::async_trait;
use aws_sdk_sqs::{Client, types::SendMessageBatchRequestEntry};
use leads::BatchMessage;

use crate::{BatchQueue, QueueError};

/// How often messages that SQS did not take are sent again.
const TRIES: usize = 4;

/// Batches as messages of one SQS queue.
#[derive(Clone, Debug)]
pub struct SqsQueue {
    client: Client,
    url: String,
}

impl SqsQueue {
    /// The queue at `url`.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }
}

#[async_trait]
impl BatchQueue for SqsQueue {
    /// One request; SQS answers for each message by itself, and what it did not take is sent again.
    async fn send(&self, batches: Vec<BatchMessage>) -> Result<(), QueueError> {
        let entry = |(place, batch): (usize, &BatchMessage)| {
            let body = serde_json::to_string(batch).map_err(|error| QueueError(error.into()))?;
            let entry = SendMessageBatchRequestEntry::builder().id(place.to_string()).message_body(body);
            entry.build().map_err(|error| QueueError(error.into()))
        };
        let mut entries = batches.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        for tried in 1.. {
            let request = self.client.send_message_batch().queue_url(&self.url);
            let sent = request.set_entries(Some(entries.clone())).send().await;
            let sent = sent.map_err(|error| QueueError(error.into()))?;
            entries.retain(|entry| sent.failed().iter().any(|failed| failed.id() == entry.id()));
            let Some(failed) = sent.failed().first() else { break };
            if tried == TRIES || failed.sender_fault() {
                let why = failed.message().unwrap_or("no reason given");
                return Err(QueueError(format!("{}: {why}", failed.code()).into()));
            }
        }
        Ok(())
    }
}
