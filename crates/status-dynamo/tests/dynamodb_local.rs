//! The store over AWS's own DynamoDB Local, at the address in `DYNAMODB_LOCAL_URL`. `cargo xtask test` starts one.

mod common;

use std::{env, sync::Arc};

use status_core::Clock;
use status_dynamo::DynamoStore;

async fn local(clock: Arc<dyn Clock>) -> Arc<DynamoStore> {
    let endpoint =
        env::var("DYNAMODB_LOCAL_URL").expect("DYNAMODB_LOCAL_URL names a server: run `cargo xtask test`");
    common::table(&endpoint, clock).await
}

status_testkit::conformance!(local);
