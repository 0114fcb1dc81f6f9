//! The tracker over stores that lag, fail, panic and answer wrongly: watchers, tokens, and what callers are
//! told.

mod misbehaving;
#[cfg(feature = "mock")]
mod mock;
mod tokens;
mod watching;

use std::{sync::Arc, time::Duration};

use status_core::{BatchIndex, BatchReport, JobId, Policy, StoreError, Tolerance};
use status_memory::MemoryStore;
use status_testkit::Kit;

/// A kit over a sound store in memory.
async fn kit() -> Kit {
    Kit::open(async |clock| Arc::new(MemoryStore::new(100, clock))).await
}

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

fn done(index: u64) -> BatchReport {
    BatchReport::completed(batch(index), 10, 0).took(Duration::from_secs(1))
}

fn failed(index: u64) -> BatchReport {
    BatchReport::failed(batch(index), 10, "llm-refused", "The model refused.")
}

/// A policy that survives any number of failed batches and notes starts.
fn tracking() -> Policy {
    let mut policy = Policy::default();
    policy.tolerance = Tolerance::Percent(100);
    policy.track_starts = true;
    policy
}

fn corrupt(id: JobId) -> StoreError {
    StoreError::Corrupt { subject: format!("job {id}"), why: "it is no count".into() }
}

fn unavailable(operation: &'static str) -> StoreError {
    StoreError::Unavailable { operation, subject: "a test".into(), source: "nobody answers".into() }
}
