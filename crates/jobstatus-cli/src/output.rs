//! What is printed: tables in a terminal, rows in a pipe, or JSON.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;
use serde_json::{Value, json};
use status_core::{BatchIndex, Damaged, Health, HistoryEntry, ItemError, Page, Snapshot};

use crate::{
    arguments::age_of,
    list::Listed,
    problem::{Code, Outcome},
    table::{self, Last, Rows},
    text::{age, counted, json_escaped, printable, ranges},
};

/// Prints results to standard output, and what is to be said about them to standard error.
pub(crate) struct Printer {
    json: bool,
    is_terminal: bool,
}

/// The batches of a job that are in one state, from one on.
pub(crate) struct Batches {
    /// The field in JSON.
    pub(crate) name: &'static str,
    /// "unsettled".
    pub(crate) state: &'static str,
    pub(crate) from: u64,
    pub(crate) rows: Vec<BatchIndex>,
    /// How many there are in the whole job; unknown without a total.
    pub(crate) in_all: Option<u64>,
    /// All batches of the job.
    pub(crate) total: Option<u64>,
    /// The first that is not on this page.
    pub(crate) next: Option<BatchIndex>,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, is_terminal: io::stdout().is_terminal() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person looks at standard output, on something that can be drawn on.
    pub(crate) fn can_draw(&self) -> bool {
        self.is_terminal && !self.json && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// The terminal's width; `None` where there is no terminal.
    fn width(&self) -> Option<usize> {
        let size = self.is_terminal.then(crossterm::terminal::size);
        size.map(|size| size.map_or(80, |(columns, _)| usize::from(columns).max(1)))
    }

    /// As it is.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Outcome<()> {
        io::stdout().write_all(bytes)?;
        Ok(io::stdout().flush()?)
    }

    /// The value as JSON, or else a sentence.
    pub(crate) fn value(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Outcome<()> {
        match self.json {
            true => self.line(&json_escaped(&serde_json::to_string_pretty(value)?)),
            false => self.line(&text()),
        }
    }

    /// The value as one line of JSON.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> Outcome<()> {
        self.line(&json_escaped(&serde_json::to_string(value)?))
    }

    /// A line, at once.
    pub(crate) fn line(&self, text: &str) -> Outcome<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// Something about the result, or the way to it.
    pub(crate) fn notice(&self, text: &str) {
        let text = match self.json {
            true => json_escaped(&json!({ "notice": text }).to_string()),
            false => printable(text),
        };
        // Nobody listens; the result is what counts.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Why the program ends.
    pub(crate) fn problem(&self, code: Code, message: &str) {
        let text = match self.json {
            true => {
                let error = json!({ "code": code.name(), "exit_code": code as u8, "message": message });
                json_escaped(&json!({ "error": error }).to_string())
            }
            false => format!("jobstatus: {}", printable(message)),
        };
        let _ = writeln!(io::stderr(), "{text}");
    }

    pub(crate) fn job(&self, job: &Listed) -> Outcome<()> {
        if self.json {
            return self.value(job, String::new);
        }
        let fields: Vec<_> = fields(job).into_iter().map(|(name, text)| (name, printable(&text))).collect();
        let text = match self.width() {
            Some(width) => table::named(&fields, width),
            None => {
                let lines = fields.iter().map(|(name, value)| format!("{}\t{value}", name.to_lowercase()));
                lines.collect::<Vec<_>>().join("\n")
            }
        };
        self.line(&text)
    }

    pub(crate) fn jobs(&self, page: &Page<Listed>) -> Outcome<()> {
        if self.json {
            let json = json!({ "jobs": page.rows, "next_cursor": page.next });
            return self.value(&with_damaged(json, &page.damaged), String::new);
        }
        match self.width() {
            None => self.rows(page.rows.iter().map(plain))?,
            Some(width) => self.table(
                width,
                &Rows {
                    header: &["Job", "Owner", "Status", "Batches", "Failed", "Age", "Title"],
                    rows: page.rows.iter().map(short).collect(),
                    optional: &[4, 5],
                    last: Last::Cut,
                },
            )?,
        }
        self.about_page(page, "jobs");
        Ok(())
    }

    pub(crate) fn history(&self, history: &[HistoryEntry]) -> Outcome<()> {
        if self.json {
            return self.value(&json!({ "history": history }), String::new);
        }
        let rows = history.iter().map(|entry| {
            let reason = entry.reason.clone().unwrap_or_default();
            vec![entry.at.to_string(), name_of(entry.to), entry.by.to_string(), reason]
        });
        match self.width() {
            None => self.rows(rows),
            Some(width) => self.table(
                width,
                &Rows {
                    header: &["At", "Decision", "By", "Reason"],
                    rows: rows.map(|row| all_printable(&row)).collect(),
                    optional: &[],
                    last: Last::Wrapped,
                },
            ),
        }
    }

    pub(crate) fn errors(&self, page: &Page<ItemError>) -> Outcome<()> {
        if self.json {
            let json = json!({ "errors": page.rows, "next_cursor": page.next });
            return self.value(&with_damaged(json, &page.damaged), String::new);
        }
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let rows = page.rows.iter().map(|error| {
            let (item, line) = (number(error.item), number(error.line));
            vec![error.batch.to_string(), item, line, error.code.clone(), error.message.clone()]
        });
        match self.width() {
            None => self.rows(rows)?,
            Some(width) => self.table(
                width,
                &Rows {
                    header: &["Batch", "Item", "Line", "Code", "Message"],
                    rows: rows.map(|row| all_printable(&row)).collect(),
                    optional: &[],
                    last: Last::Wrapped,
                },
            )?,
        }
        self.about_page(page, "errors");
        Ok(())
    }

    pub(crate) fn batches(&self, batches: &Batches) -> Outcome<()> {
        if self.json {
            let Batches { name, rows, in_all, next, .. } = batches;
            return self.value(&json!({ *name: rows, "in_all": in_all, "next_from": next }), String::new);
        }
        if self.is_terminal {
            if !batches.rows.is_empty() {
                self.line(&ranges(&batches.rows))?;
            }
        } else {
            self.rows(batches.rows.iter().map(|batch| vec![batch.to_string()]))?;
        }
        self.notice(&batches.summary());
        Ok(())
    }

    /// Rows of columns between tabs.
    fn rows(&self, rows: impl Iterator<Item = Vec<String>>) -> Outcome<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for row in rows {
            writeln!(out, "{}", all_printable(&row).join("\t"))?;
        }
        Ok(out.flush()?)
    }

