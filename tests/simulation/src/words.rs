//! What is handed around, in few words: a history is to be read by people.

use std::fmt::{Debug, Write};

use status_core::{
    Assignment, BatchOutcome, BatchReport, Begun, Cancelled, Created, Due, HistoryEntry, ItemError, Job,
    JobState, Page, Reported, Snapshot, Swept, Written,
};

use crate::history::brief;

/// Something that can be said in few words.
pub trait Words {
    /// The words.
    fn words(&self) -> String;
}

impl<T: Words, E: Debug> Words for Result<T, E> {
    fn words(&self) -> String {
        match self {
            Ok(value) => value.words(),
            Err(error) => format!("error: {error:?}"),
        }
    }
}

impl<T: Words> Words for Option<T> {
    fn words(&self) -> String {
        self.as_ref().map_or_else(|| "nothing".into(), Words::words)
    }
}

impl<T: Words> Words for Vec<T> {
    fn words(&self) -> String {
        format!("[{}]", self.iter().map(Words::words).collect::<Vec<_>>().join("; "))
    }
}

impl<T: Words> Words for Page<T> {
    fn words(&self) -> String {
        let mut words = self.rows.words();
        if let Some(next) = &self.next {
            let _ = write!(words, ", more from {next}");
        }
        if !self.damaged.is_empty() {
            let _ = write!(words, ", damaged: {:?}", self.damaged);
        }
        words
    }
}

impl Words for Job {
    fn words(&self) -> String {
        let mut words = format!("{} {} revision {}", self.id, self.status, self.revision);
        if let Some(total) = self.total() {
            let _ = write!(words, " of {total}");
        }
        if self.cancel_requested.is_some() {
            words += " cancel requested";
        }
        if let Some(failure) = &self.failure {
            let _ = write!(words, " {}", failure.code);
        }
        let _ = write!(words, " updated {}", self.updated_at);
        words
    }
}

impl Words for JobState {
    fn words(&self) -> String {
        let (counts, stray) = (self.facts.counts, self.facts.stray.settled());
        let mut words = format!(
            "{}, {}+{} batches, {}+{} items",
            self.job.words(),
            counts.completed,
            counts.failed,
            counts.items_processed,
            counts.items_failed
        );
        if stray > 0 {
            let _ = write!(words, ", {stray} past the total");
        }
        words
    }
}

impl Words for Snapshot {
    fn words(&self) -> String {
        let (batches, items) = (&self.progress.batches, &self.progress.items);
        let total = batches.total.map_or("?".to_owned(), |total| total.to_string());
        format!(
            "{} {} version {}, {}+{} of {total} batches, {}+{} items, {} bytes, {:?}, token {}",
            self.id,
            self.status,
            self.version,
            batches.completed,
            batches.failed,
            items.processed,
            items.failed,
            self.progress.upload.bytes,
            self.health,
            self.token(),
        )
    }
}

impl Words for Begun {
    fn words(&self) -> String {
        let settled = self.settled.iter().map(|(batch, settled)| match settled {
            Some(settled) => format!("{batch} {settled:?}"),
            None => format!("{batch} open"),
        });
        let settled: Vec<_> = settled.collect();
        format!("{}: {}; may decide: {}", self.job.words(), settled.join(", "), self.may_decide)
    }
}

impl Words for Assignment {
    fn words(&self) -> String {
        format!("{}: {:?}", self.job.words(), self.batches)
    }
}

impl Words for BatchReport {
    fn words(&self) -> String {
        let outcome = match self.outcome() {
            BatchOutcome::Completed { processed, failed } => format!("{processed}+{failed}"),
            BatchOutcome::Failed { items } => format!("failed with {items}"),
        };
        let attempt = self.errors().first().map_or("", |error| &error.message);
        format!("{}: {outcome}, {} errors {attempt}", self.batch(), self.errors().len())
    }
}

impl Words for Reported {
    fn words(&self) -> String {
        format!("{}, late: {:?}", effects(&self.effects), self.late)
    }
}

impl Words for Written {
    fn words(&self) -> String {
        format!("{}, may decide: {}, {:?}", effects(&self.effects), self.may_decide, self.status)
    }
}

fn effects(effects: &[(status_core::BatchIndex, status_core::Effect)]) -> String {
    effects.iter().map(|(batch, effect)| format!("{batch} {effect:?}")).collect::<Vec<_>>().join(", ")
}

impl Words for Cancelled {
    fn words(&self) -> String {
        match self {
            Self::Now(snapshot) => format!("now: {}", snapshot.words()),
            Self::Requested(snapshot) => format!("requested: {}", snapshot.words()),
        }
    }
}

impl Words for Created {
    fn words(&self) -> String {
        match self {
            Self::New => "new".into(),
            Self::Existing(job) => format!("there is {}", job.words()),
        }
    }
}

impl Words for Due {
    fn words(&self) -> String {
        format!("{} since {}", self.id, self.at)
    }
}

impl Words for HistoryEntry {
    fn words(&self) -> String {
        format!("{:?} by {} at {}", self.to, self.by, self.at)
    }
}

impl Words for ItemError {
    fn words(&self) -> String {
        format!("{}/{} {}", self.batch, self.item.unwrap_or_default(), self.message)
    }
}

impl Words for Swept {
    fn words(&self) -> String {
        brief(&format!("{self:?}"), 200)
    }
}

/// Values that say what they are by themselves.
macro_rules! plain {
    ($($kind:ty)*) => {$(
        impl Words for $kind {
            fn words(&self) -> String {
                format!("{self:?}")
            }
        }
    )*};
}

plain!(() bool u64 usize String status_core::BatchIndex);
