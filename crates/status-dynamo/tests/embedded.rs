//! The store over an embedded engine that speaks the DynamoDB API: nothing else is needed.

mod common;

status_testkit::conformance!(common::embedded);
