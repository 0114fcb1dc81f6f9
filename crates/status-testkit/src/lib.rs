//! The contract of [`StatusStore`] as a test suite that any backend runs:
//!
//! ```
//! # use std::sync::Arc; use status_memory::MemoryStore;
//! mod my_store {
//! #   use std::sync::Arc; use status_memory::MemoryStore;
//!     // One `#[test]` for each case; the closure opens an empty store that goes by the clock it is given.
//!     status_testkit::conformance!(async |clock| Arc::new(MemoryStore::new(1_000, clock)));
//! }
//! ```
//!
//! - [`cases`]: one case for each rule of the design, named by the rule.
//! - [`model`]: random histories against a model that only knows the pure machine; failures shrink to a few steps.
//! - [`estimates`]: the estimate of the time remaining, for any order of the same outcomes.
//! - [`faults`]: a store around a store that loses answers, throttles, repeats and delays, by a seed.
//!
//! Backends without tokio's or Rust's test harness loop over [`cases::ALL`].

pub mod cases;
pub mod estimates;
pub mod faults;
mod kit;
pub mod model;

pub use kit::{Kit, run};
#[doc(no_inline)]
pub use status_core::StatusStore;

/// Generates a `#[test]` for each case, the model and the faults, over the store that the async closure opens.
#[macro_export]
macro_rules! conformance {
    ($open:expr) => {
        $crate::__for_each_case!($open);

        /// Random histories give what the pure machine gives.
        #[test]
        fn random_histories_agree_with_the_machine() {
            $crate::model::check(64, 40, $open);
        }

        /// The estimate is that of the facts, in whatever order they arrive.
        #[test]
        fn the_estimate_is_the_same_for_any_order_of_the_same_outcomes() {
            $crate::estimates::check(24, $open);
        }

        /// Lost answers, duplicates, throttling and delays change nothing.
        #[test]
        fn faults_change_nothing() {
            for seed in 0..4 {
                $crate::run($crate::faults::workers_get_through(seed, $open));
            }
        }
    };
}
