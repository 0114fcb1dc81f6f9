//! The protocol itself: what each request does to the table, and what its answer makes of a process.

use crate::{
    model::{Protocol, SWEEPER},
    rules::Rule,
    state::*,
};

impl Protocol {
    /// Makes the next request of a process; gives the one after it.
    pub(crate) fn request(&self, state: &mut State, process: usize) -> Step {
        let Process { step, batch } = state.processes[process];
        let (number, _) = self.place(batch);
        match step {
            Step::Rest => Step::Rest,
            Step::PutErrors(report) => {
                let errors = self.put_errors(state, batch, report);
                Step::Write(Report { errors, ..report }, Guard::News)
            }
            Step::Write(report, guard) => self.write(state, batch, report, guard),
            Step::PutErrorsLate(report, todo) => {
                self.put_errors(state, batch, report);
                todo.step()
            }
            Step::Do(todo) => self.do_first(state, number, todo),
            Step::Delete => {
                state.chunks[number] = Chunk::default();
                Step::Rest
            }
            Step::ReadHighest(todo) => {
                let look = self.highest_is_full(state, number);
                Todo { ask_ends: false, look, ..todo }.step()
            }
            Step::Read(look) => self.read_next(state, process, look),
            Step::Swap(command, next, ripe) => self.swap(state, command, next, ripe),
            Step::Mark => {
                self.mark(state);
                self.look_after_seal()
            }
            Step::MarkBefore(next) => {
                self.mark(state);
                Step::Swap(Command::Seal, next, false)
            }
            Step::Tell(number) => {
                state.chunks[usize::from(number)].told = true;
                tell_from(state, number + 1)
            }
            Step::TakeOff => {
                state.head.due = false;
                Step::Rest
            }
        }
    }

    /// The first attempt that puts the errors of a batch stands for all that settle it the same way: gives
    /// the number of its errors.
    fn put_errors(&self, state: &mut State, batch: u8, report: Report) -> u8 {
        let there = &mut state.errors[usize::from(batch)].rows[report.way as usize];
        if *there == 0 {
            *there = report.errors;
        }
        if self.lacks(Rule::ErrorsAreAdopted) { report.errors } else { *there }
    }

    /// The write of an outcome. Its answer is the chunk after it, or the chunk that refused it.
    fn write(&self, state: &mut State, batch: u8, report: Report, guard: Guard) -> Step {
        let (number, place) = self.place(batch);
        let Report { way, errors } = report;
        let (head, chunk) = (state.head, &mut state.chunks[number]);

        let has_room = chunk.capacity.is_none_or(|capacity| capacity > place);
        let holds = match guard {
            Guard::News => has_room && (!chunk.settled.has(place) || self.lacks(Rule::WritesAreGuarded)),
            Guard::Correction { compacted: true } => chunk.compacted && chunk.failed.has(place),
            Guard::Correction { compacted: false } => has_room && chunk.failed.has(place),
        };
        if !holds {
            let chunk = *chunk;
            if !has_room && !chunk.compacted {
                // The batch is past the total.
                if head.total.is_none_or(|total| batch < total) {
                    state.breach = Some(Breach::RefusedWrongly);
                }
                return Step::Rest;
            }
            return match (chunk.settled_as(place), way) {
                (None, _) => Step::Write(report, Guard::News),
                (Some(Way::Failed), Way::Completed) => {
                    Step::Write(report, Guard::Correction { compacted: chunk.compacted })
                }
                _ => self.after_duplicate(&chunk, number, way),
            };
        }

        if way == Way::Failed && chunk.accepted.without(chunk.failed).has(place) {
            state.breach = Some(Breach::CompletedFailed);
        }
        let is_first = chunk.accepted.is_empty();
        chunk.late |= !chunk.exists && head.status.is_terminal();
        chunk.exists = true;
        if guard == Guard::News {
            chunk.settled.set(place, true);
            chunk.accepted.set(place, true);
            chunk.sum += 1;
        }
        let fails = way == Way::Failed;
        chunk.failed.set(place, fails);
        chunk.ever_failed.set(place, fails || chunk.ever_failed.has(place));
        let stays = chunk.listed.has(place) && self.lacks(Rule::CorrectionsSetTheBit);
        chunk.listed.set(place, errors > 0 || stays);
        state.errors[usize::from(batch)].counted = errors;

        let full = self.is_full(chunk, number, None);
        if full && chunk.filled_by.is_none() {
            chunk.filled_by = Some(place);
        }
        let compacts = full && chunk.capacity.is_none();
        let looks = fails && (self.is_past_share(chunk) || !self.lacks(Rule::EveryFailureLooks));
        let after = if full && !looks { self.todo_of_full() } else { Todo::default() };
        let todo = Todo {
            check: is_first && (self.propagation || self.strays > 0),
            compact: self.compaction && (compacts || self.lacks(Rule::FullChunksAreCompacted)),
            look: looks || after.look,
            ..after
        };
        match errors {
            1.. if self.lacks(Rule::ErrorsComeFirst) => Step::PutErrorsLate(report, todo),
            _ => todo.step(),
        }
    }

