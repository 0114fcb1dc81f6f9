//! What there is: the items of the table, the processes, and the faults that may still happen.

use std::fmt;

/// Chunks that a state has room for.
pub(crate) const CHUNKS: usize = 4;
/// Batches that a state has room for.
pub(crate) const BATCHES: usize = 8;
/// Workers that a state has room for.
pub(crate) const WORKERS: usize = 3;
/// Attempts at one batch, settled one way, whose errors a state has room for.
pub(crate) const ATTEMPTS: usize = 2;
/// The processes in a state: workers, splitters, the owner, and a sweeper.
pub(crate) const PROCESSES: usize = WORKERS + 4;

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) head: Head,
    pub(crate) chunks: [Chunk; CHUNKS],
    pub(crate) errors: [Errors; BATCHES],
    /// The batches that have a message waiting.
    pub(crate) queue: Set,
    pub(crate) processes: [Process; PROCESSES],
    /// Crashes, lost answers and second deliveries that may still happen.
    pub(crate) faults: u8,
    /// Sweeps and polls that may still begin.
    pub(crate) sweeps: u8,
    /// The promise that was broken by a step and does not show in the items.
    pub(crate) breach: Option<Breach>,
}

/// The item `job`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Head {
    pub(crate) revision: u8,
    pub(crate) status: Status,
    pub(crate) total: Option<u8>,
    pub(crate) cancel_requested: bool,
    /// Whether sweepers find the job.
    pub(crate) due: bool,
}

/// The status of a job from the moment its batches may be worked on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Status {
    #[default]
    Processing,
    Completed,
    /// Failed, since more batches failed than the job tolerates.
    Failed,
    /// Failed, since its deadline passed.
    Expired,
    Cancelled,
}

impl Status {
    pub(crate) fn is_terminal(self) -> bool {
        self != Self::Processing
    }
}

/// An item `chunk#…`. Its sets hold places: the batches of a chunk, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) exists: bool,
    /// `c`: the batches that are settled. Compaction drops it.
    pub(crate) settled: Set,
    /// `f`: those of them that failed.
    pub(crate) failed: Set,
    /// Stands for all the sums: every outcome that is counted adds one.
    pub(crate) sum: u8,
    /// `cap`: how many batches of the job the chunk has, if the seal has told it; 0 after compaction.
    pub(crate) capacity: Option<u8>,
    /// `k`: somebody has looked, since it exists, that the job has it.
    pub(crate) checked: bool,
    /// `z`: all its batches are settled.
    pub(crate) compacted: bool,
    /// `st`: it was told that the job is over.
    pub(crate) told: bool,
    /// Not stored: the batches whose outcome was ever accepted.
    pub(crate) accepted: Set,
    /// Not stored: how many batches failed first, and completed later.
    pub(crate) corrected: u8,
    /// Not stored: the batch whose outcome filled the chunk.
    pub(crate) filled_by: Option<u8>,
    /// Not stored: whether it was created after the end of the job.
    pub(crate) late: bool,
}

/// The items `error#…` of a batch and what was counted of it, as numbers of errors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Errors {
    /// By the way the batch was settled, and by attempt; 0 is no item.
    pub(crate) rows: [[u8; ATTEMPTS]; 2],
    /// `e0` to `e5`, stored in its chunk: the attempt whose errors are listed, from 1; 0 is none.
    pub(crate) listed: u8,
    /// Stored in the sums of its chunk only.
    pub(crate) counted: u8,
}

/// How a batch came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Way {
    Completed,
    Failed,
}

/// A worker, splitter, owner or sweeper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Process {
    pub(crate) step: Step,
    /// The batch whose message a worker has.
    pub(crate) batch: u8,
    /// Not stored: the worker began when the seal was done, and its batch is past the total.
    pub(crate) is_past: bool,
}

