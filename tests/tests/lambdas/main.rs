//! The import as deployed: the very packages that are deployed, in MiniStack (S3, SQS; S3 notifications
//! and an SQS event source mapping), and directly on a Lambda Runtime API; the tables are in DynamoDB
//! Local, which refuses what AWS refuses. `MINISTACK_URL` and `DYNAMODB_LOCAL_URL` say where the two
//! listen, `BOOTSTRAPS` in which folder the packages are: `cargo xtask test` sets all three.
#![cfg(feature = "ministack")]

mod broken;
mod deployed;
mod direct;
mod function;
mod queue;
mod releases;
mod stack;
