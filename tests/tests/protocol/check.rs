//! How a protocol is checked, and what is said of it.

use std::{io::Write, thread, time::Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use crate::{
    model::{Action, Protocol},
    rules::Rule,
    state::State,
};

/// Explores every state within the bounds. All promises hold in each; all that may happen does.
pub(crate) fn holds(name: &str, protocol: Protocol) {
    let begun = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let checker = protocol.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_dfs().join();
    let (states, steps) = (checker.unique_state_count(), checker.state_count());
    say(&format!("{name}: {states} states, {steps} steps, {:.1} s", begun.elapsed().as_secs_f64()));
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        match (property.expectation, found) {
            (Expectation::Sometimes, None) => panic!("{name}: it never happens that {}", property.name),
            (Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => panic!("{name}: broken: {}\n{}", property.name, told(path)),
        }
    }
}

/// Removes a rule, and finds the shortest way in which the promise is broken.
pub(crate) fn breaks(promise: &'static str, without: Rule, protocol: Protocol) {
    let protocol = Protocol { without: Some(without), after_end: true, ..protocol };
    let find = |most: Option<usize>| {
        let checker = protocol.checker().finish_when(HasDiscoveries::AnyOf([promise].into()));
        // The checker counts states, of which a path has one more than steps.
        let checker = match most {
            Some(steps) => checker.target_max_depth(steps + 2),
            None => checker,
        };
        checker.spawn_bfs().join().discovery(promise).map(Path::into_vec)
    };
    let mut path = find(None).unwrap_or_else(|| panic!("without {without:?} it holds that {promise}"));
    while let Some(shorter) = find(Some(path.len() - 2)) {
        path = shorter;
    }
    say(&format!("without {without:?} broken after {} steps: {promise}", path.len() - 1));
}

/// A path as a list of steps, with the request that each process makes.
fn told(path: Path<State, Action>) -> String {
    let mut told = String::new();
    for (state, action) in path.into_vec() {
        told += &match action {
            Some(Action::Request(number)) => {
                format!("  {number}, batch {:?}\n", state.processes[number])
            }
            Some(action) => format!("  {action:?}\n"),
            None => format!("{state:?}"),
        };
    }
    told
}

/// Prints past the capture of the test harness: how far the search went is always of interest.
fn say(what: &str) {
    writeln!(std::io::stderr(), "{what}").ok();
}
