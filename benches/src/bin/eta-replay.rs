//! Replays the traces of an ETA kit through the shipped estimator: the very facts that the stores keep, read at each poll.

use std::{error::Error, fs, path::PathBuf, time::Duration};

use clap::Parser;
use serde::{Deserialize, Serialize};
use status_core::{
    BatchIndex, BatchReport, Effect, Facts, JobId, Timestamp, clock,
    estimate::{self, InFlight, Work},
};

/// Replays every trace of a kit through the shipped estimator.
#[derive(Parser)]
struct Arguments {
    /// The folder with the traces.
    #[arg(long)]
    traces: PathBuf,
    /// Where the predictions go.
    #[arg(long)]
    out: PathBuf,
    /// Feeds the estimator the starts of batches, too.
    #[arg(long)]
    starts: bool,
}

/// A row of a trace.
#[derive(Deserialize)]
struct Row {
    t_ms: u64,
    event: String,
    batch: Option<u64>,
    items: Option<u64>,
    duration_ms: Option<u64>,
}

/// A row of the predictions.
#[derive(Serialize)]
struct Prediction<'a> {
    trace: &'a str,
    t_ms: u64,
    remaining_ms: Option<u64>,
    low_ms: Option<u64>,
    high_ms: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut traces: Vec<_> = fs::read_dir(&arguments.traces)?.collect::<Result<Vec<_>, _>>()?;
    traces.sort_by_key(fs::DirEntry::path);
    let mut out = csv::Writer::from_path(&arguments.out)?;
    for trace in traces {
        let path = trace.path();
        if path.extension().is_none_or(|extension| extension != "csv") {
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str()).ok_or("a trace's name is not UTF-8")?;
        let rows = csv::Reader::from_path(&path)?.into_deserialize().collect::<Result<Vec<Row>, _>>();
        let rows = rows.map_err(|error| format!("{}: {error}", path.display()))?;
        for prediction in replay(name, &rows, arguments.starts)? {
            out.serialize(prediction)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn replay<'a>(name: &'a str, rows: &[Row], with_starts: bool) -> Result<Vec<Prediction<'a>>, Box<dyn Error>> {
    let origin = Timestamp::UNIX_EPOCH;
    let job = JobId::from_parts(origin, 0);
    let at = |ms| clock::after(origin, Duration::from_millis(ms));
    // Start and end of every batch: what is in flight at a poll has started and not ended.
    let spans: Vec<_> = rows
        .iter()
        .filter(|row| row.event == "done")
        .map(|row| (row.t_ms.saturating_sub(row.duration_ms.unwrap_or(0)), row.t_ms))
        .collect();
    let (mut facts, mut totals) = (Facts::default(), (None, None));
    let mut predictions = Vec::new();
    for row in rows {
        match row.event.as_str() {
            "total" => totals = (row.batch, row.items),
            "done" => {
                let batch = BatchIndex::new(row.batch.ok_or("a batch without its number")?)?;
                let took = Duration::from_millis(row.duration_ms.unwrap_or(0));
                let report = BatchReport::completed(batch, row.items.unwrap_or(0), 0).took(took);
                facts.add(job, &report, Effect::Counted, 0, at(row.t_ms));
            }
            "poll" => {
                let running = spans.iter().filter(|(start, end)| *start <= row.t_ms && row.t_ms < *end);
                let in_flight = running.fold(InFlight::default(), |sum, (start, _)| InFlight {
                    batches: sum.batches + 1,
                    age: sum.age + Duration::from_millis(row.t_ms - start),
                });
                let work = Work {
                    total: totals.0,
                    total_items: totals.1,
                    counts: facts.counts,
                    moments: facts.moments,
                    started: Duration::ZERO,
                    last: facts.last_at.map_or(Duration::ZERO, |last| clock::between(origin, last)),
                    now: Duration::from_millis(row.t_ms),
                    in_flight: with_starts.then_some(in_flight),
                };
                let remaining = estimate::remaining(&work);
                let ms = |of: fn(&estimate::Remaining) -> Duration| {
                    remaining.as_ref().map(|r| of(r).as_millis() as u64)
                };
                predictions.push(Prediction {
                    trace: name,
                    t_ms: row.t_ms,
                    remaining_ms: ms(|r| r.estimate),
                    low_ms: ms(|r| r.low),
                    high_ms: ms(|r| r.high),
                });
            }
            other => return Err(format!("{name}: unknown event {other}").into()),
        }
    }
    Ok(predictions)
}
