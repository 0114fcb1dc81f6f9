//! Creating a job, once for each of its owner's idempotency keys.
//!
//! A key is claimed for a job before the job is created. Whoever finds a key of a job that is not there
//! takes it over for its own job: it first puts a stone where the other's head would be, so that a slow
//! creator cannot create it any more, and then swaps the key. (A transaction of key and head would cost
//! twice as much, for each creation with a key.)

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{Consistency, Created, Job, JobId, StoreError, clock};

use crate::{
    DynamoStore, head,
    layout::{self, Item, attribute},
    request::Write,
};

/// For so long a claim is young: its creator may just be at it.
const YOUNG: Duration = Duration::from_secs(10);
/// How often a creator looks whether the other one is done: for two thirds of a second in all.
const WAITS: u32 = 5;
/// How often a creator tries to come to a key.
const TRIES: u32 = 12;

/// What putting the head came to.
enum Put {
    Created(Created),
    /// Somebody else has taken the key over, and keeps this job from being created.
    Barred,
}

impl DynamoStore {
    pub(crate) async fn create_job(&self, job: &Job) -> Result<Created, StoreError> {
        let subject = || format!("job {}", job.id);
        let Some(key) = &job.idempotency_key else {
            return match self.create_head(job).await? {
                Put::Created(created) => Ok(created),
                Put::Barred => Err(layout::corrupt(job.id, "its id was given up; create it under another")),
            };
        };
        let key = layout::idempotency_key(&job.owner, key);
        let mut holder = self.claim_key(job, &key, None).await?;
        let (mut waits, mut barred) = (0, false);
        for _ in 0..TRIES {
            if holder == job.id && !barred {
                match self.create_head(job).await? {
                    Put::Created(created) => return Ok(created),
                    Put::Barred => barred = true,
                }
            }
            if holder != job.id
                && let Some(existing) = self.head(holder, Consistency::Strong).await?
            {
                return Ok(Created::Existing(Box::new(existing)));
            }
            let young = clock::after(holder.created_at(), YOUNG) > self.clock.now();
            if waits < WAITS && (barred || young) {
                tokio::time::sleep(Duration::from_millis(20 << waits)).await;
                waits += 1;
            } else if barred {
                break;
            } else {
                if let Some(existing) = self.bar(holder, job).await? {
                    return Ok(Created::Existing(Box::new(existing)));
                }
                holder = self.claim_key(job, &key, Some(holder)).await?;
                continue;
            }
            if barred {
                let found = self.read_by(subject, self.get(key.clone(), Consistency::Strong).send()).await?;
                holder = found.item.as_ref().map_or(Ok(job.id), |item| holder_of(job, item))?;
            }
        }
        let source = "other requests with the same idempotency key are at it".into();
        Err(StoreError::Throttled { operation: "PutItem", subject: subject(), source })
    }

    async fn create_head(&self, job: &Job) -> Result<Put, StoreError> {
        let put = self.put(head::encode(job)).condition_expression("attribute_not_exists(pk)");
        let stored = match self.write_by(|| format!("job {}", job.id), put.send()).await? {
            Write::Applied(_) => return Ok(Put::Created(Created::New)),
            Write::Refused(stored) => {
                stored.ok_or_else(|| layout::corrupt(job.id, "it is there and is not"))?
            }
        };
        if head::is_barred(&stored) {
            return Ok(Put::Barred);
        }
        let stored = head::decode(job.id, &stored)?;
        // The answer to the same creation was lost.
        let is_this = stored.is_same_request(job);
        Ok(Put::Created(if is_this { Created::New } else { Created::Existing(Box::new(stored)) }))
    }

    /// Keeps the job `other` from being created, whose key `job` is to have. Gives it if it has been.
    async fn bar(&self, other: JobId, job: &Job) -> Result<Option<Job>, StoreError> {
        let stone = head::barred(other, job.expires_at());
        let put = self.put(stone).condition_expression("attribute_not_exists(pk)");
        match self.write_by(|| format!("job {other}"), put.send()).await? {
            Write::Refused(Some(there)) if !head::is_barred(&there) => {
                Ok(Some(head::decode(other, &there)?).filter(|other| !self.is_expired(other)))
            }
            _ => Ok(None),
        }
    }

    /// Claims the owner's idempotency key for the job, also from the job `from`; gives the id of the job
    /// that has it.
    async fn claim_key(&self, job: &Job, key: &Item, from: Option<JobId>) -> Result<JobId, StoreError> {
        let mut item = key.clone();
        item.insert(layout::JOB.into(), AttributeValue::S(job.id.to_string()));
        item.insert(layout::TTL.into(), layout::seconds(job.expires_at()));
        let mut condition = "attribute_not_exists(pk) OR ttl_at <= :now".to_owned();
        // Rounded down, as the expiry is rounded up: no key is free before its job is gone.
        let now = layout::number(self.clock.now().as_millisecond().div_euclid(1_000));
        let mut put = self.put(item).expression_attribute_values(":now", now);
        if let Some(from) = from {
            condition += " OR job = :from";
            put = put.expression_attribute_values(":from", AttributeValue::S(from.to_string()));
        }
        let put = put.condition_expression(condition);
        match self.write_by(|| format!("job {}", job.id), put.send()).await? {
            Write::Applied(_) => Ok(job.id),
            Write::Refused(there) => holder_of(job, &there.unwrap_or_default()),
        }
    }
}

/// The job that has the key.
fn holder_of(job: &Job, key: &Item) -> Result<JobId, StoreError> {
    let id = attribute::text(key, layout::JOB).and_then(|id| id.parse().ok());
    id.ok_or_else(|| layout::corrupt(job.id, "an idempotency key without a job"))
}