    /// A worker that was told that its batch is settled may be the only one left who can tell that the
    /// facts decide the job.
    fn after_duplicate(&self, chunk: &Chunk, number: usize, way: Way) -> Step {
        if self.lacks(Rule::DuplicatesLook) {
            return Step::Rest;
        }
        if way == Way::Failed && !self.lacks(Rule::FailingDuplicatesLook) {
            return Todo { look: true, ..Todo::default() }.step();
        }
        match self.is_full(chunk, number, None) {
            true => self.todo_of_full().step(),
            false => Step::Rest,
        }
    }

    /// A chunk is full: it may have been the last one.
    pub(crate) fn todo_of_full(&self) -> Todo {
        Todo { ask_ends: self.shortcut, look: !self.shortcut, ..Todo::default() }
    }

    /// Whether a chunk has more failures than its share of the tolerance. (Only where the rule is removed.)
    fn is_past_share(&self, chunk: &Chunk) -> bool {
        self.tolerance.is_some_and(|tolerance| chunk.failed.count() * self.chunks() > tolerance)
    }

    /// Whether a chunk has no batch open, as far as it knows its size, or the total does.
    pub(crate) fn is_full(&self, chunk: &Chunk, number: usize, total: Option<u8>) -> bool {
        let size = match total {
            Some(_) => self.of_job(number),
            None => Set::first(chunk.capacity.unwrap_or(self.capacity)),
        };
        chunk.compacted || size.without(chunk.settled).is_empty()
    }

    /// Does the first of what a worker has still to do.
    fn do_first(&self, state: &mut State, number: usize, todo: Todo) -> Step {
        let (head, chunk) = (state.head, &mut state.chunks[number]);
        if todo.check {
            let first = number as u8 * self.capacity;
            return match head.total {
                Some(total) if total <= first => Step::Delete,
                _ => Todo { check: false, tell: head.status.is_terminal(), ..todo }.step(),
            };
        }
        if todo.tell {
            chunk.told |= chunk.exists;
            return Todo { tell: false, ..todo }.step();
        }
        if todo.ask_ends {
            // Before the seal nothing completes, and the seal looks.
            return match head.status.is_terminal() || head.total.is_none() {
                true => Todo { ask_ends: false, ..todo }.step(),
                false => Step::ReadHighest(todo),
            };
        }
        if todo.compact {
            let full = chunk.settled.count() == self.capacity;
            if full || self.lacks(Rule::FullChunksAreCompacted) {
                chunk.compacted = true;
                chunk.settled = Set::EMPTY;
                chunk.capacity = Some(0);
            }
            return Todo { compact: false, ..todo }.step();
        }
        if todo.look { Step::Read(Look::of(Command::Reconcile)) } else { Step::Rest }
    }

    /// The shortcut of a worker whose own chunk, `own`, is full. Batches come roughly in order, so that the
    /// highest chunk nearly always tells that the job is open.
    fn highest_is_full(&self, state: &State, own: usize) -> bool {
        let Some(highest) = state.chunks.iter().rposition(|chunk| chunk.exists) else { return false };
        let last = usize::from(self.chunks() - 1);
        if self.lacks(Rule::HighestChunkIsRead) {
            return highest == own;
        }
        let reaches_last = match self.lacks(Rule::StraysHideNoEnd) {
            true => highest == last,
            false => highest >= last,
        };
        reaches_last && self.is_full(&state.chunks[highest], highest, state.head.total)
    }

    /// Reads the next item of the job, strongly consistent; after the last one, decides.
    fn read_next(&self, state: &State, process: usize, mut look: Look) -> Step {
        if look.read == 0 {
            look.ripe = self.is_ripe(state);
        }
        let tolerance = self.tolerance.unwrap_or(0);
        let number = look.read.checked_sub(u8::from(self.head_first));
        let is_final = match number.filter(|number| *number < self.slots()).map(usize::from) {
            None => {
                look.head = Some(state.head);
                false
            }
            Some(number) => {
                let chunk = &state.chunks[number];
                let (settled, ours) = (chunk.all_settled(self.capacity), self.of_job(number));
                let missing = ours.without(settled).count();
                look.missing = (look.missing + missing).min(self.strays + 1);
                look.failed = (look.failed + chunk.failed.count()).min(tolerance + 1);
                look.strays += settled.without(ours).count();
                self.messages_of(number).without(settled).is_empty() && chunk.failed.is_empty()
            }
        };
        look.read += 1;
        let decided = look.failed > tolerance;
        if decided {
            // Other chunks make no difference any more.
            look.read = look.read.max(self.slots() + u8::from(self.head_first));
        }
        match look.head {
            Some(head) if look.read > self.slots() || head.status.is_terminal() => {
                self.conclude(state, process, look, head)
            }
            // Nothing makes a difference any more.
            _ if look.command == Command::Reconcile
                && self.tolerance.is_none()
                && look.missing > self.strays
                && process != SWEEPER =>
            {
                Step::Rest
            }
            // It is the same at any later time, so it may as well be read together with the next item.
            _ if is_final => self.read_next(state, process, look),
            _ => Step::Read(look),
        }
    }

