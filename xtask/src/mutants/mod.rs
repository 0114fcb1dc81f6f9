//! Faults planted on purpose: each is one line of the product changed on a copy of the tree, and a test
//! that has to fail with it. A claim is worth what its strongest test is worth.

mod list;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;

use crate::{FEATURES, cargo, root, target, tools};

/// One line, changed.
pub(crate) struct Mutant {
    /// What the product does wrong with it, as the rest of a sentence: "… counts a batch twice".
    pub(crate) what: &'static str,
    pub(crate) file: &'static str,
    /// Stands in the file exactly once.
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    /// The tests one of which has to fail, tried in this order.
    pub(crate) found_by: &'static [Finder],
}

/// A test target, and which of its tests.
#[derive(Clone, Copy)]
pub(crate) struct Finder {
    pub(crate) target: Target,
    /// A part of the tests' names; all of them if empty.
    pub(crate) tests: &'static str,
}

/// A target of `cargo test`.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// `--test` of this name.
    Test(&'static str),
    /// The unit tests of a package.
    Lib(&'static str),
}

#[derive(Args, Default)]
pub(crate) struct Arguments {
    /// Only those whose description or file contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only every nth of them.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Not the first so many of them: those an earlier run has been through with.
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// Lists them, and does nothing.
    #[arg(long)]
    list: bool,
}

/// Plants a handful.
pub(crate) fn check() -> Result<(), String> {
    run(&Arguments { every: 25, ..Arguments::default() })
}

/// Plants each fault in turn and says which test found it; an error names those that nobody found.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let chosen = list::MUTANTS
        .iter()
        .filter(|m| m.what.contains(arguments.only.as_str()) || m.file.contains(arguments.only.as_str()));
    let chosen: Vec<_> = chosen.step_by(arguments.every.max(1)).skip(arguments.skip).collect();
    if arguments.list {
        chosen.iter().for_each(|mutant| println!("{}: {}", mutant.file, mutant.what));
        println!("{} faults", chosen.len());
        return Ok(());
    }
    println!("\n── planting {} faults", chosen.len());
    let tree = copied_tree()?;
    let (begun, mut missed) = (Instant::now(), Vec::new());
    for mutant in &chosen {
        let planted = Instant::now();
        let found = tree.find(mutant);
        let seconds = planted.elapsed().as_secs();
        match &found {
            Ok(Some(by)) => println!("found in {seconds:>3} s by {by}: {}", mutant.what),
            Ok(None) => println!("NOT FOUND in {seconds} s: {} ({})", mutant.what, mutant.file),
            Err(why) => println!("NOT PLANTED: {} ({}): {why}", mutant.what, mutant.file),
        }
        if !matches!(found, Ok(Some(_))) {
            missed.push(mutant.what);
        }
    }
    println!(
        "── {} of {} faults found in {} s",
        chosen.len() - missed.len(),
        chosen.len(),
        begun.elapsed().as_secs()
    );
    if missed.is_empty() { Ok(()) } else { Err(format!("nobody found: {}", missed.join("; "))) }
}

/// A copy of the tree, to be broken.
struct Tree(PathBuf);

/// Copies what is under version control, as it is now. What has not changed keeps its time, so that cargo
/// builds only what a fault touches.
fn copied_tree() -> Result<Tree, String> {
    let folder = root().join("target/mutants");
    let files = tools::output(
        Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()),
    )?;
    for file in files.lines() {
        let (from, to) = (root().join(file), folder.join(file));
        let Ok(content) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        let parent = to.parent().ok_or("a file without a folder")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&to, content))
            .map_err(|e| format!("{}: {e}", to.display()))?;
    }
    let kept = files.lines().map(|file| folder.join(file)).collect();
    remove_others(&folder, &kept).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(Tree(folder))
}

/// What an earlier copy had and the tree has no longer is no part of it.
fn remove_others(folder: &Path, kept: &HashSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

impl Tree {
    /// Plants a fault, runs the tests that should find it, and takes it out again; the one that did.
    fn find(&self, mutant: &Mutant) -> Result<Option<String>, String> {
        let path = self.0.join(mutant.file);
        let sound = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", mutant.file))?;
        if sound.matches(mutant.from).count() != 1 {
            return Err(format!("{}: {:?} does not stand there exactly once", mutant.file, mutant.from));
        }
        let write = |text: &str| fs::write(&path, text).map_err(|error| format!("{}: {error}", mutant.file));
        write(&sound.replacen(mutant.from, mutant.to, 1))?;
        let found = mutant.found_by.iter().try_fold(None, |found, finder| match found {
            Some(found) => Ok(Some(found)),
            None => self.finds(*finder),
        });
        write(&sound)?;
        found
    }

    fn finds(&self, finder: Finder) -> Result<Option<String>, String> {
        // All features and packages, so that dependencies are built once for all tests.
        let test = || {
            let mut test = cargo(&["test", "--release", "--workspace", "--quiet"]);
            // Dependencies are those that the tree has built.
            test.args(FEATURES).current_dir(&self.0).env("CARGO_TARGET_DIR", target());
            // A fault is as wrong where it is slow, and compiles in a fifth of the time. It also tells cargo the
            // copy's crates from the tree's: all of them depend on one of these or are among them, so that nothing
            // that was built of a broken one is ever taken for sound.
            for package in UNOPTIMISED {
                test.arg("--config").arg(format!("profile.release.package.{package}.opt-level=0"));
            }
            match finder.target {
                Target::Test(name) => test.args(["--test", name]),
                Target::Lib(package) => test.args(["--lib", "--package", package]),
            };
            test.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            test
        };
        tools::output(test().arg("--no-run")).map_err(|error| format!("it does not compile: {error}"))?;
        let name = match finder.target {
            Target::Test(name) | Target::Lib(name) => name,
        };
        let mut run = test();
        run.args(["--", finder.tests]);
        let found = match end_of(&mut run)? {
            End::Passed => None,
            End::Failed => Some(""),
            End::Hung => Some(", which hung"),
        };
        Ok(found.map(|how| format!("{name} {}{how}", finder.tests)))
    }
}

/// What faults are planted in, and what tests them.
const UNOPTIMISED: [&str; 6] =
    ["status-core", "status-dynamo", "status-memory", "status-testkit", "jobstatus-cli", "hostile"];

/// A test that takes longer hangs.
const LONGEST_TEST: Duration = Duration::from_secs(300);

enum End {
    Passed,
    Failed,
    Hung,
}

fn end_of(test: &mut Command) -> Result<End, String> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(test, 0);
    let mut child = test.spawn().map_err(|error| error.to_string())?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(if status.success() { End::Passed } else { End::Failed });
        }
        if begun.elapsed() > LONGEST_TEST {
            // With all that it has started, where they are told as one.
            let group = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status();
            if !group.is_ok_and(|killed| killed.success()) {
                let _ = child.kill();
            }
            let _ = child.wait();
            return Ok(End::Hung);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_still_be_planted() {
        for mutant in list::MUTANTS {
            let text = fs::read_to_string(root().join(mutant.file)).expect(mutant.file);
            assert_eq!(text.matches(mutant.from).count(), 1, "{}: {:?}", mutant.file, mutant.from);
            assert_ne!(mutant.from, mutant.to, "{}", mutant.what);
        }
        assert!(list::MUTANTS.len() >= 60, "{} faults", list::MUTANTS.len());
    }
}
