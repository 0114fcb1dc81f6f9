//! A layer that fails as networks and queues do, by a seed: requests lost before they were carried out,
//! answers lost afterwards, calls refused, repeated by a client that lost patience, or late, and reads
//! answered from the past.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use status_core::{Consistency, JobId, StatusStore, StoreError};

use crate::layer::{Answer, Call, Layer};

/// How often, of a hundred calls, what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// The call is not carried out, and the caller is told that it may have been.
    pub lost_requests: u64,
    /// The call is carried out, and the caller is told that it may not have been.
    pub lost_answers: u64,
    /// The call is refused and not carried out.
    pub throttled: u64,
    /// The call is carried out twice.
    pub repeated: u64,
    /// The call waits for others.
    pub delayed: u64,
    /// Of a hundred eventually consistent reads of a job: answered with an earlier state.
    pub stale_reads: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self { lost_requests: 8, lost_answers: 8, throttled: 8, repeated: 8, delayed: 15, stale_reads: 25 }
    }
}

/// What went wrong with a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Not carried out; the caller cannot know.
    LostRequest,
    /// Carried out; the caller cannot know.
    LostAnswer,
    /// Refused.
    Throttled,
    /// Carried out twice.
    Repeated,
    /// Carried out late.
    Delayed,
    /// Answered with an earlier state.
    StaleRead,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LostRequest => "request lost",
            Self::LostAnswer => "answer lost",
            Self::Throttled => "throttled",
            Self::Repeated => "repeated",
            Self::Delayed => "delayed",
            Self::StaleRead => "stale read",
        })
    }
}

/// A fault that was injected. It reads as `call 17, report: answer lost`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injected {
    /// Which call of the store it was, from 1.
    pub call: u64,
    /// The method that was called.
    pub method: &'static str,
    /// What went wrong.
    pub fault: Fault,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}, {}: {}", self.call, self.method, self.fault)
    }
}

/// The layer. It fails the same way for the same seed and the same calls in the same order.
#[derive(Debug)]
pub struct Faulty {
    faults: Faults,
    notes: Mutex<Notes>,
}

/// How many answers to reads of a job are remembered.
const REMEMBERED: usize = 8;

/// What it has done so far.
#[derive(Debug)]
struct Notes {
    random: u64,
    calls: u64,
    trace: Vec<Injected>,
    /// The last answers to reads of a job, by method.
    earlier: HashMap<(JobId, &'static str), Vec<Answer>>,
}

impl Faulty {
    /// A layer that fails by `faults`.
    pub fn new(faults: Faults, seed: u64) -> Self {
        let notes = Notes { random: seed, calls: 0, trace: Vec::new(), earlier: HashMap::new() };
        Self { faults, notes: Mutex::new(notes) }
    }

    /// Every fault that was injected, in the order of the calls.
    pub fn trace(&self) -> Vec<Injected> {
        self.notes().trace.clone()
    }

