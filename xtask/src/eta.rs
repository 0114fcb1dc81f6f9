//! The estimate's figures on both sets of the kit, and on jobs of other kinds: printed, and checked against what they may be at worst.

use std::process::Command;

use serde_json::Value;

use crate::{cargo, root, run, skipped, target, tools};

/// A set of the kit, with starts or without, and the worst figures that pass: error, log error, travel, and the bounds of the
/// interval's coverage.
struct Set {
    name: &'static str,
    folder: &'static str,
    starts: bool,
    at_most: [f64; 3],
    coverage: [f64; 2],
}

/// What the estimate is to reach, and may never fall behind.
const SETS: [Set; 6] = [
    Set {
        name: "simulated, starts unknown",
        folder: "traces",
        starts: false,
        at_most: [0.141, 0.345, 1.6],
        coverage: [0.75, 0.90],
    },
    Set {
        name: "simulated, starts known",
        folder: "traces",
        starts: true,
        at_most: [0.140, 0.330, 1.5],
        coverage: [0.75, 0.90],
    },
    Set {
        name: "real, starts unknown",
        folder: "real",
        starts: false,
        at_most: [0.225, 0.65, 3.5],
        coverage: [0.75, 0.92],
    },
    Set {
        name: "real, starts known",
        folder: "real",
        starts: true,
        at_most: [0.155, 0.50, 1.3],
        coverage: [0.75, 0.92],
    },
    // What `reference.py` reaches.
    Set {
        name: "other kinds, starts unknown",
        folder: OTHERS,
        starts: false,
        at_most: [0.155, 0.376, 1.09],
        coverage: [0.75, 0.90],
    },
    Set {
        name: "other kinds, starts known",
        folder: OTHERS,
        starts: true,
        at_most: [0.1483, 0.368, 0.80],
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
    let passed: Vec<_> = SETS.iter().map(measure).collect();
    passed.into_iter().all(|passed| passed)
}

fn measure(set: &Set) -> bool {
    let figures = match figures(set) {
        Ok(figures) => figures,
        Err(error) => {
            eprintln!("── {}: {error}", set.name);
            return false;
        }
    };
    let [err, log, travel, coverage, width] = figures;
    let passed = [err, log, travel].iter().zip(set.at_most).all(|(figure, most)| *figure <= most)
        && (set.coverage[0]..=set.coverage[1]).contains(&coverage);
    let [most_err, most_log, most_travel] = set.at_most;
    println!(
        "{:28}{err:>7.4} ≤ {most_err:<6}{log:>7.4} ≤ {most_log:<6}{travel:>6.2} ≤ {most_travel:<5}{coverage:>8.3} in {:?}{width:>8.2}{}",
        set.name,
        set.coverage,
        if passed { "" } else { "  ← worse than it may be" }
    );
    passed
}

fn figures(set: &Set) -> Result<[f64; 5], String> {
    let (kit, out) = (root().join("benches/eta"), target().join("eta.csv"));
    let traces = if set.folder == OTHERS {
        let made = target().join("eta-others");
        tools::output(Command::new("python3").arg(kit.join("others.py")).arg(&made))?;
        made
    } else {
        kit.join(set.folder)
    };
    let mut replay = Command::new(target().join("release/eta-replay"));
    replay.arg("--traces").arg(&traces).arg("--out").arg(&out);
    if set.starts {
        replay.arg("--starts");
    }
    tools::output(&mut replay)?;
    let mut score = Command::new("python3");
    score.arg(kit.join("score.py")).arg(&traces).arg(&out).arg("--json");
    let scored: Value =
        serde_json::from_str(&tools::output(&mut score)?).map_err(|error| error.to_string())?;
    let figure = |name: &str| scored["ALL"][name].as_f64().ok_or_else(|| format!("no {name} in the scores"));
    Ok([figure("err")?, figure("log")?, figure("travel")?, figure("coverage")?, figure("width")?])
}
