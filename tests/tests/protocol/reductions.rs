//! Steps and distinctions that are left out, since with them nothing else can happen to the table.
//!
//! Each rests on the rules: where one is removed, or [`Protocol::step_by_step`] is set, none is made. That they
//! lose nothing is argued here, and checked within small bounds by [`loses_nothing`](crate::check::loses_nothing):
//! with and without them the same tables are left once all is quiet.
//!
//! - **A delivery comes with the worker's first request, a sweep with its first read.** Nobody sees that a worker
//!   has a message, and whatever it may be told to do it may also be told later: its reads may be of any
//!   earlier state. So it may as well get the message when it makes the request.
//! - **The head is read and swapped in one step.** A swap holds only if the head is still the one that was read:
//!   so it may as well be read then. One that does not hold leaves nothing, and the job is read again: as if
//!   this look had only begun now. With that, the revision of the head makes no difference.
//! - **A process dies right after it left something in the table.** One that has only read since then has left
//!   nothing more: it may as well have died before it read.
//! - **Errors come with their outcome where nobody else can get their batch any more.** Nobody sees them alone.
//! - **A look at the head comes with the write that it allows where no batch is past the total.** It allows
//!   every write then.
//! - **A sweep does all that a poll does.** What the facts decide they decide whatever is asked. A poll that they
//!   do not let decide does nothing.
//! - **A look skips to the head when no chunk can tell it any more that all is settled, or that too much failed.**
//! - **Nobody looks any more when the job is over.** They would find that it is.
//! - **What is not asked any more is forgotten**: errors that are never listed, those of a batch that nobody will
//!   report again, which batch filled a chunk when no message of it comes any more, and the message of a worker
//!   that cannot die any more.

use crate::{
    model::{Protocol, SWEEPER},
    state::*,
};

/// The place of a batch that is not delivered any more.
const SOMEBODY: u8 = u8::MAX;

impl Protocol {
    pub(crate) fn is_reduced(&self) -> bool {
        self.without.is_none() && !self.step_by_step
    }

    /// Whether it makes a difference that a process dies before this request.
    pub(crate) fn may_crash(&self, number: usize, step: Step) -> bool {
        match step {
            _ if !self.is_reduced() => step != self.first_step(number),
            Step::Write(report, ..) => report.kept > 0,
            Step::PutErrors(_) => false,
            Step::Read(Look { command, read, .. }) => command == Command::Reconcile && read == 0,
            _ => true,
        }
    }

    /// Makes the request that comes with a step that has just been made.
    pub(crate) fn go_on(&self, state: &mut State, number: usize) {
        if !self.is_reduced() {
            return;
        }
        state.processes[number].step = self.request(state, number);
        let Process { step, batch, .. } = state.processes[number];
        let others = &state.processes[1..self.workers];
        if matches!(step, Step::Write(report, ..) if report.kept > 0)
            && !may_be_reported(state, batch, others)
        {
            state.processes[number].step = self.request(state, number);
        }
    }

    /// Drops what makes no difference any more.
    pub(crate) fn forget_the_past(&self, state: &mut State) {
        if !self.head_first {
            state.head.revision = 0;
        }
        if !state.head.due {
            state.sweeps = 0;
        }
        for number in 0..SWEEPER {
            self.forget_steps(state, number);
        }
        for batch in 0..self.batches + self.strays {
            self.forget_errors(state, batch);
        }
        if state.faults == 0 {
            for number in 0..usize::from(self.slots()) {
                let first = number as u8 * self.capacity;
                let filled_by = &mut state.chunks[number].filled_by;
                *filled_by = filled_by.map(|place| match state.queue.has(first + place) {
                    true => place,
                    false => SOMEBODY,
                });
            }
        }
    }

    /// Drops steps of a process that leave nothing, and what they would need.
    fn forget_steps(&self, state: &mut State, number: usize) {
        let over = state.head.status.is_terminal();
        let Process { step, batch, .. } = &mut state.processes[number];
        let (own, place) = self.place(*batch);
        let chunk = &state.chunks[own];
        match step {
            Step::Read(look) if over && look.command != Command::Seal => *step = Step::Rest,
            Step::Do(todo) => {
                let compact = todo.compact && !chunk.compacted;
                let (ask_ends, look) = (todo.ask_ends && !over, todo.look && !over);
                *step = Todo { compact, ask_ends, look, ..*todo }.step();
            }
            // It will be told that it is a duplicate.
            Step::Write(report, ..) if chunk.settled_as(place) == Some(Way::Completed) => {
                (report.errors, report.kept) = (0, 0);
            }
            _ => {}
        }
        // One that tells an end may die later than in its look.
        let stays = state.faults == 0 || !self.propagation && !self.may_crash(number, *step);
        if stays && matches!(step, Step::Read(_)) {
            *batch = 0;
        }
    }

    /// Drops the errors of attempts that are never listed; and all of a batch that nobody changes any more, if
    /// those are listed that were counted.
    fn forget_errors(&self, state: &mut State, batch: u8) {
        let (number, place) = self.place(batch);
        let Some(settled) = state.chunks[number].settled_as(place) else { return };
        let workers = &state.processes[..self.workers];
        let stays = settled == Way::Completed || !may_be_reported(state, batch, workers);
        let errors = &mut state.errors[usize::from(batch)];
        let attempts = &mut errors.rows[settled as usize];
        for (attempt, row) in (1..).zip(attempts.iter_mut()) {
            if attempt != errors.listed {
                *row = 0;
            }
        }
        if stays && attempts.iter().sum::<u8>() == errors.counted {
            *errors = Errors::default();
        }
    }

    /// What a state stores and says of batches, to be compared with others.
    pub(crate) fn table_of(&self, mut state: State) -> State {
        (state.faults, state.sweeps) = (0, 0);
        state.processes = [Process::default(); PROCESSES];
        for chunk in &mut state.chunks {
            // Without batches past the total, whether somebody looked makes no difference.
            chunk.checked |= self.strays == 0;
            chunk.filled_by = None;
        }
        self.forget_the_past(&mut state);
        self.forget(&mut state);
        state
    }
}

/// Whether one of these workers has this batch, or any may still get it.
fn may_be_reported(state: &State, batch: u8, workers: &[Process]) -> bool {
    let has = |worker: &Process| worker.step != Step::Rest && worker.batch == batch;
    state.faults > 0 || state.queue.has(batch) || workers.iter().any(has)
}
