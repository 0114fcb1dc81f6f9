//! The SQLite store keeps the contract.

mod common;

status_testkit::conformance!(async |clock| common::store(clock).await);
