//! The contract bites: a store that breaks a rule is found by the cases of that rule, and every case finds
//! a store that breaks one.

mod broken;
mod plain_store;

use std::{
    collections::BTreeSet,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use broken::{Broken, Fault};
use futures::FutureExt;
use plain_store::{Place, PlainStore};
use status_testkit::{
    Kit,
    cases::{ALL, Case},
    layer::Layered,
};

/// Longer than any case takes, in virtual time.
const PATIENCE: Duration = Duration::from_secs(600);
/// The name of threads whose panics are expected.
const EXPECTED: &str = "a case over a broken store";

/// Whether a store with this fault passes the case.
fn passes(fault: Option<Fault>, case: &'static Case) -> bool {
    without_expected_panics();
    let checked = thread::Builder::new().name(EXPECTED.into()).spawn(move || {
        // Time that stands still while anybody works: what hangs is found at once.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime can be built").block_on(async {
            let handles = Arc::new(AtomicUsize::new(0));
            let place = (Place::default(), handles);
            let open = move |(place, handles): (Place, Arc<AtomicUsize>), clock| async move {
                let store = Arc::new(PlainStore::new(place, clock));
                let handle = handles.fetch_add(1, Ordering::Relaxed);
                Arc::new(Layered::new(store, Broken::new(fault, handle)))
            };
            let kit = Kit::placed(async || place, open).await;
            let case = AssertUnwindSafe(case.check(kit)).catch_unwind();
            tokio::time::timeout(PATIENCE, case).await.is_ok_and(|checked| checked.is_ok())
        })
    });
    checked.expect("a thread").join().unwrap_or(false)
}

/// Keeps the output to what is not expected.
fn without_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(EXPECTED) {
                print(info);
            }
        }));
    });
}

#[test]
fn a_broken_rule_is_found_by_the_cases_of_that_rule() {
    let faults = broken::all();
    let names: BTreeSet<_> = faults.iter().map(|fault| fault.what).collect();
    assert_eq!(names.len(), faults.len(), "each fault is listed once");
    assert!(faults.len() >= 60, "{} faults", faults.len());
    let missed: Vec<_> = faults
        .iter()
        .flat_map(|fault| fault.found_by.iter().map(move |case| (*fault, *case)))
        .filter(|(fault, case)| passes(Some(*fault), Case::named(case)))
        .map(|(fault, case)| format!("{case} does not find a store that {fault:?}"))
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_case_finds_a_broken_rule() {
    let found: BTreeSet<_> = broken::all().iter().flat_map(|fault| fault.found_by).copied().collect();
    let idle: Vec<_> = ALL.iter().map(|case| case.name).filter(|name| !found.contains(name)).collect();
    assert!(idle.is_empty(), "{idle:#?} find nothing");
}

#[test]
fn every_case_passes_on_the_sound_store_under_the_faults() {
    let failed: Vec<_> = ALL.iter().filter(|case| !passes(None, case)).map(|case| case.name).collect();
    assert!(failed.is_empty(), "{failed:#?} fail on a sound store");
}
