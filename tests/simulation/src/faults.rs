//! What can go wrong with a request, how often it does in a run, and how often it did.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::random::Random;

/// What goes wrong with one request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// It never arrives. The caller is told that the connection broke.
    RequestLost,
    /// It is carried out. The caller is told that the connection broke.
    AnswerLost,
    /// The caller is told that the connection broke; it is carried out after that.
    Late,
    /// It is refused: too many requests.
    Throttled,
    /// It takes long, so that others are faster.
    Delayed,
    /// It is carried out once more, some time after the answer.
    Duplicated,
    /// An eventually consistent read is answered from an earlier state.
    Stale,
    /// A read of several items sees some of them earlier than the others.
    Torn,
    /// The caller dies before it arrives.
    KilledBefore,
    /// The caller dies after it has been carried out.
    KilledAfter,
}

impl Fault {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::RequestLost,
        Self::AnswerLost,
        Self::Late,
        Self::Throttled,
        Self::Delayed,
        Self::Duplicated,
        Self::Stale,
        Self::Torn,
        Self::KilledBefore,
        Self::KilledAfter,
    ];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestLost => "request lost",
            Self::AnswerLost => "answer lost",
            Self::Late => "late",
            Self::Throttled => "throttled",
            Self::Delayed => "delayed",
            Self::Duplicated => "duplicated",
            Self::Stale => "stale",
            Self::Torn => "torn",
            Self::KilledBefore => "killed before",
            Self::KilledAfter => "killed after",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is asked for, as far as faults depend on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Operation {
    /// Its name in the table.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Changes something.
    Write,
    /// Changes something, and is sent once. What comes again is a client's own retry: a connection brings no
    /// request twice.
    WriteOnce,
    /// Reads one item, or several at one moment, as they are now.
    Read,
    /// Reads several items as they are now, one after the other.
    ReadMany,
    /// Reads, and may see an earlier state.
    ReadEventually,
    /// Reads several items, and may see an earlier state of each.
    ReadManyEventually,
}

impl Operation {
    /// Whether a fault can befall it. A late read is a lost one, and a write sees no earlier state.
    pub fn can_meet(self, fault: Fault) -> bool {
        match fault {
            Fault::Late => matches!(self.kind, Kind::Write | Kind::WriteOnce),
            Fault::Duplicated => self.kind != Kind::WriteOnce,
            Fault::Stale => matches!(self.kind, Kind::ReadEventually | Kind::ReadManyEventually),
            Fault::Torn => matches!(self.kind, Kind::ReadMany | Kind::ReadManyEventually),
            _ => true,
        }
    }
}

/// How often what goes wrong in one run.
#[derive(Clone, Debug)]
pub struct Weather {
    /// How many of a thousand requests meet a fault.
    pub per_mille: u64,
    /// How the faults share that.
    pub weights: Vec<(u64, Fault)>,
    /// The longest delay.
    pub longest_delay: Duration,
    /// How old an earlier state may be.
    pub longest_lag: Duration,
}

impl Weather {
    /// The weather of a run: in some none, in some a storm of one kind.
    pub fn of(random: &Random) -> Self {
        let per_mille = random.weighted(&[(15, 0), (25, 20), (30, 40), (20, 70), (10, 150)]);
        let storm = random.per_mille(300).then(|| random.one_of(&Fault::ALL));
        let weights = Fault::ALL.into_iter().map(|fault| {
            let usual = match fault {
                Fault::KilledBefore | Fault::KilledAfter => 5,
                Fault::Stale => 30,
                _ => 10,
            };
            (if storm == Some(fault) { 150 } else { usual }, fault)
        });
        Self {
            per_mille,
            weights: weights.collect(),
            longest_delay: Duration::from_millis(random.one_of(&[200, 2_000, 12_000])),
            longest_lag: Duration::from_millis(random.one_of(&[100, 1_000, 10_000])),
        }
    }
}

/// Decides what befalls each request, and counts it.
#[derive(Debug)]
pub struct Faults {
    weather: Weather,
    random: Random,
    stopped: AtomicBool,
    tally: Mutex<Tally>,
}

impl Faults {
    /// The faults of the run with this seed. Nothing goes wrong before [`begin`](Self::begin).
    pub fn new(seed: u64, weather: Weather) -> Self {
        let random = Random::new(seed, "faults");
        Self { weather, random, stopped: AtomicBool::new(true), tally: Mutex::default() }
    }

