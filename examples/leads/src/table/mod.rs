//! Where leads end up: a table by owner, in which a second import of the same lead updates the first.

#[cfg(feature = "aws")]
mod dynamo;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use status_core::{JobId, OwnerId, Timestamp};

use crate::{Field, Lead};

#[cfg(feature = "aws")]
pub use dynamo::DynamoLeads;
pub use memory::MemoryLeads;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLeads;

/// The leads of all owners.
#[async_trait]
pub trait LeadTable: std::fmt::Debug + Send + Sync + 'static {
    /// Writes leads of one job, with the rows they come from. A lead with an e-mail address takes the place of the owner's
    /// lead with the same address; one without, of the same row of the same job. So any of it may be repeated.
    ///
    /// # Errors
    /// [`TableError`]; the call may be repeated.
    async fn upsert(
        &self,
        owner: &OwnerId,
        job: JobId,
        leads: &[(u64, Lead)],
        at: Timestamp,
    ) -> Result<(), TableError>;

    /// A page of the owner's leads.
    ///
    /// # Errors
    /// [`TableError`].
    async fn page(&self, owner: &OwnerId, query: &LeadQuery) -> Result<LeadPage, TableError>;
}

/// The table cannot answer.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of leads failed")]
pub struct TableError {
    /// What was tried.
    pub operation: &'static str,
    /// Why it failed.
    pub source: status_core::BoxError,
    /// Whether the same call may succeed later: the table is locked, full or cannot be reached, and that is
    /// no fault of the leads.
    pub may_pass: bool,
}

/// A lead in the table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredLead {
    /// What identifies it among the owner's leads.
    pub id: String,
    /// The lead.
    #[serde(flatten)]
    pub lead: Lead,
    /// The job that wrote it last.
    pub job_id: JobId,
    /// The row it came from.
    pub row: u64,
    /// When it was written last.
    pub updated_at: Timestamp,
}

impl StoredLead {
    /// The lead as `job` found it in `row`.
    pub fn new(job: JobId, row: u64, lead: Lead, at: Timestamp) -> Self {
        let id = if lead.email.is_empty() { format!("{job}#{row}") } else { lead.email.clone() };
        Self { id, lead, job_id: job, row, updated_at: at }
    }
}

/// Which leads, in which order.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default)]
pub struct LeadQuery {
    /// From 1.
    pub page: usize,
    /// At most [`LeadQuery::MAX_PER_PAGE`].
    pub per_page: usize,
    /// A field's name, with `-` before it for descending order; the newest first without.
    pub sort: Option<Sort>,
    /// Text that must be in one of the fields, in whatever case; its first [`LeadQuery::LONGEST_SEARCH`]
    /// characters count.
    pub q: String,
}

impl LeadQuery {
    /// The most leads on one page.
    pub const MAX_PER_PAGE: usize = 200;
    /// The most characters to search for: each costs a look into the index.
    pub const LONGEST_SEARCH: usize = 100;

    /// What is searched for, in lower case. No lead has control characters.
    fn needle(&self) -> String {
        let q: String = self.q.chars().take(Self::LONGEST_SEARCH).collect();
        q.replace(char::is_control, " ").trim().to_lowercase()
    }

    fn per_page(&self) -> usize {
        self.per_page.clamp(1, Self::MAX_PER_PAGE)
    }

    /// How many leads come before the page.
    fn skipped(&self) -> usize {
        let skipped = (self.page.max(1) - 1).saturating_mul(self.per_page());
        // SQLite's numbers have a sign.
        skipped.min(usize::MAX >> 1)
    }
}

impl Default for LeadQuery {
    fn default() -> Self {
        Self { page: 1, per_page: 20, sort: None, q: String::new() }
    }
}

/// An order of leads: `last_name`, or `-last_name` for the other way round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Sort {
    /// By which field.
    pub by: Field,
    /// Whether from Z to A.
    pub descending: bool,
}

impl TryFrom<String> for Sort {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let name = text.strip_prefix('-').unwrap_or(&text);
        let by = Field::ALL.into_iter().find(|field| field.as_str() == name);
        let by = by.ok_or_else(|| format!("sort is one of {}", Field::ALL.map(Field::as_str).join(", ")))?;
        Ok(Self { by, descending: text.starts_with('-') })
    }
}

/// A page of leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LeadPage {
    /// The leads of this page.
    pub leads: Vec<StoredLead>,
    /// How many fit the query in all.
    pub total: Total,
    /// Which page this is, from 1.
    pub page: usize,
    /// What was looked at, if not all.
    pub scope: Option<Scope>,
}

/// A number of leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Total {
    /// So many.
    Exactly(usize),
    /// So many or more.
    AtLeast {
        /// So many.
        at_least: usize,
    },
}

/// Some of the owner's leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Scope {
    /// So many of the newest.
    pub newest: usize,
}

impl LeadPage {
    /// The page that `query` asks for, of all the owner's leads.
    pub fn of<'a>(leads: impl Iterator<Item = &'a StoredLead>, query: &LeadQuery) -> Self {
        let needle = query.needle();
        let fits = |lead: &StoredLead| {
            needle.is_empty()
                || Field::ALL.into_iter().any(|field| lead.lead.get(field).to_lowercase().contains(&needle))
        };
        let mut found: Vec<_> = leads.filter(|lead| fits(lead)).collect();
        match query.sort {
            None => found.sort_by(|a, b| b.job_id.cmp(&a.job_id).then(a.row.cmp(&b.row))),
            Some(Sort { by, descending }) => {
                found.sort_by_cached_key(|lead| (lead.lead.get(by).to_lowercase(), lead.job_id, lead.row));
                if descending {
                    found.reverse();
                }
            }
        }
        let leads = found.iter().skip(query.skipped()).take(query.per_page()).copied().cloned().collect();
        Self { leads, total: Total::Exactly(found.len()), page: query.page.max(1), scope: None }
    }
}
