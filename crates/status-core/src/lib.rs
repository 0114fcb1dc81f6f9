//! The status of long-running batch jobs: *upload a file, split it into batches, let many stateless workers process the
//! batches, tell a person how far it is and when it will be done.*
//!
//! This crate is the domain, free of I/O: the [state machine](machine), [progress](Progress) and the
//! [estimate], the [`StatusStore`] trait that backends implement, and the [`Tracker`], the façade that
//! workers and web servers call. What it guarantees:
//!
//! - A terminal status never changes; a late worker's result still counts, and moves nothing.
//! - Every batch counts once, however often it is delivered.
//! - A job is never stuck at its last batch: any worker, late duplicate, strongly consistent read or sweep decides it.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use status_core::{Actor, BatchIndex, BatchReport, Begin, FileInfo, NewJob, OwnerId, Status, Totals, Tracker};
//! # use status_memory::MemoryStore;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tracker = Tracker::new(Arc::new(MemoryStore::default()));
//! let alice = tracker.owned_by(OwnerId::new("alice")?);
//! let job = alice.create(NewJob::new(FileInfo::new("leads.csv", 2_048, "text/csv")?)).await?;
//! alice.finish_upload(job.id).await?;
//!
//! // The splitter, when it has cut the file into two batches:
//! tracker.start(job.id, Some(Totals { batches: 2, items: Some(20) }), &Actor::named("splitter")).await?;
//!
//! // Any number of workers, each batch at least once:
//! for batch in [0, 1, 1].map(BatchIndex::new) {
//!     if tracker.begin(job.id, batch?).await? == Begin::Work {
//!         let report = BatchReport::completed(batch?, 10, 0).took(Duration::from_secs(3));
//!         tracker.report(job.id, vec![report]).await?;
//!     }
//! }
//! assert_eq!(alice.snapshot(job.id).await?.status, Status::Completed);
//! # Ok(())
//! # }
//! ```

mod batch;
pub mod chunk;
pub mod clock;
mod error;
pub mod estimate;
mod facts;
mod id;
mod job;
pub mod machine;
mod moments;
mod policy;
mod snapshot;
mod status;
mod store;
pub mod text;
mod token;
mod tracker;
mod watch;

pub use batch::{BatchIndex, BatchOutcome, BatchReport, Effect, ItemError, Settled, TooManyBatches};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use error::{BoxError, Error, StoreError};
pub use facts::{Counts, Facts};
pub use id::{Actor, InvalidJobId, JobId, OwnerId};
pub use job::{
    CancelRequest, Decision, Failure, FileInfo, HistoryEntry, Hook, HookState, Job, NewJob, Stage, Totals,
};
pub use machine::{Command, Rejection, Verdict};
pub use moments::{MAX_MS, Moments, Sum};
pub use policy::{Policy, Tolerance};
pub use snapshot::{
    BatchProgress, ESTIMATE_AFTER, Estimate, Health, ItemProgress, Progress, Snapshot, UploadProgress,
};
pub use status::{Outcome, Status, UnknownStatus};
#[cfg(feature = "mock")]
pub use store::MockStatusStore;
pub use store::{
    BatchState, Begun, Consistency, Created, Damaged, Due, ErrorsPosition, JobState, Page, PageRequest,
    StatusStore, Written,
};
pub use token::{InvalidToken, Token};
pub use tracker::{Assignment, Begin, Cancelled, OwnedJobs, Reported, Swept, Tracker};

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
