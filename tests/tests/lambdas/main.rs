//! The import as deployed: the very packages that are deployed, in MiniStack (S3, SQS, DynamoDB; S3 notifications and an SQS event
//! source mapping), and directly on a Lambda Runtime API. `MINISTACK_URL` says where MiniStack listens, `BOOTSTRAPS` in which
//! folder the packages are: `cargo xtask test` does both.
#![cfg(feature = "ministack")]

mod deployed;
mod direct;
mod function;
mod stack;
