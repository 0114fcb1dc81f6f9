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
#[non_exhaustive]
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
    /// The line of the item in its file, from 1, as an editor counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The item as it came in, as text or JSON, at most [`ItemError::MAX_INPUT`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

impl ItemError {
    /// The longest message, in bytes; longer ones are cut.
    pub const MAX_MESSAGE: usize = 300;
    /// The longest input that is kept, in bytes; longer ones are left out.
    pub const MAX_INPUT: usize = 4_096;
    /// The most errors that are kept of one batch.
    pub const MAX_PER_BATCH: usize = 100;

    /// An error of `batch`, its texts cut to their bounds.
    pub fn new(batch: BatchIndex, item: Option<u64>, code: &str, message: &str) -> Self {
        let (code, message) = (text::bounded(code, 64), text::bounded(message, Self::MAX_MESSAGE));
        Self { batch, item, code, message, line: None, input: None }
    }

    /// The same, with the line of the item in its file, from 1.
    #[must_use]
    pub fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// The same, with the item as it came in, if it is not longer than [`ItemError::MAX_INPUT`].
    #[must_use]
    pub fn with_input(mut self, input: impl Into<String>) -> Self {
        self.input = Some(input.into()).filter(|input| input.len() <= Self::MAX_INPUT);
        self
    }

    /// The error with its texts within their bounds: its fields can be changed after [`ItemError::new`].
    fn bounded(mut self, batch: BatchIndex) -> Self {
        let bounded = Self::new(batch, self.item, &self.code, &self.message);
        self.input = self.input.filter(|input| input.len() <= Self::MAX_INPUT);
        Self { line: self.line, input: self.input, ..bounded }
    }
}

/// What a worker says of one batch when it is through with it.
///
/// Its numbers and texts are bounded when it is made, so that no report can make stored state
/// unreadable: at most [`BatchReport::MAX_ITEMS`] items, [`ItemError::MAX_PER_BATCH`] errors, and
/// [`BatchReport::MAX_INPUTS`] bytes of their inputs. What is beyond is cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchReport {
    batch: BatchIndex,
    outcome: BatchOutcome,
    took: Option<Duration>,
    errors: Vec<ItemError>,
}

impl BatchReport {
    /// The most items of one batch that are counted: a thousand million.
    pub const MAX_ITEMS: u64 = 1_000_000_000;
    /// The most bytes of inputs that one batch's errors keep, together.
    pub const MAX_INPUTS: usize = 128 << 10;

    /// `batch` is done: `processed` items are in the results, `failed` are not.
    pub fn completed(batch: BatchIndex, processed: u64, failed: u64) -> Self {
        let processed = processed.min(Self::MAX_ITEMS);
        let failed = failed.min(Self::MAX_ITEMS - processed);
        Self { batch, outcome: BatchOutcome::Completed { processed, failed }, took: None, errors: Vec::new() }
    }

    /// `batch` with its `items` was given up, and why.
    pub fn failed(batch: BatchIndex, items: u64, code: &str, message: &str) -> Self {
        let errors = vec![ItemError::new(batch, None, code, message)];
        let outcome = BatchOutcome::Failed { items: items.min(Self::MAX_ITEMS) };
        Self { batch, outcome, took: None, errors }
    }

    /// The same, with the time the worker took: it feeds the estimate.
    #[must_use]
    pub fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }

    /// The same, with these errors instead of those it has.
    #[must_use]
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = ItemError>) -> Self {
        let mut room = Self::MAX_INPUTS;
        let bounded = errors.into_iter().take(ItemError::MAX_PER_BATCH).map(|error| {
            let mut error = error.bounded(self.batch);
            error.input = error.input.filter(|input| input.len() <= room);
            room -= error.input.as_ref().map_or(0, String::len);
            error
        });
        self.errors = bounded.collect();
        self
    }

    /// Which batch.
    pub fn batch(&self) -> BatchIndex {
        self.batch
    }

    /// How it came out.
    pub fn outcome(&self) -> BatchOutcome {
        self.outcome
    }

    /// How long the worker had it, if it measured.
    pub fn duration(&self) -> Option<Duration> {
        self.took
    }

    /// What failed in it.
    pub fn errors(&self) -> &[ItemError] {
        &self.errors
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
    /// The job has no such batch: it is at or past the total. Nothing changed.
    OutOfRange,
    /// What is stored of the batch cannot be read. Nothing changed: keep the message, and report the batch
    /// again when the store is repaired.
    Damaged,
}

impl Effect {
    /// Whether the report changed anything.
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Counted | Self::Corrected)
    }
}
