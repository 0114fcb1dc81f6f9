//! The project's own commands. See `cargo xtask --help`.

mod eta;
mod first_run;
mod lambdas;
mod mutants;
mod tools;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::{Args, Parser, Subcommand};

use crate::tools::{Chromedriver, DynamoDbLocal, MiniStack};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Xtask {
    /// Everything: formatting, lints, unit, property, conformance and end-to-end tests, the estimate's figures, and a
    /// handful of planted faults.
    Test(Test),
    /// Builds the packages of the Lambdas, `target/lambdas/{splitter,caller}.zip`, as `examples/template.yaml` wants them.
    Lambdas,
    /// Plants faults in a copy of the tree, one at a time, and says which test finds each.
    Mutants(mutants::Arguments),
    /// Simulates whole systems from seeds, with a fault at any request, and checks what must hold. A failing
    /// seed is replayed, with its history, by `--from SEED --seeds 1`.
    Simulate(Simulate),
    /// Times the first build of the frontend beside that of its interface and a store alone, both from nothing.
    FirstRun,
    /// The estimate's figures on both sets of the kit, beside what they are to be.
    Eta,
}

#[derive(Args)]
struct Simulate {
    /// How many seeds.
    #[arg(long)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Which store: dynamodb, memory or sqlite.
    #[arg(long, default_value = "dynamodb")]
    store: String,
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
        Xtask::Test(Test { part: Some(Part::Cargo) }) => {
            run("tests", cargo(&TESTS).arg("--features=status-core/mock"))
        }
        Xtask::Test(Test { part: None }) => {
            lint() && first_run::check() && tests() && eta::check() && told(&mutants::check())
        }
        Xtask::Lambdas => lambdas::build(),
        Xtask::Mutants(arguments) => told(&mutants::run(&arguments)),
        Xtask::FirstRun => told(&first_run::measure()),
        Xtask::Simulate(options) => simulate(&options),
        Xtask::Eta => eta::build() && eta::check(),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether it went well; says why if not.
fn told(result: &Result<(), String>) -> bool {
    if let Err(why) = result {
        eprintln!("── {why}");
    }
    result.is_ok()
}

const TESTS: [&str; 3] = ["test", "--release", "--workspace"];
/// All of the tests' features, also where some are then skipped: what is built once serves every step.
const FEATURES: [&str; 2] =
    ["--features", "status-core/mock,status-dynamo/dynamodb-local,e2e/ministack,e2e/browser"];

fn lint() -> bool {
    let clippy = ["clippy", "--release", "--workspace", "--all-targets"];
    let docs = ["doc", "--release", "--workspace", "--no-deps"];
    run("formatting", &mut cargo(&["fmt", "--all", "--check"]))
        && run("lints", cargo(&clippy).args(FEATURES).args(["--", "-D", "warnings"]))
        && run("documentation", cargo(&docs).env("RUSTDOCFLAGS", "-D warnings"))
        && lambdas::check_template()
}

/// Every test; those against AWS's own engine, of the Lambdas and in a browser, if what they need can be had.
fn tests() -> bool {
    let (mut features, mut tests, mut allowed) = (vec!["--features=status-core/mock"], cargo(&TESTS), true);
    let dynamodb = DynamoDbLocal::start();
    match &dynamodb {
        Ok(server) => {
            features.push("--features=status-dynamo/dynamodb-local");
            tests.env("DYNAMODB_LOCAL_URL", server.url());
            // MiniStack stands in for all of AWS but DynamoDB: its own accepts what AWS refuses.
            tests.env("AWS_ENDPOINT_URL_DYNAMODB", server.url());
        }
        Err(why) => allowed &= skipped("the tests against DynamoDB Local", why),
    }
    let ministack = dynamodb.as_ref().map_err(Clone::clone).and_then(|_| MiniStack::start());
    match &ministack {
        Ok(server) => {
            features.push("--features=e2e/ministack");
            tests.env("MINISTACK_URL", server.url()).env("BOOTSTRAPS", lambdas::folder());
            tests.env("AWS_ENDPOINT_URL", server.url()).env("AWS_REGION", "us-east-1");
            tests.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        }
        Err(why) => allowed &= skipped("the tests of the Lambdas", why),
    }
    let browser = Chromedriver::start().and_then(|driver| Ok((driver, tools::axe()?)));
    match &browser {
        Ok((driver, axe)) => {
            features.push("--features=e2e/browser");
            tests.env("CHROMEDRIVER_URL", driver.url()).env("AXE", axe);
        }
        Err(why) => allowed &= skipped("the tests in a browser", why),
    }
    let lambdas = || lambdas::build() && lambdas::build_release();
    allowed && (ministack.is_err() || lambdas()) && run("tests", tests.args(&features))
}

fn simulate(Simulate { seeds, from, store }: &Simulate) -> bool {
    let mut simulate =
        cargo(&["run", "--quiet", "--release", "--package", "simulation", "--bin", "simulate", "--"]);
    simulate.args(["--seeds", &seeds.to_string(), "--from", &from.to_string(), "--store", store]);
    run("simulation", &mut simulate)
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

/// Where cargo builds.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
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