    fn table(&self, width: usize, rows: &Rows<'_>) -> Outcome<()> {
        if rows.rows.is_empty() { Ok(()) } else { self.line(&rows.fitted(width)) }
    }

    /// Says whether there is more than the page shows, and what could not be read.
    fn about_page<T>(&self, page: &Page<T>, what: &str) {
        for Damaged { subject, why } in &page.damaged {
            self.notice(&format!("{subject} cannot be read: {why}"));
        }
        match (page.rows.is_empty(), &page.next) {
            (true, None) => self.notice(&format!("No {what}.")),
            (true, Some(cursor)) => self.notice(&format!("No {what} on this page. More: --cursor {cursor}")),
            (false, Some(cursor)) => self.notice(&format!("More: --cursor {cursor}")),
            (false, None) => {}
        }
    }
}

impl Batches {
    /// How many there are, of how many, and where the next are.
    fn summary(&self) -> String {
        let Self { state, from, rows, in_all, total, next, .. } = self;
        let shown = rows.len() as u64;
        let batches = |count| counted(count, &format!("{state} batch"), &format!("{state} batches"));
        let more = next.map(|next| format!(" More: --from {next}")).unwrap_or_default();
        match (in_all, total) {
            (Some(in_all), Some(total)) => match (shown, *in_all) {
                (0, 0) if *total == 0 => "The job has no batches.".to_owned(),
                (0, 0) if *state == "unsettled" => format!("Every batch is settled, {total} of {total}."),
                (0, 0) => format!("No {state} batch of {total}."),
                (0, in_all) => format!("No {state} batch from {from} on; {in_all} of {total} in all."),
                (shown, in_all) if shown < in_all => {
                    format!("{} of {total}; {shown} shown.{more}", batches(in_all))
                }
                (_, in_all) => format!("{} of {total}.{more}", batches(in_all)),
            },
            // Until the total is known there may be more batches than anybody has heard of.
            _ => format!("{} so far; how many there are in all is not known yet.{more}", batches(shown)),
        }
    }
}

