//! A queue in the test that delivers as SQS may: in any order, one message twice, several callers at once,
//! and again what a caller that died had in its hands.

use std::collections::BTreeMap;

use e2e::{Fault, Moment, Wire};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    function::Function,
    stack::{Stack, dynamodb, received_each},
};

/// A message that was received so often and failed is a dead letter, as `examples/template.yaml` says.
const MAX_RECEIVES: u32 = 4;
/// A message that was received more often has tries left for faults, and its caller is not killed.
const MAX_KILLS: u32 = 2;
/// The most messages in a delivery.
const DELIVERY: usize = 10;
/// A delivery makes about this many requests to DynamoDB: among them its caller is killed.
const REQUESTS: u64 = 16;

/// What callers go through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chaos {
    /// What all chance comes from, as far as the order of requests is not chance too.
    pub(crate) seed: u64,
    /// One request to DynamoDB of this many is broken.
    pub(crate) one_fault_in: u32,
    /// One delivery of this many ends with the death of its caller.
    pub(crate) one_death_in: u32,
}

/// What happened until the queue was empty.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    /// The batches of messages that nobody could handle.
    pub(crate) dead: Vec<Value>,
    /// Deliveries by package.
    pub(crate) deliveries: BTreeMap<String, u64>,
    /// Deliveries that held a batch twice.
    pub(crate) repeated: u64,
    /// Callers that were killed.
    pub(crate) killed: u64,
    /// Faults by kind.
    pub(crate) injected: BTreeMap<Fault, u64>,
}

struct Queue {
    chaos: Chaos,
    random: fastrand::Rng,
    waiting: Vec<Message>,
    in_flight: usize,
    drained: Drained,
}

#[derive(Clone)]
struct Message {
    body: Value,
    receives: u32,
    /// There is another message with this body.
    copied: bool,
}

struct Delivery {
    messages: Vec<Message>,
    /// At which request its caller dies.
    death: Option<(u64, Moment)>,
}

/// Delivers the messages to one caller of each package, until none is left.
pub(crate) async fn drain(stack: &Stack, packages: &[&str], bodies: &[Value], chaos: Chaos) -> Drained {
    let message = |body: &Value| Message { body: body.clone(), receives: 0, copied: false };
    let queue = watch::Sender::new(Queue {
        chaos,
        random: fastrand::Rng::with_seed(chaos.seed),
        waiting: bodies.iter().map(message).collect(),
        in_flight: 0,
        drained: Drained::default(),
    });
    let workers = packages.iter().zip(1..).map(async |(package, n)| {
        let wire = Wire::faulty(&dynamodb(), chaos.one_fault_in, chaos.seed * 1_000 + n).await;
        work(stack, package, &queue, &wire).await;
        wire.injected()
    });
    let injected = join_all(workers).await;
    let mut drained = queue.send_replace(Queue::empty(chaos)).drained;
    for ((_, fault), count) in injected.into_iter().flatten() {
        *drained.injected.entry(fault).or_default() += count;
    }
    drained
}

/// A caller, and the next one whenever it dies.
async fn work(stack: &Stack, package: &str, queue: &watch::Sender<Queue>, wire: &Wire) {
    let environment = stack.environment(&json!({"AWS_ENDPOINT_URL_DYNAMODB": wire.url}));
    let mut caller = Function::start(package, &environment).await;
    while let Some(delivery) = next(queue, package).await {
        let event = received_each(delivery.messages.iter().map(|message| (&message.body, message.receives)));
        let answer = match delivery.death {
            None => Some(caller.invoke(event).await),
            Some((passes, moment)) => {
                let reached = wire.hold_after(passes, moment);
                tokio::select! {
                    answer = caller.invoke(event) => Some(answer),
                    Ok(()) = reached => None,
                }
            }
        };
        if answer.is_none() {
            caller.kill();
            caller = Function::start(package, &environment).await;
        }
        queue.send_modify(|queue| queue.take_back(delivery, answer));
    }
}

/// The next delivery; `None` when all messages are handled.
async fn next(queue: &watch::Sender<Queue>, package: &str) -> Option<Delivery> {
    loop {
        let mut changes = queue.subscribe();
        let _ = changes.wait_for(|queue| !queue.waiting.is_empty() || queue.in_flight == 0).await;
        drop(changes);
        let (mut delivery, mut is_idle) = (None, false);
        queue.send_modify(|queue| {
            delivery = queue.deliver(package);
            is_idle = queue.in_flight == 0;
        });
        if delivery.is_some() || is_idle {
            return delivery;
        }
    }
}

impl Queue {
    fn empty(chaos: Chaos) -> Self {
        let random = fastrand::Rng::with_seed(chaos.seed);
        Self { chaos, random, waiting: Vec::new(), in_flight: 0, drained: Drained::default() }
    }

    fn deliver(&mut self, package: &str) -> Option<Delivery> {
        if self.waiting.is_empty() {
            return None;
        }
        self.random.shuffle(&mut self.waiting);
        let size = self.random.usize(1..=DELIVERY).min(self.waiting.len());
        let mut messages = self.waiting.split_off(self.waiting.len() - size);
        let mut repeated = 0;
        for place in 0..size {
            let message = &mut messages[place];
            message.receives += 1;
            if !message.copied && self.random.u8(..4) == 0 {
                message.copied = true;
                let copy = message.clone();
                if messages.len() < DELIVERY {
                    messages.push(copy);
                    repeated = 1;
                } else {
                    self.waiting.push(copy);
                }
            }
        }
        let may_die = messages.iter().all(|message| message.receives <= MAX_KILLS);
        let dies = may_die && self.random.u32(..self.chaos.one_death_in) == 0;
        let moment = if self.random.bool() { Moment::Before } else { Moment::After };
        let death = dies.then(|| (self.random.u64(..REQUESTS), moment));
        self.in_flight += 1;
        self.drained.repeated += repeated;
        *self.drained.deliveries.entry(package.to_owned()).or_default() += 1;
        Some(Delivery { messages, death })
    }

    /// What a caller answered; `None` if it died.
    fn take_back(&mut self, delivery: Delivery, answer: Option<Result<Value, Value>>) {
        self.in_flight -= 1;
        self.drained.killed += u64::from(answer.is_none());
        let failures = match answer {
            Some(Ok(answer)) => answer["batchItemFailures"].as_array().cloned(),
            Some(Err(_)) | None => None,
        };
        for (place, message) in delivery.messages.into_iter().enumerate() {
            let is_handled = failures
                .as_ref()
                .is_some_and(|failures| !failures.contains(&json!({"itemIdentifier": format!("m{place}")})));
            match (is_handled, message.receives < MAX_RECEIVES) {
                (true, _) => {}
                (false, true) => self.waiting.push(message),
                (false, false) => self.drained.dead.push(message.body["batch"].clone()),
            }
        }
    }
}
