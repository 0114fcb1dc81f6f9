//! A store around a store, written as one function: every call of every method comes by as a value.
//!
//! ```
//! # use std::sync::Arc;
//! # use status_core::StatusStore;
//! # use status_memory::MemoryStore;
//! use status_testkit::layer::{Answer, Call, Layered, after};
//!
//! // A store that forgets to say what is due.
//! let forgetful = after(|call, mut answer| {
//!     if let Ok(Answer::Due(page)) = &mut answer {
//!         page.rows.clear();
//!     }
//!     answer
//! });
//! let store: Arc<dyn StatusStore> = Arc::new(MemoryStore::default());
//! let store = Layered::new(store, forgetful);
//! ```

use std::{
    fmt::{self, Debug},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Consistency, Created, Due, ItemError, Job, JobId, JobState,
    OwnerId, Page, PageRequest, Status, StatusStore, StoreError, Timestamp, Written,
};

/// The methods of the trait, in its order.
macro_rules! calls {
    ($($variant:ident($($arg:ident: $type:ty),+) -> $answer:ty = $method:ident;)+) => {
        /// A call of a method of [`StatusStore`], with its arguments.
        #[derive(Clone, Copy, Debug)]
        #[expect(missing_docs, reason = "each is the method of that name")]
        pub enum Call<'a> {
            $($variant($($type),+),)+
            Changed(JobId, u64, Duration),
        }

        /// What a method answered.
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "each is of the method of that name")]
        #[expect(clippy::large_enum_variant, reason = "an answer lives for a moment")]
        pub enum Answer {
            $($variant($answer),)+
            Changed(()),
        }

        impl Call<'_> {
            /// The name of the method.
            pub fn method(&self) -> &'static str {
                match self {
                    $(Self::$variant(..) => stringify!($method),)+
                    Self::Changed(..) => "changed",
                }
            }

            /// Calls the method of `store`.
            ///
            /// # Errors
            /// Those of the method.
            pub async fn on(self, store: &dyn StatusStore) -> Result<Answer, StoreError> {
                Ok(match self {
                    $(Self::$variant($($arg),+) => Answer::$variant(store.$method($($arg),+).await?),)+
                    Self::Changed(id, version, at_most) => {
                        store.changed(id, version, at_most).await;
                        Answer::Changed(())
                    }
                })
            }
        }
    };
}

