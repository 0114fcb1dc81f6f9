//! Watching a job: one feed per job and process reads the store, and any number of watchers share what it reads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::Stream;
use tokio::sync::watch;

use crate::{Error, JobId, OwnerId, Snapshot, Token, Tracker};

/// A feed reads the store at least this often, so that time alone (a stall, an estimate) shows too.
const READ_AT_LEAST_EVERY: Duration = Duration::from_millis(800);
/// A feed reads the store at most this often, however many batches settle.
const READ_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long a feed waits after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The feeds of one process.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Mutex<HashMap<JobId, Arc<Feed>>>);

/// Where the watchers of one job hear of it.
type Feed = watch::Sender<Option<Shown>>;

/// What a feed has read last.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    owner: OwnerId,
    snapshot: Arc<Snapshot>,
}

impl Feeds {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Feed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A feed that runs. However it ends, a panic of the store and the end of its runtime included, the next
/// watcher starts another one.
struct Running {
    feeds: Arc<Feeds>,
    id: JobId,
    feed: Arc<Feed>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut feeds = self.feeds.lock();
        if feeds.get(&self.id).is_some_and(|feed| Arc::ptr_eq(feed, &self.feed)) {
            feeds.remove(&self.id);
        }
    }
}

impl Running {
    /// Whether nobody watches any more; then nobody finds this feed from now on.
    fn is_abandoned(&self) -> bool {
        let mut feeds = self.feeds.lock();
        let abandoned = self.feed.receiver_count() == 0;
        if abandoned {
            feeds.remove(&self.id);
        }
        abandoned
    }
}

impl Tracker {
    /// The job's snapshots from now on: the newest at once, which is not older than `seen`, then whenever
    /// something people can see has changed; it ends after a terminal one. Never one that was read earlier:
    /// where a strong read itself is behind what was shown, the store has lost something, and that is shown.
    /// All watchers of a job share one read of the store.
    ///
    /// # Errors
    /// [`Error::NotFound`], also if the job is not `owner`'s; [`Error::Store`].
    pub(crate) async fn watch_as(
        &self,
        id: JobId,
        owner: Option<&OwnerId>,
        seen: Option<&Token>,
    ) -> Result<impl Stream<Item = Arc<Snapshot>> + Send + use<>, Error> {
        let mut feed = self.subscribe(id);
        let first = match feed.wait_for(Option::is_some).await {
            Ok(shown) => shown.clone(),
            Err(_ended) => None,
        };
        let first = match first {
            Some(first) if owner.is_some_and(|owner| *owner != first.owner) => {
                return Err(Error::NotFound(id));
            }
            Some(first) if seen.is_none_or(|seen| first.snapshot.covers(seen)) => first.snapshot,
            // The feed could not read the job, or is behind. A read of our own tells which.
            _ => Arc::new(self.snapshot_as(id, owner, seen).await?),
        };
        Ok(self.clone().snapshots(id, feed, first))
    }

    fn subscribe(&self, id: JobId) -> watch::Receiver<Option<Shown>> {
        let (running, receiver) = {
            let mut feeds = self.feeds.lock();
            if let Some(feed) = feeds.get(&id) {
                return feed.subscribe();
            }
            let (feed, receiver) = watch::channel(None);
            let feed = Arc::new(feed);
            feeds.insert(id, feed.clone());
            (Running { feeds: self.feeds.clone(), id, feed }, receiver)
        };
        // Not under the lock: a runtime that shuts down drops the task at once, and that takes the lock.
        tokio::spawn(self.clone().feed(running));
        receiver
    }

    async fn feed(self, running: Running) {
        let Running { id, feed, .. } = &running;
        let mut last: Option<Arc<Snapshot>> = None;
        loop {
            let seen = last.as_ref().map(|last| last.token());
            let wait = match self.view(*id, None, seen.as_ref()).await {
                Ok((owner, snapshot)) => {
                    if seen.is_none_or(|seen| snapshot.token() != seen) {
                        let snapshot = Arc::new(snapshot);
                        last = Some(snapshot.clone());
                        feed.send_replace(Some(Shown { owner, snapshot }));
                    }
                    READ_AT_LEAST_EVERY
                }
                // Gone, or never there. Without a first value watchers ask for themselves.
                Err(Error::NotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(job = %id, %error, "reading a watched job failed; trying again");
                    AFTER_FAILURE
                }
            };
            let Some(snapshot) = &last else { return };
            if snapshot.status.is_terminal() {
                return;
            }
            let version = snapshot.version;
            let pause = async {
                tokio::join!(self.store.changed(*id, version, wait), tokio::time::sleep(READ_AT_MOST_EVERY));
            };
            tokio::select! {
                biased;
                () = pause => {}
                () = feed.closed() => {
                    if running.is_abandoned() {
                        return;
                    }
                }
            }
        }
    }

    /// What a watcher who was shown `last` is shown from a feed.
    fn snapshots(
        self,
        id: JobId,
        mut feed: watch::Receiver<Option<Shown>>,
        mut last: Arc<Snapshot>,
    ) -> impl Stream<Item = Arc<Snapshot>> + Send + use<> {
        async_stream::stream! {
            loop {
                yield last.clone();
                if last.status.is_terminal() {
                    break;
                }
                let (seen, mut pause) = (last.token(), READ_AT_MOST_EVERY);
                let next = loop {
                    if feed.changed().await.is_err() {
                        match self.after_the_feed(id, &seen, &mut pause).await {
                            Some(begun) => feed = begun,
                            None => return,
                        }
                        continue;
                    }
                    let shown = feed.borrow_and_update().as_ref().map(|shown| shown.snapshot.clone());
                    let news = match shown {
                        Some(shown) if shown.covers(&seen) => Some(shown),
                        // The feed is behind what this watcher has seen, or that is not so any more.
                        Some(shown) => self.truth(id, &seen, shown).await,
                        None => None,
                    };
                    if let Some(news) = news.filter(|news| news.token() != seen) {
                        break news;
                    }
                };
                for passed in last.passed_on_the_way_to(&next) {
                    yield Arc::new(passed);
                }
                last = next;
            }
        }
    }

    /// What a watcher who has seen more than `shown` is shown: a strong read is the truth, also where it is
    /// still behind. The end of a job is always shown.
    async fn truth(&self, id: JobId, seen: &Token, shown: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        match self.snapshot_as(id, None, Some(seen)).await {
            Ok(snapshot) => Some(Arc::new(snapshot)),
            Err(_) => Some(shown).filter(|shown| shown.status.is_terminal()),
        }
    }

    /// Another feed, since the last one ended before the job did: its store panicked or could not be read,
    /// or its runtime is gone. Waits for `pause` first, which is twice as long the next time. `None` if the
    /// job is gone.
    async fn after_the_feed(
        &self,
        id: JobId,
        seen: &Token,
        pause: &mut Duration,
    ) -> Option<watch::Receiver<Option<Shown>>> {
        match self.snapshot_as(id, None, Some(seen)).await {
            Ok(_) => {}
            Err(Error::NotFound(_)) => return None,
            Err(_) => *pause = AFTER_FAILURE,
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(AFTER_FAILURE);
        let mut feed = self.subscribe(id);
        // What an older feed has read may be news to this watcher.
        feed.mark_changed();
        Some(feed)
    }
}
