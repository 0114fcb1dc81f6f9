//! The rules of the protocol, and the promises that rest on them.

use stateright::Property;

use crate::{
    model::{OWNER, Protocol},
    state::*,
};

/// A rule that can be removed, to see that it is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// An outcome is written on the condition that its batch is not settled.
    WritesAreGuarded,
    /// A head is swapped on the condition that its revision is the one the decision was made from.
    SwapsCompare,
    /// Sweepers decide by the same swap.
    SweepersSwap,
    /// Somebody whose swap lost reads the job again and judges it by that.
    LostSwapsAreRepeated,
    /// A decision is made from strongly consistent reads.
    DecisionsReadStrongly,
    /// What the facts decide comes before what a command asks for.
    FactsComeFirst,
    /// The seal tells the last chunk its capacity.
    LastChunkIsMarked,
    /// The seal swaps the head before it tells the last chunk its capacity.
    HeadBeforeMark,
    /// The seal reads the job again after it has told the last chunk its capacity.
    SealLooks,
    /// A splitter that finds the job sealed tells the last chunk and reads the job all the same.
    SealIsRepeated,
    /// The shortcut reads the highest chunk; that another one is open says nothing.
    HighestChunkIsRead,
    /// The shortcut takes a chunk past the last one for no sign that the last one is open.
    StraysHideNoEnd,
    /// Batches past the total are not counted where the total is known.
    StraysAreMasked,
    /// Into a chunk that nobody has checked a worker writes only after a look at the head.
    ChecksComeFirst,
    /// Whoever may have made a chunk looks at the head once more, and closes a chunk past the last one.
    MakersLookAgain,
    /// The seal closes the chunks past the last one.
    SealCloses,
    /// A worker that is told "duplicate" looks whether the job is decided, as if its write had counted.
    DuplicatesLook,
    /// Also a worker whose batch failed.
    FailingDuplicatesLook,
    /// A worker whose batch failed reads the whole job, however few failures its own chunk has.
    EveryFailureLooks,
    /// Only a chunk whose batches are all settled is compacted.
    FullChunksAreCompacted,
    /// A compacted chunk is not told a capacity: its 0 keeps late outcomes out.
    CompactedChunksStayClosed,
    /// The errors of a batch are written before its outcome.
    ErrorsComeFirst,
    /// Whoever finds all numbers taken by the errors of earlier attempts reports the last one's.
    ErrorsAreAdopted,
    /// Only the errors of that attempt are listed that the write names which counted their batch.
    CountedErrorsAreListed,
    /// A correction names its own attempt, also if that has no errors.
    CorrectionsNameTheirs,
    /// A job that is over stays due until all its chunks have been told.
    DueUntilTold,
    /// A failed batch that is delivered again is worked on again.
    FailedBatchesAreWorkedAgain,
    /// A worker that finds its batch completed and its chunk full looks whether the job is decided.
    BeginLooks,
    /// It judges that by the chunk's own capacity where the head it read is too old to have the total.
    BeginKnowsTheCapacity,
}

pub(crate) const COUNTED_ONCE: &str = "every batch counts once";
pub(crate) const FINAL: &str = "a terminal status never changes";
pub(crate) const NEVER_BACK: &str = "a completed batch never fails";
pub(crate) const ACCEPTED: &str = "no batch of the job is refused as past its total";
pub(crate) const WORKED_ON: &str = "no batch is left undone while the job is open";
pub(crate) const PAST: &str = "no batch past the total counts whose worker begins after the seal";
pub(crate) const CLOSED: &str =
    "once all is quiet and nothing went wrong, every chunk past the last one is closed";
pub(crate) const FACTS_FIRST: &str = "a job whose batches have all settled ends by them";
pub(crate) const WHOLE: &str = "no job completes with a batch missing";
pub(crate) const TOLERATED: &str = "no job completes with more failures than it tolerates";
pub(crate) const EXCEEDED: &str = "no job fails unless more batches failed than it tolerates";
pub(crate) const ASKED: &str = "no job is cancelled unless somebody asked";
pub(crate) const OVER: &str = "once all is quiet, a job is over whose total is known";
pub(crate) const FAILED: &str = "a job fails once its failures are handled";
pub(crate) const TOLD: &str = "a job that is not due has told every chunk";
pub(crate) const LISTED: &str = "the errors that are listed are those that were counted";
pub(crate) const LISTED_ONCE_QUIET: &str = "once all is quiet, so are the errors that are listed";

