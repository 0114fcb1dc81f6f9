//! Errors of the tracker and of stores. Each names the job or the operation, and keeps its source.

use crate::{BatchIndex, JobId, Rejection, TooManyBatches, text::InvalidText};

/// What a [`Tracker`](crate::Tracker) can say no with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such job, or not for this owner: the two are not told apart.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The command contradicts what was decided about the job.
    #[error("job {id}: {rejection}")]
    Rejected {
        /// The job.
        id: JobId,
        /// Why.
        rejection: Rejection,
    },
    /// The idempotency key was used before, for another job.
    #[error("the idempotency key was used for another request; use a new key")]
    KeyReused,
    /// An argument that cannot be used.
    #[error(transparent)]
    InvalidText(#[from] InvalidText),
    /// A batch index beyond every bound.
    #[error(transparent)]
    TooManyBatches(#[from] TooManyBatches),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl Error {
    /// Whether the same may succeed later: the store is busy or does not answer, or somebody else was first.
    /// Damage does not pass by itself, and what contradicts the job's state does so next time as well.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Store(
                StoreError::Throttled { .. } | StoreError::Unavailable { .. } | StoreError::Conflict(_)
            )
        )
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(id) => Self::NotFound(id),
            other => Self::Store(other),
        }
    }
}

/// What a [`StatusStore`](crate::StatusStore) can say no with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else wrote the record first: read again and decide again.
    #[error("job {0} was changed by somebody else at the same time")]
    Conflict(JobId),
    /// There is no such job.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The store is full of live jobs; try again when some have ended.
    #[error("the store holds {0} unfinished jobs and takes no more until some have ended")]
    Full(usize),
    /// A cursor that this store did not give out.
    #[error("the cursor is not one that was given out; start again without one")]
    InvalidCursor,
    /// The backend asks to slow down, and did so until patience ran out.
    #[error("{operation} of {subject} was throttled; try again later")]
    Throttled {
        /// What was tried.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What the backend said.
        source: BoxError,
    },
    /// The backend cannot be reached or does not answer. Whether the write happened is unknown; all writes may be repeated.
    #[error("{operation} of {subject} failed")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What the backend said; an [`std::io::Error`] of kind `StorageFull` where it has no room.
        source: BoxError,
    },
    /// The store's answer leaves out something that was asked for: a fault of the store.
    #[error("the store's answer to {operation} of job {id} leaves out batch {batch}")]
    Incomplete {
        /// What was asked.
        operation: &'static str,
        /// The job.
        id: JobId,
        /// What the answer leaves out.
        batch: BatchIndex,
    },
    /// What is stored is not what this version writes.
    #[error("{subject} is damaged: {why}")]
    Corrupt {
        /// The item.
        subject: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The source of an error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