/// The request that a process makes next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Step {
    /// None: a worker waits for a message, and everybody else is done.
    #[default]
    Rest,
    /// Put the item of the batch's errors, unless an earlier attempt's is there.
    PutErrors(Report),
    /// Write the outcome into the chunk.
    Write(Report, Guard, Check),
    /// Put the errors after the outcome. (Only where the rule is removed.)
    PutErrorsLate(Report, Todo),
    /// Do the first of these things.
    Do(Todo),
    /// Read the next item of the job.
    Read(Look),
    /// Swap the head. The flag is [`Look::ripe`].
    Swap(Command, Head, bool),
    /// Tell the last chunk its capacity. The flag says whether the job is over.
    Mark(bool),
    /// Tell the chunks past the last one that they have room for none; likewise.
    Close(bool),
    /// The same before the head is swapped. (Only where the rule is removed.)
    MarkBefore(Head),
    /// Tell the chunk of this number that the job is over.
    Tell(u8),
    /// Take the job off the index of those that are due.
    TakeOff,
}

/// What a worker reports of its batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Report {
    pub(crate) way: Way,
    /// How many items had an error.
    pub(crate) errors: u8,
    /// Under which number, from 1, these errors are kept, if there are any.
    pub(crate) kept: u8,
}

/// The condition of the write of an outcome.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Guard {
    /// The batch is not settled.
    News,
    /// The batch has failed, in a chunk that is compacted, or is not.
    Correction { compacted: bool },
}

/// What a worker knows of a chunk before it writes into it. With the flag it has seen that the job is over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Check {
    /// Nothing: the write holds if the chunk says that somebody has looked.
    Spared,
    /// The job has it, and it is there: the write says so.
    AtChunk(bool),
    /// The job has it, and it was not there: whoever makes it has to look once more.
    Before(bool),
}

/// What a worker has to do after its write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Todo {
    /// It may have created the chunk: does the job have it, and is the job over?
    pub(crate) check: bool,
    /// The chunk is to be told that it has room for none.
    pub(crate) close: bool,
    /// The chunk is to be told that the job is over.
    pub(crate) tell: bool,
    /// The chunk is full: is it the last one?
    pub(crate) ask_ends: bool,
    pub(crate) compact: bool,
    /// The facts may decide the job.
    pub(crate) look: bool,
}

/// A read of the whole job, item by item, and what it is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Look {
    pub(crate) command: Command,
    /// How many items are read.
    pub(crate) read: u8,
    /// How many batches are not settled; no more than it takes to know that these are too many.
    pub(crate) missing: u8,
    /// How many have failed; likewise.
    pub(crate) failed: u8,
    /// How many settled batches are past the total.
    pub(crate) strays: u8,
    pub(crate) head: Option<Head>,
    /// Not read: whether all batches had settled before the look began.
    pub(crate) ripe: bool,
}

impl Look {
    pub(crate) fn of(command: Command) -> Self {
        Self { command, read: 0, missing: 0, failed: 0, strays: 0, head: None, ripe: false }
    }
}

/// What somebody wants of a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Command {
    /// A splitter: this is the total.
    Seal,
    /// Anybody: decide if the facts decide.
    Reconcile,
    /// The owner: stop.
    Cancel,
    /// A worker: the request to stop was seen.
    Confirm,
    /// A sweeper, when the grace of a cancel or the deadline of the job is over.
    Expire,
}

/// A promise that a step broke.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Breach {
    /// A terminal status changed.
    TerminalChanged,
    /// A completed batch failed.
    CompletedFailed,
    /// A batch was refused that the job has room for.
    RefusedWrongly,
    /// A worker was told to leave a batch of an open job that had not completed.
    LeftUndone,
    /// All batches had settled, and then something else was decided.
    FactsOverruled,
    /// A batch past the total counted, whose worker began when the seal was done.
    CountedPastTotal,
}

/// A set of batches, or of places in a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Set(u8);

impl Set {
    pub(crate) const EMPTY: Self = Self(0);

    /// The first `size`, at most all eight.
    pub(crate) const fn first(size: u8) -> Self {
        Self(if size >= 8 { u8::MAX } else { (1 << size) - 1 })
    }

    pub(crate) const fn has(self, index: u8) -> bool {
        self.0 & (1 << index) != 0
    }

    pub(crate) const fn count(self) -> u8 {
        self.0.count_ones() as u8
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn set(&mut self, index: u8, to: bool) {
        self.0 = (self.0 & !(1 << index)) | (u8::from(to) << index);
    }

    pub(crate) fn swap(&mut self, one: u8, other: u8) {
        let (a, b) = (self.has(one), self.has(other));
        self.set(one, b);
        self.set(other, a);
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..8).filter(|index| self.has(*index))).finish()
    }
}
