//! The store over AWS's own DynamoDB Local, at the address in `DYNAMODB_LOCAL_URL`. `cargo xtask test` starts one.

mod common;

use std::env;

/// The address of the server.
fn local() -> String {
    env::var("DYNAMODB_LOCAL_URL").expect("DYNAMODB_LOCAL_URL names a server: run `cargo xtask test`")
}

status_testkit::conformance!(shared: async || common::place(local()).await, common::open);
