//! The program itself: on a SQLite file, on an embedded engine that speaks the DynamoDB API, against
//! servers that do not answer, in a pipe and in a terminal.

mod jobs;
mod manual;
mod operator;
mod pipe;
mod stores;
#[cfg(unix)]
mod terminal;
mod unreachable;

/// A test of the module on each store.
macro_rules! on_both_stores {
    ($($test:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::operator::Operator::on_sqlite().await).await;
            })*
        }
        mod on_dynamodb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::operator::Operator::on_dynamodb().await).await;
            })*
        }
    };
}
pub(crate) use on_both_stores;
