//! States that differ by names alone become one: batches of one chunk are alike, and so are workers and
//! splitters.

use crate::{model::Protocol, state::*};

impl Protocol {
    /// Puts what is alike in order, after what makes no difference is dropped.
    pub(crate) fn forget(&self, state: &mut State) {
        if self.is_reduced() {
            self.forget_the_past(state);
        }
        for process in state.processes.iter_mut().filter(|process| process.step == Step::Rest) {
            *process = Process::default();
        }
        for number in 0..usize::from(self.chunks()) {
            let first = number as u8 * self.capacity;
            for end in (1..self.of_job(number).count()).rev() {
                for batch in first..first + end {
                    if self.traits(state, batch) > self.traits(state, batch + 1) {
                        self.exchange(state, batch, batch + 1);
                    }
                }
            }
        }
        state.processes[..self.workers].sort_unstable();
        state.processes[self.splitters()].sort_unstable();
    }

    /// All that tells a batch from others of its chunk.
    fn traits(&self, state: &State, batch: u8) -> impl Ord + use<> {
        let (number, place) = self.place(batch);
        let chunk = &state.chunks[number];
        let mut holders = [Step::Rest; WORKERS];
        for (holder, process) in holders.iter_mut().zip(&state.processes[..self.workers]) {
            if process.batch == batch {
                *holder = process.step;
            }
        }
        holders.sort_unstable();
        let sets = [chunk.settled, chunk.failed, chunk.accepted];
        (
            sets.map(|set| set.has(place)),
            chunk.filled_by == Some(place),
            state.queue.has(batch),
            state.errors[usize::from(batch)],
            holders,
        )
    }

    /// Exchanges two batches of one chunk wherever they are named.
    fn exchange(&self, state: &mut State, one: u8, other: u8) {
        let (number, i) = self.place(one);
        let (_, j) = self.place(other);
        let chunk = &mut state.chunks[number];
        for set in [&mut chunk.settled, &mut chunk.failed, &mut chunk.accepted] {
            set.swap(i, j);
        }
        let exchanged = |name: u8, one: u8, other: u8| match name {
            name if name == one => other,
            name if name == other => one,
            name => name,
        };
        chunk.filled_by = chunk.filled_by.map(|place| exchanged(place, i, j));
        state.queue.swap(one, other);
        state.errors.swap(one.into(), other.into());
        for process in &mut state.processes[..self.workers] {
            if process.step != Step::Rest {
                process.batch = exchanged(process.batch, one, other);
            }
        }
    }
}
