//! The estimate's figures on both sets of the kit, and on jobs of other kinds: printed, and checked against what they may be at worst.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{cargo, root, run, skipped, target, tools};

/// A set of traces, and what the estimate is to reach on it and may never fall behind.
struct Set {
    name: &'static str,
    folder: &'static str,
    /// Error, log error and travel at most, with starts unknown and with starts known.
    at_most: [[f64; 3]; 2],
    /// The bounds of the interval's coverage.
    coverage: [f64; 2],
}

const SETS: [Set; 3] = [
    Set {
        name: "simulated",
        folder: "traces",
        at_most: [[0.141, 0.345, 1.6], [0.140, 0.330, 1.5]],
        coverage: [0.75, 0.90],
    },
    Set {
        name: "real",
        folder: "real",
        at_most: [[0.225, 0.65, 3.5], [0.155, 0.50, 1.3]],
        coverage: [0.75, 0.92],
    },
    // What `reference.py` reaches.
    Set {
        name: "other kinds",
        folder: OTHERS,
        at_most: [[0.155, 0.376, 1.09], [0.1483, 0.368, 0.80]],
        coverage: [0.75, 0.90],
    },
];

/// The set that `others.py` makes.
const OTHERS: &str = "others";

/// Builds the replay, which the tests build too.
pub(crate) fn build() -> bool {
    run("the estimate", &mut cargo(&["build", "--release", "--package", "bench", "--bin", "eta-replay"]))
}

/// Prints the figures of the replay that is built.
pub(crate) fn check() -> bool {
    if let Err(why) = tools::have("python3", &["--version"], "python3-minimal") {
        return skipped("the estimate's figures", &why);
    }
    println!("{:28}{:>16}{:>16}{:>14}{:>22}{:>8}", "", "err", "log", "travel", "coverage", "width");
    // All are printed, also after one that fails.
    SETS.iter().map(measure).fold(true, |passed, set| passed & set)
}

fn measure(set: &Set) -> bool {
    let traces = match traces(set) {
        Ok(traces) => traces,
        Err(error) => {
            eprintln!("── {}: {error}", set.name);
            return false;
        }
    };
    let runs = [("starts unknown", false), ("starts known", true)].into_iter().zip(set.at_most);
    runs.map(|((run, starts), at_most)| {
        let name = format!("{}, {run}", set.name);
        match figures(&traces, starts) {
            Ok(figures) => passes(&name, figures, at_most, set.coverage),
            Err(error) => {
                eprintln!("── {name}: {error}");
                false
            }
        }
    })
    .fold(true, |passed, run| passed & run)
}

fn passes(name: &str, figures: [f64; 5], at_most: [f64; 3], bounds: [f64; 2]) -> bool {
    let [err, log, travel, coverage, width] = figures;
    let [most_err, most_log, most_travel] = at_most;
    let passed = err <= most_err
        && log <= most_log
        && travel <= most_travel
        && (bounds[0]..=bounds[1]).contains(&coverage);
    println!(
        "{name:28}{err:>7.4} ≤ {most_err:<6}{log:>7.4} ≤ {most_log:<6}{travel:>6.2} ≤ {most_travel:<5}{coverage:>8.3} in {bounds:?}{width:>8.2}{}",
        if passed { "" } else { "  ← worse than it may be" }
    );
    passed
}

fn traces(set: &Set) -> Result<PathBuf, String> {
    let kit = root().join("benches/eta");
    if set.folder != OTHERS {
        return Ok(kit.join(set.folder));
    }
    let made = target().join("eta-others");
    tools::output(Command::new("python3").arg(kit.join("others.py")).arg(&made))?;
    Ok(made)
}

fn figures(traces: &Path, starts: bool) -> Result<[f64; 5], String> {
    let out = target().join("eta.csv");
    let mut replay = Command::new(target().join("release/eta-replay"));
    replay.arg("--traces").arg(traces).arg("--out").arg(&out);
    if starts {
        replay.arg("--starts");
    }
    tools::output(&mut replay)?;
    let mut score = Command::new("python3");
    score.arg(root().join("benches/eta/score.py")).arg(traces).arg(&out).arg("--json");
    let scored: Value =
        serde_json::from_str(&tools::output(&mut score)?).map_err(|error| error.to_string())?;
    let figure = |name: &str| scored["ALL"][name].as_f64().ok_or_else(|| format!("no {name} in the scores"));
    Ok([figure("err")?, figure("log")?, figure("travel")?, figure("coverage")?, figure("width")?])
}
