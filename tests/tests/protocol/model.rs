//! Who may do what at any moment: deliveries, requests, faults and sweeps; and what a worker may be told
//! that asks whether to begin.

use stateright::{Model, Property};

use crate::{
    rules::{self, Rule},
    state::*,
};

const SPLITTERS: usize = WORKERS;
pub(crate) const OWNER: usize = WORKERS + 2;
pub(crate) const SWEEPER: usize = WORKERS + 3;

/// The bounds of a check, the mechanisms that take part, and the rule that is removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    /// The job's total.
    pub(crate) batches: u8,
    /// Batches past the total that have a message all the same.
    pub(crate) strays: u8,
    /// Batches of a chunk.
    pub(crate) capacity: u8,
    pub(crate) workers: usize,
    /// Splitters that seal the job, at most two. With none it is sealed from the beginning.
    pub(crate) splitters: usize,
    /// Crashes, lost answers and second deliveries.
    pub(crate) faults: u8,
    /// Batches may fail, and the job tolerates so many.
    pub(crate) tolerance: Option<u8>,
    /// The most item errors of a batch. Attempts at one batch disagree about the number.
    pub(crate) errors: u8,
    /// Attempts at a batch, settled one way, whose errors are kept side by side, at most two.
    pub(crate) attempts: u8,
    /// The owner may cancel the job.
    pub(crate) cancel: bool,
    /// Sweeps and polls.
    pub(crate) sweeps: u8,
    pub(crate) compaction: bool,
    /// The end of the job is told to its chunks.
    pub(crate) propagation: bool,
    /// A look reads the head before the chunks.
    pub(crate) head_first: bool,
    /// What happens after the end is explored, too: late facts, and telling the end.
    pub(crate) after_end: bool,
    /// None of the steps is left out that [`reductions`](crate::reductions) leave out.
    pub(crate) step_by_step: bool,
    pub(crate) without: Option<Rule>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Action {
    /// The queue hands a batch to the first free worker, which asks whether to begin and is told this.
    Deliver(u8, Step),
    /// The same, but the answer to the worker's first write is lost.
    DeliverAndLose(u8, Step),
    /// A process makes its next request.
    Request(usize),
    /// A process makes its next request, loses the answer, and will make it again.
    LoseAnswer(usize),
    /// A process dies. A worker's message comes again, and so does a splitter's.
    Crash(usize),
    /// A sweep begins, or a poll.
    Sweep(Command),
    /// A process reads what has long been overwritten. (Only where the rule is removed.)
    ReadStale(usize),
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            head: Head { due: true, ..Head::default() },
            chunks: [Chunk::default(); CHUNKS],
            errors: [Errors::default(); BATCHES],
            queue: Set::first(self.batches + self.strays),
            processes: [Process::default(); PROCESSES],
            faults: self.faults,
            sweeps: self.sweeps,
            breach: None,
        };
        if self.splitters == 0 {
            state.head.total = Some(self.batches);
            self.mark(&mut state);
        }
        if self.strays == 0 && !self.propagation {
            // Nobody finds anything who looks at the head.
            state.chunks.iter_mut().for_each(|chunk| chunk.checked = true);
        }
        for (number, process) in state.processes.iter_mut().enumerate() {
            process.step = self.first_step(number);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.after_end && is_over_for_good(state) {
            return;
        }
        // Workers are sorted: the first one is free if any is.
        if state.processes[0].step == Step::Rest {
            for batch in 0..self.batches + self.strays {
                if state.queue.has(batch) || state.faults > 0 {
                    for step in self.begin(state, batch) {
                        let waits = u8::from(!state.queue.has(batch));
                        if self.is_reduced() && state.faults > waits && self.may_lose(state, batch, step) {
                            actions.push(Action::DeliverAndLose(batch, step));
                        }
                        actions.push(Action::Deliver(batch, step));
                    }
                }
            }
        }
        for (number, Process { step, batch, .. }) in state.processes.iter().enumerate() {
            if *step == Step::Rest {
                continue;
            }
            actions.push(Action::Request(number));
            if state.faults > 0 {
                if self.may_crash(number, *step) {
                    actions.push(Action::Crash(number));
                }
                if self.may_lose(state, *batch, *step) {
                    actions.push(Action::LoseAnswer(number));
                }
            }
            if self.lacks(Rule::DecisionsReadStrongly) && matches!(step, Step::Read(_)) {
                actions.push(Action::ReadStale(number));
            }
        }
        if state.sweeps > 0 && state.processes[SWEEPER].step == Step::Rest && state.head.due {
            actions.push(Action::Sweep(Command::Expire));
            if !self.is_reduced() {
                actions.push(Action::Sweep(Command::Reconcile));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(batch, step) => {
                self.deliver(&mut state, batch, step);
                self.go_on(&mut state, 0);
            }
            Action::DeliverAndLose(batch, step) => {
                self.deliver(&mut state, batch, step);
                state.faults -= 1;
                self.request(&mut state, 0);
            }
            Action::Request(number) => {
                state.processes[number].step = self.request(&mut state, number);
            }
            Action::LoseAnswer(number) => {
                state.faults -= 1;
                self.request(&mut state, number);
            }
            Action::Crash(number) => {
                state.faults -= 1;
                if number < self.workers {
                    state.queue.set(state.processes[number].batch, true);
                }
                state.processes[number].step = self.first_step(number);
            }
            Action::Sweep(command) => {
                state.sweeps -= 1;
                state.processes[SWEEPER].step = Step::Read(Look::of(command));
                self.go_on(&mut state, SWEEPER);
            }
            Action::ReadStale(number) => {
                let mut stale = State { chunks: [Chunk::default(); CHUNKS], ..state.clone() };
                state.processes[number].step = self.request(&mut stale, number);
            }
        }
        self.forget(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::properties(self)
    }
}

/// How much of what there is an eventually consistent read sees.
#[derive(Clone, Copy)]
struct View {
    total: bool,
    cancel: bool,
    end: bool,
    chunk: Seen,
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Nothing,
    /// The batch itself, but not all that settled after it.
    Batch,
    All,
}

impl Protocol {
    /// What a worker may be told that asks whether to begin `batch`: its read of the head and of the chunk
    /// may be of any earlier state.
    fn begin(&self, state: &State, batch: u8) -> Vec<Step> {
        let mut told = Vec::new();
        for view in self.views(state, batch) {
            for step in self.begin_by(state, batch, view) {
                if !told.contains(&step) {
                    told.push(step);
                }
            }
        }
        told
    }

    fn views(&self, state: &State, batch: u8) -> Vec<View> {
        let head = state.head;
        let (number, place) = self.place(batch);
        let mut views = Vec::new();
        for chunk in [Seen::Nothing, Seen::Batch, Seen::All] {
            // A read that sees the batch that filled the chunk sees a full chunk.
            if chunk == Seen::Batch && state.chunks[number].filled_by == Some(place) {
                continue;
            }
            for (total, cancel) in [(false, false), (false, true), (true, false), (true, true)] {
                if total <= head.total.is_some() && cancel <= head.cancel_requested {
                    views.push(View { total, cancel, end: false, chunk });
                }
            }
            if head.status.is_terminal() {
                views.push(View { total: head.total.is_some(), cancel: false, end: true, chunk });
            }
        }
        views
    }

    fn begin_by(&self, state: &State, batch: u8, view: View) -> Vec<Step> {
        let (number, place) = self.place(batch);
        let chunk = &state.chunks[number];
        let total = state.head.total.filter(|_| view.total);
        let settled = chunk.settled_as(place).filter(|_| view.chunk != Seen::Nothing);
        if view.cancel {
            return vec![Step::Read(Look::of(Command::Confirm))];
        }
        if total.is_some_and(|total| batch >= total) {
            return vec![Step::Rest];
        }
        let completed = settled == Some(Way::Completed)
            || settled.is_some() && self.lacks(Rule::FailedBatchesAreWorkedAgain);
        if completed {
            let full = match self.lacks(Rule::BeginKnowsTheCapacity) {
                true => total.is_some() && self.is_full(chunk, number, total),
                false => self.is_full(chunk, number, None),
            };
            let ask_ends = full && view.chunk == Seen::All && !view.end && !self.lacks(Rule::BeginLooks);
            return vec![Todo { ask_ends, ..Todo::default() }.step()];
        }
        if view.end {
            return vec![Step::Rest];
        }
        let may_fail = self.tolerance.is_some() && batch < self.batches;
        let ways = [Way::Completed, Way::Failed].into_iter().filter(|way| may_fail || *way == Way::Completed);
        let report = |way, errors: u8| Report { way, errors, kept: errors.min(1) };
        ways.flat_map(|way| (0..=self.errors).map(move |errors| report(way, errors)))
            .map(|report| match report.errors {
                1.. if !self.lacks(Rule::ErrorsComeFirst) => Step::PutErrors(report),
                _ => Step::Write(report, Guard::News, Check::Spared),
            })
            .collect()
    }

    /// Hands a batch to the first worker.
    fn deliver(&self, state: &mut State, batch: u8, step: Step) {
        if state.queue.has(batch) {
            state.queue.set(batch, false);
        } else {
            state.faults -= 1;
        }
        if step == Step::Rest && self.is_undone(state, batch) {
            state.breach = Some(Breach::LeftUndone);
        }
        let seals = |process: &Process| {
            !matches!(process.step, Step::Rest | Step::Read(Look { command: Command::Reconcile, .. }))
        };
        let is_sealed = state.head.total.is_some() && !state.processes[self.splitters()].iter().any(seals);
        state.processes[0] = Process { step, batch, is_past: is_sealed && batch >= self.batches };
    }

    /// Whether it makes a difference that the answer to this request is lost, and it is made again.
    fn may_lose(&self, state: &State, batch: u8, step: Step) -> bool {
        matches!(step, Step::Write(_, guard, check) if self.write_holds(state, batch, guard, check))
    }

    /// Whether a batch of a job that is open has yet to complete.
    fn is_undone(&self, state: &State, batch: u8) -> bool {
        let (number, place) = self.place(batch);
        state.head.status == Status::Processing
            && batch < self.batches
            && state.chunks[number].settled_as(place) != Some(Way::Completed)
    }

    pub(crate) fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    /// What a process does first, and again after a crash.
    pub(crate) fn first_step(&self, number: usize) -> Step {
        match number {
            SPLITTERS..OWNER if number < SPLITTERS + self.splitters => Step::Read(Look::of(Command::Seal)),
            OWNER if self.cancel => Step::Read(Look::of(Command::Cancel)),
            _ => Step::Rest,
        }
    }

    pub(crate) fn splitters(&self) -> std::ops::Range<usize> {
        SPLITTERS..SPLITTERS + self.splitters
    }

    /// The number of a batch's chunk, and its place there.
    pub(crate) fn place(&self, batch: u8) -> (usize, u8) {
        (usize::from(batch / self.capacity), batch % self.capacity)
    }

    /// The chunks that the job has.
    pub(crate) fn chunks(&self) -> u8 {
        self.batches.div_ceil(self.capacity)
    }

    /// The chunks that there may be.
    pub(crate) fn slots(&self) -> u8 {
        (self.batches + self.strays).div_ceil(self.capacity)
    }

    /// The places of a chunk that are the job's.
    pub(crate) fn of_job(&self, number: usize) -> Set {
        let first = number as u8 * self.capacity;
        Set::first(self.batches.saturating_sub(first).min(self.capacity))
    }

    /// The places of a chunk that there are messages of.
    pub(crate) fn messages_of(&self, number: usize) -> Set {
        let first = number as u8 * self.capacity;
        Set::first((self.batches + self.strays).saturating_sub(first).min(self.capacity))
    }

    /// Whether all batches of a sealed job have settled.
    pub(crate) fn is_ripe(&self, state: &State) -> bool {
        let mut numbers = 0..usize::from(self.chunks());
        state.head.total.is_some()
            && numbers.all(|n| self.of_job(n).without(state.chunks[n].accepted).is_empty())
    }
}

/// Whether the job is over, and nobody holds a head that is to be swapped in.
fn is_over_for_good(state: &State) -> bool {
    let decides = |process: &Process| match process.step {
        Step::Swap(..) | Step::MarkBefore(_) => true,
        Step::Read(look) => look.head.is_some(),
        _ => false,
    };
    state.head.status.is_terminal() && !state.processes.iter().any(decides)
}
