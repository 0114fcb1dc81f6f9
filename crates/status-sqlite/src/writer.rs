//! The one that writes: a thread with the only connection that does.
//!
//! All writes that wait at one moment become one transaction, so that one wait for the disk serves
//! all of them. Each of several is in a savepoint of its own: one that fails takes no other with
//! it. Callers are answered when the transaction is on the disk, not before.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ffi};
use status_core::JobId;
use tokio::sync::oneshot;

use crate::{failure::Failure, watchers::Watchers};

/// The most writes in one transaction: what the first of them waits for the others is some
/// milliseconds.
const MOST_IN_ONE: usize = 256;
/// While anybody watches, how often the writer looks for commits of other processes.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The way to the thread. When it is dropped, the thread finishes what it has been given, and ends.
#[derive(Debug)]
pub(crate) struct Writer {
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    commits: Arc<AtomicU64>,
}

enum Message {
    Write(Box<dyn Task>),
    /// Somebody has begun to watch.
    Watch,
}

impl Writer {
    pub(crate) fn start(connection: Connection, watchers: Arc<Watchers>) -> io::Result<Self> {
        let (messages, inbox) = mpsc::channel();
        let commits = Arc::new(AtomicU64::new(0));
        let thread = Thread { connection, inbox, watchers, commits: commits.clone(), seen: None };
        let thread = thread::Builder::new().name("status-sqlite".into()).spawn(move || thread.run())?;
        Ok(Self { messages: Some(messages), thread: Some(thread), commits })
    }

    /// Runs `work` in a transaction; gives its answer when that is on the disk. Wakes those who
    /// watch `touched`.
    ///
    /// The work may be done more than once, the last time counts. A caller that stops waiting does
    /// not stop it.
    pub(crate) async fn write<T, F>(&self, touched: Option<JobId>, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let write = Write { work, result: None, reply, touched };
        self.send(Message::Write(Box::new(write)))?;
        answer.await.map_err(|_| Failure::Ended)?
    }

    /// Makes the writer look for what other processes write, as long as anybody watches.
    pub(crate) fn watch(&self) {
        // Where the thread has ended, nothing changes any more.
        let _ = self.send(Message::Watch);
    }

    /// How many transactions have changed anything.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn send(&self, message: Message) -> Result<(), Failure> {
        let messages = self.messages.as_ref().ok_or(Failure::Ended)?;
        messages.send(message).map_err(|_| Failure::Ended)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes to the database has panicked");
        }
    }
}

/// One write that waits.
trait Task: Send {
    /// Does the work; whether what it changed is to be kept.
    fn run(&mut self, connection: &Connection) -> bool;
    fn touched(&self) -> Option<JobId>;
    /// Tells the caller, once it is known whether the transaction is on the disk.
    fn answer(self: Box<Self>, committed: Result<(), &rusqlite::Error>);
}

struct Write<T, F> {
    work: F,
    /// What came of it, the last time it was done.
    result: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
    touched: Option<JobId>,
}

impl<T, F> Task for Write<T, F>
where
    T: Send,
    F: Fn(&Connection) -> Result<T, Failure> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        // Whatever a panic left half-done is rolled back.
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(connection)));
        let result = result.unwrap_or_else(|panic| Err(Failure::panicked(&*panic)));
        self.result.insert(result).is_ok()
    }

    fn touched(&self) -> Option<JobId> {
        self.touched
    }

    fn answer(self: Box<Self>, committed: Result<(), &rusqlite::Error>) {
        let result = match (self.result, committed) {
            // Also of what failed: it may have failed by what another one did that is undone now.
            (_, Err(of_all)) => Err(Failure::shared(of_all)),
            (Some(Err(own)), Ok(())) => Err(own),
            (Some(Ok(answer)), Ok(())) => Ok(answer),
            (None, Ok(())) => Err(Failure::Ended),
        };
        // A caller that has gone away is told nothing.
        let _ = self.reply.send(result);
    }
}

/// What the thread has.
struct Thread {
    connection: Connection,
    inbox: Receiver<Message>,
    watchers: Arc<Watchers>,
    commits: Arc<AtomicU64>,
    /// When the writer last looked for commits of others, and what it saw.
    seen: Option<(Instant, i64)>,
}

