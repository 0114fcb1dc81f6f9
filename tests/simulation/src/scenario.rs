//! What a run is about: which jobs, by which rules, and how many of whom. All of it from the seed.

use std::time::Duration;

use status_core::{FileInfo, NewJob, Policy, Tolerance};

use crate::{faults::Weather, random::Random};

const DAY: u64 = 24 * 3_600;
/// A bound of errors just above the step in which a store may count them, and one that no run comes near.
const NEAR_A_STEP: u64 = 150;
const MANY: u64 = 10_000;

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The jobs.
    pub jobs: Vec<Plan>,
    /// Processes that work on batches.
    pub workers: usize,
    /// Processes that split uploads.
    pub splitters: usize,
    /// Processes that sweep.
    pub sweepers: usize,
    /// Web servers: owners, pollers and watchers are spread over them.
    pub sites: usize,
    /// What goes wrong with requests.
    pub weather: Weather,
    /// When it gets quiet, whatever is left to do.
    pub quiet_after: Duration,
    /// How wrong a clock may be, either way.
    pub skew: Duration,
    /// How often the SDK tries a request.
    pub attempts: u32,
    /// The most messages in one delivery.
    pub delivery: u64,
    /// How long a message that was received is hidden from others.
    pub visibility: Duration,
    /// How many of a thousand messages come twice, or come again after they were deleted.
    pub again_per_mille: u64,
    /// The receive at which a worker that fails gives a batch up.
    pub last_receive: u32,
    /// How many of a thousand batches that were given up are tried again all the same.
    pub redrives_per_mille: u64,
    /// How many of a thousand batches a worker dies over.
    pub deaths_per_mille: u64,
    /// Whether somebody else's items lie among those of jobs, and in the indexes, where the store has such.
    pub has_strangers: bool,
}

/// One job.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A letter, for the history.
    pub name: char,
    /// Whose it is.
    pub owner: &'static str,
    /// What is asked for.
    pub new: NewJob,
    /// Its rules.
    pub policy: Policy,
    /// When it is created.
    pub at: Duration,
    /// How often its creation is repeated after it succeeded.
    pub repeats: u64,
    /// Its batches.
    pub total: u64,
    /// The items of each batch.
    pub items: u64,
    /// Who says how far it is.
    pub split: Split,
    /// Batches at or past the total that are sent all the same.
    pub strays: u64,
    /// When somebody asks to cancel it, after it began; the owner or an operator.
    pub cancel: Option<(Duration, bool)>,
    /// When somebody erases it.
    pub erase: Option<Duration>,
    /// What goes wrong in its batches.
    pub trouble: Trouble,
    /// The longest time a batch takes.
    pub work: Duration,
    /// How many people poll it, and how many watch it.
    pub viewers: (usize, usize),
}

/// What the splitter does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// Starts with the total, then sends.
    TotalFirst,
    /// Starts, sends, seals.
    Stream,
    /// Forgets to start: sends, then seals.
    Forgotten,
    /// Sends, and is never heard of again.
    NeverSealed,
    /// There is none: the upload is never finished.
    Abandoned,
}

/// What goes wrong in the batches of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// How many of a thousand attempts fail.
    pub fails_per_mille: u64,
    /// How many of a thousand attempts that succeed have items that do not.
    pub errors_per_mille: u64,
    /// The most of such items in one batch.
    pub most_errors: u64,
    /// The bytes of each such item that are kept with its error.
    pub input: usize,
    /// Whether workers do not agree how many items a batch has, or say absurd numbers.
    pub is_wild: bool,
}

impl Plan {
    /// Whether the store may have forgotten the job while it is still looked at.
    pub fn is_short_lived(&self) -> bool {
        self.policy.retention < Duration::from_secs(DAY)
    }
}

impl Scenario {
    /// The run with this seed.
    pub fn of(seed: u64) -> Self {
        let random = Random::new(seed, "scenario");
        let weather = Weather::of(&random);
        let count = random.weighted(&[(50, 1), (32, 2), (14, 3), (4, 4)]);
        let mut jobs: Vec<Plan> = (0..count).map(|n| plan(&random, n)).collect();
        if random.per_mille(150) {
            let rival = rival(&random, &jobs[0], count);
            jobs.push(rival);
        }
        Self {
            jobs,
            workers: random.weighted(&[(60, 3), (30, 4), (10, 6)]),
            splitters: 2,
            sweepers: random.weighted(&[(50, 1), (40, 2), (10, 3)]),
            sites: random.weighted(&[(60, 2), (40, 3)]),
            weather,
            quiet_after: seconds(random.within(4..=45)),
            skew: random.one_of(&[seconds(0), seconds(2), seconds(20), seconds(240)]),
            attempts: random.weighted(&[(1, 1), (2, 2), (3, 3)]),
            delivery: random.one_of(&[1, 3, 10, 10]),
            visibility: match random.per_mille(300) {
                // So short that batches are worked on by two workers at once.
                true => Duration::from_millis(400),
                false => seconds(random.within(2..=12)),
            },
            again_per_mille: random.one_of(&[0, 30, 150]),
            last_receive: random.one_of(&[1, 1, 2, 3]),
            redrives_per_mille: random.one_of(&[0, 500, 900]),
            deaths_per_mille: random.one_of(&[0, 0, 20]),
            has_strangers: random.per_mille(200),
        }
    }
}

