//! Drives the shipped DynamoDB store against a server and prints what it cost, by the server's own account, beside the
//! same number of plain one-item updates from the same client: as many as the store made requests (what the store adds to a
//! request), and as many as the workers had something to record (what it adds to a counter that is wrong).

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use bench::dynamodb;
use clap::Parser;
use futures::future::try_join_all;
use serde::Serialize;
use status_core::{
    Actor, BatchIndex, BatchReport, Consistency, FileInfo, ItemError, JobId, NewJob, OwnerId, PageRequest,
    Policy, StatusStore, Totals, Tracker,
};
use status_dynamo::{DynamoStore, Meter, layout};

/// Measures what jobs cost in DynamoDB.
#[derive(Parser)]
struct Arguments {
    /// The server; without it, an embedded engine in this process.
    #[arg(long)]
    endpoint: Option<String>,
    /// Batches of the job.
    #[arg(long, default_value_t = 10_000)]
    batches: u64,
    /// Workers at once.
    #[arg(long, default_value_t = 32)]
    workers: u64,
    /// The share of what is received that is delivered a second time.
    #[arg(long, default_value_t = 0.0)]
    redeliver: f64,
    /// Outcomes that share a write.
    #[arg(long, default_value_t = 1)]
    coalesce: usize,
    /// Whether the start of each batch is recorded too.
    #[arg(long)]
    track_starts: bool,
    /// The share of the batches that have one failed item each.
    #[arg(long, default_value_t = 0.0)]
    item_errors: f64,
}

/// What was measured: in one run what it cost, in others how long it took.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    cost: Cost,
    #[serde(flatten)]
    time: Time,
}

#[derive(Serialize)]
struct Cost {
    batches: u64,
    deliveries: u64,
    completed: u64,
    failed: u64,
    status: &'static str,
    /// Of all successful writes after the job was started: outcomes, starts, compaction, errors of items,
    /// decisions, and the end's own writes.
    write_units: f64,
    write_units_per_batch: f64,
    /// With the conditional writes that were refused, as AWS bills them.
    billed_write_units: f64,
    billed_write_units_per_batch: f64,
    /// Conditional writes that were refused: redelivered batches, for the most part.
    refused_writes: u64,
    /// Errors of items that are listed at the end.
    listed_errors: u64,
    read_units_per_poll: f64,
    requests: u64,
    largest_item_bytes: usize,
    largest_open_chunk_bytes: usize,
    completed_decisions: usize,
}

#[derive(Serialize)]
struct Time {
    seconds: f64,
    /// Of as many plain updates as there were requests.
    raw_seconds: f64,
    seconds_per_raw: f64,
    /// The same against as many plain updates as the workers received something.
    seconds_per_raw_receive: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let client = dynamodb::client(arguments.endpoint.as_deref()).await?;
    let table = format!("dynamo-cost-{}-{}", std::process::id(), JobId::new(status_core::Timestamp::now()));
    let store = DynamoStore::new(client.clone(), &table);
    store.create_table().await?;
    let measured = measure(&arguments, &client, &table, Arc::new(store)).await;
    client.delete_table().table_name(&table).send().await?;
    let measured = measured?;
    println!("{}", serde_json::to_string_pretty(&measured)?);
    Ok(())
}

async fn measure(
    arguments: &Arguments,
    client: &Client,
    table: &str,
    store: Arc<dyn StatusStore>,
) -> Result<Measured, Box<dyn Error>> {
    let cost = cost(arguments, client, table).await?;
    let time = time(arguments, client, table, store, cost.requests).await?;
    Ok(Measured { cost, time })
}

/// What the workers receive: every batch once, in order, as many together as share a write; and some of it again later, as a whole, since a worker
/// that dies takes down all it has received.
fn receives(arguments: &Arguments) -> Vec<Vec<u64>> {
    let batches: Vec<_> = (0..arguments.batches).collect();
    let mut receives = Vec::new();
    let (mut again, mut late) = (0, VecDeque::new());
    for (index, receive) in batches.chunks(arguments.coalesce.max(1)).enumerate() {
        receives.push(receive.to_vec());
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
        while f64::from(again) < ((index + 1) as f64 * arguments.redeliver).floor() {
            late.push_back(receive.to_vec());
            again += 1;
        }
        if late.len() > 64 {
            receives.extend(late.pop_front());
        }
    }
    receives.extend(late);
    receives
}

