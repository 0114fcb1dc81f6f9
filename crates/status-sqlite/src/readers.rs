//! Those that read: a few connections, each used by one call at a time, off the async threads.
//!
//! A read is one transaction and sees one state of the file, the newest when it begins: readers and
//! the writer do not wait for each other.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::{failure::Failure, open};

/// The most reads at once.
const READERS: usize = 4;

#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs `work` on a connection that cannot write.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Failure::Ended)?;
        let readers = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.read_now(work)
        });
        match reading.await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => Err(Failure::panicked(&*panic)),
                Err(_) => Err(Failure::Ended),
            },
        }
    }

    fn read_now<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        // Should the work panic, the connection is closed.
        let transaction = connection.unchecked_transaction()?;
        let result = work(&transaction);
        transaction.finish()?;
        self.idle().push(connection);
        result
    }

    fn connect(&self) -> Result<Connection, Failure> {
        let connection = open::connect(&self.path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
