//! How a protocol is checked, and what is said of it.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    io::Write,
    thread,
    time::Instant,
};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use crate::{
    model::{Action, Protocol},
    rules::{self, Rule},
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

/// Explores every state, also by the steps that are left out elsewhere. All promises hold; and what is in the
/// table once all is quiet is the same with and without those steps.
pub(crate) fn loses_nothing(name: &str, protocol: Protocol) {
    let begun = Instant::now();
    let protocol = Protocol { after_end: true, ..protocol };
    let (few, reduced) = tables_once_quiet(name, protocol);
    let (many, all) = tables_once_quiet(name, Protocol { step_by_step: true, ..protocol });
    let took = begun.elapsed().as_secs_f64();
    say(&format!("{name}: {few} states instead of {many}, {} tables, {took:.1} s", all.len()));
    assert!(all.is_subset(&reduced), "{name}: missed: {:?}", all.difference(&reduced).next());
    assert!(reduced.is_subset(&all), "{name}: made up: {:?}", reduced.difference(&all).next());
}

/// How many states there are, and what is in the table in those in which all is quiet.
fn tables_once_quiet(name: &str, protocol: Protocol) -> (usize, HashSet<State>) {
    let (hasher, mut tables) = (RandomState::new(), HashSet::new());
    let mut open = protocol.init_states();
    let mut seen: HashSet<_> = open.iter().map(|state| hasher.hash_one(state)).collect();
    let mut promises = protocol.properties();
    promises.retain(|promise| promise.expectation == Expectation::Always);
    while let Some(state) = open.pop() {
        for promise in &promises {
            let holds = (promise.condition)(&protocol, &state);
            assert!(holds, "{name}: broken: {}\n{state:?}", promise.name);
        }
        let next = protocol.next_states(&state).into_iter();
        open.extend(next.filter(|next| seen.insert(hasher.hash_one(next))));
        if rules::is_quiet(&protocol, &state) {
            tables.insert(protocol.table_of(state));
        }
    }
    (seen.len(), tables)
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
