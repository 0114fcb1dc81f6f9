//! The stores, and what each is measured against.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_dynamodb::{Client, types::AttributeValue};
use bench::dynamodb;
use rusqlite::Connection;
use status_core::{JobId, StatusStore, Timestamp};
use status_dynamo::{DynamoStore, Meter};
use status_memory::MemoryStore;
use status_sqlite::SqliteStore;
use tempfile::TempDir;

use crate::{
    Result,
    drive::{Slice, drive},
};

/// A store that is measured, and the bare operation of its engine.
#[async_trait]
pub(crate) trait Subject: Send + Sync {
    fn name(&self) -> &'static str;

    /// The bare operation, in words.
    fn bare_operation(&self) -> &'static str;

    /// Which bytes [`bytes_written`](Self::bytes_written) counts.
    fn bytes_are(&self) -> &'static str;

    /// A store without jobs.
    async fn open(&self, name: &str) -> Result<Opened>;

    /// Workers that do the bare operation.
    async fn bare(&self, workers: u64, slice: Duration) -> Result<Slice>;

    /// What the store has written so far: of those it gives as metered, in any case.
    fn bytes_written(&self) -> Option<u64>;

    /// How often a watcher looks who is not woken at once.
    fn looks_every(&self) -> Duration;
}

/// A store to measure.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn StatusStore>,
    /// The same, whose bytes are counted; it may be slower.
    pub(crate) metered: Arc<dyn StatusStore>,
    pub(crate) file: Option<PathBuf>,
    sqlite: Option<SqliteStore>,
}

impl Opened {
    fn new(store: Arc<dyn StatusStore>) -> Self {
        Self { metered: store.clone(), store, file: None, sqlite: None }
    }

    /// How many transactions have changed anything, of a store that groups what waits.
    pub(crate) fn commits(&self) -> Option<u64> {
        self.sqlite.as_ref().map(SqliteStore::commits)
    }

    /// Whether the store is as fast as it gets.
    pub(crate) fn is_warm(&self) -> bool {
        self.file.as_deref().is_none_or(log_is_full)
    }
}

/// The store in memory, and a map of counters behind a lock.
#[derive(Default)]
pub(crate) struct Memory {
    counters: Arc<Mutex<HashMap<u64, u64>>>,
}

#[async_trait]
impl Subject for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn bare_operation(&self) -> &'static str {
        "an increment in a map behind a lock"
    }

    fn bytes_are(&self) -> &'static str {
        SENT_TO_THE_DISK
    }

    async fn open(&self, _: &str) -> Result<Opened> {
        Ok(Opened::new(Arc::new(MemoryStore::default())))
    }

    async fn bare(&self, workers: u64, slice: Duration) -> Result<Slice> {
        let counters = self.counters.clone();
        drive(workers, slice, move |_| {
            let counters = counters.clone();
            async move {
                *counters.lock().unwrap_or_else(PoisonError::into_inner).entry(1).or_default() += 1;
                Ok(())
            }
        })
        .await
    }

    fn bytes_written(&self) -> Option<u64> {
        sent_to_the_disk()
    }

    fn looks_every(&self) -> Duration {
        Duration::ZERO
    }
}

/// The store in a file, and a row of a counter in another one.
pub(crate) struct Sqlite {
    folder: TempDir,
    bare: Arc<Mutex<Connection>>,
}

/// Whether SQLite's log is as long as it gets. One that still grows is slower than one that is
/// written again from its beginning, as it is after a thousand pages.
fn log_is_full(file: &Path) -> bool {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|log| log.len() >= 1_000 * 4_096)
}

impl Sqlite {
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("store-cost-").tempdir_in(parent)?;
        // One connection: SQLite has one writer, and others would look for its lock at intervals.
        let file = folder.path().join("bare.db");
        let bare = Connection::open(&file)?;
        bare.execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 16777216;
             PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;
             CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
             PRAGMA synchronous = OFF",
        )?;
        while !log_is_full(&file) {
            upsert(&bare)?;
        }
        bare.execute_batch("PRAGMA synchronous = FULL")?;
        Ok(Self { folder, bare: Arc::new(Mutex::new(bare)) })
    }
}