impl Thread {
    fn run(mut self) {
        loop {
            let watched = !self.watchers.is_empty();
            let message = if watched {
                self.inbox.recv_timeout(LOOK_EVERY)
            } else {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match message {
                Ok(Message::Write(first)) => self.write(first),
                Ok(Message::Watch) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_for_others();
        }
    }

    /// Does all writes that wait.
    fn write(&mut self, first: Box<dyn Task>) {
        let mut waiting = VecDeque::from([first]);
        while waiting.len() < MOST_IN_ONE {
            match self.inbox.try_recv() {
                Ok(Message::Write(next)) => waiting.push_back(next),
                Ok(Message::Watch) => {}
                Err(_) => break,
            }
        }
        while !waiting.is_empty() {
            let mut done = Vec::with_capacity(waiting.len());
            let before = self.connection.total_changes();
            let committed = self.transaction(&mut waiting, &mut done);
            if committed.is_ok() {
                if self.connection.total_changes() != before {
                    self.commits.fetch_add(1, Ordering::Relaxed);
                }
                done.iter().filter_map(|task| task.touched()).for_each(|id| self.watchers.wake(id));
            }
            for task in done {
                task.answer(committed.as_ref().map(|_| ()));
            }
        }
    }

    /// Does writes in one transaction: all that wait, unless one of them ends it.
    fn transaction(
        &self,
        waiting: &mut VecDeque<Box<dyn Task>>,
        done: &mut Vec<Box<dyn Task>>,
    ) -> rusqlite::Result<()> {
        if let Err(error) = self.execute("BEGIN IMMEDIATE") {
            done.extend(waiting.drain(..));
            return Err(error);
        }
        let is_alone = waiting.len() == 1;
        while let Some(mut task) = waiting.pop_front() {
            let result = if is_alone { self.alone(&mut *task) } else { self.savepoint(&mut *task) };
            done.push(task);
            let is_kept = match result {
                Ok(is_kept) => is_kept,
                Err(error) => return self.roll_back().and(Err(error)),
            };
            if self.connection.is_autocommit() {
                // SQLite has rolled back everything, as it may where it finds the disk full. The
                // others are done again, without the one that failed.
                let last = done.pop();
                done.drain(..).rev().for_each(|task| waiting.push_front(task));
                done.extend(last);
                // What it failed at may be something it did not need. What it did is undone.
                return if is_kept { Err(rolled_back()) } else { Ok(()) };
            }
        }
        let committed = self.execute("COMMIT");
        if committed.is_err() { self.roll_back().and(committed) } else { committed }
    }

    fn roll_back(&self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() { Ok(()) } else { self.execute("ROLLBACK") }
    }

    /// Does a write that has the transaction for itself; whether it is kept.
    fn alone(&self, task: &mut dyn Task) -> rusqlite::Result<bool> {
        let is_kept = task.run(&self.connection);
        if !is_kept {
            self.roll_back()?;
        }
        Ok(is_kept)
    }

    /// Does one of several writes; whether it is kept.
    fn savepoint(&self, task: &mut dyn Task) -> rusqlite::Result<bool> {
        self.execute("SAVEPOINT task")?;
        let is_kept = task.run(&self.connection);
        if self.connection.is_autocommit() {
            return Ok(is_kept);
        }
        if !is_kept {
            self.execute("ROLLBACK TO task")?;
        }
        self.execute("RELEASE task")?;
        Ok(is_kept)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Wakes everybody who watches if another connection has committed anything since the last
    /// look.
    fn look_for_others(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let now = Instant::now();
        let before = self.seen;
        if before.is_some_and(|(at, _)| now.duration_since(at) < LOOK_EVERY) {
            return;
        }
        match self.connection.pragma_query_value(None, "data_version", |row| row.get(0)) {
            Ok(version) => {
                self.seen = Some((now, version));
                if before.is_some_and(|(_, seen)| seen != version) {
                    self.watchers.wake_all();
                }
            }
            Err(error) => tracing::debug!(%error, "the writer cannot look for commits of others"),
        }
    }
}

fn rolled_back() -> rusqlite::Error {
    let undone = "the transaction was rolled back".to_owned();
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK), Some(undone))
}

#[cfg(test)]
mod tests {
    use futures::{future::join_all, poll};

    use super::*;
    use crate::failure;

    /// A writer over an empty table of numbers, which grows to at most `pages` pages.
    fn writer(pages: u32) -> (Writer, Connection, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("numbers.db");
        let connection = Connection::open(&path).expect("it opens");
        let setup = format!(
            "PRAGMA journal_mode = WAL; PRAGMA max_page_count = {pages};
             PRAGMA foreign_keys = ON;
             CREATE TABLE numbers (n INTEGER PRIMARY KEY, filling BLOB);
             CREATE TABLE parts (of INTEGER REFERENCES numbers DEFERRABLE INITIALLY DEFERRED);"
        );
        connection.execute_batch(&setup).expect("set up");
        let writer = Writer::start(connection, Arc::default()).expect("it starts");
        (writer, Connection::open(&path).expect("it opens"), folder)
    }

    fn insert(connection: &Connection, number: u32, bytes: usize) -> Result<u32, Failure> {
        let insert = "INSERT INTO numbers VALUES (?1, zeroblob(?2))";
        connection.execute(insert, rusqlite::params![number, bytes])?;
        Ok(number)
    }

    fn numbers(connection: &Connection) -> Vec<u32> {
        let mut numbers = connection.prepare("SELECT n FROM numbers ORDER BY n").expect("a query");
        let numbers = numbers.query_map([], |row| row.get(0));
        numbers.and_then(Iterator::collect).expect("numbers")
    }

