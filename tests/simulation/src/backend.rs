//! The stores that can be simulated. Another one is another arm of [`open`].

use std::{path::Path, sync::Arc};

use futures::executor::block_on;
use status_core::{Clock, JobId, StatusStore, StoreError};
use status_memory::MemoryStore;
use status_sqlite::SqliteStore;
use tempfile::TempDir;

use crate::{
    dynamo,
    engine::Engine,
    time::VirtualTime,
    wire::Wire,
    wrapped::{FaultyStore, Local, Past, Wakes},
};

/// The names of all stores.
pub const NAMES: [&str; 3] = ["dynamodb", "memory", "sqlite"];

/// How many jobs the store in memory has room for: more than any run has.
const CAPACITY: usize = 1_000;

/// What all processes of a run share.
#[derive(Debug)]
pub enum Backend {
    /// A table server, reached over the wire.
    Dynamo(Engine),
    /// A store in this process, around which faults are put, and the folder of its file.
    Local(Local, Option<TempDir>),
}

/// A new and empty backend; `None` for a name that is none of [`NAMES`].
pub fn open(name: &str, time: VirtualTime) -> Option<Backend> {
    match name {
        "dynamodb" => Engine::new(time).ok().map(Backend::Dynamo),
        "memory" => {
            let store = MemoryStore::new(CAPACITY, Arc::new(time));
            Some(Backend::Local(local(store, time, Wakes::OfStore), None))
        }
        "sqlite" => {
            let folder = folder().ok()?;
            let store = block_on(SqliteStore::open(folder.path().join("status.db"))).ok()?;
            // Its own ways to learn of a change take real time.
            let local = local(store.with_clock(Arc::new(time)), time, Wakes::OfCalls);
            Some(Backend::Local(local, Some(folder)))
        }
        _ => None,
    }
}

fn local(store: impl StatusStore, time: VirtualTime, wakes: Wakes) -> Local {
    Local { store: Arc::new(store), past: Arc::new(Past::new(time)), wakes }
}

/// In memory where there is such a file system: a run does not have to wait for a disk.
fn folder() -> std::io::Result<TempDir> {
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }
}

/// Something stored, as it is stored.
#[derive(Clone, Debug)]
pub struct RawItem {
    /// What it belongs to.
    pub partition: String,
    /// When it expires, in seconds after 1970.
    pub expires: Option<i64>,
    /// All of it.
    pub words: String,
}

impl Backend {
    /// All that is stored, where it can be looked at from outside.
    pub fn items(&self) -> Vec<RawItem> {
        match self {
            Self::Dynamo(engine) => dynamo::items(engine),
            Self::Local(..) => Vec::new(),
        }
    }

    /// Makes what has to be there before the first process begins.
    pub async fn prepare(&self, wire: Wire, time: VirtualTime) -> Result<(), StoreError> {
        match self {
            Self::Dynamo(engine) => dynamo::store(engine, wire, time, Arc::new(time), 1).create_table().await,
            Self::Local(..) => Ok(()),
        }
    }

    /// Puts somebody else's items into the indexes of jobs.
    pub fn strew(&self) {
        if let Self::Dynamo(engine) = self {
            dynamo::strew(engine);
        }
    }

    /// Puts somebody else's items beside those of this job.
    pub fn strew_beside(&self, id: JobId) {
        if let Self::Dynamo(engine) = self {
            dynamo::strew_beside(engine, id);
        }
    }

    /// How many of somebody else's items lie in the index of due jobs once they are there.
    pub fn strangers_due(&self) -> u64 {
        if matches!(self, Self::Dynamo(_)) { dynamo::STRANGERS.len() as u64 } else { 0 }
    }

    /// Deletes what has expired, as a server does by itself some time later.
    pub fn expire(&self) {
        if let Self::Dynamo(engine) = self {
            engine.expire();
        }
    }

    /// The store as one process has it, behind its wire. `attempts` is how often its client tries.
    pub fn connect(
        &self,
        wire: Wire,
        time: VirtualTime,
        clock: Arc<dyn Clock>,
        attempts: u32,
    ) -> Arc<dyn StatusStore> {
        match self {
            Self::Dynamo(engine) => Arc::new(dynamo::store(engine, wire, time, clock, attempts)),
            Self::Local(local, _) => Arc::new(FaultyStore::new(local.clone(), wire)),
        }
    }
}
