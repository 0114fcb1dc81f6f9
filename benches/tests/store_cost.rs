//! `store-cost` over all stores, briefly: every figure is there, and what holds on any machine holds.

use std::process::Command;

use serde_json::Value;

const STORES: [&str; 3] = ["memory", "sqlite", "dynamodb"];
const WORKERS: [u64; 3] = [1, 8, 32];
const BATCHES: [u64; 2] = [1_000, 20_000];

/// Runs the program; what it says of each store.
fn measured() -> Vec<Value> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_store-cost"));
    program.args(["--json", "--turns", "3", "--slice", "60ms", "--reports", "2"]);
    // On the disk that the build is on: a file system in memory has nothing to wait for.
    program.args(["--folder", env!("CARGO_TARGET_TMPDIR")]);
    program.args(STORES.iter().flat_map(|store| ["--store", store]));
    program.args(BATCHES.iter().flat_map(|batches| ["--batches".into(), batches.to_string()]));
    let output = program.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    figures["stores"].as_array().expect("stores").clone()
}

/// A figure that is above zero.
fn figure(of: &Value, path: &str) -> f64 {
    let figure = of.pointer(path).and_then(Value::as_f64);
    figure.filter(|figure| figure.is_finite() && *figure > 0.0).unwrap_or_else(|| panic!("{path} of {of:#}"))
}

#[test]
fn every_figure_of_every_store_is_there_and_none_is_absurd() {
    let stores = measured();
    let named: Vec<_> = stores.iter().filter_map(|store| store["store"].as_str()).collect();
    assert_eq!(named, STORES);
    for (name, store) in STORES.iter().zip(&stores) {
        assert!(["bare_operation", "bytes_are"].iter().all(|text| store[*text].is_string()), "{store:#}");
        let list = |what: &str| store[what].as_array().expect("a list").clone();
        let rates = list("rates");
        assert_eq!(rates.iter().filter_map(|rate| rate["workers"].as_u64()).collect::<Vec<_>>(), WORKERS);
        for rate in &rates {
            for of in ["reports_per_second", "bare_per_second", "ratio"] {
                let at = |which: &str| figure(rate, &format!("/{of}/{which}"));
                assert!(at("lower_quartile") <= at("median"), "{rate:#}");
                assert!(at("median") <= at("upper_quartile"), "{rate:#}");
            }
            let is_known = rate["bytes_per_batch"].is_number();
            assert!(is_known || !cfg!(target_os = "linux"), "{name}: {rate:#}");
        }
        let polls = list("polls");
        assert_eq!(polls.iter().filter_map(|poll| poll["batches"].as_u64()).collect::<Vec<_>>(), BATCHES);
        for poll in &polls {
            let median = figure(poll, "/milliseconds/median");
            assert!(median <= figure(poll, "/milliseconds/p99") && median < 500.0, "{name}: {poll:#}");
        }
        let watchers = list("watchers");
        assert_eq!(
            watchers.len(),
            if *name == "sqlite" { 2 } else { 1 },
            "another process has the file, too"
        );
        for watcher in &watchers {
            assert!(figure(watcher, "/milliseconds/p99") < 5_000.0, "{name}: {watcher:#}");
        }
    }
    sqlite(&stores[1]);
    // One write unit for each report, and now and then one for a chunk that is full.
    let units = figure(&stores[2], "/rates/0/bytes_per_batch") / 1_024.0;
    assert!((1.0..1.5).contains(&units), "{units}");
}

/// Not much slower alone than a bare upsert, and faster together, since commits are shared. Wide
/// margins: on a fast disk the store's own work weighs more.
fn sqlite(store: &Value) {
    let at = |path: &str| figure(store, path);
    let (alone, together) = (at("/rates/0/ratio/median"), at("/rates/2/ratio/median"));
    assert!(alone > 0.1 && together > alone, "{store:#}");
    let shared = ["/rates/0/reports_per_commit", "/rates/2/reports_per_commit"].map(at);
    assert!((0.9..1.1).contains(&shared[0]) && shared[1] > 3.0, "{shared:?}");
    assert!(at("/polls/1/milliseconds/median") < 5.0, "{store:#}");
    assert!(at("/polls/1/file_bytes") < 200_000.0, "{store:#}");
}