    fn conclude(&self, state: &State, process: usize, look: Look, head: Head) -> Step {
        let overwrites = process == SWEEPER && self.lacks(Rule::SweepersSwap);
        if head.status.is_terminal() && !overwrites {
            let propagates = process == SWEEPER && head.due && self.propagation;
            return if propagates { tell_from(state, 0) } else { Step::Rest };
        }
        let seals = look.command == Command::Seal;
        match self.decide(look, head) {
            Some(next) if seals && self.lacks(Rule::HeadBeforeMark) => Step::MarkBefore(next),
            Some(next) => Step::Swap(look.command, next, look.ripe),
            // It is sealed already, maybe by this splitter before it crashed.
            None if seals && head.total.is_some() && !self.lacks(Rule::SealIsRepeated) => {
                self.mark_after_seal()
            }
            None => Step::Rest,
        }
    }

    /// The machine: what a command makes of a job with these facts, if anything. Facts come first.
    fn decide(&self, look: Look, head: Head) -> Option<Head> {
        let Look { command, missing, failed, strays, .. } = look;
        let mut next = head;
        let too_many = self.tolerance.is_some_and(|tolerance| failed > tolerance);
        if command == Command::Seal && head.total.is_none() && !too_many {
            if strays > 0 {
                return None;
            }
            next.total = Some(self.batches);
        }
        let strays = if self.lacks(Rule::StraysAreMasked) { strays } else { 0 };
        let all_settled = next.total.is_some() && missing <= strays;
        let asked = matches!(command, Command::Confirm | Command::Expire) && head.cancel_requested;
        next.status = match command {
            _ if asked && self.lacks(Rule::FactsComeFirst) => Status::Cancelled,
            _ if too_many => Status::Failed,
            _ if all_settled => Status::Completed,
            _ if asked => Status::Cancelled,
            Command::Expire => Status::Expired,
            _ => Status::Processing,
        };
        next.cancel_requested |= command == Command::Cancel && !next.status.is_terminal();
        (next != head).then_some(Head { revision: head.revision + 1, ..next })
    }

    /// Swaps the head over the revision it was made from. Somebody else's swap is read, and judged again.
    fn swap(&self, state: &mut State, command: Command, next: Head, ripe: bool) -> Step {
        let overwrites =
            self.lacks(Rule::SwapsCompare) || command == Command::Expire && self.lacks(Rule::SweepersSwap);
        if state.head.revision + 1 != next.revision && !overwrites {
            return match self.lacks(Rule::LostSwapsAreRepeated) {
                true => Step::Rest,
                false => Step::Read(Look::of(command)),
            };
        }
        if state.head.status.is_terminal() && state.head.status != next.status {
            state.breach = Some(Breach::TerminalChanged);
        } else if ripe && !matches!(next.status, Status::Completed | Status::Failed) {
            state.breach = Some(Breach::FactsOverruled);
        }
        state.head = next;
        let over = next.status.is_terminal();
        match command {
            _ if over && self.propagation => {
                state.head.due = !self.lacks(Rule::DueUntilTold);
                tell_from(state, 0)
            }
            Command::Seal if !over && self.lacks(Rule::HeadBeforeMark) => self.look_after_seal(),
            Command::Seal if !over => self.mark_after_seal(),
            _ => Step::Rest,
        }
    }

    fn mark_after_seal(&self) -> Step {
        if self.batches.is_multiple_of(self.capacity) || self.lacks(Rule::LastChunkIsMarked) {
            self.look_after_seal()
        } else {
            Step::Mark
        }
    }

    fn look_after_seal(&self) -> Step {
        match self.lacks(Rule::SealLooks) {
            true => Step::Rest,
            false => Step::Read(Look::of(Command::Reconcile)),
        }
    }

    /// Tells the last chunk how many batches it has, unless it is compacted.
    pub(crate) fn mark(&self, state: &mut State) {
        let (number, size) = self.place(self.batches);
        if size > 0 {
            let chunk = &mut state.chunks[number];
            if chunk.compacted && !self.lacks(Rule::CompactedChunksStayClosed) {
                return;
            }
            chunk.late |= !chunk.exists && state.head.status.is_terminal();
            chunk.exists = true;
            chunk.capacity = Some(size);
        }
    }
}

/// Tells the chunks from this number on that the job is over; then takes it off the index.
fn tell_from(state: &State, number: u8) -> Step {
    let next = (usize::from(number)..CHUNKS).find(|number| state.chunks[*number].exists);
    next.map_or(Step::TakeOff, |number| Step::Tell(number as u8))
}

impl Chunk {
    /// The settled batches, also those that compaction dropped.
    fn all_settled(&self, capacity: u8) -> Set {
        if self.compacted { Set::first(capacity) } else { self.settled }
    }

    /// How a batch is settled, if it is.
    pub(crate) fn settled_as(&self, place: u8) -> Option<Way> {
        let settled = self.compacted || self.settled.has(place);
        settled.then(|| if self.failed.has(place) { Way::Failed } else { Way::Completed })
    }
}

impl Todo {
    pub(crate) fn step(self) -> Step {
        if self == Self::default() { Step::Rest } else { Step::Do(self) }
    }
}
