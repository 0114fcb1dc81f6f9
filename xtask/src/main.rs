//! The project's own commands. See `cargo xtask --help`.

mod eta;
mod tools;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};

use crate::tools::{DynamoDbLocal, MiniStack};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Xtask {
    /// Everything: formatting, lints, unit, property, conformance and end-to-end tests, and the estimate's figures.
    Test(Test),
    /// The estimate's figures on both sets of the kit, beside what they are to be.
    Eta,
}

#[derive(Parser)]
struct Test {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, Subcommand)]
enum Part {
    /// Formatting, lints and documentation only.
    Lint,
    /// What needs nothing but cargo.
    Cargo,
}

fn main() -> ExitCode {
    let passed = match Xtask::parse() {
        Xtask::Test(Test { part: Some(Part::Lint) }) => lint(),
        Xtask::Test(Test { part: Some(Part::Cargo) }) => run("tests", &mut cargo(&TESTS)),
        Xtask::Test(Test { part: None }) => lint() && tests() && eta::check(),
        Xtask::Eta => eta::check(),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const TESTS: [&str; 5] = ["test", "--release", "--workspace", "--features", "status-core/mock"];

fn lint() -> bool {
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    let docs = ["doc", "--release", "--workspace", "--no-deps"];
    run("formatting", &mut cargo(&["fmt", "--all", "--check"]))
        && run("lints", &mut cargo(&clippy))
        && run("documentation", cargo(&docs).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Every test; those against AWS's own engine, and those of the Lambdas, if what they need can be had.
fn tests() -> bool {
    let mut command = cargo(&TESTS);
    let (mut features, mut allowed) = (vec!["--features", "status-core/mock"], true);
    let dynamodb = DynamoDbLocal::start();
    match &dynamodb {
        Ok(server) => {
            features.extend(["--features", "status-dynamo/dynamodb-local"]);
            command
                .args(["--features", "status-dynamo/dynamodb-local"])
                .env("DYNAMODB_LOCAL_URL", server.url());
        }
        Err(why) => allowed &= skipped("the tests against DynamoDB Local", why),
    }
    let ministack = MiniStack::start();
    match &ministack {
        Ok(server) => {
            features.extend(["--features", "e2e/ministack"]);
            command.args(["--features", "e2e/ministack"]).env("MINISTACK_URL", server.url());
            command.env("AWS_ENDPOINT_URL", server.url()).env("AWS_REGION", "us-east-1");
            command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        }
        Err(why) => allowed &= skipped("the tests of the Lambdas", why),
    }
    // The very features of the tests, so that everything is compiled once.
    let mut binaries = cargo(&["build", "--release", "--workspace", "--bins"]);
    binaries.args(&features);
    command.env("BOOTSTRAPS", root().join("target/release"));
    allowed && run("the Lambdas' binaries", &mut binaries) && run("tests", &mut command)
}

/// Says what is skipped, and why; that fails where `CI` is set.
fn skipped(what: &str, why: &str) -> bool {
    println!("\n── skipped: {what}: {why}");
    let allowed = env::var_os("CI").is_none();
    if !allowed {
        eprintln!("── nothing may be skipped where CI is set");
    }
    allowed
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").to_owned()
}

fn run(what: &str, command: &mut Command) -> bool {
    println!("\n── {what}: {}", shown(command));
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

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
