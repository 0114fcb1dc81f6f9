//! From a row as the file has it to a lead as the CRM wants it.

mod deepseek;
mod grounding;
mod rules;

use std::{env, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Lead, RawLead};

pub use deepseek::{DeepSeek, DeepSeekError};
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

#[async_trait]
impl<N: Normaliser + ?Sized> Normaliser for Arc<N> {
    async fn normalise(
        &self,
        rows: &[RawLead],
        time_left: Duration,
    ) -> Result<Vec<Normalised>, NormaliseError> {
        (**self).normalise(rows, time_left).await
    }
}

/// What became of one row: a lead, or why there is none, for people.
pub type Normalised = Result<Lead, String>;

/// Why a batch could not be normalised.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct NormaliseError {
    /// A stable slug.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Which normaliser works.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum NormaliserKind {
    /// Rules: columns are known by their names.
    Rules,
    /// DeepSeek's chat API, with the key in `DEEPSEEK_API_KEY`.
    Deepseek,
}

impl NormaliserKind {
    /// The normaliser, set up from the environment: `DEEPSEEK_API_KEY`, `DEEPSEEK_BASE_URL`, `DEEPSEEK_MODEL`. Without a kind,
    /// DeepSeek where there is a key, else the rules.
    ///
    /// # Errors
    /// [`DeepSeekError`] if something in the environment is missing or cannot be used.
    pub fn open(kind: Option<Self>) -> Result<Arc<dyn Normaliser>, DeepSeekError> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let key = set("DEEPSEEK_API_KEY");
        match (kind, key) {
            (Some(Self::Rules), _) | (None, None) => Ok(Arc::new(Rules)),
            (Some(Self::Deepseek), None) => Err(DeepSeekError::NoKey),
            (Some(Self::Deepseek) | None, Some(key)) => {
                let (base, model) = (set("DEEPSEEK_BASE_URL"), set("DEEPSEEK_MODEL"));
                Ok(Arc::new(DeepSeek::new(&key, base.as_deref(), model.as_deref())?))
            }
        }
    }
}
