//! The commands, over a store that is open.

use std::path::Path;

use serde_json::json;
use status_core::{Actor, BatchState, Cancelled, Error, JobId, PageRequest, Swept, Tracker};

use crate::{
    arguments::{Arguments, Command, Range, State},
    list::{self, Listed},
    output::{Batches, Printer},
    problem::{Code, Outcome, Problem},
    store::Store,
    text::counted,
    watch,
};

/// Performs the command; gives the program's exit code.
pub(crate) async fn run(
    Arguments { global, command }: &Arguments,
    store: &Store,
    printer: &Printer,
) -> Outcome<Code> {
    let tracker = Tracker::new(store.shared());
    let said = |error: Error| store.problem(error);
    match command {
        Command::CreateTable => create_table(store, printer).await?,
        Command::List { wanted, limit, cursor } => {
            printer.jobs(&list::list(store, &tracker, wanted, limit.get(), cursor.clone()).await?)?;
        }
        Command::Show { id } => {
            let job = tracker.snapshot_now(*id).await.map_err(said)?;
            let owner = tracker.job(*id).await.map_err(said)?.owner;
            printer.job(&Listed { owner, job })?;
        }
        Command::Watch { id } => return watch::watch(store, &tracker, *id, printer, global.timeout).await,
        Command::Cancel { id, reason } => {
            let cancelled = tracker.cancel(*id, &Actor::OPERATOR, reason.clone()).await.map_err(said)?;
            let (snapshot, what) = match cancelled {
                Cancelled::Now(snapshot) => (snapshot, "is cancelled"),
                Cancelled::Requested(snapshot) => {
                    (snapshot, "will be cancelled as soon as a worker or the sweeper sees it")
                }
            };
            printer.value(&snapshot, || format!("Job {id} {what}."))?;
        }
        Command::History { id } => printer.history(&tracker.job(*id).await.map_err(said)?.history)?,
        Command::Errors { id, limit, cursor } => {
            tracker.job(*id).await.map_err(said)?;
            let page = PageRequest { limit: limit.get(), cursor: cursor.clone() };
            printer.errors(&tracker.errors(*id, &page).await.map_err(said)?)?;
        }
        Command::Missing { id, range } => {
            let batches = batches(&tracker, *id, State::Unsettled, range).await.map_err(said)?;
            printer.batches(&Batches { name: "missing", ..batches })?;
        }
        Command::Batches { id, state, range } => {
            printer.batches(&batches(&tracker, *id, *state, range).await.map_err(said)?)?;
        }
        Command::Sweep => return sweep(&tracker, store, printer).await,
        Command::Backup { file } => backup(store, file, printer).await?,
        Command::Completions { .. } | Command::Man { .. } => {}
    }
    Ok(Code::Success)
}

async fn create_table(store: &Store, printer: &Printer) -> Outcome<()> {
    match store {
        // It was made when it was opened.
        Store::Sqlite(store) => {
            let file = store.path().display();
            printer.value(&json!({ "file": file.to_string() }), || format!("The file {file} is ready."))
        }
        #[cfg(feature = "aws")]
        Store::DynamoDb(table) => {
            let created = table.store.create_table().await;
            created.map_err(|error| store.problem(error.into()))?;
            let name = table.server.name();
            printer.value(&json!({ "table": table.server.table() }), || format!("The {name} is ready."))
        }
    }
}

/// A page of the batches that are in one state, with how many there are.
async fn batches(tracker: &Tracker, id: JobId, state: State, range: &Range) -> Result<Batches, Error> {
    let (which, limit) = (BatchState::from(state), range.limit.get());
    let progress = tracker.snapshot_now(id).await?.progress.batches;
    let mut rows = tracker.batches(id, which, range.from, limit.saturating_add(1)).await?;
    let next = rows.get(limit).copied();
    rows.truncate(limit);
    let (state, in_all) = match state {
        State::Unsettled => ("unsettled", progress.pending),
        State::Completed => ("completed", Some(progress.completed)),
        State::Failed => ("failed", Some(progress.failed)),
    };
    Ok(Batches { name: "batches", state, from: range.from, rows, in_all, total: progress.total, next })
}

async fn sweep(tracker: &Tracker, store: &Store, printer: &Printer) -> Outcome<Code> {
    let swept = tracker.sweep().await.map_err(|error| store.problem(error))?;
    let Swept { looked_at, completed, failed, cancelled, errors } = swept;
    printer.value(&swept, || {
        let jobs = counted(looked_at, "job", "jobs");
        format!("Looked at {jobs}: {completed} completed, {failed} failed, {cancelled} cancelled, {errors} errors.")
    })?;
    if errors == 0 {
        return Ok(Code::Success);
    }
    let jobs = counted(errors, "job", "jobs");
    Err(Problem::error(format!("{jobs} could not be looked at; the next sweep tries again")))
}

async fn backup(store: &Store, to: &Path, printer: &Printer) -> Outcome<()> {
    let shown = to.display();
    match store {
        Store::Sqlite(from) => {
            if to.exists() {
                return Err(Problem::error(format!("{shown} exists; name a file that does not")));
            }
            from.backup(to).await.map_err(|error| store.problem(error.into()))?;
            let from = from.path().display();
            let json = json!({ "file": from.to_string(), "backup": shown.to_string() });
            printer.value(&json, || format!("{from} is copied to {shown}."))
        }
        #[cfg(feature = "aws")]
        Store::DynamoDb(_) => {
            Err(Problem::usage("backup copies SQLite files; for DynamoDB use its own point-in-time recovery"))
        }
    }
}