    /// Runs writes that are in one transaction: the first waits until all are in the queue.
    async fn together(writer: &Writer, writes: Vec<(u32, usize)>) -> Vec<Result<u32, Failure>> {
        let (release, released) = mpsc::channel::<()>();
        let mut first = std::pin::pin!(writer.write(None, move |_| {
            let _ = released.recv();
            Ok(0)
        }));
        assert!(poll!(&mut first).is_pending());
        let writes = writes.into_iter().map(|(number, bytes)| {
            writer.write(None, move |connection| match number {
                99 => panic!("number 99"),
                // What it failed at, and undid everything, it did not need.
                96 => insert(connection, 96, 1)
                    .inspect(|_| connection.execute_batch("ROLLBACK").expect("in a transaction")),
                // Nothing is wrong before the commit.
                97 => Ok(connection.execute("INSERT INTO parts VALUES (97)", []).map(|_| 97)?),
                98 => insert(connection, 98, 1).and(Err(status_core::StoreError::InvalidCursor.into())),
                _ => insert(connection, number, bytes),
            })
        });
        let mut writes = std::pin::pin!(join_all(writes));
        assert!(poll!(&mut writes).is_pending());
        drop(release);
        // It does nothing, and may be in the same transaction.
        let _ = first.await;
        writes.await
    }

    #[tokio::test]
    async fn writes_that_wait_together_share_a_commit_and_fail_alone() {
        let (writer, connection, _folder) = writer(1_000);
        let answers = together(&writer, [1, 98, 2, 99, 3].map(|number| (number, 1)).into()).await;
        assert!(matches!(answers[1], Err(Failure::Store(_))), "{:?}", answers[1]);
        assert!(matches!(&answers[3], Err(Failure::Panicked(why)) if why == "number 99"), "{:?}", answers[3]);
        assert!([0, 2, 4].iter().all(|at| answers[*at].is_ok()), "{answers:?}");
        assert_eq!((numbers(&connection), writer.commits()), (vec![1, 2, 3], 1));
    }

    #[tokio::test]
    async fn nobody_is_told_what_follows_from_a_transaction_that_was_undone() {
        let (writer, connection, _folder) = writer(1_000);
        let answers = together(&writer, [1, 97, 98].map(|number| (number, 1)).into()).await;
        let is_of_all = |answer: &Result<u32, Failure>| !matches!(answer, Ok(_) | Err(Failure::Store(_)));
        assert!(answers.iter().all(is_of_all), "{answers:?}");
        assert!(numbers(&connection).is_empty());
    }

    #[tokio::test]
    async fn what_is_undone_unnoticed_is_not_acknowledged() {
        let (writer, connection, _folder) = writer(1_000);
        let answers = together(&writer, [1, 96, 2].map(|number| (number, 1)).into()).await;
        let is_acknowledged: Vec<_> = answers.iter().map(Result::is_ok).collect();
        assert_eq!((is_acknowledged, numbers(&connection)), (vec![true, false, true], vec![1, 2]));
        let alone = writer.write(None, |connection| {
            insert(connection, 3, 1)
                .inspect(|_| connection.execute_batch("ROLLBACK").expect("in a transaction"))
        });
        assert!(alone.await.is_err());
    }

    #[tokio::test]
    async fn a_write_that_finds_the_disk_full_fails_alone() {
        let (writer, connection, _folder) = writer(10);
        let answers = together(&writer, vec![(1, 1), (2, 1 << 20), (3, 1)]).await;
        let told: Vec<u32> = answers.iter().filter_map(|answer| answer.as_ref().ok()).copied().collect();
        assert_eq!((&told, numbers(&connection)), (&vec![1, 3], told.clone()));
        let full = answers.into_iter().nth(1).and_then(Result::err).expect("no room for a megabyte");
        let full = full.of("report", "job 1".into());
        let source = std::error::Error::source(&full).expect("why").to_string();
        assert!(source.contains("free space"), "{source}");
        assert_eq!(writer.write(None, |connection| insert(connection, 4, 1)).await.expect("room for it"), 4);
    }

    #[tokio::test]
    async fn what_waits_for_another_process_too_long_is_told_to_try_again() {
        let (writer, mut connection, _folder) = writer(1_000);
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        let transaction = transaction.expect("the lock");
        let busy = writer.write(None, |connection| insert(connection, 1, 1)).await.expect_err("it is locked");
        let busy = busy.of("report", failure::job(JobId::new(status_core::Timestamp::UNIX_EPOCH)));
        assert!(matches!(busy, status_core::StoreError::Throttled { .. }), "{busy:?}");
        transaction.finish().expect("the lock is free");
        writer.write(None, |connection| insert(connection, 1, 1)).await.expect("and now");
    }

    #[tokio::test]
    async fn what_was_asked_for_is_done_before_the_writer_ends() {
        let (writer, connection, _folder) = writer(1_000);
        for number in 0..100 {
            let write = std::pin::pin!(writer.write(None, move |connection| insert(connection, number, 1)));
            assert!(poll!(write).is_pending(), "a caller that does not wait");
        }
        drop(writer);
        assert_eq!(numbers(&connection).len(), 100);
    }
}
