//! Randomness from a seed. Each subject draws from a stream of its own, so that one more draw here
//! does not change what happens there.

use std::{
    ops::RangeInclusive,
    sync::{Mutex, PoisonError},
};

/// A stream of random numbers.
#[derive(Debug)]
pub struct Random(Mutex<fastrand::Rng>);

impl Random {
    /// The stream of one subject of the run with this seed.
    pub fn new(seed: u64, subject: &str) -> Self {
        // FNV-1a: seeds and subjects that differ a little give streams that differ a lot.
        let bytes = seed.to_le_bytes().into_iter().chain(subject.bytes());
        let mixed = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(Mutex::new(fastrand::Rng::with_seed(mixed)))
    }

    /// A number of this range.
    pub fn within(&self, range: RangeInclusive<u64>) -> u64 {
        self.draw(|rng| rng.u64(range))
    }

    /// An index below `count`, which is not 0.
    pub fn below(&self, count: usize) -> usize {
        self.draw(|rng| rng.usize(..count))
    }

    /// Whether something happens that happens this many times in a thousand.
    pub fn per_mille(&self, times: u64) -> bool {
        self.draw(|rng| rng.u64(..1_000)) < times
    }

    /// One of these.
    pub fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One of these, each as often as its weight says.
    pub fn weighted<T: Copy>(&self, choices: &[(u64, T)]) -> T {
        let all: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.draw(|rng| rng.u64(..all));
        for (weight, choice) in choices {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *choice,
            }
        }
        choices[0].1
    }

    /// 128 random bits.
    pub fn bits(&self) -> u128 {
        self.draw(|rng| rng.u128(..))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
