//! Batches in chunks: what every backend that keeps a job in several parts needs to know about one part.
//! Pure; a backend makes it durable.

use crate::{BatchIndex, Counts, Settled};

/// Batches in a chunk.
pub const SIZE: u64 = 256;

/// The number of the chunk that holds a batch.
pub fn number_of(batch: BatchIndex) -> u64 {
    batch.get() / SIZE
}

/// The place of a batch in its chunk, from 0.
pub fn place_of(batch: BatchIndex) -> u64 {
    batch.get() % SIZE
}

/// How many chunks a job of `total` batches has.
pub fn chunks_of(total: u64) -> u64 {
    total.div_ceil(SIZE)
}

/// How many batches of a job of `total` are in chunk `number`.
pub fn size_of(number: u64, total: u64) -> u64 {
    total.saturating_sub(number.saturating_mul(SIZE)).min(SIZE)
}

/// A set of places in one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Places([u64; 4]);

impl Places {
    /// The first `count` places.
    pub fn first(count: u64) -> Self {
        (0..count.min(SIZE)).collect()
    }

    /// The set with these 64-bit words, lowest places first.
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// The set as 64-bit words, lowest places first.
    pub const fn words(self) -> [u64; 4] {
        self.0
    }

    /// Whether a place is in the set.
    pub fn has(self, place: u64) -> bool {
        usize::try_from(place).is_ok_and(|p| p < 256 && self.0[p / 64] & (1 << (p % 64)) != 0)
    }

    /// Adds a place; one outside of a chunk is ignored.
    pub fn insert(&mut self, place: u64) {
        if let Ok(place) = usize::try_from(place)
            && place < 256
        {
            self.0[place / 64] |= 1 << (place % 64);
        }
    }

    /// Removes a place.
    pub fn remove(&mut self, place: u64) {
        if let Ok(place) = usize::try_from(place)
            && place < 256
        {
            self.0[place / 64] &= !(1 << (place % 64));
        }
    }

    /// The places that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// How many places are in the set.
    pub fn count(self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The highest place.
    pub fn highest(self) -> Option<u64> {
        (0..SIZE).rev().find(|place| self.has(*place))
    }
}

impl FromIterator<u64> for Places {
    fn from_iter<I: IntoIterator<Item = u64>>(places: I) -> Self {
        let mut set = Self::default();
        places.into_iter().for_each(|place| set.insert(place));
        set
    }
}

/// How the batches of one chunk stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settlements {
    /// Those that completed or failed.
    pub settled: Places,
    /// Those of them that failed and have not completed since.
    pub failed: Places,
}

impl Settlements {
    /// What the batch at `place` is settled as.
    pub fn get(&self, place: u64) -> Option<Settled> {
        match (self.settled.has(place), self.failed.has(place)) {
            (true, false) => Some(Settled::Completed),
            (true, true) => Some(Settled::Failed),
            (false, _) => None,
        }
    }

    /// Settles the batch at `place`.
    pub fn set(&mut self, place: u64, settled: Settled) {
        self.settled.insert(place);
        match settled {
            Settled::Completed => self.failed.remove(place),
            Settled::Failed => self.failed.insert(place),
        }
    }

    /// Completed and failed batches among the first `size`, and those past them, which a job whose total
    /// leaves out the rest of the chunk does not have.
    pub fn split_at(&self, size: u64) -> (Counts, Counts) {
        let count = |places: Places| {
            let completed = self.settled.without(self.failed).without(places).count();
            let failed = self.failed.without(places).count();
            Counts { completed, failed, ..Counts::default() }
        };
        let inside = Places::first(size);
        (count(Places::first(SIZE).without(inside)), count(inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_a_job_without_gap_or_overlap() {
        for total in [0, 1, 255, 256, 257, 512, 1_000] {
            let sizes: Vec<_> = (0..chunks_of(total)).map(|number| size_of(number, total)).collect();
            assert_eq!(sizes.iter().sum::<u64>(), total);
            assert!(sizes.iter().all(|size| (1..=SIZE).contains(size)), "{total}: {sizes:?}");
            assert_eq!(size_of(chunks_of(total), total), 0);
        }
    }

    #[test]
    fn a_place_is_in_a_set_from_insert_to_remove() {
        let mut set = Places::default();
        for place in [0, 63, 64, 255] {
            set.insert(place);
            assert!(set.has(place) && set.highest() == Some(place));
        }
        set.insert(256);
        assert_eq!((set.count(), set.has(256)), (4, false));
        set.remove(255);
        assert_eq!((set.highest(), set.without([0, 64].into_iter().collect()).count()), (Some(64), 1));
        assert_eq!(Places::from_words(set.words()), set);
        assert_eq!(Places::first(300).count(), SIZE);
    }

    #[test]
    fn batches_past_the_total_are_told_apart() {
        let mut chunk = Settlements::default();
        chunk.set(1, Settled::Failed);
        chunk.set(1, Settled::Completed);
        chunk.set(2, Settled::Failed);
        chunk.set(200, Settled::Completed);
        chunk.set(201, Settled::Failed);
        let counts = |(counts, stray): (Counts, Counts)| {
            [counts.completed, counts.failed, stray.completed, stray.failed]
        };
        assert_eq!(counts(chunk.split_at(SIZE)), [2, 2, 0, 0]);
        assert_eq!(counts(chunk.split_at(201)), [2, 1, 0, 1]);
        assert_eq!(counts(chunk.split_at(3)), [1, 1, 1, 1]);
        assert_eq!(counts(chunk.split_at(0)), [0, 0, 2, 2]);
        assert_eq!(
            [0, 1, 2].map(|place| chunk.get(place)),
            [None, Some(Settled::Completed), Some(Settled::Failed)]
        );
    }
}
