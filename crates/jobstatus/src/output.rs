//! Tables a person can read, or JSON a program can.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use serde_json::{Value, json};
use status_core::{BatchIndex, Damaged, HistoryEntry, ItemError, Page, Snapshot};

use crate::list::Listed;

pub(crate) struct Printer {
    json: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The value as JSON, or what `text` says of it.
    pub(crate) fn value(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        writeln!(io::stdout(), "{text}")
    }

    /// The value as one line of JSON.
    pub(crate) fn line(&self, value: &impl Serialize) -> io::Result<()> {
        writeln!(io::stdout(), "{}", serde_json::to_string(value)?)
    }

    pub(crate) fn job(&self, job: &Snapshot) -> io::Result<()> {
        self.value(job, || {
            let mut table = table(&[]);
            let progress = &job.progress;
            let or_dash = |number: Option<u64>| number.map_or("–".into(), |n| n.to_string());
            let mut row = |name: &str, value: String| {
                table.add_row([name, &value]);
            };
            row("Job", job.id.to_string());
            row(
                "Status",
                job.cancel_requested
                    .as_ref()
                    .filter(|_| job.finished_at.is_none())
                    .map_or(job.label.clone(), |_| "Cancelling…".into()),
            );
            if let Some(outcome) = job.outcome {
                row("Outcome", format!("{outcome:?}").to_lowercase());
            }
            row("Title", printable(&job.title));
            if let Some(kind) = &job.kind {
                row("Kind", printable(kind));
            }
            let (batches, items) = (&progress.batches, &progress.items);
            row(
                "Batches",
                format!(
                    "{} completed, {} failed, {} pending of {}",
                    batches.completed,
                    batches.failed,
                    or_dash(batches.pending),
                    or_dash(batches.total)
                ),
            );
            row(
                "Items",
                format!("{} processed, {} failed of {}", items.processed, items.failed, or_dash(items.total)),
            );
            if let Some(running) = batches.running {
                row("Running", running.to_string());
            }
            if let Some(estimate) = &job.estimate {
                row("Time left", estimate.text.clone());
            }
            row("Health", format!("{:?}", job.health).to_lowercase());
            if let Some(failure) = &job.failure {
                row("Failure", format!("{}: {}", failure.code, printable(&failure.message)));
            }
            row("Created", job.created_at.to_string());
            row("Updated", job.updated_at.to_string());
            table.to_string()
        })
    }

    pub(crate) fn jobs(&self, page: &Page<Listed>) -> io::Result<()> {
        self.value(
            &with_damaged(json!({ "jobs": page.rows, "next_cursor": page.next }), &page.damaged),
            || {
                let mut table =
                    table(&["Job", "Owner", "Status", "Batches", "Items", "Failed", "Created", "Title"]);
                for Listed { owner, job } in &page.rows {
                    let progress = &job.progress;
                    let of = progress.batches.total.map(|total| format!("/{total}")).unwrap_or_default();
                    table.add_row([
                        job.id.to_string(),
                        printable(owner.as_str()),
                        job.status.to_string(),
                        format!("{}{of}", progress.batches.completed),
                        progress.items.processed.to_string(),
                        progress.items.failed.to_string(),
                        job.created_at.to_string(),
                        printable(&job.title),
                    ]);
                }
                with_more(&table, page.rows.len(), "jobs", page.next.as_deref())
            },
        )?;
        warn_of(&page.damaged)
    }

    pub(crate) fn history(&self, history: &[HistoryEntry]) -> io::Result<()> {
        self.value(&json!({ "history": history }), || {
            let mut table = table(&["At", "Decision", "By", "Reason"]);
            for entry in history {
                let to = serde_json::to_value(entry.to)
                    .ok()
                    .and_then(|to| to.as_str().map(str::to_owned))
                    .unwrap_or_default();
                let reason = printable(entry.reason.as_deref().unwrap_or_default());
                table.add_row([entry.at.to_string(), to, entry.by.to_string(), reason]);
            }
            table.to_string()
        })
    }

    pub(crate) fn errors(&self, page: &Page<ItemError>) -> io::Result<()> {
        let json = json!({ "errors": page.rows, "next_cursor": page.next });
        self.value(&with_damaged(json, &page.damaged), || {
            let mut table = table(&["Batch", "Item", "Line", "Code", "Message"]);
            let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            for error in &page.rows {
                table.add_row([
                    error.batch.to_string(),
                    number(error.item),
                    number(error.line),
                    printable(&error.code),
                    printable(&error.message),
                ]);
            }
            with_more(&table, page.rows.len(), "errors", page.next.as_deref())
        })?;
        warn_of(&page.damaged)
    }

    /// Batches, as the field `name` in JSON.
    pub(crate) fn batches(&self, name: &str, state: &str, batches: &[BatchIndex]) -> io::Result<()> {
        self.value(&json!({ name: batches }), || {
            let numbers: Vec<_> = batches.iter().map(ToString::to_string).collect();
            match numbers.len() {
                0 => format!("No {state} batches."),
                1 => format!("1 {state} batch: {}", numbers[0]),
                count => format!("{count} {state} batches: {}", numbers.join(", ")),
            }
        })
    }
}

/// A page as JSON, with what is damaged on it, if anything is.
fn with_damaged(mut page: Value, damaged: &[Damaged]) -> Value {
    if !damaged.is_empty() {
        let rows = damaged.iter().map(|Damaged { subject, why }| json!({ "subject": subject, "why": why }));
        page["damaged"] = rows.collect();
    }
    page
}

/// Says on standard error what cannot be shown.
fn warn_of(damaged: &[Damaged]) -> io::Result<()> {
    for Damaged { subject, why } in damaged {
        writeln!(io::stderr(), "jobstatus: {} cannot be read: {}", printable(subject), printable(why))?;
    }
    Ok(())
}

/// What users typed must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table
}

fn with_more(table: &Table, rows: usize, what: &str, next: Option<&str>) -> String {
    match (rows, next) {
        (0, None) => format!("No {what}."),
        (0, Some(cursor)) => format!("No {what} on this page.\nMore: --cursor {cursor}"),
        (_, None) => table.to_string(),
        (_, Some(cursor)) => format!("{table}\nMore: --cursor {cursor}"),
    }
}
