//! From the SDK's errors to the store's: each names the operation and what it was about, and keeps its source.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use status_core::StoreError;

/// The codes by which DynamoDB asks to slow down.
const THROTTLING: [&str; 4] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TransactionInProgressException",
];

pub(crate) fn failed<E, R>(operation: &'static str, subject: String, error: SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let throttled = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .is_some_and(|c| THROTTLING.contains(&c));
    let source = error.into_source().unwrap_or_else(|error| Box::new(error));
    match throttled {
        true => StoreError::Throttled { operation, subject, source },
        false => StoreError::Unavailable { operation, subject, source },
    }
}
