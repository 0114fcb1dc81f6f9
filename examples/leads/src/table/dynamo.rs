//! Leads in a DynamoDB table: `pk` = the owner, `sk` = what identifies the lead among the owner's.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    Client,
    error::ProvideErrorMetadata,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest,
        ScalarAttributeType, TableStatus, WriteRequest,
    },
};
use status_core::{BoxError, JobId, OwnerId, Timestamp};

use super::{LeadPage, LeadQuery, LeadTable, StoredLead, TableError};
use crate::{Field, Lead};

/// So many leads are written in one request.
const PER_REQUEST: usize = 25;
/// How often what the server left out is sent again.
const TRIES: u32 = 8;

/// Leads in a DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoLeads {
    client: Client,
    table: String,
}

impl DynamoLeads {
    /// Leads in `table`.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// Creates the table, unless it is there, and waits until it can be used. Of one that is there it only asks `DescribeTable`.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn create_table(&self) -> Result<(), TableError> {
        let failed =
            |source: BoxError| TableError { operation: "creating the table", source, may_pass: true };
        if self.status().await?.is_none() {
            self.create_it().await?;
        }
        for _ in 0..120 {
            if self.status().await? == Some(TableStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(failed("it does not become active".into()))
    }

    /// `None` if there is no such table.
    async fn status(&self) -> Result<Option<TableStatus>, TableError> {
        match self.client.describe_table().table_name(&self.table).send().await {
            Ok(described) => Ok(described.table.and_then(|table| table.table_status)),
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(error) => {
                Err(TableError { operation: "looking for the table", source: error.into(), may_pass: true })
            }
        }
    }

    async fn create_it(&self) -> Result<(), TableError> {
        let failed =
            |source: BoxError| TableError { operation: "creating the table", source, may_pass: true };
        let mut create =
            self.client.create_table().table_name(&self.table).billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
            let attribute =
                AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            let key = KeySchemaElement::builder().attribute_name(name).key_type(kind);
            create = create
                .attribute_definitions(attribute.build().map_err(|e| failed(e.into()))?)
                .key_schema(key.build().map_err(|e| failed(e.into()))?);
        }
        match create.send().await {
            Err(error) if error.code() != Some("ResourceInUseException") => Err(failed(error.into())),
            // Somebody else was faster, perhaps.
            _ => Ok(()),
        }
    }

    async fn write(&self, leads: &[StoredLead], owner: &OwnerId) -> Result<(), TableError> {
        let failed = |source: BoxError, may_pass| TableError { operation: "writing", source, may_pass };
        let puts = leads.iter().map(|lead| {
            let put = PutRequest::builder()
                .set_item(Some(encode(owner, lead)))
                .build()
                .map_err(|e| failed(e.into(), false))?;
            Ok(WriteRequest::builder().put_request(put).build())
        });
        let mut left = puts.collect::<Result<Vec<_>, TableError>>()?;
        for tried in 0..TRIES {
            let written = self.client.batch_write_item().request_items(&self.table, left).send().await;
            let written = written.map_err(|error| {
                let may_pass = error.code() != Some("ValidationException");
                failed(error.into(), may_pass)
            })?;
            left = written.unprocessed_items.unwrap_or_default().remove(&self.table).unwrap_or_default();
            if left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20 << tried)).await;
        }
        Err(failed("some leads stayed unprocessed".into(), true))
    }
}

#[async_trait]
impl LeadTable for DynamoLeads {
    async fn upsert(
        &self,
        owner: &OwnerId,
        job: JobId,
        leads: &[(u64, Lead)],
        at: Timestamp,
    ) -> Result<(), TableError> {
        // One request may not have the same key twice: of rows with the same address the last one counts.
        let leads = leads.iter().map(|(row, lead)| StoredLead::new(job, *row, lead.clone(), at));
        let by_id: HashMap<_, _> = leads.map(|lead| (lead.id.clone(), lead)).collect();
        let leads: Vec<_> = by_id.into_values().collect();
        for part in leads.chunks(PER_REQUEST) {
            self.write(part, owner).await?;
        }
        Ok(())
    }

    async fn page(&self, owner: &OwnerId, query: &LeadQuery) -> Result<LeadPage, TableError> {
        let failed = |source: BoxError| TableError { operation: "reading", source, may_pass: true };
        let mut items = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :owner")
            .expression_attribute_values(":owner", AttributeValue::S(owner.to_string()))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let mut leads = Vec::new();
        while let Some(item) = items.next().await {
            let item = item.map_err(|error| failed(error.into()))?;
            leads.push(decode(&item).ok_or_else(|| failed("an item of the table is no lead".into()))?);
        }
        Ok(LeadPage::of(leads.iter(), query))
    }
}

fn encode(owner: &OwnerId, lead: &StoredLead) -> HashMap<String, AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let mut item = HashMap::from([
        ("pk".to_owned(), text(owner.as_str())),
        ("sk".to_owned(), text(&lead.id)),
        ("job_id".to_owned(), text(&lead.job_id.to_string())),
        ("row".to_owned(), AttributeValue::N(lead.row.to_string())),
        ("updated_at".to_owned(), AttributeValue::N(lead.updated_at.as_millisecond().to_string())),
    ]);
    let known = Field::ALL.into_iter().filter(|field| !lead.lead.get(*field).is_empty());
    item.extend(known.map(|field| (field.as_str().to_owned(), text(lead.lead.get(field)))));
    item
}

fn decode(item: &HashMap<String, AttributeValue>) -> Option<StoredLead> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<i64>().ok();
    let mut lead = Lead::default();
    for field in Field::ALL {
        *lead.get_mut(field) = text(field.as_str()).unwrap_or_default();
    }
    Some(StoredLead {
        id: text("sk")?,
        lead,
        job_id: text("job_id")?.parse().ok()?,
        row: u64::try_from(number("row")?).ok()?,
        updated_at: Timestamp::from_millisecond(number("updated_at")?).ok()?,
    })
}
