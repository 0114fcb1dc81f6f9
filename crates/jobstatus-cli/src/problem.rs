//! What can go wrong, as the program says it: a sentence that names the place and the remedy, and an
//! exit code.

use std::{error::Error, io, process::ExitCode};

/// What the program, or a part of it, comes to.
pub(crate) type Outcome<T> = Result<T, Problem>;

/// How the program ends. `--help` has the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    Success = 0,
    Error = 1,
    Usage = 2,
    JobFailed = 3,
    JobCancelled = 4,
    NotFound = 5,
    Unreachable = 6,
    Interrupted = 130,
}

impl Code {
    /// The name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Usage => "usage",
            Self::JobFailed => "job-failed",
            Self::JobCancelled => "job-cancelled",
            Self::NotFound => "not-found",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Something to be said.
    Said {
        code: Code,
        message: String,
        /// Whether trying again may help.
        passing: bool,
    },
    /// Nobody reads the output any more: nothing to be said, and nobody to say it to.
    BrokenPipe,
}

impl Problem {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Said { code: Code::Usage, message: message.into(), passing: false }
    }

    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::Said { code: Code::Error, message: message.into(), passing: false }
    }

    /// The store is not there, or does not let us in.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::Said { code: Code::Unreachable, message: message.into(), passing: false }
    }

    /// The same, where trying again may help.
    #[must_use]
    pub(crate) fn passing(self) -> Self {
        match self {
            Self::Said { code, message, .. } => Self::Said { code, message, passing: true },
            Self::BrokenPipe => Self::BrokenPipe,
        }
    }

    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Said { passing: true, .. })
    }
}

/// Errors of input and output are those of the program's own output: stores have theirs.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::error(format!("the output cannot be written: {error}")),
        }
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::error(format!("the output cannot be made JSON: {error}"))
    }
}

/// The innermost cause, where one reads what happened rather than what was tried.
#[cfg(feature = "aws")]
pub(crate) fn innermost<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

/// An error and its causes, from the outermost to the innermost.
pub(crate) fn causes<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