/// A job in all its fields.
fn fields(Listed { owner, job }: &Listed) -> Vec<(&'static str, String)> {
    let progress = &job.progress;
    let (batches, items) = (&progress.batches, &progress.items);
    let or_dash = |number: Option<u64>| number.map_or("–".into(), |n| n.to_string());
    let noun = job.noun();
    let mut fields = vec![("Job", job.id.to_string())];
    let mut field = |name, value| fields.push((name, value));
    field("Owner", owner.to_string());
    field("Title", job.title.clone());
    if let Some(kind) = &job.kind {
        field("Kind", kind.clone());
    }
    field("Status", label(job));
    if let Some(stage) = &job.stage {
        field("Stage", stage.clone());
    }
    if let Some(outcome) = job.outcome {
        field("Outcome", name_of(outcome));
    }
    field("Health", name_of(job.health));
    let of = |total| format!("{} pending of {}", or_dash(batches.pending), or_dash(total));
    let settled = format!("{} completed, {} failed", batches.completed, batches.failed);
    field("Batches", format!("{settled}, {}", of(batches.total)));
    field(
        "Items",
        format!(
            "{} processed, {} failed of {} {}",
            items.processed,
            items.failed,
            or_dash(items.total),
            noun.to_lowercase()
        ),
    );
    if let Some(running) = batches.running {
        field("Running", counted(running, "batch", "batches"));
    }
    if let Some(estimate) = &job.estimate {
        field("Time left", estimate.text.clone());
    }
    if let Some(failure) = &job.failure {
        field("Failure", format!("{}: {}", failure.code, failure.message));
    }
    if let Some(asked) = &job.cancel_requested {
        let why = asked.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        field("Cancel", format!("asked for by {} at {}{why}", asked.by, asked.at));
    }
    for (name, job) in [("Parent", job.parent), ("Child", job.child)] {
        if let Some(job) = job {
            field(name, job.to_string());
        }
    }
    let mut at = |name, at: Option<status_core::Timestamp>| {
        if let Some(at) = at {
            fields.push((name, at.to_string()));
        }
    };
    at("Created", Some(job.created_at));
    at("Started", job.started_at);
    at("Updated", Some(job.updated_at));
    at("Finished", job.finished_at);
    fields
}

/// The status in words: the job's own, unless it is being cancelled.
pub(crate) fn label(job: &Snapshot) -> String {
    let is_cancelling = job.cancel_requested.is_some() && job.finished_at.is_none();
    printable(if is_cancelling { "Cancelling…" } else { &job.label })
}

/// A job as one line of a table.
fn short(Listed { owner, job }: &Listed) -> Vec<String> {
    let progress = &job.progress;
    let of = progress.batches.total.map(|total| format!("/{total}")).unwrap_or_default();
    let status = match job {
        _ if job.cancel_requested.is_some() && job.finished_at.is_none() => "cancelling".to_owned(),
        _ if job.health == Health::Stalled => format!("{}, stalled", job.status),
        _ => job.status.to_string(),
    };
    let failed = progress.items.failed;
    all_printable(&[
        job.id.to_string(),
        owner.to_string(),
        status,
        format!("{}{of}", progress.batches.completed + progress.batches.failed),
        if failed == 0 { String::new() } else { failed.to_string() },
        age(age_of(job.created_at)),
        job.title.clone(),
    ])
}

/// A job as a row for programs.
fn plain(Listed { owner, job }: &Listed) -> Vec<String> {
    let (batches, items) = (&job.progress.batches, &job.progress.items);
    vec![
        job.id.to_string(),
        owner.to_string(),
        job.status.to_string(),
        name_of(job.health),
        batches.completed.to_string(),
        batches.total.map(|total| total.to_string()).unwrap_or_default(),
        items.processed.to_string(),
        items.failed.to_string(),
        job.created_at.to_string(),
        job.kind.clone().unwrap_or_default(),
        job.title.clone(),
    ]
}

/// What a job is about, on one line of a log.
pub(crate) fn line_of(job: &Snapshot) -> String {
    let (batches, items) = (&job.progress.batches, &job.progress.items);
    let of = |total: Option<u64>| total.map(|total| format!("/{total}")).unwrap_or_default();
    let mut parts = vec![label(job)];
    if let Some(stage) = job.stage.as_ref().filter(|_| !job.status.is_terminal()) {
        parts.push(stage.clone());
    }
    let failed = if batches.failed > 0 { format!(" ({} failed)", batches.failed) } else { String::new() };
    parts.push(format!("{}{} batches{failed}", batches.completed + batches.failed, of(batches.total)));
    let failed = if items.failed > 0 { format!(" ({} failed)", items.failed) } else { String::new() };
    parts.push(format!("{}{} {}{failed}", items.processed, of(items.total), job.noun().to_lowercase()));
    if job.health == Health::Stalled {
        parts.push("stalled".into());
    }
    if let Some(failure) = &job.failure {
        parts.push(format!("{}: {}", failure.code, failure.message));
    }
    printable(&parts.join(", "))
}

/// The name that a value has in JSON.
fn name_of(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name.replace('_', " "),
        _ => String::new(),
    }
}

fn all_printable(row: &[String]) -> Vec<String> {
    row.iter().map(|cell| printable(cell)).collect()
}

/// A page as JSON, with what is damaged on it, if anything is.
fn with_damaged(mut page: Value, damaged: &[Damaged]) -> Value {
    if !damaged.is_empty() {
        let rows = damaged.iter().map(|Damaged { subject, why }| json!({ "subject": subject, "why": why }));
        page["damaged"] = rows.collect();
    }
    page
}

/// A span of time as people write it: "15s", "2m".
pub(crate) fn span(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}
