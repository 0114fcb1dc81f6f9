//! The six statuses of a job, and how a completed one came out.

use serde::{Deserialize, Serialize};

/// What was decided about a job last.
///
/// ```text
/// Uploading → Uploaded → Processing → Completed
///     └──────────┴───────────┴──────→ Failed | Cancelled
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Created; its file is on the way. `finish_upload` moves it on.
    Uploading,
    /// The file is there; nobody has begun to split it. `start` moves it on.
    Uploaded,
    /// Being split and worked on. The outcome of the last batch moves it on.
    Processing,
    /// Every batch is settled, and no more failed than the policy tolerates. Final.
    Completed,
    /// Given up: too many failed batches, a file that cannot be read, a deadline. Final.
    Failed,
    /// Stopped because somebody asked. Final.
    Cancelled,
}

impl Status {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Uploading, Self::Uploaded, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether the status never changes again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name used in JSON and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uploading => "uploading",
            Self::Uploaded => "uploaded",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What people read; `noun` is the embedder's word for the items, as in "Leads Processing".
    pub fn label(self, noun: &str) -> String {
        match self {
            Self::Uploading => "File Uploading".into(),
            Self::Uploaded => "File Uploaded".into(),
            Self::Processing => format!("{noun} Processing"),
            Self::Completed => "Completed".into(),
            Self::Failed => "Processing Failed".into(),
            Self::Cancelled => "Processing Cancelled".into(),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no status; use one of uploading, uploaded, processing, completed, failed, cancelled")]
pub struct UnknownStatus(pub String);

impl std::str::FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownStatus(crate::text::bounded(text, 40)))
    }
}

/// How a completed job came out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was processed.
    Succeeded,
    /// Some batches or items failed; the rest was processed.
    Partial,
    /// There was nothing to do.
    Empty,
}
