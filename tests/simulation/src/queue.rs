//! A queue that delivers at least once: a message that is not deleted in time comes again, some
//! come twice, and some come again although they were deleted.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{random::Random, time::VirtualTime};

/// A queue of messages with bodies of one type.
#[derive(Debug)]
pub struct Queue<T> {
    time: VirtualTime,
    random: Random,
    visibility: Duration,
    again_per_mille: u64,
    is_calm: AtomicBool,
    entries: Mutex<Vec<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    body: T,
    visible_at: Duration,
    receives: u32,
    deleted: bool,
}

/// A message as it was received.
#[derive(Clone, Debug)]
pub struct Message<T> {
    /// What to delete it by.
    pub receipt: usize,
    /// What it says.
    pub body: T,
    /// How often it has been received, this time included.
    pub receives: u32,
}

impl<T: Clone> Queue<T> {
    /// An empty queue.
    pub fn new(time: VirtualTime, random: Random, visibility: Duration, again_per_mille: u64) -> Self {
        let (is_calm, entries) = (AtomicBool::new(false), Mutex::default());
        Self { time, random, visibility, again_per_mille, is_calm, entries }
    }

    /// From now on nothing comes twice, and nothing that was deleted comes again.
    pub fn calm(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    /// Adds a message.
    pub fn send(&self, body: T) {
        let visible_at = self.time.elapsed();
        self.entries().push(Entry { body, visible_at, receives: 0, deleted: false });
    }

    /// At most this many messages, in about the order in which they were sent.
    pub fn receive(&self, most: u64) -> Vec<Message<T>> {
        let now = self.time.elapsed();
        let mut received = Vec::new();
        for (receipt, entry) in self.entries().iter_mut().enumerate() {
            if received.len() as u64 >= most {
                break;
            }
            if entry.deleted || entry.visible_at > now || self.random.per_mille(100) {
                continue;
            }
            entry.visible_at = now + self.visibility;
            entry.receives += 1;
            let message = Message { receipt, body: entry.body.clone(), receives: entry.receives };
            if self.comes_again() {
                received.push(message.clone());
            }
            received.push(message);
        }
        received
    }

    /// Deletes a message, if all goes well.
    pub fn delete(&self, receipt: usize) {
        let again = self.comes_again();
        if let Some(entry) = self.entries().get_mut(receipt) {
            entry.deleted = !again;
        }
    }

    /// Whether all messages have been deleted.
    pub fn is_drained(&self) -> bool {
        self.entries().iter().all(|entry| entry.deleted)
    }

    /// The messages that are left, and how often they have been received.
    pub fn left(&self) -> Vec<(T, u32)> {
        let left = self.entries();
        left.iter().filter(|entry| !entry.deleted).map(|e| (e.body.clone(), e.receives)).collect()
    }

    fn comes_again(&self) -> bool {
        !self.is_calm.load(Ordering::Relaxed) && self.random.per_mille(self.again_per_mille)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