calls! {
    Create(job: &'a Job) -> Created = create;
    Job(id: JobId, consistency: Consistency) -> Option<Job> = job;
    Read(id: JobId, consistency: Consistency) -> Option<JobState> = read;
    Decide(next: &'a Job) -> () = decide;
    Propagate(job: &'a Job) -> () = propagate;
    Begin(id: JobId, batches: &'a [BatchIndex], at: Timestamp) -> Option<Begun> = begin;
    Report(id: JobId, reports: &'a [BatchReport], at: Timestamp) -> Written = report;
    Errors(id: JobId, page: &'a PageRequest) -> Page<ItemError> = errors;
    Batches(id: JobId, which: BatchState, from: u64, limit: usize) -> Vec<BatchIndex> = batches;
    List(owner: &'a OwnerId, status: Option<Status>, page: &'a PageRequest) -> Page<Job> = list;
    Due(now: Timestamp, page: &'a PageRequest) -> Page<Due> = due;
    Postpone(due: &'a Due, until: Timestamp) -> bool = postpone;
    Erase(id: JobId) -> () = erase;
    Purge(now: Timestamp) -> u64 = purge;
    CountOpen(owner: &'a OwnerId, at_most: usize) -> usize = count_open;
    ChangedSince(owner: &'a OwnerId, since: Timestamp, limit: usize) -> Vec<Job> = changed_since;
    LastCompleted(owner: &'a OwnerId, kind: &'a str, limit: usize) -> Vec<Job> = last_completed;
    ListOpen(page: &'a PageRequest) -> Page<Job> = list_open;
}

/// What a store around a store does with a call.
#[async_trait]
pub trait Layer: Debug + Send + Sync + 'static {
    /// Answers `call`, as a rule by carrying it out on `store` ([`Call::on`]). The answer must be of the
    /// same method as the call.
    async fn call(&self, store: &dyn StatusStore, call: Call<'_>) -> Result<Answer, StoreError>;
}

/// A store, and a layer that all calls pass: those of the provided methods too.
#[derive(Debug)]
pub struct Layered<L> {
    store: Arc<dyn StatusStore>,
    layer: L,
}

impl<L: Layer> Layered<L> {
    /// `layer` around `store`.
    pub fn new(store: Arc<dyn StatusStore>, layer: L) -> Self {
        Self { store, layer }
    }

    /// The layer: what it noted.
    pub fn layer(&self) -> &L {
        &self.layer
    }
}

/// A layer that answers some calls itself: those for which `answer` gives something.
pub fn before(
    answer: impl Fn(&Call<'_>) -> Option<Result<Answer, StoreError>> + Send + Sync + 'static,
) -> impl Layer {
    Before(answer)
}

/// A layer that changes answers.
pub fn after(
    change: impl Fn(&Call<'_>, Result<Answer, StoreError>) -> Result<Answer, StoreError> + Send + Sync + 'static,
) -> impl Layer {
    After(change)
}

struct Before<F>(F);
struct After<F>(F);

impl<F> Debug for Before<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Before")
    }
}

impl<F> Debug for After<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("After")
    }
}

#[async_trait]
impl<F> Layer for Before<F>
where
    F: Fn(&Call<'_>) -> Option<Result<Answer, StoreError>> + Send + Sync + 'static,
{
    async fn call(&self, store: &dyn StatusStore, call: Call<'_>) -> Result<Answer, StoreError> {
        match (self.0)(&call) {
            Some(answer) => answer,
            None => call.on(store).await,
        }
    }
}

#[async_trait]
impl<F> Layer for After<F>
where
    F: Fn(&Call<'_>, Result<Answer, StoreError>) -> Result<Answer, StoreError> + Send + Sync + 'static,
{
    async fn call(&self, store: &dyn StatusStore, call: Call<'_>) -> Result<Answer, StoreError> {
        let answer = call.on(store).await;
        (self.0)(&call, answer)
    }
}

/// Has the layer answer a call.
macro_rules! ask {
    ($layered:ident, $variant:ident($($arg:expr),+)) => {
        match $layered.layer.call(&*$layered.store, Call::$variant($($arg),+)).await? {
            Answer::$variant(answer) => Ok(answer),
            other => panic!("a layer answered {} with {other:?}", stringify!($variant)),
        }
    };
}

#[async_trait]
impl<L: Layer> StatusStore for Layered<L> {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        ask!(self, Create(job))
    }

    async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        ask!(self, Job(id, consistency))
    }

    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError> {
        ask!(self, Read(id, consistency))
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        ask!(self, Decide(next))
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        ask!(self, Propagate(job))
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        ask!(self, Begin(id, batches, at))
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        ask!(self, Report(id, reports, at))
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        ask!(self, Errors(id, page))
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        ask!(self, Batches(id, which, from, limit))
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        ask!(self, List(owner, status, page))
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        ask!(self, Due(now, page))
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        ask!(self, Postpone(due, until))
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        ask!(self, Erase(id))
    }

    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        ask!(self, Purge(now))
    }

    async fn count_open(&self, owner: &OwnerId, at_most: usize) -> Result<usize, StoreError> {
        ask!(self, CountOpen(owner, at_most))
    }

    async fn changed_since(
        &self,
        owner: &OwnerId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        ask!(self, ChangedSince(owner, since, limit))
    }

    async fn last_completed(
        &self,
        owner: &OwnerId,
        kind: &str,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        ask!(self, LastCompleted(owner, kind, limit))
    }

    async fn list_open(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
        ask!(self, ListOpen(page))
    }

    async fn changed(&self, id: JobId, version: u64, at_most: Duration) {
        // A layer cannot fail here: there is nobody to tell.
        let _ = self.layer.call(&*self.store, Call::Changed(id, version, at_most)).await;
    }
}
