//! The program `jobstatus`: the operator's command line over the jobs in a SQLite file or a DynamoDB
//! table. `jobstatus --help` is its manual; this library has the program in it and nothing to call
//! besides.
//!
//! What it guarantees:
//!
//! - It changes nothing unless told so (`create-table`, `cancel`, `sweep`, `backup`), and makes no file
//!   by reading one that is not there.
//! - It does not wait longer than `--timeout` for a server that does not answer.
//! - Titles and messages come from users: none of their control characters reaches the terminal.
//! - Standard output holds results alone: rows in a pipe, one JSON value with `--json`. What the program
//!   has to say about them goes to standard error.

mod arguments;
#[cfg(feature = "aws")]
mod aws;
mod commands;
mod list;
mod output;
mod place;
mod problem;
mod screen;
mod store;
mod table;
mod text;
mod watch;

use std::{env, process::ExitCode};

use clap::{CommandFactory, Parser};

use crate::{
    arguments::{Arguments, Command},
    output::Printer,
    place::Place,
    problem::{Code, Outcome, Problem},
    store::Store,
};

/// Runs the program with the process's arguments; gives its exit code.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refused(&error),
    };
    let printer = Printer::new(arguments.global.json);
    match perform(arguments, &printer) {
        // Whoever reads the output has seen enough.
        Err(Problem::BrokenPipe) => ExitCode::SUCCESS,
        Ok(code) => code.into(),
        Err(Problem::Said { code, message, .. }) => {
            printer.problem(code, &message);
            code.into()
        }
    }
}

/// Says what is wrong with the arguments, or shows the help that they ask for.
fn refused(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && env::args_os().any(|argument| argument == "--json") {
        let message = error.render().to_string();
        let message = message.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        Printer::new(true).problem(Code::Usage, message);
        return Code::Usage.into();
    }
    // A pipe that nobody reads any more.
    let _ = error.print();
    if error.use_stderr() { Code::Usage.into() } else { ExitCode::SUCCESS }
}

fn perform(arguments: Arguments, printer: &Printer) -> Outcome<Code> {
    match arguments.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "jobstatus", &mut script);
            printer.bytes(&script)?;
            return Ok(Code::Success);
        }
        Command::Man { folder: Some(folder) } => {
            clap_mangen::generate_to(Arguments::command(), &folder).map_err(|error| {
                Problem::usage(format!("the manual cannot be written to {}: {error}", folder.display()))
            })?;
            return Ok(Code::Success);
        }
        Command::Man { folder: None } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            printer.bytes(&page)?;
            return Ok(Code::Success);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(over_a_store(&arguments, printer));
    // A name server that does not answer holds up a thread of the runtime, not the program.
    runtime.shutdown_background();
    done
}

async fn over_a_store(arguments: &Arguments, printer: &Printer) -> Outcome<Code> {
    match Place::of(&arguments.global)? {
        Place::Sqlite(path) => {
            let makes = matches!(arguments.command, Command::CreateTable);
            let store = Store::Sqlite(store::open_file(&path, makes).await?);
            commands::run(arguments, &store, printer).await
        }
        #[cfg(feature = "aws")]
        Place::DynamoDb(table) => aws::run(arguments, &table, printer).await,
        #[cfg(not(feature = "aws"))]
        Place::DynamoDb(table) => Err(place::without_aws(&table)),
    }
}
