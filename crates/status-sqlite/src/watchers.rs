//! Who waits for a change of which job, in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use status_core::JobId;
use tokio::sync::watch;

/// One entry for each job that anybody waits for; it goes with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<HashMap<JobId, watch::Sender<()>>>);

impl Watchers {
    /// Waits from now on: a change that comes after this call is not missed.
    pub(crate) fn subscribe(self: &Arc<Self>, id: JobId) -> Watching {
        let changes = self.lock().entry(id).or_insert_with(|| watch::Sender::new(())).subscribe();
        Watching { watchers: self.clone(), id, changes }
    }

    pub(crate) fn wake(&self, id: JobId) {
        if let Some(job) = self.lock().get(&id) {
            job.send_replace(());
        }
    }

    pub(crate) fn wake_all(&self) {
        self.lock().values().for_each(|job| job.send_replace(()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for changes of one job.
pub(crate) struct Watching {
    watchers: Arc<Watchers>,
    id: JobId,
    changes: watch::Receiver<()>,
}

impl Watching {
    /// Waits until the job may have changed since the last call, or since the subscription.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // Unreachable: the entry stays as long as anybody waits.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut jobs = self.watchers.lock();
        // This one is still counted.
        if jobs.get(&self.id).is_some_and(|job| job.receiver_count() <= 1) {
            jobs.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use status_core::Timestamp;

    use super::*;

    #[test]
    fn an_entry_stays_as_long_as_anybody_waits() {
        let watchers = Arc::new(Watchers::default());
        let id = |n| JobId::from_parts(Timestamp::UNIX_EPOCH, n);
        let (mut one, two) = (watchers.subscribe(id(1)), watchers.subscribe(id(1)));
        let mut other = watchers.subscribe(id(2));
        drop(two);
        watchers.wake(id(1));
        assert!(one.changed().now_or_never().is_some() && other.changed().now_or_never().is_none());
        watchers.wake_all();
        assert!(one.changed().now_or_never().is_some() && other.changed().now_or_never().is_some());
        drop((one, other));
        assert!(watchers.is_empty());
    }
}
