//! Creating the table, as often as one likes.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::{BuildError, ProvideErrorMetadata},
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
        ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification,
        TimeToLiveStatus,
    },
};
use status_core::StoreError;

use crate::{
    DynamoStore,
    layout::{BY_DUE, BY_OWNER},
    request::failed,
};

impl DynamoStore {
    /// Creates the table with its indexes and its time-to-live, and waits until it can be used. Only looks, and changes
    /// nothing, if it is there already and is such a table: then `DescribeTable` and `DescribeTimeToLive` have to be allowed,
    /// and no more.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if there is another table of that name; [`StoreError::Unavailable`].
    pub async fn create_table(&self) -> Result<(), StoreError> {
        if !self.exists().await? {
            self.create_it().await?;
        }
        self.wait_until_active().await?;
        self.enable_expiry().await
    }

    async fn exists(&self) -> Result<bool, StoreError> {
        match self.client.describe_table().table_name(&self.table).send().await {
            Ok(_) => Ok(true),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {
                Ok(false)
            }
            Err(error) => Err(failed("DescribeTable", format!("table {}", self.table), error)),
        }
    }

    async fn create_it(&self) -> Result<(), StoreError> {
        let subject = || format!("table {}", self.table);
        let invalid = |error: BuildError| StoreError::Corrupt { subject: subject(), why: error.to_string() };
        let attribute = |name: &str, kind| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()
        };
        let mut create =
            self.client.create_table().table_name(&self.table).billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in [
            ("pk", ScalarAttributeType::S),
            ("sk", ScalarAttributeType::S),
            ("o", ScalarAttributeType::S),
            ("dp", ScalarAttributeType::S),
            ("due", ScalarAttributeType::N),
        ] {
            create = create.attribute_definitions(attribute(name, kind).map_err(invalid)?);
        }
        let index = |name: &str, [hash, range]: [&str; 2], projection| -> Result<_, BuildError> {
            GlobalSecondaryIndex::builder()
                .index_name(name)
                .key_schema(key(hash, KeyType::Hash)?)
                .key_schema(key(range, KeyType::Range)?)
                .projection(Projection::builder().projection_type(projection).build())
                .build()
        };
        let created = create
            .key_schema(key("pk", KeyType::Hash).map_err(invalid)?)
            .key_schema(key("sk", KeyType::Range).map_err(invalid)?)
            .global_secondary_indexes(index(BY_OWNER, ["o", "pk"], ProjectionType::All).map_err(invalid)?)
            .global_secondary_indexes(
                index(BY_DUE, ["dp", "due"], ProjectionType::KeysOnly).map_err(invalid)?,
            )
            .send()
            .await;
        match created {
            Ok(_) => Ok(()),
            // Somebody else was faster.
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => {
                Ok(())
            }
            Err(error) => Err(failed("CreateTable", subject(), error)),
        }
    }

    async fn enable_expiry(&self) -> Result<(), StoreError> {
        let subject = || format!("table {}", self.table);
        let described = self.client.describe_time_to_live().table_name(&self.table).send().await;
        let described = described.map_err(|error| failed("DescribeTimeToLive", subject(), error))?;
        let status = described.time_to_live_description.and_then(|expiry| expiry.time_to_live_status);
        if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
            return Ok(());
        }
        let expiry = TimeToLiveSpecification::builder().attribute_name("ttl_at").enabled(true).build();
        let expiry =
            expiry.map_err(|error| StoreError::Corrupt { subject: subject(), why: error.to_string() })?;
        let set =
            self.client.update_time_to_live().table_name(&self.table).time_to_live_specification(expiry);
        match set.send().await {
            Ok(_) => Ok(()),
            // "TimeToLive is already enabled": somebody else was faster.
            Err(error)
                if error.as_service_error().and_then(ProvideErrorMetadata::code)
                    == Some("ValidationException") =>
            {
                Ok(())
            }
            Err(error) => Err(failed("UpdateTimeToLive", subject(), error)),
        }
    }

    async fn wait_until_active(&self) -> Result<(), StoreError> {
        let subject = || format!("table {}", self.table);
        for _ in 0..120 {
            let described = self.client.describe_table().table_name(&self.table).send().await;
            let table = described.map_err(|error| failed("DescribeTable", subject(), error))?.table;
            let table = table.as_ref();
            if !table.is_some_and(is_ours) {
                let why = "it has other keys or indexes; choose another name".to_owned();
                return Err(StoreError::Corrupt { subject: subject(), why });
            }
            if table.and_then(TableDescription::table_status) == Some(&TableStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let source = "it does not become active".into();
        Err(StoreError::Unavailable { operation: "DescribeTable", subject: subject(), source })
    }
}

fn key(name: &str, kind: KeyType) -> Result<KeySchemaElement, BuildError> {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build()
}

fn is_ours(table: &TableDescription) -> bool {
    let keys: Vec<_> = table.key_schema().iter().map(KeySchemaElement::attribute_name).collect();
    let has =
        |name: &str| table.global_secondary_indexes().iter().any(|index| index.index_name() == Some(name));
    keys == ["pk", "sk"] && has(BY_OWNER) && has(BY_DUE)
}
