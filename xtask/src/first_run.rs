//! What a newcomer's first command builds, and that it runs: `cargo run --release -p frontend`.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::{cargo, run, target, told, tools};

/// More would be noticed while one waits for the first page.
const MOST_CRATES: usize = 200;
/// How many times as long as its interface and a store alone the frontend may take to build.
const MOST_TIMES: f64 = 3.0;
/// What only those need who ask for it.
const NOT_AMONG_THEM: [&str; 4] = ["aws-", "dynoxide", "regex-automata", "aws_lambda_events"];

/// Builds the frontend as the README says: without AWS, which it then says when it is asked for it.
pub(crate) fn check() -> bool {
    let build = || run("the first run", &mut cargo(&["build", "--release", "--package", "frontend"]));
    told(&crates()) && build() && told(&says_how_to_get_aws())
}

/// Builds the frontend, and its interface and a store alone, each from nothing.
pub(crate) fn measure() -> Result<(), String> {
    tools::output(&mut cargo(&["fetch", "--locked"]))?;
    let alone = built(&["status-http", "status-memory"])?;
    let frontend = built(&["frontend"])?;
    let times = frontend.as_secs_f64() / alone.as_secs_f64();
    println!("── {times:.2} times as long");
    if times > MOST_TIMES { Err(format!("it may be {MOST_TIMES}")) } else { Ok(()) }
}

fn built(packages: &[&str]) -> Result<Duration, String> {
    let folder = target().join("first-run");
    let remove = || match fs::remove_dir_all(&folder) {
        Err(error) if folder.exists() => Err(format!("{}: {error}", folder.display())),
        _ => Ok(()),
    };
    remove()?;
    let mut build = cargo(&["build", "--release", "--offline"]);
    build.args(packages.iter().flat_map(|package| ["--package", package])).arg("--target-dir").arg(&folder);
    let begun = Instant::now();
    let done = run("from nothing", &mut build);
    let took = begun.elapsed();
    remove()?;
    println!("── {}: {:.0} s", packages.join(" and "), took.as_secs_f64());
    if done { Ok(took) } else { Err("it does not build".into()) }
}

fn crates() -> Result<(), String> {
    let tree = ["tree", "--package", "frontend", "--edges", "normal,build", "--prefix", "none"];
    let tree = tools::output(&mut cargo(&tree))?;
    // Each line is a name, a version, and whether its own were listed before.
    let crates: BTreeSet<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    println!("── the first run builds {} crates", crates.len());
    if crates.len() > MOST_CRATES {
        return Err(format!("the first run builds {} crates, and may build {MOST_CRATES}", crates.len()));
    }
    match crates.iter().find(|name| NOT_AMONG_THEM.iter().any(|prefix| name.starts_with(prefix))) {
        Some(name) => Err(format!("the first run builds {name}")),
        None => Ok(()),
    }
}

fn says_how_to_get_aws() -> Result<(), String> {
    let mut frontend = Command::new(target().join("release/frontend"));
    let asked = tools::output(frontend.args(["--store", "dynamodb", "--table", "jobs"]));
    match asked {
        Err(said) if said.contains("--features aws") => Ok(()),
        answer => Err(format!("asked for DynamoDB, a frontend without AWS says {answer:?}")),
    }
}
