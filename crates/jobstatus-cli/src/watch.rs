//! Following a job to its end, whatever happens to the connection meanwhile.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};
use status_core::{Error, JobId, Snapshot, Status, Tracker};
use tokio::time::{MissedTickBehavior, error::Elapsed, interval, timeout};

use crate::{
    list::Listed,
    output::{Printer, line_of, span},
    problem::{Code, Outcome, Problem},
    screen::Screen,
    store::Store,
};

/// The store is read at least this often: a change is seen within that time.
const READ_EVERY: Duration = Duration::from_millis(500);
/// The store is read at most this often, however many batches settle.
const PAUSE: Duration = Duration::from_millis(200);
/// An answer that takes longer than this is said to be missing.
const SILENCE: Duration = Duration::from_secs(3);
/// A read that takes longer than this is begun anew: by then a new connection is the better way.
const ANSWER: Duration = Duration::from_secs(5);
/// How often the screen is compared with the terminal's size.
const TICK: Duration = Duration::from_millis(200);

/// Follows the job until it is over; the exit code says how it ended. Goes on for `patience` while the
/// store does not answer.
pub(crate) async fn watch(
    store: &Store,
    tracker: &Tracker,
    id: JobId,
    printer: &Printer,
    patience: Duration,
) -> Outcome<Code> {
    let owner = tracker.job(id).await.map_err(|error| store.problem(error))?.owner;
    let first = tracker.snapshot(id).await.map_err(|error| store.problem(error))?;
    store.be_quiet();
    let mut view = View::new(printer)?;
    view.show(&first)?;
    let mut link = Link { heard: Instant::now(), is_lost: false, patience };
    let mut last = first;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = interrupted(&view);
    let mut reading = read(store, tracker, &last);
    while !last.status.is_terminal() {
        tokio::select! {
            biased;
            () = &mut interrupted => return Ok(Code::Interrupted),
            read_now = &mut reading => {
                match read_now {
                    Err(_) => link.is_silent(&mut view)?,
                    // One that is older than the last was read from a replica that is behind.
                    Ok(Ok(snapshot)) => {
                        link.is_heard(&mut view)?;
                        if snapshot.covers(&last.token()) {
                            view.show(&snapshot)?;
                            last = snapshot;
                        }
                    }
                    Ok(Err(error)) => link.is_broken(store.problem(error), &mut view)?,
                }
                reading = read(store, tracker, &last);
            }
            _ = ticks.tick() => {
                if link.heard.elapsed() > SILENCE + READ_EVERY {
                    link.is_silent(&mut view)?;
                }
                view.redraw()?;
            }
        }
    }
    view.end();
    if printer.can_draw() {
        printer.job(&Listed { owner, job: last.clone() })?;
    }
    Ok(match last.status {
        Status::Failed => Code::JobFailed,
        Status::Cancelled => Code::JobCancelled,
        _ => Code::Success,
    })
}

/// The next snapshot: when something has changed, or after a while.
fn read<'a>(
    store: &Store,
    tracker: &'a Tracker,
    last: &Snapshot,
) -> BoxFuture<'a, Result<Result<Snapshot, Error>, Elapsed>> {
    let (store, id, version) = (store.shared(), last.id, last.version);
    async move {
        tokio::join!(store.changed(id, version, READ_EVERY), tokio::time::sleep(PAUSE));
        timeout(ANSWER, tracker.snapshot(id)).await
    }
    .boxed()
}

/// Whether the store answers.
struct Link {
    heard: Instant,
    is_lost: bool,
    /// How long it may not.
    patience: Duration,
}

impl Link {
    fn is_heard(&mut self, view: &mut View<'_>) -> Outcome<()> {
        self.heard = Instant::now();
        if std::mem::take(&mut self.is_lost) {
            view.say(None)?;
        }
        Ok(())
    }

    /// A read failed: for good, or it is tried again for a while.
    fn is_broken(&mut self, problem: Problem, view: &mut View<'_>) -> Outcome<()> {
        if !problem.is_passing() || self.heard.elapsed() >= self.patience {
            return Err(problem);
        }
        self.is_silent(view)
    }

    fn is_silent(&mut self, view: &mut View<'_>) -> Outcome<()> {
        if self.heard.elapsed() >= self.patience {
            let time = span(self.patience);
            return Err(Problem::unreachable(format!(
                "connection lost: no answer for {time}; the job may go on: watch it again"
            )));
        }
        if !std::mem::replace(&mut self.is_lost, true) {
            view.say(Some(&format!("connection lost, retrying for {}", span(self.patience))))?;
        }
        Ok(())
    }
}

/// Where the job is shown.
enum View<'a> {
    Screen(Box<Screen>),
    /// A line for each change.
    Lines {
        printer: &'a Printer,
        last: String,
    },
}

impl<'a> View<'a> {
    fn new(printer: &'a Printer) -> Outcome<Self> {
        Ok(match printer.can_draw() {
            true => Self::Screen(Box::new(Screen::open()?)),
            false => Self::Lines { printer, last: String::new() },
        })
    }

    fn show(&mut self, job: &Snapshot) -> Outcome<()> {
        match self {
            Self::Screen(screen) => screen.show(job)?,
            Self::Lines { printer, last } => {
                let line = line_of(job);
                if printer.is_json() {
                    let token = job.token().to_string();
                    if *last != token {
                        printer.json_line(job)?;
                        *last = token;
                    }
                } else if *last != line {
                    let at = status_core::Timestamp::now();
                    printer.line(&format!("{at:.0}\t{line}"))?;
                    *last = line;
                }
            }
        }
        Ok(())
    }

    /// Says what stands in the way; `None` when nothing does any more.
    fn say(&mut self, what: Option<&str>) -> Outcome<()> {
        match self {
            Self::Screen(screen) => screen.say(what)?,
            Self::Lines { printer, .. } => printer.notice(what.unwrap_or("connected again")),
        }
        Ok(())
    }

    fn redraw(&mut self) -> Outcome<()> {
        match self {
            Self::Screen(screen) => Ok(screen.fit()?),
            Self::Lines { .. } => Ok(()),
        }
    }

    fn end(self) {
        drop(self);
    }
}

/// When somebody ends the program. Only a screen needs to be left in order.
fn interrupted(view: &View<'_>) -> BoxFuture<'static, ()> {
    match view {
        View::Lines { .. } => pending().boxed(),
        View::Screen(_) => ended().boxed(),
    }
}

#[cfg(unix)]
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(not(unix))]
async fn ended() {
    if tokio::signal::ctrl_c().await.is_err() {
        pending().await
    }
}
