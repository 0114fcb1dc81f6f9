//! A store around any store, for backends without a wire: the faults that the trait's interface
//! allows.
//!
//! A call may be lost or throttled with nothing written, lose its answer, come late or twice, and
//! kill its caller; a read that may be a moment old may give an earlier answer. What happens
//! between two requests of one call is the backend's own affair here.

mod past;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{executor::block_on, future::BoxFuture};
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Consistency, Created, Due, ItemError, Job, JobId, JobState,
    OwnerId, Page, PageRequest, Status, StatusStore, StoreError, Timestamp, Written,
};
use tokio::time::{sleep, timeout};

use crate::{
    faults::{Faults, Kind, Operation},
    history::brief,
    invariant::Invariant,
    wire::{Call, Carried, Wire},
    words::Words,
};

pub use past::Past;
use past::{Change, List};

/// A store in this process. A call of it is carried out to its end before anybody does anything else,
/// and takes no time: it may have threads of its own, which know nothing of the run's.
#[derive(Clone, Debug)]
pub struct Local {
    /// The store.
    pub store: Arc<dyn StatusStore>,
    /// What it would have answered earlier.
    pub past: Arc<Past>,
    /// How one learns of a change.
    pub wakes: Wakes,
}

/// How one learns that a job may have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wakes {
    /// From the store, whose waiting takes virtual time.
    OfStore,
    /// From the calls that changed it.
    OfCalls,
}

/// The way of one process to a store that all share.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Local,
    wire: Wire,
}

/// A method of the inner store with its arguments.
type Run<T> = Arc<dyn Fn(Arc<dyn StatusStore>) -> BoxFuture<'static, Result<T, StoreError>> + Send + Sync>;

/// One call of a method.
struct Method<T> {
    operation: Operation,
    /// Where earlier answers are remembered, of a read that may be a moment old.
    read: Option<String>,
    /// What it may change.
    changes: Option<Change>,
    store: Arc<dyn StatusStore>,
    past: Arc<Past>,
    run: Run<T>,
    mix: fn(T, T) -> T,
    arguments: Arc<dyn Fn() -> String + Send + Sync>,
}

impl<T> Clone for Method<T> {
    fn clone(&self) -> Self {
        Self {
            operation: self.operation,
            read: self.read.clone(),
            changes: self.changes,
            store: self.store.clone(),
            past: self.past.clone(),
            run: self.run.clone(),
            mix: self.mix,
            arguments: self.arguments.clone(),
        }
    }
}

impl<T: Clone + Words + Send + 'static> Call for Method<T> {
    type Answer = Result<T, StoreError>;

    fn operation(&self) -> Operation {
        self.operation
    }

    async fn carry_out(&self) -> Self::Answer {
        if let Some(change) = self.changes {
            self.past.look(&self.store, change);
        }
        let answer = block_on((self.run)(self.store.clone()));
        if let Some(change) = self.changes {
            self.past.look(&self.store, change);
        }
        answer
    }

    fn earlier(&self, faults: &Faults) -> Option<Self::Answer> {
        self.past.earlier(self.read.as_ref()?, faults).map(Ok)
    }

    fn torn(&self, first: Self::Answer, second: Self::Answer, _: &Faults) -> Self::Answer {
        match (first, second) {
            (Ok(first), Ok(second)) => Ok((self.mix)(first, second)),
            (_, second) => second,
        }
    }

    fn request(&self) -> String {
        format!("{} {}", self.operation.name, brief(&(self.arguments)(), 2_000))
    }

    fn answer(answer: &Self::Answer) -> String {
        brief(&answer.words(), 1_000)
    }

    fn complaint(&self, answer: &Self::Answer) -> Option<(Invariant, String)> {
        match answer {
            Err(StoreError::Conflict(_) | StoreError::NotFound(_)) | Ok(_) => None,
            Err(StoreError::Corrupt { .. }) => Some((Invariant::NothingUnreadable, answer.words())),
            Err(error) => Some((Invariant::NoInvalidRequest, format!("{error:?}"))),
        }
    }
}

/// The older record with the newer facts: a read is no snapshot across the two.
fn mixed(first: Option<JobState>, second: Option<JobState>) -> Option<JobState> {
    match (first, second) {
        (Some(first), Some(second)) => Some(JobState::new(first.job, second.facts)),
        (_, second) => second,
    }
}

