//! The project's own commands. See `cargo xtask --help`.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Xtask {
    /// Everything: formatting, lints, unit, property, conformance, Lambda end-to-end and browser tests.
    #[command(subcommand_required = false)]
    Test(Test),
}

#[derive(Parser)]
struct Test {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, Subcommand)]
enum Part {
    /// Formatting and lints only.
    Lint,
    /// What needs nothing but cargo.
    Cargo,
}

fn main() -> ExitCode {
    let Xtask::Test(test) = Xtask::parse();
    let passed = match test.part {
        Some(Part::Lint) => lint(),
        Some(Part::Cargo) => tests(),
        None => lint() && tests(),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn lint() -> bool {
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    let docs = ["doc", "--release", "--workspace", "--no-deps"];
    run("formatting", cargo(&["fmt", "--all", "--check"]))
        && run("lints", cargo(&clippy))
        && run("documentation", cargo(&docs).env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> bool {
    run("tests", cargo(&["test", "--release", "--workspace", "--features", "status-core/mock"]))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").to_owned()
}

fn run(what: &str, command: impl std::borrow::BorrowMut<Command>) -> bool {
    let mut command = command;
    let command = command.borrow_mut();
    println!("\n── {what}: {command:?}");
    match command.status() {
        Ok(status) if status.success() => true,
        Ok(status) => {
            eprintln!("── {what} failed: {status}");
            false
        }
        Err(error) => {
            eprintln!("── {what} could not be run: {error}");
            false
        }
    }
}
