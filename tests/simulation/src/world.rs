//! The world of one run: what all processes share, how they live and die, and how a run goes.

use std::{
    fmt::Debug,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use status_core::{Clock, Error, JobId, OwnerId, StatusStore, Timestamp, Tracker};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    actors::{self, Actor},
    audit,
    backend::{self, Backend},
    faults::Faults,
    history::{Detail, History},
    invariant::{Invariant, Verdict},
    ledger::Ledger,
    queue::Queue,
    random::Random,
    scenario::Scenario,
    time::VirtualTime,
    wire::{Life, Wire},
    words::Words,
};

/// How long it may take until all is done once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// By then every call that met a fault has come back.
const AFTERMATH: Duration = Duration::from_secs(90);

/// What all processes of a run share.
#[derive(Debug)]
pub struct World {
    /// What the run is about.
    pub scenario: Scenario,
    /// The true time.
    pub time: VirtualTime,
    /// What goes wrong.
    pub faults: Arc<Faults>,
    /// What happened.
    pub history: Arc<History>,
    /// What must hold.
    pub verdict: Arc<Verdict>,
    /// What is known of each job.
    pub ledger: Ledger,
    /// The uploads that have arrived, by the number of their plan.
    pub uploads: Queue<Upload>,
    /// The batches that are to be worked on.
    pub batches: Queue<Batch>,
    /// What actors draw from.
    pub random: Random,
    pub(crate) backend: Backend,
    skews: Random,
    processes: AtomicU64,
    ids: Arc<Ids>,
    quiet_since: OnceLock<Duration>,
    is_over: AtomicBool,
}

/// An upload to be split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upload {
    /// The number of its plan.
    pub plan: usize,
    /// The job.
    pub id: JobId,
}

/// A batch to be worked on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The number of its job's plan.
    pub plan: usize,
    /// The job.
    pub id: JobId,
    /// The batch's number.
    pub index: u64,
}

/// One process: a program with a clock and a connection of its own.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name.
    pub name: Arc<str>,
    /// The world it lives in.
    pub world: Arc<World>,
    /// What it calls.
    pub tracker: Tracker,
    /// The store itself, for what the tracker does not offer.
    pub store: Arc<dyn StatusStore>,
    life: Life,
}

/// Ids that are the same in every run with the same seed.
struct Ids {
    random: Random,
    history: Arc<History>,
    count: AtomicU64,
}

impl Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ids")
    }
}

impl World {
    /// The world of the run with this seed over the store of this name.
    pub fn new(seed: u64, store: &str, detail: Detail) -> Option<Arc<Self>> {
        let time = VirtualTime::begin();
        let scenario = Scenario::of(seed);
        let history = Arc::new(History::new(detail, time));
        let verdict = Arc::new(Verdict::new(history.clone()));
        let (visibility, again) = (scenario.visibility, scenario.again_per_mille);
        let plans = scenario.jobs.clone();
        Some(Arc::new(Self {
            time,
            faults: Arc::new(Faults::new(seed, scenario.weather.clone())),
            ledger: Ledger::new(time, history.clone(), verdict.clone(), plans, scenario.skew),
            uploads: Queue::new(time, Random::new(seed, "uploads"), visibility, again),
            batches: Queue::new(time, Random::new(seed, "batches"), visibility, again),
            random: Random::new(seed, "actors"),
            backend: backend::open(store, time)?,
            skews: Random::new(seed, "skews"),
            processes: AtomicU64::new(0),
            ids: Arc::new(Ids {
                random: Random::new(seed, "ids"),
                history: history.clone(),
                count: AtomicU64::new(0),
            }),
            quiet_since: OnceLock::new(),
            is_over: AtomicBool::new(false),
            scenario,
            history,
            verdict,
        }))
    }

    /// Lets the run happen, until it is over or something is wrong.
    pub async fn run(self: &Arc<Self>) {
        tokio::select! {
            biased;
            () = self.verdict.found() => {}
            () = self.live() => {}
        }
    }

    /// Whether nothing goes wrong any more with what begins now.
    pub fn is_quiet(&self) -> bool {
        self.quiet_since.get().is_some()
    }

    /// Since when nothing goes wrong any more.
    pub fn quiet_at(&self) -> Option<Timestamp> {
        let ago = self.time.elapsed().saturating_sub(*self.quiet_since.get()?);
        let now = self.time.now().as_millisecond();
        Timestamp::from_millisecond(now - i64::try_from(ago.as_millis()).ok()?).ok()
    }

    /// Whether nothing has gone wrong for so long that no call has an excuse to fail.
    pub fn is_calm(&self) -> bool {
        self.quiet_since.get().is_some_and(|since| self.time.elapsed() > *since + AFTERMATH)
    }

