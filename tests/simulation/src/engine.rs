//! The embedded DynamoDB engine, and its replicas for reads that see an earlier state.
//!
//! The engine answers every read from its newest state. DynamoDB does not: an eventually consistent
//! read may see what was true a moment ago. So every write is remembered, and replayed later into
//! replicas. Each replica lags by its own amount, so that two reads in a row may go back in time,
//! as on DynamoDB.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dynoxide::{Database, DynoxideError};
use serde::{Serialize, de::DeserializeOwned};

use crate::time::VirtualTime;

/// How many replicas lag behind the newest state.
const REPLICAS: usize = 2;

/// One table server. Shared by all processes of a run.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    newest: Database,
    time: VirtualTime,
    past: Mutex<Past>,
}

/// What is needed to answer from an earlier state.
struct Past {
    writes: Vec<Write>,
    replicas: [Option<Replica>; REPLICAS],
}

struct Write {
    at: Duration,
    request: Request,
}

struct Replica {
    database: Database,
    /// How many of the writes it has seen.
    seen: usize,
}

/// A request as it comes over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The JSON body.
    pub body: Arc<str>,
}

/// An answer as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: String,
}

impl Engine {
    /// An engine without tables.
    pub fn new(time: VirtualTime) -> Result<Self, DynoxideError> {
        let newest = database(time)?;
        let past = Past { writes: Vec::new(), replicas: [const { None }; REPLICAS] };
        Ok(Self(Arc::new(Inner { newest, time, past: Mutex::new(past) })))
    }

    /// Carries a request out.
    pub fn answer(&self, request: &Request) -> Answer {
        let answer = dispatch(&self.0.newest, request);
        if answer.status == 200 && !is_read(&request.operation) {
            let write = Write { at: self.0.time.elapsed(), request: request.clone() };
            self.past().writes.push(write);
        }
        answer
    }

    /// Answers a read from a state that is at most `lag` old. `which` names the replica, and `back`
    /// the number of writes it should not have seen yet; it may have seen some of them before.
    pub fn answer_late(&self, request: &Request, which: usize, back: usize, lag: Duration) -> Option<Answer> {
        let mut past = self.past();
        let Past { writes, replicas } = &mut *past;
        let oldest = self.0.time.elapsed().saturating_sub(lag);
        let at_least = writes.partition_point(|write| write.at <= oldest);
        let target = writes.len().saturating_sub(back).max(at_least);
        let slot = &mut replicas[which % REPLICAS];
        let replica = match slot {
            Some(replica) => replica,
            None => slot.insert(Replica { database: database(self.0.time).ok()?, seen: 0 }),
        };
        for write in writes.get(replica.seen..target).unwrap_or_default() {
            dispatch(&replica.database, &write.request);
        }
        replica.seen = replica.seen.max(target);
        Some(dispatch(&replica.database, request))
    }

    /// Deletes the items whose time to live is over. Replicas are slower.
    pub fn expire(&self) {
        self.0.newest.sweep_ttl().expect("a table in memory can be swept");
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.0.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

fn database(time: VirtualTime) -> Result<Database, DynoxideError> {
    Database::memory_with_clock(Arc::new(time))
}

fn is_read(operation: &str) -> bool {
    matches!(
        operation,
        "GetItem" | "BatchGetItem" | "Query" | "Scan" | "DescribeTable" | "DescribeTimeToLive"
    )
}

fn dispatch(db: &Database, Request { operation, body }: &Request) -> Answer {
    let answered = match &**operation {
        "GetItem" => call(body, |request| db.get_item(request)),
        "BatchGetItem" => call(body, |request| db.batch_get_item(request)),
        "Query" => call(body, |request| db.query(request)),
        "PutItem" => call(body, |request| db.put_item(request)),
        "UpdateItem" => call(body, |request| db.update_item(request)),
        "DeleteItem" => call(body, |request| db.delete_item(request)),
        "BatchWriteItem" => call(body, |request| db.batch_write_item(request)),
        "TransactWriteItems" => call(body, |request| db.transact_write_items(request)),
        "CreateTable" => call(body, |request| db.create_table(request)),
        "DescribeTable" => call(body, |request| db.describe_table(request)),
        "UpdateTimeToLive" => call(body, |request| db.update_time_to_live(request)),
        "DescribeTimeToLive" => call(body, |request| db.describe_time_to_live(request)),
        "Scan" => call(body, |request| db.scan(request)),
        other => Err(DynoxideError::ValidationException(format!("the simulation has no {other}"))),
    };
    match answered {
        Ok(body) => Answer { status: 200, body },
        Err(error) => Answer { status: error.status_code(), body: error.to_json() },
    }
}

fn call<Q: DeserializeOwned, A: Serialize>(
    body: &str,
    run: impl FnOnce(Q) -> Result<A, DynoxideError>,
) -> Result<String, DynoxideError> {
    let request = serde_json::from_str(body)
        .map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
    let answer = run(request)?;
    serde_json::to_string(&answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}