/// What holds in every state; and what has to happen in some, or the bounds are too small to say anything.
pub(crate) fn properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    type State<'a> = &'a crate::state::State;
    let mut properties = vec![
        Property::always(COUNTED_ONCE, |_, state: State<'_>| {
            state.chunks.iter().all(|chunk| chunk.sum == chunk.accepted.count())
        }),
        Property::always(FINAL, |_, state: State<'_>| state.breach != Some(Breach::TerminalChanged)),
        Property::always(NEVER_BACK, |_, state: State<'_>| state.breach != Some(Breach::CompletedFailed)),
        Property::always(ACCEPTED, |_, state: State<'_>| state.breach != Some(Breach::RefusedWrongly)),
        Property::always(WORKED_ON, |_, state: State<'_>| state.breach != Some(Breach::LeftUndone)),
        Property::always(PAST, |_, state: State<'_>| state.breach != Some(Breach::CountedPastTotal)),
        Property::always(CLOSED, |protocol: &Protocol, state: State<'_>| {
            // Whatever a worker left that died, the next one looks at the head before it writes.
            let went_wrong = state.faults < protocol.faults;
            let is_closed = state.head.total.is_none() || protocol.open_past(state).is_none();
            went_wrong || is_closed || !is_quiet(protocol, state)
        }),
        Property::always(FACTS_FIRST, |_, state: State<'_>| state.breach != Some(Breach::FactsOverruled)),
        Property::always(WHOLE, |protocol: &Protocol, state: State<'_>| {
            state.head.status != Status::Completed || protocol.is_ripe(state)
        }),
        Property::always(TOLERATED, |protocol: &Protocol, state: State<'_>| {
            state.head.status != Status::Completed || !protocol.is_exceeded(failures(state))
        }),
        Property::always(EXCEEDED, |protocol: &Protocol, state: State<'_>| {
            let corrected: u8 = state.chunks.iter().map(|chunk| chunk.corrected).sum();
            state.head.status != Status::Failed || protocol.is_exceeded(failures(state) + corrected)
        }),
        Property::always(ASKED, |_, state: State<'_>| {
            state.head.status != Status::Cancelled || state.head.cancel_requested
        }),
        Property::always(OVER, |protocol: &Protocol, state: State<'_>| {
            state.head.total.is_none() || state.head.status.is_terminal() || !is_quiet(protocol, state)
        }),
        Property::always(FAILED, |protocol: &Protocol, state: State<'_>| {
            !protocol.is_exceeded(failures(state))
                || state.head.status.is_terminal()
                || has_failures_to_handle(protocol, state)
        }),
        Property::always(TOLD, |_, state: State<'_>| {
            state.head.due || state.chunks.iter().all(|c| !c.exists || c.told || c.late)
        }),
        Property::always(LISTED_ONCE_QUIET, |protocol: &Protocol, state: State<'_>| {
            !is_quiet(protocol, state) || lists_what_counts(protocol, state)
        }),
        Property::always(LISTED, lists_what_counts),
        Property::sometimes("all is quiet", is_quiet),
        Property::sometimes("a job completes", |_, state: State<'_>| state.head.status == Status::Completed),
    ];
    let mut happens = |takes_part: bool, name, condition| {
        if takes_part {
            properties.push(Property::sometimes(name, condition));
        }
    };
    happens(protocol.tolerance.is_some_and(|most| most < protocol.batches), "a job fails", |_, state| {
        state.head.status == Status::Failed
    });
    happens(protocol.tolerance.is_some(), "a failed batch completes", |_, state| {
        state.chunks.iter().any(|chunk| chunk.corrected > 0)
    });
    happens(protocol.cancel, "a job is cancelled", |_, state| state.head.status == Status::Cancelled);
    happens(protocol.sweeps > 0, "a job expires", |_, state| state.head.status == Status::Expired);
    happens(protocol.compaction, "a chunk is compacted", |_, state| state.chunks[0].compacted);
    happens(protocol.propagation, "an end is told", |_, state| !state.head.due);
    happens(protocol.errors > 0, "errors are listed", |protocol, state| {
        (0..protocol.batches).any(|batch| listed(protocol, state, batch) > 0)
    });
    happens(protocol.strays > 0, "a batch past the total is counted", |protocol, state| {
        let (number, place) = protocol.place(protocol.batches);
        state.head.total.is_some() && state.chunks[number].accepted.has(place)
    });
    properties
}

impl Protocol {
    fn is_exceeded(&self, failures: u8) -> bool {
        self.tolerance.is_some_and(|tolerance| failures > tolerance)
    }
}

/// Whether no message waits and nobody is at work. The owner may never ask, and no sweep may ever come.
pub(crate) fn is_quiet(protocol: &Protocol, state: &State) -> bool {
    let mut processes = state.processes.iter().enumerate();
    state.queue.is_empty()
        && processes.all(|(number, process)| {
            process.step == Step::Rest || number == OWNER && process.step == protocol.first_step(number)
        })
}

fn failures(state: &State) -> u8 {
    state.chunks.iter().map(|chunk| chunk.failed.count()).sum()
}

/// Whether a message of a batch that failed waits or is being handled, or a worker reads the job.
fn has_failures_to_handle(protocol: &Protocol, state: &State) -> bool {
    let failed = |batch: u8| {
        let (number, place) = protocol.place(batch);
        state.chunks[number].failed.has(place)
    };
    let handles = |worker: &Process| match worker.step {
        Step::Rest => false,
        Step::Read(_) => true,
        _ => failed(worker.batch),
    };
    (0..protocol.batches).any(|batch| state.queue.has(batch) && failed(batch))
        || state.processes[..protocol.workers].iter().any(handles)
}

/// How many errors of a batch a listing shows.
fn listed(protocol: &Protocol, state: &State, batch: u8) -> u8 {
    let (number, place) = protocol.place(batch);
    let Errors { rows, listed, .. } = state.errors[usize::from(batch)];
    match state.chunks[number].settled_as(place) {
        _ if protocol.lacks(Rule::CountedErrorsAreListed) => rows.iter().flatten().sum(),
        Some(way) if listed > 0 => rows[way as usize][usize::from(listed - 1)],
        _ => 0,
    }
}

fn lists_what_counts(protocol: &Protocol, state: &State) -> bool {
    let counted = |batch: u8| state.errors[usize::from(batch)].counted;
    (0..protocol.batches).all(|batch| listed(protocol, state, batch) == counted(batch))
}