    /// From now on requests are counted, and meet faults.
    pub fn begin(&self) {
        *self.tally() = Tally::default();
        self.stopped.store(false, Ordering::Relaxed);
    }

    /// From now on nothing goes wrong.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// What befalls the next request.
    pub fn next(&self, operation: Operation) -> Option<Fault> {
        let nth = {
            let mut tally = self.tally();
            let requests = &mut tally.0.entry(operation).or_default().requests;
            *requests += 1;
            *requests
        };
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        // The first requests of a kind meet more than the many after them: what is rare is tested
        // too.
        let per_mille = self.weather.per_mille + 4 * self.weather.per_mille / nth;
        if !self.random.per_mille(per_mille) {
            return None;
        }
        let possible: Vec<_> =
            self.weather.weights.iter().filter(|(_, fault)| operation.can_meet(*fault)).copied().collect();
        Some(self.random.weighted(&possible))
    }

    /// Counts a fault that befell a request.
    pub fn count(&self, operation: Operation, fault: Fault) {
        *self.tally().0.entry(operation).or_default().faults.entry(fault).or_default() += 1;
    }

    /// How long a request takes one way.
    pub fn transit(&self) -> Duration {
        Duration::from_millis(self.random.within(0..=4))
    }

    /// How long a request takes one way that is delayed.
    pub fn delay(&self) -> Duration {
        self.up_to(self.weather.longest_delay)
    }

    /// Which replica answers a read late, how many writes it has not seen yet, and how old its
    /// state may be.
    pub fn staleness(&self) -> (usize, usize, Duration) {
        let back = self.random.weighted(&[(4, 1), (3, 3), (2, 10), (1, 1_000)]);
        (self.random.below(2), self.random.below(back) + 1, self.weather.longest_lag)
    }

    /// Whether one of several items is seen earlier than the others.
    pub fn coin(&self) -> bool {
        self.random.per_mille(500)
    }

    /// A place among `count` remembered states.
    pub fn below(&self, count: usize) -> usize {
        self.random.below(count)
    }

    /// What happened so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up_to(&self, longest: Duration) -> Duration {
        let ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.random.within(1..=ms))
    }
}

/// How many requests there were of each operation, and what befell them.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<Operation, Row>);

#[derive(Clone, Debug, Default)]
struct Row {
    requests: u64,
    faults: BTreeMap<Fault, u64>,
}

impl Tally {
    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Self) {
        for (operation, row) in &other.0 {
            let sum = self.0.entry(*operation).or_default();
            sum.requests += row.requests;
            for (fault, count) in &row.faults {
                *sum.faults.entry(*fault).or_default() += count;
            }
        }
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.0.values().map(|row| row.requests).sum()
    }

    /// How many faults there were.
    pub fn faults(&self) -> u64 {
        self.0.values().flat_map(|row| row.faults.values()).sum()
    }

    /// The operations and faults that could have met and did not.
    pub fn empty_cells(&self) -> Vec<String> {
        let cells =
            self.0.iter().flat_map(|(operation, row)| Fault::ALL.map(|fault| (operation, row, fault)));
        let empty = cells.filter(|(operation, row, fault)| {
            operation.can_meet(*fault) && row.faults.get(fault).is_none_or(|count| *count == 0)
        });
        empty.map(|(operation, _, fault)| format!("{} × {fault}", operation.name)).collect()
    }
}

impl fmt::Display for Tally {
    /// The table of operations and faults. A dash stands where the two cannot meet.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:28}{:>11}", "operation", "requests")?;
        for fault in Fault::ALL {
            write!(f, "{fault:>14}")?;
        }
        for (operation, row) in &self.0 {
            write!(f, "\n{:28}{:>11}", operation.name, row.requests)?;
            for fault in Fault::ALL {
                match row.faults.get(&fault) {
                    _ if !operation.can_meet(fault) => write!(f, "{:>14}", "–")?,
                    count => write!(f, "{:>14}", count.copied().unwrap_or(0))?,
                }
            }
        }
        write!(f, "\n{:28}{:>11}", "all", self.requests())?;
        for fault in Fault::ALL {
            let all: u64 = self.0.values().filter_map(|row| row.faults.get(&fault)).sum();
            write!(f, "{all:>14}")?;
        }
        Ok(())
    }
}
