//! The bounded queue between the splitter and the workers.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, Weak},
};

use async_trait::async_trait;
use caller::Delivery;
use leads::BatchMessage;
use splitter::{BatchQueue, QueueError};
use status_core::JobId;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

/// So many batches wait; a splitter that is faster than the callers waits too, and memory stays flat.
pub(crate) const QUEUE: usize = 64;

/// A batch on its way, until it is done with.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) delivery: Delivery,
    /// How often it was tried, whatever the reason that it is tried again.
    pub(crate) tried: u32,
    _room: OwnedSemaphorePermit,
}

/// Where callers get their batches.
#[derive(Clone, Debug)]
pub(crate) struct Deliveries {
    queue: Arc<Mutex<mpsc::Receiver<Queued>>>,
    /// For what is to be tried again.
    back: mpsc::Sender<Queued>,
}

impl Deliveries {
    /// The next batch, once there is one.
    pub(crate) async fn next(&self) -> Option<Queued> {
        self.queue.lock().await.recv().await
    }

    /// Puts a batch back, behind those that wait.
    pub(crate) async fn again(&self, queued: Queued) {
        // It fails only when nobody works any more.
        let _ = self.back.send(queued).await;
    }
}

/// A queue in memory, for so many workers. A job whose batches are all worked on, or wait to be tried again, holds
/// up its own splitter, and no other.
pub(crate) fn queue(workers: usize) -> (Arc<dyn BatchQueue>, Deliveries) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let deliveries = Deliveries { queue: Arc::new(Mutex::new(receiver)), back: sender.clone() };
    (Arc::new(MemoryQueue { sender, rooms: Rooms::new(QUEUE + workers) }), deliveries)
}

#[derive(Debug)]
struct MemoryQueue {
    sender: mpsc::Sender<Queued>,
    rooms: Rooms,
}

#[async_trait]
impl BatchQueue for MemoryQueue {
    async fn send(&self, batches: Vec<BatchMessage>) -> Result<(), QueueError> {
        for message in batches {
            let room = self.rooms.enter(message.job_id).await;
            let queued = Queued { delivery: Delivery { message, receives: 1 }, tried: 0, _room: room };
            self.sender.send(queued).await.map_err(|error| QueueError(error.to_string().into()))?;
        }
        Ok(())
    }
}

/// A room for each job, of one size: no job takes another's.
#[derive(Debug)]
pub(crate) struct Rooms {
    size: usize,
    rooms: std::sync::Mutex<HashMap<JobId, Weak<Semaphore>>>,
}

impl Rooms {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, rooms: std::sync::Mutex::default() }
    }

    /// Waits for a place in the job's room, which is held until the answer is dropped.
    pub(crate) async fn enter(&self, job: JobId) -> OwnedSemaphorePermit {
        self.room(job).acquire_owned().await.expect("nobody closes a room")
    }

    fn room(&self, job: JobId) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(&job).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Semaphore::new(self.size));
        rooms.insert(job, Arc::downgrade(&room));
        room
    }
}
