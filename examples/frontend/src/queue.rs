//! The bounded queue between the splitters and the workers. Owners take turns: whoever has much to do makes nobody
//! else wait.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use async_trait::async_trait;
use caller::Delivery;
use leads::BatchMessage;
use splitter::{BatchQueue, QueueError};
use status_core::{JobId, OwnerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many batches of a job wait beside those that the workers have; a splitter that is faster than them waits too, and the
/// rest of its file stays on the disk.
pub(crate) const QUEUE: usize = 16;

/// A batch on its way, until it is done with.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) delivery: Delivery,
    /// How often it was tried, whatever the reason that it is tried again.
    pub(crate) tried: u32,
    owner: OwnerId,
    _room: OwnedSemaphorePermit,
}

/// Where splitters put batches, and workers get them.
#[derive(Clone, Debug)]
pub(crate) struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What of a job is waiting, worked on, or to be tried again.
    rooms: Rooms<JobId>,
    /// The owners of whom something waits, the next one first.
    lanes: Mutex<VecDeque<Lane>>,
    /// As many permits as batches wait.
    waiting: Semaphore,
}

#[derive(Debug)]
struct Lane {
    owner: OwnerId,
    batches: VecDeque<Queued>,
}

impl Queue {
    /// An empty queue for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let (lanes, waiting) = (Mutex::default(), Semaphore::new(0));
        Self(Arc::new(Inner { rooms: Rooms::new(QUEUE + workers), lanes, waiting }))
    }

    /// The queue as the splitter of a file of this owner has it.
    pub(crate) fn of(&self, owner: OwnerId) -> Arc<dyn BatchQueue> {
        Arc::new(Owned { queue: self.clone(), owner })
    }

    /// The next batch, once there is one: the oldest of the owner whose turn it is.
    pub(crate) async fn next(&self) -> Queued {
        loop {
            self.0.waiting.acquire().await.expect("nobody closes it").forget();
            let mut lanes = self.lanes();
            let Some(mut lane) = lanes.pop_front() else { continue };
            let next = lane.batches.pop_front();
            if !lane.batches.is_empty() {
                lanes.push_back(lane);
            }
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Waits until nobody has a batch of this job any more.
    pub(crate) async fn drained(&self, job: JobId) {
        self.0.rooms.empty(job).await;
    }

    /// Puts a batch behind those of its owner that wait.
    pub(crate) fn put(&self, queued: Queued) {
        let mut lanes = self.lanes();
        match lanes.iter_mut().find(|lane| lane.owner == queued.owner) {
            Some(lane) => lane.batches.push_back(queued),
            None => lanes.push_back(Lane { owner: queued.owner.clone(), batches: VecDeque::from([queued]) }),
        }
        self.0.waiting.add_permits(1);
    }

    fn lanes(&self) -> MutexGuard<'_, VecDeque<Lane>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one owner's splitters put batches into.
#[derive(Debug)]
struct Owned {
    queue: Queue,
    owner: OwnerId,
}

#[async_trait]
impl BatchQueue for Owned {
    async fn send(&self, batches: Vec<BatchMessage>) -> Result<(), QueueError> {
        for message in batches {
            let room = self.queue.0.rooms.enter(message.job_id).await;
            let delivery = Delivery { message, receives: 1 };
            self.queue.put(Queued { delivery, tried: 0, owner: self.owner.clone(), _room: room });
        }
        Ok(())
    }
}

/// Rooms of one size, each for whom it is: nobody takes another's.
#[derive(Debug)]
pub(crate) struct Rooms<K> {
    size: usize,
    rooms: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Eq + Hash> Rooms<K> {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, rooms: Mutex::default() }
    }

    /// Waits for a place in this room, which is held until the answer is dropped.
    pub(crate) async fn enter(&self, whose: K) -> OwnedSemaphorePermit {
        self.room(whose).acquire_owned().await.expect("nobody closes a room")
    }

    /// A place in this room, if there is one.
    pub(crate) fn try_enter(&self, whose: K) -> Option<OwnedSemaphorePermit> {
        self.room(whose).try_acquire_owned().ok()
    }

    /// Waits until nobody has a place in this room.
    pub(crate) async fn empty(&self, whose: K) {
        let places = u32::try_from(self.size).unwrap_or(u32::MAX);
        let _all = self.room(whose).acquire_many_owned(places).await.expect("nobody closes a room");
    }

    fn room(&self, whose: K) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(&whose).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Semaphore::new(self.size));
        rooms.insert(whose, Arc::downgrade(&room));
        room
    }
}

#[cfg(test)]
mod tests {
    use leads::RawLead;
    use status_core::{BatchIndex, Timestamp};

    use super::*;

    fn owner(name: &str) -> OwnerId {
        OwnerId::new(name).expect("a name")
    }

    fn batches(job: u128, count: u64) -> Vec<BatchMessage> {
        let leads = vec![RawLead::from_pairs([("Email", "ann@example.com")])];
        let job_id = JobId::from_parts(Timestamp::UNIX_EPOCH, job);
        let message = |batch| BatchMessage {
            job_id,
            batch: BatchIndex::new(batch).expect("in range"),
            file_name: "leads.csv".into(),
            first_row: 1,
            leads: leads.clone(),
        };
        (0..count).map(message).collect()
    }

    #[tokio::test]
    async fn owners_take_turns_and_what_is_tried_again_waits_behind_the_rest_of_its_owner() {
        let queue = Queue::new(1);
        let (alice, bob) = (queue.of(owner("alice")), queue.of(owner("bob")));
        alice.send(batches(1, 3)).await.expect("sent");
        alice.send(batches(2, 2)).await.expect("sent");
        bob.send(batches(3, 2)).await.expect("sent");
        let mut taken = Vec::new();
        for turn in 0..8 {
            let next = queue.next().await;
            let BatchMessage { job_id, batch, .. } = &next.delivery.message;
            taken.push((next.owner.as_str().to_owned(), job_id.to_string(), batch.get()));
            if turn == 0 {
                queue.put(next);
            }
        }
        let turns: Vec<_> = taken.iter().map(|(owner, ..)| owner.as_str()).collect();
        assert_eq!(turns, ["alice", "bob", "alice", "bob", "alice", "alice", "alice", "alice"]);
        let of_alice: Vec<_> = taken.iter().filter(|(owner, ..)| owner == "alice").collect();
        assert_eq!((of_alice[0], of_alice.len()), (of_alice[5], 6), "tried again after all the others");
    }
}
