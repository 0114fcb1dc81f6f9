//! A batch and what became of it: index, outcome, report, and the rule by which every batch counts once.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::text;

/// The number of a batch, from 0; at most [`BatchIndex::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BatchIndex(u32);

impl BatchIndex {
    /// The highest index: a job has at most ten million batches.
    pub const MAX: u64 = 9_999_999;

    /// # Errors
    /// [`TooManyBatches`] past [`BatchIndex::MAX`].
    pub fn new(index: u64) -> Result<Self, TooManyBatches> {
        if index > Self::MAX {
            return Err(TooManyBatches(index));
        }
        u32::try_from(index).map(Self).map_err(|_| TooManyBatches(index))
    }

    /// The index as a number.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
}

impl TryFrom<u64> for BatchIndex {
    type Error = TooManyBatches;
    fn try_from(index: u64) -> Result<Self, TooManyBatches> {
        Self::new(index)
    }
}

impl From<BatchIndex> for u64 {
    fn from(index: BatchIndex) -> Self {
        index.get()
    }
}

impl fmt::Display for BatchIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An index or a total beyond what one job may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch {0} is beyond the {max} that one job may have; use larger batches", max = BatchIndex::MAX + 1)]
pub struct TooManyBatches(pub u64);

/// How a batch came out, with the numbers of its items.
///
/// All reports of one batch describe the same items: processed plus failed is the same number each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchOutcome {
    /// Worked through; single items may have failed.
    Completed {
        /// Items that are in the results.
        processed: u64,
        /// Items that are not.
        failed: u64,
    },
    /// Given up as a whole.
    Failed {
        /// The items it was made of.
        items: u64,
    },
}

/// What a batch is settled as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Settled {
    /// Final: a batch that completed stays completed.
    Completed,
    /// A later success still turns it into completed.
    Failed,
}

/// One item that failed, or (without an item) one batch, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemError {
    /// The batch it belongs to.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub batch: BatchIndex,
    /// The item's number in the job, if one item is meant.
    pub item: Option<u64>,
    /// A stable slug for programs, at most 64 bytes.
    pub code: String,
    /// A sentence for people, at most [`ItemError::MAX_MESSAGE`] bytes.
    pub message: String,
}

impl ItemError {
    /// The longest message, in bytes; longer ones are cut.
    pub const MAX_MESSAGE: usize = 300;
    /// The most errors that are kept of one batch.
    pub const MAX_PER_BATCH: usize = 100;

    /// An error of `batch`, its texts cut to their bounds.
    pub fn new(batch: BatchIndex, item: Option<u64>, code: &str, message: &str) -> Self {
        Self {
            batch,
            item,
            code: text::bounded(code, 64),
            message: text::bounded(message, Self::MAX_MESSAGE),
        }
    }
}

/// What a worker says of one batch when it is through with it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BatchReport {
    /// Which batch.
    pub batch: BatchIndex,
    /// How it came out.
    pub outcome: BatchOutcome,
    /// How long the worker had it, if it measured.
    pub took: Option<Duration>,
    /// What failed in it, at most [`ItemError::MAX_PER_BATCH`].
    pub errors: Vec<ItemError>,
}

impl BatchReport {
    /// `batch` is done: `processed` items are in the results, `failed` are not.
    pub fn completed(batch: BatchIndex, processed: u64, failed: u64) -> Self {
        Self { batch, outcome: BatchOutcome::Completed { processed, failed }, took: None, errors: Vec::new() }
    }

    /// `batch` with its `items` was given up, and why.
    pub fn failed(batch: BatchIndex, items: u64, code: &str, message: &str) -> Self {
        let errors = vec![ItemError::new(batch, None, code, message)];
        Self { batch, outcome: BatchOutcome::Failed { items }, took: None, errors }
    }

    /// The same, with the time the worker took: it feeds the estimate.
    #[must_use]
    pub fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }

    /// The same, with these errors in addition, as far as there is room.
    #[must_use]
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = ItemError>) -> Self {
        self.errors.extend(errors);
        self.errors.truncate(ItemError::MAX_PER_BATCH);
        self
    }

    /// The number of items of the batch.
    pub fn items(&self) -> u64 {
        match self.outcome {
            BatchOutcome::Completed { processed, failed } => processed.saturating_add(failed),
            BatchOutcome::Failed { items } => items,
        }
    }

    /// What the report settles its batch as.
    pub fn settles_as(&self) -> Settled {
        match self.outcome {
            BatchOutcome::Completed { .. } => Settled::Completed,
            BatchOutcome::Failed { .. } => Settled::Failed,
        }
    }

    /// What the report does to a batch that was `before`: the one rule of counting, for every store.
    ///
    /// ```
    /// # use status_core::{BatchIndex, BatchReport, Effect, Settled};
    /// let done = BatchReport::completed(BatchIndex::new(3)?, 10, 0);
    /// assert_eq!(done.effect(None), Effect::Counted);
    /// assert_eq!(done.effect(Some(Settled::Failed)), Effect::Corrected);
    /// assert_eq!(done.effect(Some(Settled::Completed)), Effect::Duplicate);
    /// # Ok::<(), status_core::TooManyBatches>(())
    /// ```
    pub fn effect(&self, before: Option<Settled>) -> Effect {
        match (before, self.settles_as()) {
            (None, _) => Effect::Counted,
            (Some(Settled::Failed), Settled::Completed) => Effect::Corrected,
            (Some(_), _) => Effect::Duplicate,
        }
    }
}

/// What recording a report did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// The batch was open and is settled now.
    Counted,
    /// The batch had failed and is completed now.
    Corrected,
    /// The batch was settled already; nothing changed.
    Duplicate,
}
