//! Watching a job: one feed per job and process reads the store, and any number of watchers share what it reads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::Stream;
use tokio::sync::watch;

use crate::{Error, Health, JobId, OwnerId, Snapshot, Tracker};

/// A feed reads the store at least this often, so that time alone (a stall, an estimate) shows too.
const READ_AT_LEAST_EVERY: Duration = Duration::from_millis(800);
/// A feed reads the store at most this often, however many batches settle.
const READ_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long a feed waits after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The feeds of one process.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Mutex<HashMap<JobId, Arc<watch::Sender<Option<Shown>>>>>);

/// What a feed has read last.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    owner: OwnerId,
    snapshot: Arc<Snapshot>,
}

impl Tracker {
    /// The job's snapshots from now on: the newest at once, then whenever something people can see has changed, the
    /// version never going back; it ends after a terminal one. All watchers of a job share one read of the store.
    ///
    /// # Errors
    /// [`Error::NotFound`], also if the job is not `owner`'s; [`Error::Store`].
    pub(crate) async fn watch_as(
        &self,
        id: JobId,
        owner: Option<&OwnerId>,
    ) -> Result<impl Stream<Item = Arc<Snapshot>> + Send + use<>, Error> {
        let mut feed = self.subscribe(id);
        let first = match feed.wait_for(Option::is_some).await {
            Ok(shown) => shown.clone(),
            Err(_ended) => None,
        };
        feed.mark_unchanged();
        let first = match first {
            Some(first) if owner.is_none_or(|owner| *owner == first.owner) => first.snapshot,
            Some(_) => return Err(Error::NotFound(id)),
            // The feed could not read the job. Whatever the reason is, a read of our own will tell.
            None => Arc::new(self.snapshot_as(id, owner).await?),
        };
        Ok(snapshots(feed, first, self.noun.clone()))
    }

    fn subscribe(&self, id: JobId) -> watch::Receiver<Option<Shown>> {
        let mut feeds = self.feeds.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(&id) {
            return feed.subscribe();
        }
        let (feed, receiver) = watch::channel(None);
        let feed = Arc::new(feed);
        feeds.insert(id, feed.clone());
        tokio::spawn(self.clone().feed(id, feed));
        receiver
    }

    async fn feed(self, id: JobId, feed: Arc<watch::Sender<Option<Shown>>>) {
        let mut last: Option<Arc<Snapshot>> = None;
        loop {
            let wait = match self.view(id).await {
                Ok(Some((owner, snapshot))) => {
                    if last.as_ref().is_none_or(|last| differs(last, &snapshot)) {
                        let snapshot = Arc::new(snapshot);
                        last = Some(snapshot.clone());
                        feed.send_replace(Some(Shown { owner, snapshot }));
                    }
                    READ_AT_LEAST_EVERY
                }
                // Gone, or never there: without a first value watchers ask for themselves.
                Ok(None) => break,
                Err(_) if last.is_none() => break,
                Err(error) => {
                    tracing::warn!(job = %id, %error, "reading a watched job failed; trying again");
                    AFTER_FAILURE
                }
            };
            let Some(snapshot) = &last else { break };
            if snapshot.status.is_terminal() {
                break;
            }
            let version = snapshot.version;
            let pause = async {
                tokio::join!(self.store.changed(id, version, wait), tokio::time::sleep(READ_AT_MOST_EVERY));
            };
            tokio::select! {
                () = pause => {}
                () = feed.closed() => {
                    let mut feeds = self.feeds.0.lock().unwrap_or_else(PoisonError::into_inner);
                    if feed.receiver_count() == 0 {
                        feeds.remove(&id);
                        return;
                    }
                }
            }
        }
        self.feeds.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

fn snapshots(
    mut feed: watch::Receiver<Option<Shown>>,
    first: Arc<Snapshot>,
    noun: Arc<str>,
) -> impl Stream<Item = Arc<Snapshot>> + Send + use<> {
    async_stream::stream! {
        let mut last = first;
        loop {
            let ended = last.status.is_terminal();
            let version = last.version;
            yield last.clone();
            if ended {
                break;
            }
            let next = loop {
                if feed.changed().await.is_err() {
                    return;
                }
                let shown = feed.borrow_and_update().as_ref().map(|shown| shown.snapshot.clone());
                if let Some(snapshot) = shown.filter(|s| s.version >= version) {
                    break snapshot;
                }
            };
            for passed in last.passed_on_the_way_to(&next, &noun) {
                yield Arc::new(passed);
            }
            last = next;
        }
    }
}

/// Whether `new` is worth showing after `old`: not older, and different in what people see.
fn differs(old: &Snapshot, new: &Snapshot) -> bool {
    let seen = |s: &Snapshot| -> (u64, Health, Option<u64>, Option<String>) {
        (s.version, s.health, s.progress.batches.running, s.estimate.as_ref().map(|e| e.text.clone()))
    };
    new.version >= old.version && seen(new) != seen(old)
}
