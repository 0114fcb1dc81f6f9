//! Lists of jobs: an owner's, and those that are due. One damaged item never hides the others.

use std::collections::{BTreeSet, HashSet};

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{
    Consistency, Damaged, Due, Job, JobId, OwnerId, Page, PageRequest, Status, StoreError, Timestamp,
};

use crate::{
    DynamoStore, head,
    layout::{self, attribute},
};

/// So many requests are made for one page of an owner's jobs, however rare the status that is looked for.
const MAX_REQUESTS: usize = 5;

impl DynamoStore {
    pub(crate) async fn list_jobs(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let mut start = page.cursor.as_deref().map(|cursor| layout::owner_key(owner, cursor)).transpose()?;
        let mut listed = Page::new(Vec::new(), None);
        // What is damaged after the last job of the page is named on the next one.
        let mut damaged_before = 0;
        for _ in 0..MAX_REQUESTS {
            let mut query = self
                .query_index(layout::BY_OWNER)
                .key_condition_expression("o = :o")
                .expression_attribute_values(":o", AttributeValue::S(owner.to_string()))
                .scan_index_forward(false)
                .set_exclusive_start_key(start);
            query = match status {
                Some(status) => {
                    let wanted = AttributeValue::S(status.as_str().into());
                    query.filter_expression("st = :st").expression_attribute_values(":st", wanted)
                }
                None => query.limit(i32::try_from(page.limit.saturating_add(1)).unwrap_or(i32::MAX)),
            };
            let found = self.read_by(|| format!("jobs of {owner}"), query.send()).await?;
            for item in found.items.unwrap_or_default() {
                let job = match layout::id_of(&item).and_then(|id| head::decode(id, &item)) {
                    Ok(job) if self.is_expired(&job) => continue,
                    Ok(job) => job,
                    Err(error) => {
                        listed.damaged.push(damaged(error)?);
                        continue;
                    }
                };
                if listed.rows.len() == page.limit {
                    listed.next = listed.rows.last().map(|job: &Job| job.id.to_string());
                    listed.damaged.truncate(damaged_before);
                    return Ok(listed);
                }
                listed.rows.push(job);
                damaged_before = listed.damaged.len();
            }
            start = found.last_evaluated_key;
            listed.next = start.as_ref().map(layout::owner_cursor);
            if start.is_none() {
                return Ok(listed);
            }
        }
        Ok(listed)
    }

    pub(crate) async fn list_due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        let start = page.cursor.as_deref().map(layout::due_key).transpose()?;
        let query = self
            .query_index(layout::BY_DUE)
            .key_condition_expression("dp = :dp AND due <= :now")
            .expression_attribute_values(":dp", AttributeValue::S(layout::DUE.into()))
            .expression_attribute_values(":now", layout::millis(now))
            .limit(i32::try_from(page.limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start);
        let found = self.read_by(|| "jobs that are due".into(), query.send()).await?;
        let mut due = Page::new(Vec::<Due>::new(), found.last_evaluated_key.as_ref().map(layout::due_cursor));
        for item in found.items() {
            match layout::due_of(item) {
                Ok(job) => due.rows.push(job),
                Err(error) => due.damaged.push(damaged(error)?),
            }
        }
        let gone = self.expired(&due.rows).await?;
        due.rows.retain(|due| !gone.contains(&due.id));
        Ok(due)
    }

    /// Those of the jobs that have expired and are not deleted yet. The index does not say.
    async fn expired(&self, due: &[Due]) -> Result<HashSet<JobId>, StoreError> {
        let now = self.clock.now().as_second();
        let mut expired = HashSet::new();
        let ids: Vec<_> = due.iter().map(|due| due.id).collect::<BTreeSet<_>>().into_iter().collect();
        for part in ids.chunks(100) {
            let keys = part.iter().map(|id| layout::head_key(*id)).collect();
            for item in self.batch_get("jobs that are due", keys, Consistency::Eventual).await? {
                if attribute::number(&item, layout::TTL).is_some_and(|at: i64| at <= now) {
                    expired.extend(layout::id_of(&item).ok());
                }
            }
        }
        Ok(expired)
    }
}

/// What is damaged alone; any other error is one of the whole list.
pub(crate) fn damaged(error: StoreError) -> Result<Damaged, StoreError> {
    match error {
        StoreError::Corrupt { subject, why } => Ok(Damaged { subject, why }),
        error => Err(error),
    }
}
