//! The way between a process and a store. Every request passes here, and here faults befall it.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use crate::{
    faults::{Fault, Faults, Operation},
    history::History,
    invariant::{Invariant, Verdict},
};

/// The life of a process. It ends when the process is killed.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<State>);

#[derive(Debug, Default)]
struct State {
    over: AtomicBool,
    ended: Notify,
}

impl Life {
    /// Kills the process.
    pub fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.ended.notify_one();
    }

    /// Waits until the process is killed.
    pub async fn ended(&self) {
        while !self.is_over() {
            self.0.ended.notified().await;
        }
    }

    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }
}

/// One request to a store, which may be carried out any number of times.
pub trait Call: Clone + Send + Sync + 'static {
    /// What comes back.
    type Answer: Send + 'static;

    /// What is asked for.
    fn operation(&self) -> Operation;

    /// Carries it out now.
    fn carry_out(&self) -> impl Future<Output = Self::Answer> + Send;

    /// Answers it from an earlier state, where there is one.
    fn earlier(&self, faults: &Faults) -> Option<Self::Answer>;

    /// Mixes what was read at two moments.
    fn torn(&self, first: Self::Answer, second: Self::Answer, faults: &Faults) -> Self::Answer;

    /// The request in words.
    fn request(&self) -> String;

    /// The answer in words.
    fn answer(answer: &Self::Answer) -> String;

    /// What no server should ever have to say.
    fn complaint(&self, answer: &Self::Answer) -> Option<(Invariant, String)>;
}

/// What a caller gets.
#[derive(Debug)]
pub enum Carried<A> {
    /// An answer.
    Answer(A),
    /// The connection broke.
    Lost,
    /// Too many requests.
    Throttled,
}

/// The wire of one process.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The name of the process.
    pub process: Arc<str>,
    /// Its life.
    pub life: Life,
    /// How long news takes to it, which is another time for each process.
    pub distance: Duration,
    /// What befalls its requests.
    pub faults: Arc<Faults>,
    /// Where they are written down.
    pub history: Arc<History>,
    /// Where complaints go.
    pub verdict: Arc<Verdict>,
}

impl Wire {
    /// Carries a request, with whatever befalls it. Never returns to a process that is dead.
    pub async fn carry<C: Call>(&self, call: C) -> Carried<C::Answer> {
        if self.life.is_over() {
            return pending().await;
        }
        let operation = call.operation();
        let fault = self.faults.next(operation);
        sleep(self.faults.transit()).await;
        let carried = match fault {
            None => Carried::Answer(self.answer(&call, "").await),
            Some(fault) => self.befall(call, operation, fault).await,
        };
        sleep(self.faults.transit()).await;
        if self.life.is_over() { pending().await } else { carried }
    }

    async fn befall<C: Call>(&self, call: C, operation: Operation, fault: Fault) -> Carried<C::Answer> {
        if fault != Fault::Stale {
            self.faults.count(operation, fault);
        }
        match fault {
            Fault::RequestLost => {
                self.note_unanswered(&call, "[request lost]");
                Carried::Lost
            }
            Fault::AnswerLost => {
                self.answer(&call, "  [answer lost]").await;
                Carried::Lost
            }
            Fault::Late => {
                self.note_unanswered(&call, "[comes late; told that it is lost]");
                self.later(call, "  [late]");
                Carried::Lost
            }
            Fault::Throttled => {
                self.note_unanswered(&call, "[throttled]");
                Carried::Throttled
            }
            Fault::Delayed => {
                let delay = self.faults.delay();
                if self.faults.coin() {
                    sleep(delay).await;
                    return Carried::Answer(self.answer(&call, "  [came late]").await);
                }
                let answer = self.answer(&call, "  [answer comes late]").await;
                sleep(delay).await;
                Carried::Answer(answer)
            }
            Fault::Duplicated => {
                let answer = self.answer(&call, "  [comes again]").await;
                self.later(call, "  [again]");
                Carried::Answer(answer)
            }
            Fault::Torn => {
                let first = call.carry_out().await;
                sleep(self.faults.delay()).await;
                let second = call.carry_out().await;
                let torn = call.torn(first, second, &self.faults);
                self.note(&call, "  [torn]", &torn);
                Carried::Answer(torn)
            }
            Fault::KilledBefore => {
                self.note_unanswered(&call, "[the caller dies before it arrives]");
                self.life.end();
                pending().await
            }
            Fault::KilledAfter => {
                self.answer(&call, "  [the caller dies]").await;
                self.life.end();
                pending().await
            }
            Fault::Stale => {
                // There may be no earlier state yet.
                let Some(earlier) = call.earlier(&self.faults) else {
                    return Carried::Answer(self.answer(&call, "").await);
                };
                self.faults.count(operation, fault);
                self.note(&call, "  [stale]", &earlier);
                Carried::Answer(earlier)
            }
        }
    }

    async fn answer<C: Call>(&self, call: &C, remark: &'static str) -> C::Answer {
        let answer = call.carry_out().await;
        self.note(call, remark, &answer);
        if let Some((invariant, complaint)) = call.complaint(&answer) {
            self.verdict.violated(invariant, &format!("{}: {complaint}", call.request()));
        }
        answer
    }

    /// Carries a request out some time from now, for nobody.
    fn later<C: Call>(&self, call: C, remark: &'static str) {
        let wire = self.clone();
        let delay = self.faults.delay();
        tokio::spawn(async move {
            sleep(delay).await;
            wire.answer(&call, remark).await;
        });
    }

    fn note<C: Call>(&self, call: &C, remark: &str, answer: &C::Answer) {
        self.history.note(&self.process, || format!("{} => {}{remark}", call.request(), C::answer(answer)));
    }

    fn note_unanswered<C: Call>(&self, call: &C, what: &str) {
        self.history.note(&self.process, || format!("{} {what}", call.request()));
    }
}