/// A job, from its start to its end; and how long the workers took.
async fn start(
    arguments: &Arguments,
    store: &Arc<dyn StatusStore>,
) -> Result<(Tracker, JobId), Box<dyn Error>> {
    let mut policy = Policy::default();
    policy.track_starts = arguments.track_starts;
    let tracker = Tracker::new(store.clone()).with_policy(policy);
    let jobs = tracker.owned_by(OwnerId::new("dynamo-cost")?);
    let job = jobs.create(NewJob::new(FileInfo::new("leads.csv", 1_000, "text/csv")?)).await?.id;
    let totals = Totals { batches: arguments.batches, items: Some(arguments.batches * 10) };
    tracker.start(job, Some(totals), &Actor::named("splitter")).await?;
    Ok((tracker, job))
}

/// All that is received of the job, by as many workers as were asked for; how long they took.
async fn work(arguments: &Arguments, tracker: &Tracker, job: JobId) -> Result<Duration, Box<dyn Error>> {
    let receives = receives(arguments);
    let next = AtomicUsize::new(0);
    let worker = async || -> Result<(), Box<dyn Error>> {
        loop {
            let Some(mine) = receives.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
            let indices = mine.iter().map(|batch| BatchIndex::new(*batch)).collect::<Result<Vec<_>, _>>()?;
            if arguments.track_starts {
                tracker.begin_all(job, &indices).await?;
            }
            let took = Duration::from_millis(2_000 + mine[0] % 977);
            let reports = indices.into_iter().map(|batch| report(arguments, batch).took(took)).collect();
            tracker.report(job, reports).await?;
        }
    };
    let begun = Instant::now();
    try_join_all((0..arguments.workers).map(|_| worker())).await?;
    Ok(begun.elapsed())
}

/// What a worker says of a batch of ten items: of the share that was asked for, that one of them failed.
fn report(arguments: &Arguments, batch: BatchIndex) -> BatchReport {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    let failed_before = |batches: u64| (batches as f64 * arguments.item_errors).floor();
    if failed_before(batch.get() + 1) > failed_before(batch.get()) {
        let message = "The row has neither a name nor an e-mail address.";
        let error = ItemError::new(batch, Some(batch.get() * 10), "lead-unusable", message);
        BatchReport::completed(batch, 9, 1).with_errors([error])
    } else {
        BatchReport::completed(batch, 10, 0)
    }
}

/// What a job costs by the server's own account.
async fn cost(arguments: &Arguments, client: &Client, table: &str) -> Result<Cost, Box<dyn Error>> {
    let meter = Arc::new(Meter::default());
    let store: Arc<dyn StatusStore> =
        Arc::new(DynamoStore::new(client.clone(), table).with_meter(meter.clone()));
    let (tracker, job) = start(arguments, &store).await?;
    let before = meter.usage();
    let largest_open = AtomicU64::new(0);
    tokio::select! {
        done = work(arguments, &tracker, job) => done.map(drop)?,
        stopped = watch_sizes(client, table, job, &largest_open) => return Err(stopped),
    }
    let used = meter.usage();
    let record = store.read(job, Consistency::Strong).await?.ok_or("the job is gone")?;
    let polled = meter.usage();
    store.read(job, Consistency::Eventual).await?;
    let poll = meter.usage().read_units - polled.read_units;
    let counts = record.facts.counts;
    let ends = record.job.history.iter().filter(|h| h.to == status_core::Decision::Completed).count();
    let write_units = used.write_units - before.write_units;
    let billed = write_units + used.refused_units - before.refused_units;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    Ok(Cost {
        batches: arguments.batches,
        deliveries: receives(arguments).iter().map(|receive| receive.len() as u64).sum(),
        completed: counts.completed,
        failed: counts.failed,
        status: record.job.status.as_str(),
        write_units,
        write_units_per_batch: write_units / arguments.batches as f64,
        billed_write_units: billed,
        billed_write_units_per_batch: billed / arguments.batches as f64,
        refused_writes: used.refused - before.refused,
        listed_errors: listed_errors(&store, job).await?,
        read_units_per_poll: poll,
        requests: used.requests - before.requests,
        largest_item_bytes: sizes(client, table, job)
            .await?
            .into_iter()
            .map(|(_, size)| size)
            .max()
            .unwrap_or(0),
        largest_open_chunk_bytes: usize::try_from(largest_open.load(Ordering::Relaxed))?,
        completed_decisions: ends,
    })
}

