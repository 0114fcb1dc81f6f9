//! Lists of jobs with their owners.

use std::error::Error as StdError;

use futures::future::try_join_all;
use serde::Serialize;
use status_core::{Damaged, Error, Job, OwnerId, Page, PageRequest, Snapshot, Status, StoreError, Tracker};

/// A job on a list.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Listed {
    pub(crate) owner: OwnerId,
    #[serde(flatten)]
    pub(crate) job: Snapshot,
}

/// The jobs of an owner, newest first.
pub(crate) async fn of_owner(
    tracker: &Tracker,
    owner: &OwnerId,
    status: Option<Status>,
    page: &PageRequest,
) -> Result<Page<Listed>, Error> {
    let jobs = tracker.owned_by(owner.clone()).list(status, page).await?;
    Ok(jobs.map(|job| Listed { owner: owner.clone(), job }))
}

/// The jobs of all owners that are not over, in no order.
pub(crate) async fn open(
    tracker: &Tracker,
    status: Option<Status>,
    page: &PageRequest,
) -> Result<Page<Listed>, Box<dyn StdError>> {
    if let Some(status) = status.filter(|status| status.is_terminal()) {
        return Err(format!("jobs that are {status} are listed by owner: add --owner").into());
    }
    let mut open = tracker.list_open(page).await?;
    let wanted = open.rows.into_iter().filter(|job| status.is_none_or(|status| job.status == status));
    let mut listed = Page::new(Vec::new(), open.next);
    for shown in try_join_all(wanted.map(|job| show(tracker, job))).await? {
        match shown {
            Shown::Job(job) => listed.rows.push(*job),
            Shown::Damaged(damaged) => open.damaged.push(damaged),
            Shown::Gone => {}
        }
    }
    listed.damaged = open.damaged;
    Ok(listed)
}

enum Shown {
    Job(Box<Listed>),
    Damaged(Damaged),
    /// It was erased since it was listed.
    Gone,
}

async fn show(tracker: &Tracker, job: Job) -> Result<Shown, Error> {
    match tracker.snapshot(job.id).await {
        Ok(snapshot) => Ok(Shown::Job(Box::new(Listed { owner: job.owner, job: snapshot }))),
        Err(Error::NotFound(_)) => Ok(Shown::Gone),
        Err(Error::Store(StoreError::Corrupt { subject, why })) => {
            Ok(Shown::Damaged(Damaged { subject, why }))
        }
        Err(error) => Err(error),
    }
}