/// One transaction: the answer comes when it is on the disk.
fn upsert(connection: &Connection) -> rusqlite::Result<()> {
    let upsert = "INSERT INTO counters VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1";
    connection.prepare_cached(upsert)?.execute([]).map(drop)
}

#[async_trait]
impl Subject for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn bare_operation(&self) -> &'static str {
        "INSERT … ON CONFLICT DO UPDATE SET n = n + 1 off the async threads, a transaction each, with the store's pragmas"
    }

    fn bytes_are(&self) -> &'static str {
        SENT_TO_THE_DISK
    }

    async fn open(&self, name: &str) -> Result<Opened> {
        let file = self.folder.path().join(format!("{name}.db"));
        let store = SqliteStore::open(&file).await?;
        Ok(Opened { file: Some(file), sqlite: Some(store.clone()), ..Opened::new(Arc::new(store)) })
    }

    async fn bare(&self, workers: u64, slice: Duration) -> Result<Slice> {
        let bare = self.bare.clone();
        drive(workers, slice, move |_| {
            let bare = bare.clone();
            async move {
                // A call that waits for a disk has no place on an async thread, the bare one neither.
                let upsert = move || upsert(&bare.lock().unwrap_or_else(PoisonError::into_inner));
                Ok(tokio::task::spawn_blocking(upsert).await??)
            }
        })
        .await
    }

    fn bytes_written(&self) -> Option<u64> {
        sent_to_the_disk()
    }

    fn looks_every(&self) -> Duration {
        Duration::from_millis(25)
    }
}

/// The store in a table, and an item with a counter in the same table.
pub(crate) struct Dynamodb {
    client: Client,
    table: String,
    meter: Arc<Meter>,
}

impl Dynamodb {
    pub(crate) async fn new(endpoint: Option<&str>) -> Result<Self> {
        let client = dynamodb::client(endpoint).await?;
        let table = format!("store-cost-{}", JobId::new(Timestamp::now()));
        DynamoStore::new(client.clone(), &table).create_table().await?;
        Ok(Self { client, table, meter: Arc::default() })
    }

    /// Removes the table.
    pub(crate) async fn remove(&self) -> Result<()> {
        self.client.delete_table().table_name(&self.table).send().await?;
        Ok(())
    }
}

#[async_trait]
impl Subject for Dynamodb {
    fn name(&self) -> &'static str {
        "dynamodb"
    }

    fn bare_operation(&self) -> &'static str {
        "UpdateItem ADD of one counter, by the same client"
    }

    fn bytes_are(&self) -> &'static str {
        "write units of 1,024 bytes, by the server's ConsumedCapacity"
    }

    async fn open(&self, _: &str) -> Result<Opened> {
        let store = DynamoStore::new(self.client.clone(), &self.table);
        // The server would have to work out what each request costs.
        let metered = Arc::new(store.clone().with_meter(self.meter.clone()));
        Ok(Opened { metered, ..Opened::new(Arc::new(store)) })
    }

    async fn bare(&self, workers: u64, slice: Duration) -> Result<Slice> {
        let key = |name| AttributeValue::S(name);
        let add = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", key("bare".into()))
            .key("sk", key("counter".into()))
            .update_expression("ADD n :one")
            .expression_attribute_values(":one", AttributeValue::N("1".into()));
        drive(workers, slice, move |_| {
            let add = add.clone().send();
            async move {
                add.await?;
                Ok(())
            }
        })
        .await
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand units")]
    fn bytes_written(&self) -> Option<u64> {
        Some((self.meter.usage().write_units * 1_024.0) as u64)
    }

    fn looks_every(&self) -> Duration {
        Duration::from_millis(800)
    }
}

const SENT_TO_THE_DISK: &str =
    "write_bytes of /proc/self/io: sent to the disk, the log and the file together";

/// What this process has sent to the disk, where the system says so.
fn sent_to_the_disk() -> Option<u64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}
