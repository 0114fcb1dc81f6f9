//! What must hold in every run, and the first thing that did not.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::history::History;

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// See [`Invariant::rule`], as for all of them.
    CountedOnce,
    /// Counters.
    CountersMatch,
    /// Errors of items.
    ErrorsMatch,
    /// Facts are never lost.
    NothingLost,
    /// The terminal status.
    OneEnd,
    /// The history.
    HistoryExplains,
    /// Decisions are made.
    NothingUndecided,
    /// Watchers and pollers.
    NeverBack,
    /// Tokens.
    TokensTellApart,
    /// Strongly consistent reads.
    ReadsSeeWrites,
    /// Absence.
    NoFalseNotFound,
    /// Idempotency keys.
    OneJobForAKey,
    /// Cancelled jobs.
    CancelledStays,
    /// Cancels and deadlines.
    EndsInTime,
    /// Batches past the total.
    OnlyItsOwnBatches,
    /// Answers to workers.
    EveryMessageAnswered,
    /// Expiry.
    EverythingDies,
    /// Readability.
    NothingUnreadable,
    /// What a server refuses.
    NoInvalidRequest,
    /// Quiet.
    WorksWhenQuiet,
    /// Panics.
    NoPanic,
}

impl Invariant {
    /// The rule in words.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::CountedOnce => "every batch counts once, however often it is delivered and reported",
            Self::CountersMatch => "the counters are those of the batches and of the attempts that counted",
            Self::ErrorsMatch => "the errors that are listed are those of the attempts that counted",
            Self::NothingLost => "what was acknowledged is there",
            Self::OneEnd => "a job ends once, and its terminal status never changes in any read",
            Self::HistoryExplains => "the history is bounded, in order, and explains the status",
            Self::NothingUndecided => "nothing stays undecided once it is quiet",
            Self::NeverBack => "nobody who watches a job is shown an older state",
            Self::TokensTellApart => "two states that people can tell apart have different tokens",
            Self::ReadsSeeWrites => "a strongly consistent read sees what was acknowledged before it",
            Self::NoFalseNotFound => "a job that was created is not said to be missing",
            Self::OneJobForAKey => "one idempotency key makes one job, that of one request",
            Self::CancelledStays => "a cancelled job is never completed",
            Self::EndsInTime => "the first sweep after a deadline, or the grace of a cancel, ends the job",
            Self::OnlyItsOwnBatches => "a batch at or past the total never counts for the job",
            Self::EveryMessageAnswered => "each message of a delivery gets its own answer, and the right one",
            Self::EverythingDies => "everything that is stored has an expiry, and is gone after it",
            Self::NothingUnreadable => "nothing that is stored is unreadable",
            Self::NoInvalidRequest => "no request is one that the server refuses as invalid",
            Self::WorksWhenQuiet => "when nothing goes wrong, no call fails",
            Self::NoPanic => "nothing panics",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())
    }
}

/// An invariant that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The step of the run at which it was noticed.
    pub step: u64,
    /// Which.
    pub invariant: Invariant,
    /// What was seen instead.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: violated: {}\n    {}", self.step, self.invariant, self.what)
    }
}

/// Where violations are reported. The first one ends the run.
#[derive(Debug)]
pub struct Verdict {
    history: Arc<History>,
    first: Mutex<Option<Violation>>,
    found: Notify,
}

impl Verdict {
    /// A verdict on the run with this history: nothing is wrong yet.
    pub fn new(history: Arc<History>) -> Self {
        Self { history, first: Mutex::default(), found: Notify::new() }
    }

    /// Reports a violation unless `holds`.
    pub fn check(&self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(invariant, &what());
        }
    }

    /// Reports a violation.
    pub fn violated(&self, invariant: Invariant, what: &str) {
        let what = self.history.named(what);
        let step = self.history.note("check", || format!("VIOLATED: {invariant}: {what}"));
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(Violation { step, invariant, what });
        self.found.notify_one();
    }

    /// Waits for the first violation.
    pub async fn found(&self) {
        self.found.notified().await;
    }

    /// The first violation.
    pub fn first(&self) -> Option<Violation> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
