//! The protocol itself: what each request does to the table, and what its answer makes of a process.

use crate::{
    model::{Protocol, SWEEPER},
    rules::Rule,
    state::*,
};

impl Protocol {
    /// Makes the next request of a process; gives the one after it.
    pub(crate) fn request(&self, state: &mut State, process: usize) -> Step {
        let Process { step, batch, .. } = state.processes[process];
        let (number, _) = self.place(batch);
        match step {
            Step::Rest => Step::Rest,
            Step::PutErrors(report) => self.put_errors(state, batch, report),
            Step::Write(report, guard, check) => self.write(state, process, report, guard, check),
            Step::PutErrorsLate(report, todo) => {
                self.put_errors(state, batch, report);
                todo.step()
            }
            Step::Do(todo) => self.do_first(state, number, todo),
            Step::Read(look) => self.read_next(state, process, look),
            Step::Swap(command, next, ripe) => self.swap(state, command, next, ripe),
            Step::Mark(over) => {
                self.mark(state);
                self.close_next(state, over)
            }
            Step::MarkBefore(next) => {
                self.mark(state);
                Step::Swap(Command::Seal, next, false)
            }
            Step::Close(over) => {
                while let Some(chunk) = self.open_past(state) {
                    state.chunks[chunk].capacity = Some(0);
                }
                self.after_marks(state, over)
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

    /// Keeps the errors of an attempt under the first number that is free, or that of the same errors. Where
    /// none is, the attempt reports those of the last number instead.
    fn put_errors(&self, state: &mut State, batch: u8, report: Report) -> Step {
        let there = &mut state.errors[usize::from(batch)].rows[report.way as usize];
        let there = &mut there[usize::from(report.kept - 1)];
        if *there == 0 {
            *there = report.errors;
        }
        let errors = match *there == report.errors {
            true => report.errors,
            false if report.kept < self.attempts => {
                return Step::PutErrors(Report { kept: report.kept + 1, ..report });
            }
            false if self.lacks(Rule::ErrorsAreAdopted) => report.errors,
            false => *there,
        };
        Step::Write(Report { errors, ..report }, Guard::News, Check::Spared)
    }

    /// The write of an outcome. Its answer is the chunk after it, or the chunk that refused it.
    fn write(&self, state: &mut State, process: usize, report: Report, guard: Guard, check: Check) -> Step {
        let Process { batch, is_past, .. } = state.processes[process];
        let (number, place) = self.place(batch);
        let fails = report.way == Way::Failed;
        if !self.write_holds(state, batch, guard, check) {
            return self.after_refusal(state, batch, report);
        }

        let check = self.check_of(state, number, check);
        let (over, chunk) = (state.head.status.is_terminal(), &mut state.chunks[number]);
        if fails && chunk.accepted.without(chunk.failed).has(place) {
            state.breach = Some(Breach::CompletedFailed);
        } else if is_past {
            state.breach = Some(Breach::CountedPastTotal);
        }
        let errors = &mut state.errors[usize::from(batch)];
        chunk.late |= !chunk.exists && over;
        chunk.exists = true;
        chunk.checked |= matches!(check, Check::AtChunk(_));
        if guard == Guard::News {
            chunk.settled.set(place, true);
            chunk.accepted.set(place, true);
            chunk.sum += 1;
        } else {
            chunk.corrected += 1;
        }
        chunk.failed.set(place, fails);
        if report.kept > 0 || !self.lacks(Rule::CorrectionsNameTheirs) {
            errors.listed = report.kept;
        }
        errors.counted = report.errors;
        if chunk.filled_by.is_none() && self.is_full(chunk, number, None) {
            chunk.filled_by = Some(place);
        }
        let looks_again = !chunk.checked || matches!(check, Check::AtChunk(true) | Check::Before(true));
        let check = looks_again && !self.lacks(Rule::MakersLookAgain);
        let todo = Todo { check, ..self.after_outcome(chunk, number, fails) };
        if report.errors > 0 && self.lacks(Rule::ErrorsComeFirst) {
            return Step::PutErrorsLate(report, todo);
        }
        todo.step()
    }

    /// Whether the condition of a write holds.
    pub(crate) fn write_holds(&self, state: &State, batch: u8, guard: Guard, check: Check) -> bool {
        let (number, place) = self.place(batch);
        let chunk = &state.chunks[number];
        let is_news = !chunk.settled.has(place) || self.lacks(Rule::WritesAreGuarded);
        let is_as_seen = match guard {
            Guard::News => chunk.has_room(place) && is_news,
            Guard::Correction { compacted: true } => chunk.compacted && chunk.failed.has(place),
            Guard::Correction { compacted: false } => chunk.has_room(place) && chunk.failed.has(place),
        };
        is_as_seen
            && match self.check_of(state, number, check) {
                Check::Spared => chunk.checked || self.lacks(Rule::ChecksComeFirst),
                Check::AtChunk(_) => chunk.exists,
                Check::Before(_) => true,
            }
    }

    /// What a worker knows of the chunk when it writes: see [`reductions`](crate::reductions) for the look at the
    /// head that comes with the write.
    fn check_of(&self, state: &State, number: usize, check: Check) -> Check {
        match check {
            Check::Spared if self.is_reduced() && self.strays == 0 => {
                looked_at(&state.chunks[number], state.head)
            }
            check => check,
        }
    }

    /// A refused write answers with the chunk. If nobody has checked it yet, the worker looks at the head.
    fn after_refusal(&self, state: &mut State, batch: u8, report: Report) -> Step {
        let (number, place) = self.place(batch);
        let (head, chunk) = (state.head, state.chunks[number]);
        let fails = report.way == Way::Failed;
        let check = looked_at(&chunk, head);
        let is_past = head.total.is_some_and(|total| batch >= total);
        if check != Check::Spared && is_past {
            let close = chunk.exists && self.open_past(state) == Some(number);
            return Todo { close, ..Todo::default() }.step();
        }
        if !chunk.has_room(place) && !chunk.compacted {
            if head.total.is_some() && !is_past || head.total.is_none() {
                state.breach = Some(Breach::RefusedWrongly);
            }
            return self.after_outcome(&chunk, number, fails).step();
        }
        match (chunk.settled_as(place), report.way) {
            (None, _) => Step::Write(report, Guard::News, check),
            (Some(Way::Failed), Way::Completed) => {
                Step::Write(report, Guard::Correction { compacted: chunk.compacted }, check)
            }
            // Whoever is told "duplicate" may be the only one left who can tell that the facts decide.
            _ if self.lacks(Rule::DuplicatesLook) => Step::Rest,
            _ => {
                let fails = fails && !self.lacks(Rule::FailingDuplicatesLook);
                self.after_outcome(&chunk, number, fails).step()
            }
        }
    }

    /// What a worker has to do whose outcome is in this chunk, by its own write or before.
    fn after_outcome(&self, chunk: &Chunk, number: usize, fails: bool) -> Todo {
        let full = self.is_full(chunk, number, None);
        let look = fails && (self.is_past_share(chunk) || !self.lacks(Rule::EveryFailureLooks));
        let compacts = full && chunk.capacity.is_none() || self.lacks(Rule::FullChunksAreCompacted);
        Todo { look, ask_ends: full && !look, compact: self.compaction && compacts, ..Todo::default() }
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
        let over = state.head.status.is_terminal();
        if todo.check {
            let close = state.head.total.is_some() && self.open_past(state) == Some(number);
            let tell = over && self.propagation && !state.chunks[number].told;
            return Todo { check: false, close, tell, ..todo }.step();
        }
        if todo.ask_ends {
            let look = !over && self.highest_is_full(state, number);
            return Todo { ask_ends: false, look, ..todo }.step();
        }
        let chunk = &mut state.chunks[number];
        if todo.close {
            chunk.capacity = Some(0);
            return Todo { close: false, ..todo }.step();
        }
        if todo.tell {
            chunk.told = true;
            return Todo { tell: false, ..todo }.step();
        }
        if todo.compact
            && (chunk.settled.count() == self.capacity || self.lacks(Rule::FullChunksAreCompacted))
        {
            chunk.compacted = true;
            chunk.settled = Set::EMPTY;
            chunk.capacity = Some(0);
        }
        Todo { compact: false, ..todo }.step()
    }

    /// The shortcut of a worker whose own chunk, `own`, is full. Batches come roughly in order, so that the
    /// highest chunk nearly always tells that the job is open. Before the seal nothing completes, and the
    /// seal looks.
    fn highest_is_full(&self, state: &State, own: usize) -> bool {
        let Some(highest) = state.chunks.iter().rposition(|chunk| chunk.exists) else { return false };
        if state.head.total.is_none() {
            return false;
        }
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
    fn read_next(&self, state: &mut State, process: usize, mut look: Look) -> Step {
        if look.read == 0 {
            // What a look decides that does not command anything is what the facts decide.
            look.ripe = look.command != Command::Reconcile && self.is_ripe(state);
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
        // The batches of the chunks that are still to be read, all of which may have failed.
        let first = number.map_or(0, |number| (number + 1) * self.capacity);
        let may_fail = self.tolerance.map_or(0, |_| (self.batches + self.strays).saturating_sub(first));
        let is_open = look.missing > self.strays && look.failed + may_fail <= tolerance;
        let is_known = is_open && self.strays == 0 && self.is_reduced();
        if is_known {
            (look.failed, look.ripe) = (0, false);
        }
        if look.failed > tolerance || is_known {
            // Other chunks make no difference any more.
            look.read = look.read.max(self.slots() + u8::from(self.head_first));
        }
        match look.head {
            Some(head) if look.read > self.slots() || head.status.is_terminal() => {
                self.conclude(state, process, look, head)
            }
            // Nothing makes a difference any more.
            _ if is_open && look.command == Command::Reconcile && process != SWEEPER => Step::Rest,
            // It is the same at any later time, so it may as well be read together with the next item.
            _ if is_final => self.read_next(state, process, look),
            _ => Step::Read(look),
        }
    }

    fn conclude(&self, state: &mut State, process: usize, look: Look, head: Head) -> Step {
        let overwrites = process == SWEEPER && self.lacks(Rule::SweepersSwap);
        let seals = look.command == Command::Seal;
        if head.status.is_terminal() && !overwrites {
            let is_sealed = seals && head.total.is_some();
            let tells = is_sealed || process == SWEEPER && head.due && self.propagation;
            return if tells { self.propagate(state, true) } else { Step::Rest };
        }
        match self.decide(look, head) {
            Some(next) if seals && self.lacks(Rule::HeadBeforeMark) => Step::MarkBefore(next),
            Some(next) if self.is_reduced() => self.swap(state, look.command, next, look.ripe),
            Some(next) => Step::Swap(look.command, next, look.ripe),
            // It is sealed already, maybe by this splitter before it crashed.
            None if seals && head.total.is_some() && !self.lacks(Rule::SealIsRepeated) => {
                self.propagate(state, false)
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
        if over && self.propagation {
            state.head.due = !self.lacks(Rule::DueUntilTold);
        }
        match command {
            Command::Seal if !over && self.lacks(Rule::HeadBeforeMark) => self.after_marks(state, over),
            Command::Seal => self.propagate(state, over),
            _ if over && self.propagation => self.propagate(state, over),
            _ => Step::Rest,
        }
    }

    /// What follows a seal or an end: the last chunk is told its capacity, those past it are closed, and then
    /// the chunks are told of the end, or the job is read again.
    fn propagate(&self, state: &State, over: bool) -> Step {
        let (number, size) = self.place(self.batches);
        let Chunk { capacity, compacted, .. } = state.chunks[number];
        let stays = capacity == Some(size) || compacted && !self.lacks(Rule::CompactedChunksStayClosed);
        if state.head.total.is_none() || size == 0 || stays || self.lacks(Rule::LastChunkIsMarked) {
            self.close_next(state, over)
        } else {
            Step::Mark(over)
        }
    }

    fn close_next(&self, state: &State, over: bool) -> Step {
        let is_open = state.head.total.is_some() && self.open_past(state).is_some();
        match is_open && !self.lacks(Rule::SealCloses) {
            true => Step::Close(over),
            false => self.after_marks(state, over),
        }
    }

    fn after_marks(&self, state: &State, over: bool) -> Step {
        match over {
            true if self.propagation => tell_from(state, 0),
            false if !self.lacks(Rule::SealLooks) => Step::Read(Look::of(Command::Reconcile)),
            _ => Step::Rest,
        }
    }

    /// The chunk past the last one that is there and has not been closed.
    pub(crate) fn open_past(&self, state: &State) -> Option<usize> {
        let mut past = usize::from(self.chunks())..usize::from(self.slots());
        past.find(|number| state.chunks[*number].exists && state.chunks[*number].capacity.is_none())
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

/// What a worker knows that found a chunk like this, and then looked at the head if it had to.
fn looked_at(chunk: &Chunk, head: Head) -> Check {
    let over = head.status.is_terminal();
    match (chunk.checked, chunk.exists) {
        (true, _) => Check::Spared,
        (false, true) => Check::AtChunk(over),
        (false, false) => Check::Before(over),
    }
}

/// Tells the chunks from this number on that the job is over; then takes it off the index.
fn tell_from(state: &State, number: u8) -> Step {
    let next = (usize::from(number)..CHUNKS).find(|number| state.chunks[*number].exists);
    next.map_or(Step::TakeOff, |number| Step::Tell(number as u8))
}

impl Chunk {
    /// Whether the chunk may have a batch at this place, as far as it knows its size.
    fn has_room(&self, place: u8) -> bool {
        self.capacity.is_none_or(|capacity| capacity > place)
    }

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
        match self {
            Self { check: false, close: false, tell: false, ask_ends: false, compact: false, look } => {
                if look { Step::Read(Look::of(Command::Reconcile)) } else { Step::Rest }
            }
            todo => Step::Do(todo),
        }
    }
}
