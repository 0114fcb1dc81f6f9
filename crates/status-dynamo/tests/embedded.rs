//! The store over an embedded engine that speaks the DynamoDB API: nothing else is needed.

mod common;

// Each in a new table of an engine of its own; further handles have clients of their own.
status_testkit::conformance!(shared: async || common::place(common::embedded().await).await, common::open);
