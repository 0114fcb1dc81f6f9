//! Errors of items: one item of the table for each batch that has any, in a partition of their own so that polls do not read
//! them. They are written before the outcome, so that a job that is over has all of them.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use status_core::{BatchIndex, BatchReport, Consistency, ItemError, JobId, Page, PageRequest, StoreError};

use crate::{
    DynamoStore,
    error::failed,
    layout::{self, Item, attribute},
    outcomes::updated_number,
};

impl DynamoStore {
    /// Keeps the errors of batches that have none yet, as far as the job's policy allows; gives those it kept.
    pub(crate) async fn keep_errors(
        &self,
        id: JobId,
        reports: &[&BatchReport],
    ) -> Result<Vec<BatchIndex>, StoreError> {
        let mut kept = Vec::new();
        for report in reports.iter().filter(|report| !report.errors.is_empty()) {
            let putting = self
                .client
                .put_item()
                .table_name(&self.table)
                .set_item(Some(encode(id, report)?))
                .condition_expression("attribute_not_exists(pk)")
                .set_return_consumed_capacity(self.metered());
            if !self.errors_have_room(id, report.errors.len()).await? {
                continue;
            }
            match putting.send().await {
                Ok(done) => {
                    self.wrote(done.consumed_capacity.as_ref());
                    kept.push(report.batch);
                }
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
                {
                    self.refused();
                }
                Err(error) => return Err(failed("PutItem", format!("errors of job {id}"), error)),
            }
        }
        Ok(kept)
    }

    /// Puts the errors of a batch that failed before and completed now in the place of the old ones.
    pub(crate) async fn replace_errors(&self, id: JobId, report: &BatchReport) -> Result<(), StoreError> {
        if report.errors.is_empty() {
            return self.forget_errors(id, report.batch).await;
        }
        let putting = self.client.put_item().table_name(&self.table).set_item(Some(encode(id, report)?));
        let done = putting.set_return_consumed_capacity(self.metered()).send().await;
        let done = done.map_err(|error| failed("PutItem", format!("errors of job {id}"), error))?;
        self.wrote(done.consumed_capacity.as_ref());
        Ok(())
    }

    pub(crate) async fn forget_errors(&self, id: JobId, batch: BatchIndex) -> Result<(), StoreError> {
        self.delete(id, layout::errors_key(id, batch.get())).await
    }

    pub(crate) async fn list_errors(
        &self,
        id: JobId,
        page: &PageRequest,
    ) -> Result<Page<ItemError>, StoreError> {
        let (from, skip) = page.cursor.as_deref().map_or(Ok((0, 0)), cursor)?;
        let mut rows: Vec<ItemError> = Vec::new();
        let mut start = None;
        loop {
            let found = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pk AND sk >= :from")
                .expression_attribute_values(":pk", AttributeValue::S(layout::errors_pk(id)))
                .expression_attribute_values(":from", AttributeValue::S(format!("error#{from:08}")))
                .limit(i32::try_from(page.limit.saturating_add(1)).unwrap_or(i32::MAX))
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.metered())
                .send()
                .await
                .map_err(|error| failed("Query", format!("errors of job {id}"), error))?;
            self.read(found.consumed_capacity.as_ref());
            for item in found.items() {
                let errors = decode(id, item)?;
                let before = errors.first().filter(|e| e.batch.get() == from).map_or(0, |_| skip);
                for (place, error) in errors.into_iter().enumerate().skip(before) {
                    if rows.len() == page.limit {
                        return Ok(Page { rows, next: Some(format!("{}-{place}", error.batch)) });
                    }
                    rows.push(error);
                }
            }
            start = found.last_evaluated_key;
            if start.is_none() {
                return Ok(Page { rows, next: None });
            }
        }
    }

    /// Counts `more` errors, unless the job has as many as its policy allows. A repeated call counts again: then a few less
    /// are kept.
    async fn errors_have_room(&self, id: JobId, more: usize) -> Result<bool, StoreError> {
        let Some(job) = self.head(id, Consistency::Eventual).await? else { return Ok(true) };
        let counted = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(layout::errors_count_key(id)))
            .update_expression("ADD n :n")
            .condition_expression("attribute_not_exists(n) OR n < :max")
            .expression_attribute_values(":n", layout::number(more))
            .expression_attribute_values(":max", layout::number(job.policy.max_errors))
            .return_values(ReturnValue::UpdatedNew)
            .set_return_consumed_capacity(self.metered())
            .send()
            .await;
        match counted {
            Ok(done) => {
                self.wrote(done.consumed_capacity.as_ref());
                Ok(updated_number(done.attributes.as_ref(), "n").is_some())
            }
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                self.refused();
                Ok(false)
            }
            Err(error) => Err(failed("UpdateItem", format!("errors of job {id}"), error)),
        }
    }
}

fn encode(id: JobId, report: &BatchReport) -> Result<Item, StoreError> {
    let rows: Vec<_> = report.errors.iter().map(|e| (e.item, &e.code, &e.message)).collect();
    let json = serde_json::to_string(&rows).map_err(|error| layout::corrupt(id, &error.to_string()))?;
    let mut item = layout::errors_key(id, report.batch.get());
    item.insert("sv".into(), layout::number(layout::SCHEMA));
    item.insert("b".into(), layout::number(report.batch));
    item.insert("rows".into(), AttributeValue::S(json));
    Ok(item)
}

fn decode(id: JobId, item: &Item) -> Result<Vec<ItemError>, StoreError> {
    let corrupt =
        || StoreError::Corrupt { subject: format!("errors of job {id}"), why: "they cannot be read".into() };
    let batch =
        attribute::number::<u64>(item, "b").and_then(|b| BatchIndex::new(b).ok()).ok_or_else(corrupt)?;
    let rows = attribute::text(item, "rows").ok_or_else(corrupt)?;
    let rows: Vec<(Option<u64>, String, String)> = serde_json::from_str(rows).map_err(|_| corrupt())?;
    let mut errors: Vec<_> =
        rows.into_iter().map(|(item, code, message)| ItemError { batch, item, code, message }).collect();
    errors.sort_by(|a, b| (a.item, &a.code).cmp(&(b.item, &b.code)));
    Ok(errors)
}

fn cursor(cursor: &str) -> Result<(u64, usize), StoreError> {
    let parse = || {
        let (batch, skip) = cursor.split_once('-')?;
        Some((batch.parse().ok()?, skip.parse().ok()?))
    };
    parse().ok_or(StoreError::InvalidCursor)
}