    /// How often each fault was injected into each method.
    pub fn counts(&self) -> BTreeMap<(&'static str, Fault), u64> {
        let mut counts = BTreeMap::new();
        for injected in &self.notes().trace {
            *counts.entry((injected.method, injected.fault)).or_default() += 1;
        }
        counts
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    /// Whether `fault`, which comes `percent` times of a hundred, is injected into this call.
    fn inject(&mut self, call: u64, method: &'static str, fault: Fault, percent: u64) -> bool {
        let injected = self.below(100) < percent;
        if injected {
            self.trace.push(Injected { call, method, fault });
        }
        injected
    }

    /// The answers so far to this read of a job. Before the first one it was not there.
    fn answers(&mut self, id: JobId, call: &Call<'_>) -> &mut Vec<Answer> {
        let not_there = if matches!(call, Call::Job(..)) { Answer::Job(None) } else { Answer::Read(None) };
        self.earlier.entry((id, call.method())).or_insert_with(|| vec![not_there])
    }

    /// An earlier answer to a read of a job.
    fn earlier(&mut self, id: JobId, call: &Call<'_>) -> Answer {
        let answers = self.answers(id, call).len() as u64;
        let chosen = usize::try_from(self.below(answers)).unwrap_or(0);
        self.answers(id, call)[chosen].clone()
    }

    fn remember(&mut self, id: JobId, call: &Call<'_>, answer: &Answer) {
        let answers = self.answers(id, call);
        answers.push(answer.clone());
        if answers.len() > REMEMBERED {
            answers.remove(0);
        }
    }
}

/// What is done with one call: drawn before it, so that it depends on nothing but the seed.
#[derive(Default)]
struct Plan {
    delay: Option<Duration>,
    refuse: Option<Fault>,
    repeat: bool,
    lose_answer: bool,
    stale: Option<Answer>,
}

impl Faulty {
    fn plan(&self, call: &Call<'_>) -> Plan {
        let (faults, method) = (self.faults, call.method());
        let mut notes = self.notes();
        notes.calls += 1;
        let number = notes.calls;
        let mut plan = Plan::default();
        if notes.inject(number, method, Fault::Delayed, faults.delayed) {
            plan.delay = Some(Duration::from_millis(notes.below(5)));
        }
        // Waiting for a change cannot fail, only take longer.
        if matches!(call, Call::Changed(..)) {
            return plan;
        }
        for (fault, percent) in
            [(Fault::LostRequest, faults.lost_requests), (Fault::Throttled, faults.throttled)]
        {
            if notes.inject(number, method, fault, percent) {
                plan.refuse = Some(fault);
                return plan;
            }
        }
        if let Call::Job(id, Consistency::Eventual) | Call::Read(id, Consistency::Eventual) = *call
            && notes.inject(number, method, Fault::StaleRead, faults.stale_reads)
        {
            plan.stale = Some(notes.earlier(id, call));
            return plan;
        }
        plan.repeat = notes.inject(number, method, Fault::Repeated, faults.repeated);
        plan.lose_answer = notes.inject(number, method, Fault::LostAnswer, faults.lost_answers);
        plan
    }
}

#[async_trait]
impl Layer for Faulty {
    async fn call(&self, store: &dyn StatusStore, call: Call<'_>) -> Result<Answer, StoreError> {
        let plan = self.plan(&call);
        let (operation, subject) = (call.method(), "a test".to_owned());
        if let Some(delay) = plan.delay {
            tokio::time::sleep(delay).await;
        }
        match plan.refuse {
            Some(Fault::Throttled) => {
                return Err(StoreError::Throttled { operation, subject, source: "too fast".into() });
            }
            Some(fault) => {
                return Err(StoreError::Unavailable { operation, subject, source: fault.to_string().into() });
            }
            None => {}
        }
        if let Some(earlier) = plan.stale {
            return Ok(earlier);
        }
        let mut answer = call.on(store).await;
        if plan.repeat {
            answer = call.on(store).await;
        }
        if let (Ok(answer), Call::Job(id, _) | Call::Read(id, _)) = (&answer, call) {
            self.notes().remember(id, &call, answer);
        }
        if plan.lose_answer {
            let source = Fault::LostAnswer.to_string().into();
            return Err(StoreError::Unavailable { operation, subject, source });
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use status_core::{NewJob, PageRequest, Policy};

    use super::*;
    use crate::{
        Kit,
        kit::{done, file, owner, run},
        layer::Layered,
    };

    const NONE: Faults =
        Faults { lost_requests: 0, lost_answers: 0, throttled: 0, repeated: 0, delayed: 0, stale_reads: 0 };

    async fn sound() -> Kit {
        Kit::open(async |clock| Arc::new(status_memory::MemoryStore::new(9, clock))).await
    }

    #[test]
    fn a_lost_request_writes_nothing_and_a_lost_answer_has_written() {
        run(async {
            let sound = sound().await;
            let id = sound.processing(3).await;
            for (faults, completed) in [
                (Faults { lost_requests: 100, ..NONE }, 0),
                (Faults { throttled: 100, ..NONE }, 0),
                (Faults { lost_answers: 100, ..NONE }, 1),
            ] {
                let kit = sound.behind(Faulty::new(faults, 1));
                let reported = kit.tracker.report(id, vec![done(0)]).await;
                assert!(reported.is_err(), "{faults:?}: {reported:?}");
                assert_eq!(sound.state(id).await.facts.counts.completed, completed, "{faults:?}");
            }
        });
    }

    #[test]
    fn a_stale_read_is_an_earlier_state_and_strong_reads_are_never_stale() {
        run(async {
            let sound = sound().await;
            let id = sound.processing(3).await;
            let kit = sound.behind(Faulty::new(Faults { stale_reads: 100, ..NONE }, 1));
            let eventual = kit.store.read(id, Consistency::Eventual).await.expect("an answer");
            assert_eq!(eventual, None, "before its first answer it was not there");
            let remembered = kit.state(id).await;
            sound.complete(id, [0, 1, 2]).await;
            for _ in 0..20 {
                let eventual = kit.store.read(id, Consistency::Eventual).await.expect("an answer");
                assert!(eventual.is_none_or(|state| state == remembered));
            }
            assert_eq!(kit.state(id).await, sound.state(id).await);
        });
    }

    #[test]
    fn a_repeated_call_is_carried_out_twice_and_answers_as_the_second() {
        run(async {
            let sound = sound().await;
            let id = sound.processing(3).await;
            let kit = sound.behind(Faulty::new(Faults { repeated: 100, ..NONE }, 1));
            let reported = kit.tracker.report(id, vec![done(0)]).await.expect("recorded");
            assert_eq!(reported.effects, [(done(0).batch(), status_core::Effect::Duplicate)]);
            assert_eq!(sound.state(id).await.facts.counts.completed, 1);
        });
    }

    #[test]
    fn what_was_injected_is_told_and_the_same_for_the_same_seed() {
        let traces = [7, 7, 8].map(|seed| {
            run(async {
                let sound = sound().await;
                let faulty = Faulty::new(Faults::default(), seed);
                let store = Layered::new(sound.store.clone(), faulty);
                let job = NewJob::new(file("leads.csv"));
                let id = status_core::JobId::from_parts(status_core::Timestamp::UNIX_EPOCH, 1);
                let by = status_core::Actor::OWNER;
                let job = job.into_job(id, owner("alice"), &Policy::default(), by).expect("a good job");
                for _ in 0..50 {
                    let _ = store.create(&job).await;
                    let _ = store.read(id, Consistency::Eventual).await;
                }
                (store.layer().trace(), store.layer().counts())
            })
        });
        let [one, same, other] = traces;
        assert_eq!(one, same);
        assert_ne!(one.0, other.0);
        assert_eq!(one.1.values().sum::<u64>(), one.0.len() as u64);
        assert!(one.1.contains_key(&("read", Fault::StaleRead)), "{:?}", one.1);
        assert!(!one.1.contains_key(&("create", Fault::StaleRead)), "{:?}", one.1);
        let told = Injected { call: 17, method: "report", fault: Fault::LostAnswer };
        assert_eq!(told.to_string(), "call 17, report: answer lost");
    }

    #[test]
    fn no_method_passes_by() {
        run(async {
            let sound = sound().await;
            let id = sound.processing(3).await;
            let kit = sound.behind(Faulty::new(Faults { throttled: 100, ..NONE }, 1));
            let (alice, now, page) = (owner("alice"), id.created_at(), PageRequest::first(1));
            let job = sound.state(id).await.job;
            let due = status_core::Due::new(id, now);
            let store = &kit.store;
            assert!(store.create(&job).await.is_err());
            assert!(store.job(id, Consistency::Strong).await.is_err());
            assert!(store.read(id, Consistency::Strong).await.is_err());
            assert!(store.decide(&job).await.is_err());
            assert!(store.propagate(&job).await.is_err());
            assert!(store.begin(id, &[], now).await.is_err());
            assert!(store.report(id, &[done(0)], now).await.is_err());
            assert!(store.errors(id, &page).await.is_err());
            assert!(store.batches(id, status_core::BatchState::Failed, 0, 1).await.is_err());
            assert!(store.list(&alice, None, &page).await.is_err());
            assert!(store.due(now, &page).await.is_err());
            assert!(store.postpone(&due, now).await.is_err());
            assert!(store.erase(id).await.is_err());
            assert!(store.purge(now).await.is_err());
            assert!(store.count_open(&alice, 1).await.is_err());
            assert!(store.changed_since(&alice, now, 1).await.is_err());
            assert!(store.last_completed(&alice, "x", 1).await.is_err());
            assert!(store.list_open(&page).await.is_err());
        });
    }
}
