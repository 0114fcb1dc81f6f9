//! Which row is the header, and what the columns are called.

use std::collections::HashSet;

use csv::StringRecord;

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

/// The columns' names: trimmed, and each only once.
pub(super) fn columns(header: &StringRecord) -> Columns {
    unique(header.iter().map(|name| name.trim().to_owned()).collect())
}

/// The columns of a table that turns out to have `width`.
pub(super) fn widened(columns: &Columns, width: usize) -> Columns {
    let mut names = columns.to_vec();
    names.resize(width, String::new());
    unique(names)
}

fn unique(names: Vec<String>) -> Columns {
    let mut seen = HashSet::new();
    let name = |(index, name): (usize, String)| {
        let name = if name.is_empty() { format!("Column {}", index + 1) } else { name };
        let more = (2..).map(|n| format!("{name} ({n})"));
        let free =
            std::iter::once(name.clone()).chain(more).find(|name| !seen.contains(name)).unwrap_or(name);
        seen.insert(free.clone());
        free
    };
    names.into_iter().enumerate().map(name).collect()
}