impl FaultyStore {
    /// The way of the process with this wire to `inner`.
    pub fn new(inner: Local, wire: Wire) -> Self {
        Self { inner, wire }
    }

    fn method<T, F>(
        &self,
        name: &'static str,
        kind: Kind,
        arguments: impl Fn() -> String + Send + Sync + 'static,
        run: impl Fn(Arc<dyn StatusStore>) -> F + Send + Sync + 'static,
    ) -> Method<T>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        Method {
            operation: Operation { name, kind },
            read: None,
            changes: None,
            store: self.inner.store.clone(),
            past: self.inner.past.clone(),
            run: Arc::new(move |store| Box::pin(run(store))),
            mix: |_, second| second,
            arguments: Arc::new(arguments),
        }
    }

    /// A call of a read that may be a moment old, of jobs in some order.
    async fn list_call<T: Clone + Words + Send + 'static>(
        &self,
        read: String,
        list: Method<T>,
    ) -> Result<T, StoreError> {
        let Local { store, past, .. } = &self.inner;
        past.know(&read, || {
            let (run, store, past) = (list.run.clone(), store.clone(), Arc::downgrade(past));
            let read = read.clone();
            List(Arc::new(move || {
                if let (Ok(answer), Some(past)) = (block_on(run(store.clone())), past.upgrade()) {
                    past.remember(read.clone(), answer);
                }
            }))
        });
        self.call(Method { read: Some(read), ..list }).await
    }

    async fn call<T: Clone + Words + Send + 'static>(&self, method: Method<T>) -> Result<T, StoreError> {
        let operation = method.operation.name;
        match self.wire.carry(method).await {
            Carried::Answer(answer) => answer,
            Carried::Lost => Err(StoreError::Unavailable {
                operation,
                subject: "a call".into(),
                source: "the connection broke".into(),
            }),
            Carried::Throttled => Err(StoreError::Throttled {
                operation,
                subject: "a call".into(),
                source: "too many requests".into(),
            }),
        }
    }
}

/// The future of one method of the inner store, which owns what it needs.
macro_rules! on {
    ($store:ident . $method:ident ( $($argument:expr),* ), $($owned:ident),*) => {
        move |$store: Arc<dyn StatusStore>| {
            $(let $owned = $owned.clone();)*
            async move { $store.$method($($argument),*).await }
        }
    };
}

