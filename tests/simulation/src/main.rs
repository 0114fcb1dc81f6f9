//! Runs many seeds and says what came of them. See `simulate --help`.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use simulation::{backend, faults::Tally, history::Detail, simulate};

/// Simulates whole systems from seeds, with a fault at any request, and checks what must hold.
///
/// The same seed gives the same run. `--from SEED --seeds 1` replays one and prints its history.
#[derive(Parser)]
#[command(name = "simulate")]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Which store.
    #[arg(long, default_value = backend::NAMES[0], value_parser = backend::NAMES)]
    store: String,
    /// Print the history even if nothing is wrong.
    #[arg(long)]
    history: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let began = Instant::now();
    let next = AtomicU64::new(options.from);
    let end = options.from.saturating_add(options.seeds);
    let all = Mutex::new(All::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || all.lock().unwrap_or_else(PoisonError::into_inner).violated.is_some() {
                        return;
                    }
                    let Some(run) = simulate(seed, &options.store, Detail::Steps) else { return };
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.runs += 1;
                    all.batches += run.batches;
                    all.workers += run.workers as u64;
                    all.tally.add(&run.tally);
                    for (outcome, count) in &run.outcomes {
                        *all.outcomes.entry(outcome).or_default() += count;
                    }
                    if run.violation.is_some() {
                        all.violated = Some(all.violated.map_or(seed, |first| first.min(seed)));
                    }
                }
            });
        }
    });
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.print(&options, began.elapsed().as_secs_f64());
    if let Some(seed) = all.violated.or((options.seeds == 1).then_some(options.from)) {
        let Some(run) = simulate(seed, &options.store, Detail::Lines) else { return ExitCode::FAILURE };
        if run.violation.is_some() || options.history || options.seeds == 1 {
            for line in &run.history {
                println!("{line}");
            }
        }
        if let Some(violation) = run.violation {
            println!("seed {seed}, {violation}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[derive(Default)]
struct All {
    runs: u64,
    batches: u64,
    workers: u64,
    tally: Tally,
    outcomes: BTreeMap<&'static str, u64>,
    violated: Option<u64>,
}

impl All {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn print(&self, options: &Options, seconds: f64) {
        let runs = self.runs.max(1) as f64;
        println!(
            "{} runs over {} from seed {} in {seconds:.1} s: {:.1} a second",
            self.runs,
            options.store,
            options.from,
            runs / seconds
        );
        println!(
            "a run has {:.1} batches, {:.1} workers, {:.0} requests, and a fault in {:.1} requests",
            self.batches as f64 / runs,
            self.workers as f64 / runs,
            self.tally.requests() as f64 / runs,
            self.tally.requests() as f64 / self.tally.faults().max(1) as f64
        );
        let outcomes: Vec<_> = self.outcomes.iter().map(|(name, n)| format!("{n} {name}")).collect();
        println!("batches reported and jobs ended: {}", outcomes.join(", "));
        println!("{}", self.tally);
        let empty = self.tally.empty_cells();
        if !empty.is_empty() {
            println!("never met: {}", empty.join(", "));
        }
    }
}