/// How many errors of items the job lists, on all pages.
async fn listed_errors(store: &Arc<dyn StatusStore>, job: JobId) -> Result<u64, Box<dyn Error>> {
    let (mut page, mut listed) = (PageRequest::first(1_000), 0);
    loop {
        let errors = store.errors(job, &page).await?;
        listed += errors.rows.len() as u64;
        match errors.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(listed),
        }
    }
}

/// Looks from time to time how large the chunks are while they are open.
async fn watch_sizes(client: &Client, table: &str, job: JobId, largest: &AtomicU64) -> Box<dyn Error> {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        match sizes(client, table, job).await {
            Ok(sizes) => {
                let open =
                    sizes.into_iter().filter(|(sk, _)| sk.starts_with("chunk#")).map(|(_, size)| size as u64);
                largest.fetch_max(open.max().unwrap_or(0), Ordering::Relaxed);
            }
            Err(error) => return error,
        }
    }
}

/// The sort keys and sizes of the job's items, as DynamoDB counts them.
async fn sizes(client: &Client, table: &str, job: JobId) -> Result<Vec<(String, usize)>, Box<dyn Error>> {
    let mut pages = client
        .query()
        .table_name(table)
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", AttributeValue::S(job.to_string()))
        .into_paginator()
        .items()
        .send();
    let mut sizes = Vec::new();
    while let Some(item) = pages.next().await {
        let item = item?;
        let sk = item.get("sk").and_then(|sk| sk.as_s().ok()).cloned().unwrap_or_default();
        sizes.push((sk, layout::size_of(&item)));
    }
    Ok(sizes)
}

/// How long a job takes, and so many bare updates: in turn, so that a server that gets slower or faster does so for both; and without
/// asking for the capacity, which the server would have to work out.
async fn time(
    arguments: &Arguments,
    client: &Client,
    table: &str,
    store: Arc<dyn StatusStore>,
    updates: u64,
) -> Result<Time, Box<dyn Error>> {
    let raw_updates = |turn: u32| raw_updates(client, table, arguments, updates, format!("raw-{turn}"));
    let (mut seconds, mut raw) = (Duration::ZERO, raw_updates(0).await? / 2);
    for turn in 1..=2 {
        let (tracker, job) = start(arguments, &store).await?;
        seconds += work(arguments, &tracker, job).await? / 2;
        raw += raw_updates(turn).await? / 2;
    }
    let (seconds, raw_seconds) = (seconds.as_secs_f64(), raw.as_secs_f64() * 2.0 / 3.0);
    let seconds_per_raw = seconds / raw_seconds;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    let requests_per_receive = updates as f64 / receives(arguments).len() as f64;
    Ok(Time {
        seconds,
        raw_seconds,
        seconds_per_raw,
        seconds_per_raw_receive: seconds_per_raw * requests_per_receive,
    })
}

/// The floor: so many additions to plain counters, spread over as many items as the store has chunks.
async fn raw_updates(
    client: &Client,
    table: &str,
    arguments: &Arguments,
    updates: u64,
    name: String,
) -> Result<Duration, Box<dyn Error>> {
    let chunks = arguments.batches.div_ceil(256);
    let next = AtomicU64::new(0);
    let worker = async || -> Result<(), Box<dyn Error>> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= updates {
                return Ok(());
            }
            let key = HashMap::from([
                ("pk".into(), AttributeValue::S(name.clone())),
                ("sk".into(), AttributeValue::S(format!("chunk#{:05}", index * chunks / updates))),
            ]);
            client
                .update_item()
                .table_name(table)
                .set_key(Some(key))
                .update_expression("ADD n :one")
                .expression_attribute_values(":one", AttributeValue::N("1".into()))
                .send()
                .await?;
        }
    };
    let begun = Instant::now();
    try_join_all((0..arguments.workers).map(|_| worker())).await?;
    Ok(begun.elapsed())
}
