//! Which row is the header, and what the columns are called.

use std::collections::{HashMap, HashSet};

use csv::StringRecord;

use super::{MAX_COLUMNS, ReadError};
use crate::Columns;

/// The index of the header among the first rows of a table: the first row that fills most of the table's width.
/// Lines above it (a title, an export date) are preamble.
pub(super) fn position(rows: &[StringRecord]) -> usize {
    let filled = |row: &StringRecord| row.iter().filter(|cell| !cell.trim().is_empty()).count();
    let width = common_width(rows);
    rows.iter().position(|row| filled(row) * 5 >= width * 3 && filled(row) > 0).unwrap_or(0)
}

/// How many cells most rows have.
pub(super) fn common_width(rows: &[StringRecord]) -> usize {
    let widths = rows.iter().map(StringRecord::len).filter(|width| *width > 1);
    let most = widths.clone().map(|w| (widths.clone().filter(|other| *other == w).count(), w)).max();
    most.map_or(1, |(_, width)| width)
}

/// The columns' names: trimmed, and each only once. `number` is the header's place in the file, for errors.
pub(super) fn columns(header: &StringRecord, number: u64) -> Result<Columns, ReadError> {
    if header.len() > MAX_COLUMNS {
        return Err(ReadError::TooManyColumns { row: number });
    }
    Ok(unique(header.iter().map(|name| name.trim().to_owned()).collect()))
}

/// The columns of a table that turns out to have `width`.
pub(super) fn widened(columns: &Columns, width: usize) -> Columns {
    let mut names = columns.to_vec();
    names.resize(width, String::new());
    unique(names)
}

fn unique(names: Vec<String>) -> Columns {
    let mut seen = HashSet::new();
    // Where to go on looking for a free number, so that many equal names take no longer than others.
    let mut next = HashMap::new();
    let name = |(index, name): (usize, String)| {
        let name = if name.is_empty() { format!("Column {}", index + 1) } else { name };
        if seen.insert(name.clone()) {
            return name;
        }
        let number = next.entry(name.clone()).or_insert(2_usize);
        loop {
            let free = format!("{name} ({number})");
            *number += 1;
            if seen.insert(free.clone()) {
                return free;
            }
        }
    };
    names.into_iter().enumerate().map(name).collect()
}