    /// Whether there is nothing left to do.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// A process of this name whose clock is wrong, unless it is to be right.
    pub fn process(self: &Arc<Self>, name: &str, is_right: bool) -> Process {
        let most = i64::try_from(self.scenario.skew.as_millis()).unwrap_or(0);
        let skew = if is_right { 0 } else { self.skew(most) };
        let (name, life, clock): (Arc<str>, _, _) =
            (name.into(), Life::default(), Arc::new(self.time.skewed(skew)));
        self.history.note(&name, || format!("begins; its clock is {skew} ms ahead"));
        let wire = self.wire(name.clone(), life.clone());
        let store = self.backend.connect(wire, self.time, clock.clone(), self.scenario.attempts);
        let ids = self.ids.clone();
        let tracker = Tracker::new(store.clone()).with_clock(clock).with_ids(move |at| ids.next(at));
        Process { name, world: self.clone(), tracker, store, life }
    }

    fn wire(&self, process: Arc<str>, life: Life) -> Wire {
        let (faults, history, verdict) = (self.faults.clone(), self.history.clone(), self.verdict.clone());
        let distance = Duration::from_millis(1 + self.processes.fetch_add(1, Ordering::Relaxed) % 100);
        Wire { process, life, distance, faults, history, verdict }
    }

    fn skew(&self, most: i64) -> i64 {
        let span = most.unsigned_abs() * 2;
        i64::try_from(self.skews.within(0..=span)).unwrap_or(0) - most
    }

    async fn live(self: &Arc<Self>) {
        // What the server says of its table has the machine's own time in it: no part of the
        // history.
        let unwritten = Arc::new(History::new(Detail::Steps, self.time));
        let operator = Wire { history: unwritten, ..self.wire("operator".into(), Life::default()) };
        if let Err(error) = self.backend.prepare(operator, self.time).await {
            return self.verdict.violated(Invariant::WorksWhenQuiet, &error.to_string());
        }
        if self.scenario.has_strangers {
            self.backend.strew();
        }
        self.faults.begin();
        let mut processes = JoinSet::new();
        for (name, actors) in actors::cast(&self.scenario) {
            processes.spawn(self.clone().keep_alive(name, actors));
        }
        let _ = timeout(self.scenario.quiet_after, self.drained()).await;
        self.faults.stop();
        let _ = self.quiet_since.set(self.time.elapsed());
        self.uploads.calm();
        self.batches.calm();
        self.history.note("world", || "it is quiet from now on".to_owned());
        if timeout(PATIENCE, self.drained()).await.is_err() {
            let left = format!("{:?}, {:?}", self.uploads.left(), self.batches.left());
            self.verdict.violated(Invariant::WorksWhenQuiet, &format!("messages are never done: {left}"));
        }
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = processes.join_next().await {
            if let Err(error) = ended {
                self.verdict.violated(Invariant::NoPanic, &error.to_string());
            }
        }
        audit::audit(&self.process("auditor", true)).await;
    }

    /// Waits until all owners are served and all messages are done.
    async fn drained(&self) {
        loop {
            sleep(Duration::from_millis(500)).await;
            let is_asked = self.ledger.is_everybody_served();
            if is_asked && self.uploads.is_drained() && self.batches.is_drained() {
                return;
            }
        }
    }

    /// Lets actors live in a process; when it dies, another one takes its place.
    async fn keep_alive(self: Arc<Self>, name: String, actors: Vec<Arc<dyn Actor>>) {
        loop {
            let process = self.process(&name, false);
            let lives = join_all(actors.iter().map(|actor| actor.live(&process)));
            let died = tokio::select! {
                biased;
                () = process.life.ended() => true,
                _ = lives => false,
            };
            if !died {
                return;
            }
            self.history.note(&name, || "is dead".to_owned());
            sleep(Duration::from_millis(self.random.within(50..=3_000))).await;
        }
    }
}

impl Process {
    /// The jobs of an owner.
    pub fn jobs_of(&self, owner: &str) -> status_core::OwnedJobs {
        self.tracker.owned_by(OwnerId::new(owner).expect("a good owner"))
    }

    /// Writes down what an actor did, and judges the error if it failed.
    pub fn said<T: Words>(&self, id: JobId, what: &str, answer: Result<T, Error>) -> Result<T, Error> {
        self.world.history.note(&self.name, || format!("{what} of {id}: {}", answer.words()));
        if let Err(error) = &answer {
            self.world.ledger.check_error(error, Some(id), self.world.is_calm());
        }
        answer
    }

    /// Dies at once.
    pub async fn die(&self) {
        self.life.end();
        std::future::pending::<()>().await;
    }

    /// Waits for some time up to this long.
    pub async fn pause(&self, longest: Duration) {
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1);
        sleep(Duration::from_millis(self.world.random.within(1..=longest))).await;
    }
}

impl Ids {
    fn next(&self, at: status_core::Timestamp) -> JobId {
        let id = JobId::from_parts(at, self.random.bits());
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        self.history.name(id.to_string(), format!("job-{number}"));
        id
    }
}
