//! Requests: each is sent in one place, which meters it, tells a refused condition from a failure, and
//! turns the SDK's errors into the store's.

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        batch_get_item::BatchGetItemOutput,
        delete_item::{DeleteItemError, DeleteItemOutput, builders::DeleteItemFluentBuilder},
        get_item::{GetItemOutput, builders::GetItemFluentBuilder},
        put_item::{PutItemError, PutItemOutput, builders::PutItemFluentBuilder},
        query::{QueryOutput, builders::QueryFluentBuilder},
        update_item::{UpdateItemError, UpdateItemOutput, builders::UpdateItemFluentBuilder},
    },
    types::{AttributeValue, ConsumedCapacity, ReturnValuesOnConditionCheckFailure},
};
use status_core::{Consistency, StoreError};

use crate::{DynamoStore, layout::Item};

/// The codes by which DynamoDB asks to slow down.
const THROTTLING: [&str; 4] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TransactionInProgressException",
];

/// What a conditional write came to.
pub(crate) enum Write<T> {
    /// It was made.
    Applied(T),
    /// Its condition did not hold: the item as it is, if there is one.
    Refused(Option<Item>),
}

impl DynamoStore {
    pub(crate) fn get(&self, key: Item, consistency: Consistency) -> GetItemFluentBuilder {
        let strong = consistency == Consistency::Strong;
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key));
        get.consistent_read(strong).set_return_consumed_capacity(self.metered())
    }

    /// A query of all items under `pk`.
    pub(crate) fn query(&self, pk: String, consistency: Consistency) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(pk))
            .consistent_read(consistency == Consistency::Strong)
            .set_return_consumed_capacity(self.metered())
    }

    /// A query of an index, whose key is still to be named.
    pub(crate) fn query_index(&self, index: &str) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&self.table).index_name(index);
        query.set_return_consumed_capacity(self.metered())
    }

    /// A write of an item that answers with the one that is there, if its condition does not hold.
    pub(crate) fn put(&self, item: Item) -> PutItemFluentBuilder {
        self.client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .set_return_consumed_capacity(self.metered())
    }

    /// An update of an item that answers with the one that is there, if its condition does not hold.
    pub(crate) fn update(&self, key: Item) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .set_return_consumed_capacity(self.metered())
    }

    pub(crate) fn deletion(&self, key: Item) -> DeleteItemFluentBuilder {
        let delete = self.client.delete_item().table_name(&self.table).set_key(Some(key));
        delete.set_return_consumed_capacity(self.metered())
    }

    /// Sends a request that reads.
    pub(crate) async fn read_by<O: Answer, E, R>(
        &self,
        subject: impl FnOnce() -> String,
        sent: impl Future<Output = Result<O, SdkError<E, R>>>,
    ) -> Result<O, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let answer = sent.await.map_err(|error| failed(O::OPERATION, subject(), error))?;
        self.metered_read(answer.capacity());
        Ok(answer)
    }

    /// Sends a request that writes, perhaps on a condition.
    pub(crate) async fn write_by<O: Answer, E: Conditional, R>(
        &self,
        subject: impl FnOnce() -> String,
        sent: impl Future<Output = Result<O, SdkError<E, R>>>,
    ) -> Result<Write<O>, StoreError>
    where
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        match sent.await {
            Ok(answer) => {
                self.metered_write(answer.capacity());
                Ok(Write::Applied(answer))
            }
            Err(error) => match error.as_service_error().and_then(Conditional::refused) {
                Some(item) => {
                    self.metered_refusal(item);
                    Ok(Write::Refused(item.cloned()))
                }
                None => Err(failed(O::OPERATION, subject(), error)),
            },
        }
    }
}

/// An answer that says what it cost.
pub(crate) trait Answer {
    const OPERATION: &'static str;
    fn capacity(&self) -> Option<&ConsumedCapacity>;
}

macro_rules! answers {
    ($($output:ident = $name:literal),*) => {$(
        impl Answer for $output {
            const OPERATION: &'static str = $name;
            fn capacity(&self) -> Option<&ConsumedCapacity> {
                self.consumed_capacity.as_ref()
            }
        }
    )*};
}

answers!(
    GetItemOutput = "GetItem",
    QueryOutput = "Query",
    PutItemOutput = "PutItem",
    UpdateItemOutput = "UpdateItem",
    DeleteItemOutput = "DeleteItem"
);

impl Answer for BatchGetItemOutput {
    const OPERATION: &'static str = "BatchGetItem";
    fn capacity(&self) -> Option<&ConsumedCapacity> {
        self.consumed_capacity().first()
    }
}

/// An error that may say that a condition did not hold.
pub(crate) trait Conditional:
    ProvideErrorMetadata + std::error::Error + Send + Sync + 'static
{
    /// The item that is there instead, if any; `None` for any other error.
    #[expect(clippy::option_option, reason = "refused, and by which item")]
    fn refused(&self) -> Option<Option<&Item>>;
}

macro_rules! conditional {
    ($($error:ident),*) => {$(
        impl Conditional for $error {
            fn refused(&self) -> Option<Option<&Item>> {
                match self {
                    Self::ConditionalCheckFailedException(refused) => Some(refused.item()),
                    _ => None,
                }
            }
        }
    )*};
}

conditional!(PutItemError, UpdateItemError, DeleteItemError);

/// Whether the server refused a write as one that it can never make.
pub(crate) fn is_invalid<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else { return false };
    source.downcast_ref::<E>().and_then(E::code) == Some("ValidationException")
}

/// The SDK's error as the store's: it names the operation and what it was about, and keeps its source.
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
