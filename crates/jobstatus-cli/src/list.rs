//! Lists of jobs with their owners, filtered.

use futures::future::try_join_all;
use serde::Serialize;
use status_core::{
    Damaged, Error, Health, Job, OwnerId, Page, PageRequest, Snapshot, Status, StoreError, Timestamp, Tracker,
};

use crate::{
    arguments::Wanted,
    problem::{Outcome, Problem},
    store::Store,
};

/// How many pages of the store are read for one page of a list at most: a filter may let few through.
const PAGES: usize = 40;
/// The most jobs of one of them.
const PAGE: usize = 100;

/// A job on a list.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Listed {
    pub(crate) owner: OwnerId,
    #[serde(flatten)]
    pub(crate) job: Snapshot,
}

/// At most `limit` of the jobs that are wanted, from the cursor on: those of one owner, newest first, or
/// those of all owners that are not over, in no order.
pub(crate) async fn list(
    store: &Store,
    tracker: &Tracker,
    wanted: &Wanted,
    limit: usize,
    cursor: Option<String>,
) -> Outcome<Page<Listed>> {
    let owner =
        wanted.owner.clone().map(OwnerId::new).transpose().map_err(|why| store.problem(why.into()))?;
    if let Some(status) = wanted.status.filter(|status| status.is_terminal() && owner.is_none()) {
        return Err(Problem::usage(format!("jobs that are {status} are listed by owner: add --owner")));
    }
    let filter = Filter::new(wanted);
    let mut listed = Page::new(Vec::new(), cursor);
    for _ in 0..PAGES {
        // Never more than are missing, so that the cursor stands behind the last one that is shown.
        let rows = (limit - listed.rows.len()).min(PAGE);
        let page = PageRequest { limit: rows, cursor: listed.next.take() };
        let part = match &owner {
            Some(owner) => of_owner(tracker, owner, &filter, &page).await,
            None => open(tracker, &filter, &page).await,
        };
        let part = part.map_err(|error| store.problem(error))?;
        let is_past = owner.is_some() && part.oldest.is_some_and(|oldest| filter.is_past(oldest));
        listed.rows.extend(part.page.rows);
        listed.damaged.extend(part.page.damaged);
        listed.next = part.page.next.filter(|_| !is_past);
        if listed.next.is_none() || listed.rows.len() >= limit {
            break;
        }
    }
    Ok(listed)
}

/// A page of the store, filtered.
struct Part {
    page: Page<Listed>,
    /// When the last job of the unfiltered page was created.
    oldest: Option<Timestamp>,
}

async fn of_owner(
    tracker: &Tracker,
    owner: &OwnerId,
    filter: &Filter<'_>,
    page: &PageRequest,
) -> Result<Part, Error> {
    let mut jobs = tracker.owned_by(owner.clone()).list(filter.status, page).await?;
    let oldest = jobs.rows.last().map(|job| job.created_at);
    jobs.rows.retain(|job| filter.lets(job));
    Ok(Part { page: jobs.map(|job| Listed { owner: owner.clone(), job }), oldest })
}

async fn open(tracker: &Tracker, filter: &Filter<'_>, page: &PageRequest) -> Result<Part, Error> {
    let mut open = tracker.list_open(page).await?;
    // What the record tells is known before the counters are read.
    let candidates = open.rows.into_iter().filter(|job| filter.may_let(job));
    let mut listed = Page::new(Vec::new(), open.next);
    for shown in try_join_all(candidates.map(|job| show(tracker, job))).await? {
        match shown {
            Shown::Job(job) if filter.lets(&job.job) => listed.rows.push(*job),
            Shown::Damaged(damaged) => open.damaged.push(damaged),
            Shown::Job(_) | Shown::Gone => {}
        }
    }
    listed.damaged = open.damaged;
    Ok(Part { page: listed, oldest: None })
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

/// Which jobs come through.
struct Filter<'a> {
    owned: bool,
    status: Option<Status>,
    kind: Option<&'a str>,
    since: Option<Timestamp>,
    stalled: bool,
}

impl<'a> Filter<'a> {
    fn new(wanted: &'a Wanted) -> Self {
        let Wanted { owner, status, stalled, since, kind } = wanted;
        let owned = owner.is_some();
        Self { owned, status: *status, kind: kind.as_deref(), since: *since, stalled: *stalled }
    }

    fn lets(&self, job: &Snapshot) -> bool {
        // A job that has ended since it was listed is not open any more.
        (self.owned || !job.status.is_terminal())
            && self.status.is_none_or(|status| job.status == status)
            && self.kind.is_none_or(|kind| job.kind.as_deref() == Some(kind))
            && !self.is_past(job.created_at)
            && (!self.stalled || job.health == Health::Stalled)
    }

    /// Whether the job may come through, as far as its record tells.
    fn may_let(&self, job: &Job) -> bool {
        self.kind.is_none_or(|kind| job.kind.as_deref() == Some(kind)) && !self.is_past(job.created_at())
    }

    /// Whether a job that was created then is too old.
    fn is_past(&self, created: Timestamp) -> bool {
        self.since.is_some_and(|since| created < since)
    }
}