#[async_trait]
impl StatusStore for FaultyStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        let (job, shown) = (job.clone(), job.clone());
        let id = job.id;
        let create = self.method("create", Kind::Write, move || shown.words(), on!(store.create(&job), job));
        self.call(Method { changes: Some(Change::Decision(id)), ..create }).await
    }

    async fn job(&self, id: JobId, consistency: Consistency) -> Result<Option<Job>, StoreError> {
        let (name, kind) = match consistency {
            Consistency::Strong => ("job, strong", Kind::Read),
            Consistency::Eventual => ("job, eventual", Kind::ReadEventually),
        };
        let job = self.method(name, kind, move || id.to_string(), on!(store.job(id, consistency),));
        self.call(Method { read: Some(format!("job {id}")), ..job }).await
    }

    async fn read(&self, id: JobId, consistency: Consistency) -> Result<Option<JobState>, StoreError> {
        let (name, kind) = match consistency {
            Consistency::Strong => ("read, strong", Kind::ReadMany),
            Consistency::Eventual => ("read, eventual", Kind::ReadManyEventually),
        };
        let read = self.method(name, kind, move || id.to_string(), on!(store.read(id, consistency),));
        self.call(Method { read: Some(format!("read {id}")), mix: mixed, ..read }).await
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        let (next, shown) = (next.clone(), next.clone());
        let id = next.id;
        let decide =
            self.method("decide", Kind::Write, move || shown.words(), on!(store.decide(&next), next));
        self.call(Method { changes: Some(Change::Decision(id)), ..decide }).await
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        let (job, id) = (job.clone(), job.id);
        let propagate =
            self.method("propagate", Kind::Write, move || id.to_string(), on!(store.propagate(&job), job));
        self.call(propagate).await
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        let (batches, shown) = (batches.to_vec(), batches.to_vec());
        let begin = self.method(
            "begin",
            Kind::Write,
            move || format!("{id} {} at {at}", shown.words()),
            on!(store.begin(id, &batches, at), batches),
        );
        self.call(Method { changes: Some(Change::Facts(id)), ..begin }).await
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        let (reports, shown) = (reports.to_vec(), reports.to_vec());
        let report = self.method(
            "report",
            Kind::Write,
            move || format!("{id} {} at {at}", shown.words()),
            on!(store.report(id, &reports, at), reports),
        );
        self.call(Method { changes: Some(Change::Facts(id)), ..report }).await
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        let (page, shown) = (page.clone(), page.clone());
        let arguments = move || format!("{id} {shown:?}");
        self.call(self.method("errors", Kind::Read, arguments, on!(store.errors(id, &page), page))).await
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        let arguments = move || format!("{id} {which:?} {from} {limit}");
        let batches = on!(store.batches(id, which, from, limit),);
        self.call(self.method("batches", Kind::Read, arguments, batches)).await
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let (owner, page) = (owner.clone(), page.clone());
        let read = format!("list {owner} {status:?} {page:?}");
        let list = self.method("list", Kind::ReadEventually, shown(&read), {
            on!(store.list(&owner, status, &page), owner, page)
        });
        self.list_call(read, list).await
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        let page = page.clone();
        // What was due then is due now.
        let read = format!("due {page:?}");
        let due = self.method("due", Kind::ReadEventually, shown(&read), on!(store.due(now, &page), page));
        self.list_call(read, due).await
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        let due = *due;
        let postpone = self.method(
            "postpone",
            Kind::Write,
            move || format!("{due:?} {until}"),
            on!(store.postpone(&due, until),),
        );
        self.call(postpone).await
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        let erase = self.method("erase", Kind::Write, move || id.to_string(), on!(store.erase(id),));
        self.call(Method { changes: Some(Change::Decision(id)), ..erase }).await
    }

    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        let purge = on!(store.purge(now),);
        self.call(self.method("purge", Kind::Write, move || now.to_string(), purge)).await
    }

    async fn count_open(&self, owner: &OwnerId, at_most: usize) -> Result<usize, StoreError> {
        let owner = owner.clone();
        let read = format!("count_open {owner} {at_most}");
        let count = self.method(
            "count_open",
            Kind::ReadEventually,
            shown(&read),
            on!(store.count_open(&owner, at_most), owner),
        );
        self.list_call(read, count).await
    }

    async fn changed_since(
        &self,
        owner: &OwnerId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let owner = owner.clone();
        let read = format!("changed_since {owner} {limit}");
        let changed = self.method("changed_since", Kind::ReadEventually, shown(&read), {
            on!(store.changed_since(&owner, since, limit), owner)
        });
        self.list_call(read, changed).await
    }

    async fn last_completed(
        &self,
        owner: &OwnerId,
        kind: &str,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let (owner, kind) = (owner.clone(), kind.to_owned());
        let read = format!("last_completed {owner} {kind} {limit}");
        let completed = self.method("last_completed", Kind::ReadEventually, shown(&read), {
            on!(store.last_completed(&owner, &kind, limit), owner, kind)
        });
        self.list_call(read, completed).await
    }

    async fn list_open(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
        let page = page.clone();
        let read = format!("list_open {page:?}");
        let open =
            self.method("list_open", Kind::ReadEventually, shown(&read), on!(store.list_open(&page), page));
        self.list_call(read, open).await
    }

    async fn changed(&self, id: JobId, version: u64, at_most: Duration) {
        let Local { store, past, wakes } = &self.inner;
        match wakes {
            Wakes::OfStore => store.changed(id, version, at_most).await,
            Wakes::OfCalls => {
                let _ = timeout(at_most, past.changed(store, id, version)).await;
            }
        }
        // Who of several processes is woken first is up to chance; how long the news takes is not.
        sleep(self.wire.distance).await;
    }
}

fn shown(text: &str) -> impl Fn() -> String + Send + Sync + 'static {
    let text = text.to_owned();
    move || text.clone()
}