fn plan(random: &Random, number: usize) -> Plan {
    let name = char::from(b'A' + u8::try_from(number).unwrap_or(0));
    let policy = policy(random);
    let mut new = match random.per_mille(600) {
        true => NewJob::new(file(name, random.within(0..=5_000))),
        false => NewJob::titled(format!("job {name}")),
    };
    new = new.with_kind(random.one_of(&["import", "export"])).with_policy(policy.clone());
    let has_key = random.per_mille(500);
    if has_key {
        new = new.with_key(format!("key {name}"));
    }
    let split = random.weighted(&[
        (45, Split::TotalFirst),
        (35, Split::Stream),
        (10, Split::Forgotten),
        (5, Split::NeverSealed),
        (5, Split::Abandoned),
    ]);
    let total = match random.weighted(&[(5, 0), (60, 1), (25, 2), (8, 3), (2, 4)]) {
        0 => random.within(0..=1),
        1 => random.within(1..=10),
        2 => random.within(8..=24),
        3 => random.within(25..=60),
        _ => random.one_of(&[255, 256, 257, 300, 512, 520]),
    };
    let trouble = trouble(random, &policy);
    Plan {
        name,
        owner: random.one_of(&["alice", "bob"]),
        new,
        policy,
        at: Duration::from_millis(random.within(0..=2_000)),
        repeats: if has_key { random.weighted(&[(6, 0), (3, 1), (1, 2)]) } else { 0 },
        total,
        items: random.one_of(&[1, 10, 120, 1_000]),
        split,
        strays: random.weighted(&[(85, 0), (10, 1), (5, 3)]),
        cancel: random
            .per_mille(200)
            .then(|| (Duration::from_millis(random.within(0..=12_000)), random.per_mille(700))),
        erase: random.per_mille(100).then(|| Duration::from_millis(random.within(500..=20_000))),
        trouble,
        work: Duration::from_millis(random.one_of(&[20, 200, 1_000, 4_000])),
        viewers: (random.weighted(&[(2, 0), (5, 1), (3, 2)]), random.weighted(&[(4, 0), (4, 1), (2, 2)])),
    }
}

/// Another request under the key of `first`, at about the same time.
fn rival(random: &Random, first: &Plan, number: usize) -> Plan {
    let mut plan = plan(random, number);
    let key = first.new.idempotency_key.clone().unwrap_or_else(|| format!("key {}", first.name));
    (plan.owner, plan.new) = (first.owner, plan.new.with_key(key));
    plan.at = first.at + Duration::from_millis(random.within(0..=30));
    plan
}

fn file(name: char, size: u64) -> FileInfo {
    FileInfo::new(format!("{name}.csv"), size, "text/csv").expect("a good file")
}

fn trouble(random: &Random, policy: &Policy) -> Trouble {
    let (errors_per_mille, most_errors) = match policy.max_errors {
        // More of them than the bound, each step of their number in a write of its own.
        NEAR_A_STEP..MANY => (700, 100),
        _ => random.weighted(&[(45, (0, 0)), (40, (400, 4)), (15, (300, 100))]),
    };
    Trouble {
        fails_per_mille: random.weighted(&[(40, 0), (35, 60), (25, 300)]),
        errors_per_mille,
        most_errors,
        input: random.weighted(&[(80, 0), (15, 20), (5, 4_000)]),
        is_wild: random.per_mille(40),
    }
}

fn policy(random: &Random) -> Policy {
    let mut policy = Policy::default();
    policy.tolerance = random.weighted(&[
        (20, Tolerance::None),
        (10, Tolerance::Batches(1)),
        (25, Tolerance::Batches(5)),
        (10, Tolerance::Percent(10)),
        (15, Tolerance::Percent(50)),
        (20, Tolerance::Percent(100)),
    ]);
    policy.stall_after = seconds(random.one_of(&[2, 15, 120]));
    policy.cancel_grace = seconds(random.one_of(&[1, 5, 30]));
    policy.upload_timeout = seconds(random.one_of(&[20, 600, 3_600]));
    policy.processing_timeout = seconds(random.weighted(&[(1, 8), (2, 60), (7, 12 * 3_600)]));
    policy.deadline = seconds(random.weighted(&[(1, 15), (9, 30 * DAY)]));
    policy.retention = seconds(random.weighted(&[(1, 3_600), (24, 90 * DAY)]));
    policy.track_starts = random.per_mille(350);
    policy.max_errors = random.weighted(&[(1, 0), (2, 3), (2, 60), (2, NEAR_A_STEP), (2, 250), (11, MANY)]);
    policy
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
