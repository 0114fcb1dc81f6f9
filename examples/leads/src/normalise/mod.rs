//! From a row as the file has it to a lead as the CRM wants it.

mod rules;

use std::time::Duration;

use async_trait::async_trait;

use crate::{Lead, RawLead};

pub use rules::Rules;

/// Turns the rows of a batch into leads.
#[async_trait]
pub trait Normaliser: std::fmt::Debug + Send + Sync + 'static {
    /// One result for each row, in their order, within `time_left`.
    ///
    /// # Errors
    /// If the batch as a whole could not be done: it may be tried again.
    async fn normalise(
        &self,
        rows: &[RawLead],
        time_left: Duration,
    ) -> Result<Vec<Normalised>, NormaliseError>;
}

/// What became of one row: a lead, or why there is none, for people.
pub type Normalised = Result<Lead, String>;

/// Why a batch could not be normalised.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NormaliseError {
    /// A stable slug.
    pub code: &'static str,
    /// For people.
    pub message: String,
}
