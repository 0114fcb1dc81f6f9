//! The contract of [`StatusStore`] as a test suite that any backend runs:
//!
//! ```
//! # use std::sync::Arc; use status_memory::MemoryStore;
//! mod my_store {
//! #   use std::sync::Arc; use status_memory::MemoryStore;
//!     // One `#[test]` for each rule; the closure opens an empty store that goes by the clock it is given.
//!     status_testkit::conformance!(async |clock| Arc::new(MemoryStore::new(1_000, clock)));
//! }
//! ```
//!
//! - [`cases`]: one case for each rule of the design, named by the rule.
//! - [`model`]: random histories against a model that only knows the pure machine; failures shrink to a few
//!   steps.
//! - [`estimates`]: the estimate of the time remaining, for any order of the same outcomes.
//! - [`faults`]: a store around a store that loses requests and answers, throttles, repeats, delays and
//!   answers reads from the past, by a seed; and [`workers`] that have to get through all the same.
//! - [`layer`]: a store around a store, written as one function, for faults of your own.
//!
//! Backends without Rust's test harness loop over [`cases::ALL`].

pub mod cases;
pub mod estimates;
pub mod faults;
mod kit;
pub mod layer;
pub mod model;
pub mod workers;

pub use kit::{Kit, run};
#[doc(no_inline)]
pub use status_core::StatusStore;
#[doc(hidden)]
pub use {futures::future::join_all as __join_all, kit::open_at as __open_at};

/// Generates a `#[test]` for each rule, the model and the faults.
///
/// Three forms, by what the backend can do:
///
/// - `conformance!(open)`: `open` is an async closure or function that is given a clock and opens an empty
///   store.
/// - `conformance!(durable: place, open)`: the data outlive the store. `place` makes a new place for them
///   (a folder, a table), and `open` is given the place and a clock; it is called again with the same place
///   after the store was dropped.
/// - `conformance!(shared: place, open)`: the same, and several stores may be open at one place at once.
///
/// ```no_run
/// # mod my_store {
/// # use std::sync::Arc; use status_core::Clock; use status_memory::MemoryStore;
/// # #[derive(Clone)] struct Folder; impl Folder { fn new() -> Self { Self } }
/// # async fn open(_: Folder, clock: Arc<dyn Clock>) -> Arc<MemoryStore> { Arc::new(MemoryStore::new(9, clock)) }
/// status_testkit::conformance!(durable: async || Folder::new(), open);
/// # }
/// ```
#[macro_export]
macro_rules! conformance {
    (durable: $place:expr, $open:expr) => {
        $crate::__cases!(durable($crate::Kit::placed($place, $open).await));
        $crate::__random!(async |clock| $crate::__open_at($place, $open, clock).await);
    };
    (shared: $place:expr, $open:expr) => {
        $crate::__cases!(shared($crate::Kit::placed($place, $open).await));
        $crate::__random!(async |clock| $crate::__open_at($place, $open, clock).await);
    };
    ($open:expr) => {
        $crate::__cases!(store($crate::Kit::open($open).await));
        $crate::__random!($open);
    };
}

/// The tests that are random by a seed.
#[doc(hidden)]
#[macro_export]
macro_rules! __random {
    ($open:expr) => {
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

        /// Lost requests and answers, duplicates, throttling, delays and stale reads change nothing.
        #[test]
        fn faults_change_nothing() {
            let seeds = (0..4).map(|seed| $crate::workers::get_through(seed, $open));
            $crate::run($crate::__join_all(seeds));
        }
    };
}
