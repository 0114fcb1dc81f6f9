//! The replay gives a prediction for each poll of each trace, empty where nothing can be known.

use std::{fs, path::Path, process::Command};

#[test]
fn every_poll_of_every_trace_has_its_prediction() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("eta/traces");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("predictions.csv");
    let mut replay = Command::new(env!("CARGO_BIN_EXE_eta-replay"));
    let replayed = replay.arg("--traces").arg(&traces).arg("--out").arg(&out).arg("--starts").status();
    assert!(replayed.expect("it runs").success());
    let files = fs::read_dir(&traces).expect("the kit").map(|file| file.expect("a file").path());
    let polls: usize = files
        .map(|file| {
            fs::read_to_string(file).expect("a trace").lines().filter(|row| row.contains(",poll,")).count()
        })
        .sum();
    let predictions = fs::read_to_string(out).expect("predictions");
    assert_eq!(predictions.lines().next(), Some("trace,t_ms,remaining_ms,low_ms,high_ms"));
    assert_eq!(predictions.lines().count() - 1, polls);
    let unknown = predictions.lines().filter(|row| row.ends_with(",,,")).count();
    assert!((1..polls / 10).contains(&unknown), "{unknown} of {polls}");
}
