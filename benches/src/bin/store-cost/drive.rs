//! Workers that do the same thing over and over: the one loop under reports and bare operations.

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::Result;

/// What was done in a slice of time.
#[derive(Clone, Copy)]
pub(crate) struct Slice {
    pub(crate) done: u64,
    took: Duration,
}

impl Slice {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    pub(crate) fn per_second(self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }
}

/// Has workers do `operation`, each the next once the last is answered, until `span` is over. The
/// operation is told its number; each number is given once.
pub(crate) async fn drive<F, R>(workers: u64, span: Duration, operation: F) -> Result<Slice>
where
    F: Fn(u64) -> R + Clone + Send + 'static,
    R: Future<Output = Result<()>> + Send,
{
    let begun = Instant::now();
    let worker = |worker| {
        let operation = operation.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while begun.elapsed() < span {
                operation(done * workers + worker).await?;
                // Where nothing waits, the workers would have their turns one after the other.
                tokio::task::yield_now().await;
                done += 1;
            }
            Ok(done)
        })
    };
    let done = try_join_all((0..workers).map(worker)).await?.into_iter().sum::<Result<u64>>()?;
    Ok(Slice { done, took: begun.elapsed() })
}
