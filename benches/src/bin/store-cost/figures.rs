//! What was measured: as JSON, or as tables for people.

use std::{
    io::{self, Write},
    time::Duration,
};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::Result;

#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) stores: Vec<StoreFigures>,
}

#[derive(Serialize)]
pub(crate) struct StoreFigures {
    pub(crate) store: &'static str,
    pub(crate) bare_operation: &'static str,
    /// Which bytes are counted, and by whom.
    pub(crate) bytes_are: &'static str,
    pub(crate) rates: Vec<RateFigures>,
    pub(crate) polls: Vec<PollFigures>,
    pub(crate) watchers: Vec<WatcherFigures>,
}

#[derive(Serialize)]
pub(crate) struct RateFigures {
    pub(crate) workers: u64,
    pub(crate) reports_per_second: Spread,
    pub(crate) bare_per_second: Spread,
    /// Reports by bare operations, of each turn.
    pub(crate) ratio: Spread,
    /// Of stores that group what waits.
    pub(crate) reports_per_commit: Option<f64>,
    /// Where the system says so.
    pub(crate) bytes_per_batch: Option<f64>,
}

#[derive(Serialize)]
pub(crate) struct PollFigures {
    pub(crate) batches: u64,
    pub(crate) milliseconds: Quantiles,
    /// Of stores that are a file.
    pub(crate) file_bytes: Option<u64>,
}

#[derive(Serialize)]
pub(crate) struct WatcherFigures {
    /// Where the watcher is, seen from the worker that reports.
    pub(crate) process: &'static str,
    pub(crate) milliseconds: Quantiles,
}

/// Of all turns: half of them are between the quartiles.
#[derive(Serialize)]
pub(crate) struct Spread {
    median: f64,
    lower_quartile: f64,
    upper_quartile: f64,
}

impl Spread {
    pub(crate) fn of(mut turns: Vec<f64>) -> Self {
        turns.sort_unstable_by(f64::total_cmp);
        let at = |quarters: usize| turns.get(turns.len() * quarters / 4).copied().unwrap_or(f64::NAN);
        Self { median: at(2), lower_quartile: at(1), upper_quartile: at(3) }
    }
}

#[derive(Serialize)]
pub(crate) struct Quantiles {
    median: f64,
    p99: f64,
    samples: usize,
}

impl Quantiles {
    /// # Errors
    /// Nothing was measured.
    pub(crate) fn of(mut samples: Vec<Duration>) -> Result<Self> {
        samples.sort_unstable();
        let at = |percent: usize| {
            let place = (samples.len() * percent).div_ceil(100).saturating_sub(1);
            samples.get(place).map(|sample| sample.as_secs_f64() * 1_000.0).ok_or("nothing was measured")
        };
        Ok(Self { median: at(50)?, p99: at(99)?, samples: samples.len() })
    }
}

impl Figures {
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        let text = if json { serde_json::to_string_pretty(self)? } else { self.tables() };
        Ok(writeln!(io::stdout(), "{text}")?)
    }

    fn tables(&self) -> String {
        let mut rates = table(&[
            "store",
            "workers",
            "reports/s",
            "bare/s",
            "ratio",
            "quartiles",
            "reports a commit",
            "bytes a batch",
        ]);
        let mut polls = table(&["store", "batches", "poll: median", "p99", "file"]);
        let mut watchers = table(&["store", "watcher in", "delay: median", "p99"]);
        for figures in &self.stores {
            for rate in &figures.rates {
                rates.add_row([
                    figures.store.to_owned(),
                    rate.workers.to_string(),
                    format!("{:.0}", rate.reports_per_second.median),
                    format!("{:.0}", rate.bare_per_second.median),
                    format!("{:.2}", rate.ratio.median),
                    format!("{:.2} to {:.2}", rate.ratio.lower_quartile, rate.ratio.upper_quartile),
                    rate.reports_per_commit.map_or("–".into(), |reports| format!("{reports:.1}")),
                    rate.bytes_per_batch.map_or("–".into(), |bytes| format!("{bytes:.0}")),
                ]);
            }
            for poll in &figures.polls {
                polls.add_row([
                    figures.store.to_owned(),
                    poll.batches.to_string(),
                    format!("{:.3} ms", poll.milliseconds.median),
                    format!("{:.3} ms", poll.milliseconds.p99),
                    poll.file_bytes.map_or("–".into(), |bytes| format!("{} KB", bytes / 1_024)),
                ]);
            }
            for watcher in &figures.watchers {
                watchers.add_row([
                    figures.store.to_owned(),
                    format!("{} process", watcher.process),
                    format!("{:.2} ms", watcher.milliseconds.median),
                    format!("{:.2} ms", watcher.milliseconds.p99),
                ]);
            }
        }
        let notes: Vec<_> = self
            .stores
            .iter()
            .map(|figures| {
                format!(
                    "{}: bare is {}; bytes are {}",
                    figures.store, figures.bare_operation, figures.bytes_are
                )
            })
            .collect();
        format!("{rates}\n\n{polls}\n\n{watchers}\n\n{}", notes.join("\n"))
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
