//! The protocol of counting batches and settling jobs, model-checked.
//!
//! `stateright` explores every interleaving of what workers, splitters, an owner and sweepers do to the items
//! of one job in DynamoDB, with faults at every point, and checks each state that it reaches. It explores a
//! model, not the product: [`requests`] is meant to be read beside `status-dynamo` and the tracker. The tests
//! in [`mechanisms`] check each mechanism alone within large bounds, and all of them together within small
//! ones; they always print how many states there were and how long it took. Those in [`removed`] take one
//! rule away, and find the shortest way in which a promise is broken then. [`reductions`] says which steps are
//! left out, and a test compares what comes of it with all of them.
//!
//! # What is modelled
//!
//! One job of up to six batches, in chunks of two to four instead of 256. Each request to the database is one
//! atomic step, and between two steps of a process any other process may take any number of its own.
//!
//! - **A worker** gets a batch, reads the head and the batch's chunk, eventually consistent, and works. It
//!   writes its errors, then its outcome, on the condition that the batch is not settled and that somebody has
//!   checked that the job has the chunk (`k`). If nobody has, it looks at the head and writes again; and if it
//!   may have made the chunk, it looks once more, closes a chunk past the last one, and tells it an end. All it
//!   knows otherwise is what the write answered: the chunk. If the batch failed, or the chunk is full and the
//!   head and the highest chunk do not rule it out, it reads the whole job and decides.
//! - **A splitter** seals the job: it swaps the head, tells the last chunk its capacity, closes those past it,
//!   and reads the job again. Where no splitter takes part, the job was sealed before its first batch.
//! - **The owner** asks to cancel, at any moment or never.
//! - **A sweeper** tells an end that was not told, confirms an unheard cancel, or fails a job past its
//!   deadline, at any moment. One that comes in time is also any poll that reads the job and decides.
//! - **An end is told** by whoever decided it: first what the seal tells, then every chunk, and then the job is
//!   taken off the index of those that are due.
//! - **A decision** is made from items that were read one after another, and swapped in over the revision of
//!   the head that was read.
//! - **Faults**, up to a number: a process dies between two requests; a write is made, its answer is lost, and
//!   it is made again; a message is delivered again while or after another worker has it.
//!
//! # What is left out, and why nothing is lost by it
//!
//! - **Time.** Whatever waits for a time may happen at any moment.
//! - **Several outcomes in one write** are the writes of each, one right after another: the chunk refuses all
//!   of them if one is settled, and the worker repeats those that are news.
//! - **Messages that are not sent yet.** All are in the queue from the beginning; whoever handles one late may
//!   have got it late. A splitter that runs again sends them again: second deliveries.
//! - **The acknowledgement** of a message is part of its worker's last request. A crash between the two is a
//!   second delivery.
//! - **What a worker answers** is chosen when it begins, since nothing that happens in between changes it.
//! - **Earlier states.** An eventually consistent read of the head sees any part of what was decided: more
//!   combinations than there were. One of a chunk sees nothing of a batch, or the batch alone, or everything;
//!   but whoever sees the batch that filled the chunk sees a full chunk.
//! - **Looks that a worker takes before it begins** although its batch has not completed, and polls: they can
//!   only decide earlier. What has to be decided without them is checked without them, and that they do no
//!   harm is checked as sweeps.
//! - **A third number for the errors of attempts.** The product keeps the errors of up to three attempts at a
//!   batch side by side before one reports another's; the model of two, or of one.
//! - **Lost answers of other writes.** Errors that are there are the same ones; a swap finds its own record, or
//!   one that came after it, and reads the job once more: a poll.
//! - **The look at the head after a refused write** comes with it. Whoever is slower than that, writes later.
//! - **Names.** Batches of one chunk are alike, and so are workers ([`symmetry`]).
//! - **Reads that make no difference.** A look stops reading chunks once it knows what it will do; a chunk that
//!   cannot change any more is read together with the next item.
//! - **After the end** only facts change. Where they are the subject they are explored; elsewhere the search
//!   stops at a state in which the job is over and nobody holds a head to swap in.
//! - **The upload, starting, notes of starts, erasing, the estimate's sums, the bound of kept errors, damaged
//!   items, those of other releases and the leases of sweepers** are other subjects. Every number that a write
//!   adds to is one number here ([`state::Chunk::sum`]).
//!
//! # What is promised
//!
//! [`rules`] has the promises. Most hold in every state. Some hold *once all is quiet*: no message waits and
//! nobody is at work. They do not need the sweeper. One is not promised, since a read of many items is no
//! snapshot: that the failures of a job that failed were ever past its tolerance at one moment. They were
//! past it in all.

mod check;
mod mechanisms;
mod model;
mod reductions;
mod removed;
mod requests;
mod rules;
mod state;
mod symmetry;
