//! What a store would have answered earlier: for reads that may be a moment old.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::executor::block_on;
use status_core::{Consistency, JobId, StatusStore};
use tokio::sync::watch;

use crate::{faults::Faults, time::VirtualTime};

/// What reads have answered or would have answered, to be answered too late.
#[derive(Debug)]
pub struct Past {
    time: VirtualTime,
    answers: Mutex<BTreeMap<String, Answers>>,
    /// The reads of lists that were made, to be made again when a list may have changed.
    lists: Mutex<BTreeMap<String, List>>,
    changes: watch::Sender<()>,
}

/// The answers of one read, and since when they were true.
type Answers = Vec<(Duration, Box<dyn Any + Send>)>;

/// A read that can be made again; it remembers its answer.
#[derive(Clone)]
pub(super) struct List(pub(super) Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("List")
    }
}

impl Past {
    /// Nothing yet.
    pub fn new(time: VirtualTime) -> Self {
        Self { time, answers: Mutex::default(), lists: Mutex::default(), changes: watch::Sender::default() }
    }

    pub(super) fn remember<T: Send + 'static>(&self, read: String, answer: T) {
        let answers = &mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry(read).or_default().push((self.time.elapsed(), Box::new(answer)));
    }

    /// An answer from before the newest one, which was still true at most a lag ago.
    pub(super) fn earlier<T: Clone + 'static>(&self, read: &str, faults: &Faults) -> Option<T> {
        let (_, back, lag) = faults.staleness();
        let oldest = self.time.elapsed().saturating_sub(lag);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = answers.get(read)?;
        let newest = answers.len().checked_sub(1)?;
        // An answer was true until the next one was.
        let oldest = answers.partition_point(|(since, _)| *since < oldest).saturating_sub(1);
        let nth = newest.saturating_sub(back).max(oldest);
        let (_, answer) = answers.get(nth).filter(|_| nth < newest)?;
        answer.downcast_ref::<T>().cloned()
    }

    /// From now on the answers of this read are remembered whenever they may have changed.
    pub(super) fn know(&self, read: &str, list: impl FnOnce() -> List) {
        if !self.lists().contains_key(read) {
            self.lists().insert(read.to_owned(), list());
        }
    }

    /// Remembers how a job stands, and what is listed.
    pub(super) fn look(&self, store: &Arc<dyn StatusStore>, change: Change) {
        if let Ok(state) = block_on(store.read(change.job(), Consistency::Strong)) {
            self.remember(format!("job {}", change.job()), state.as_ref().map(|state| state.job.clone()));
            self.remember(format!("read {}", change.job()), state);
        }
        if let Change::Decision(_) = change {
            let lists: Vec<_> = self.lists().values().cloned().collect();
            lists.iter().for_each(|List(again)| again());
        }
        self.changes.send_replace(());
    }

    /// Waits until the job is no longer at this version.
    pub(super) async fn changed(&self, store: &Arc<dyn StatusStore>, id: JobId, version: u64) {
        let mut changes = self.changes.subscribe();
        while let Ok(Some(state)) = block_on(store.read(id, Consistency::Strong)) {
            if state.version() != version || changes.changed().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn lists(&self) -> MutexGuard<'_, BTreeMap<String, List>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call may change.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// The job's record: lists change too.
    Decision(JobId),
    /// What is known of its batches.
    Facts(JobId),
}

impl Change {
    fn job(self) -> JobId {
        match self {
            Self::Decision(id) | Self::Facts(id) => id,
        }
    }
}
