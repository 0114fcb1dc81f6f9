//! Rows as people read them. Ids are never broken: where a terminal is too narrow for columns, each row
//! is a few lines.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets::NOTHING};
use unicode_width::UnicodeWidthStr;

use crate::text::cut;

/// The least width of a last column that takes what the others leave.
const LAST: usize = 11;
/// What stands between two columns.
const GAP: usize = 2;

/// How the last column, whose texts may be long, is made to fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// On one line, cut: the whole text is shown elsewhere.
    Cut,
    /// On as many lines as it takes.
    Wrapped,
}

/// Named columns, and rows of as many cells.
pub(crate) struct Rows<'a> {
    pub(crate) header: &'a [&'a str],
    pub(crate) rows: Vec<Vec<String>>,
    /// Columns that are left out where there is no room for all.
    pub(crate) optional: &'a [usize],
    pub(crate) last: Last,
}

impl Rows<'_> {
    /// The rows in at most `width` columns of a terminal.
    pub(crate) fn fitted(&self, width: usize) -> String {
        let all: Vec<usize> = (0..self.header.len()).collect();
        let needed = all.iter().copied().filter(|column| !self.optional.contains(column)).collect();
        for columns in [all, needed] {
            if let Some(left) = self.room_for_last(&columns, width) {
                return self.columns(&columns, left, width);
            }
        }
        self.stacked(width)
    }

    /// What these columns leave for the last of them, if that is enough.
    fn room_for_last(&self, columns: &[usize], width: usize) -> Option<usize> {
        let (last, others) = columns.split_last()?;
        let taken: usize = others.iter().map(|column| self.width_of(*column) + GAP).sum();
        let left = width.checked_sub(taken)?;
        (left >= self.width_of(*last).min(LAST)).then_some(left)
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].width());
        cells.chain([self.header[column].width()]).max().unwrap_or(0)
    }

    fn columns(&self, columns: &[usize], left: usize, width: usize) -> String {
        let mut table = plain(width);
        table.set_header(columns.iter().map(|column| self.header[*column].to_uppercase()));
        for row in &self.rows {
            table.add_row(columns.iter().map(|column| match self.last {
                Last::Cut if columns.last() == Some(column) => cut(&row[*column], left),
                _ => row[*column].clone(),
            }));
        }
        for (place, column) in table.column_iter_mut().enumerate() {
            let is_last = place + 1 == columns.len();
            column.set_padding((0, if is_last { 0 } else { 2 }));
            if !is_last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.trim_fmt()
    }

    /// Each row as lines: its first cell, then the others with their names.
    fn stacked(&self, width: usize) -> String {
        let lines = self.rows.iter().flat_map(|row| {
            let others = self.header.iter().zip(row).skip(1).filter(|(_, cell)| !cell.is_empty());
            let others = others.map(|(name, cell)| format!("  {name}: {cell}"));
            let others = others.map(move |line| match self.last {
                Last::Cut => cut(&line, width),
                Last::Wrapped => wrapped(line.trim_start(), width, GAP),
            });
            std::iter::once(row[0].clone()).chain(others)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Names with their values, wrapped; a value that would be broken beside its name stands under it.
pub(crate) fn named(fields: &[(&str, String)], width: usize) -> String {
    let names = fields.iter().map(|(name, _)| name.width()).max().unwrap_or(0) + GAP;
    let lines = fields.iter().map(|(name, value)| {
        let unbroken = value.split(' ').map(UnicodeWidthStr::width).max().unwrap_or(0);
        if names + unbroken > width {
            return format!("{name}\n{}", wrapped(value, width, GAP));
        }
        let value = wrapped(value, width, names);
        format!("{name:names$}{}", value.get(names..).unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The text in lines of at most `width` columns, all of them indented.
fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut table = plain(width);
    table.add_row([text]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((u16::try_from(indent).unwrap_or(u16::MAX), 0));
    }
    table.trim_fmt()
}

/// A table without lines.
fn plain(width: usize) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdefghijklmnopqrstuv0123";

    fn rows(last: Last) -> Rows<'static> {
        let row = [ID, "alice", "processing", "3d", "a title that takes more than its column"];
        Rows {
            header: &["Job", "Owner", "Status", "Age", "Title"],
            rows: vec![row.map(str::to_owned).to_vec()],
            optional: &[3],
            last,
        }
    }

    fn widest(text: &str) -> usize {
        text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
    }

    #[test]
    fn rows_fit_every_width_and_ids_are_whole() {
        for width in 40..200 {
            for last in [Last::Cut, Last::Wrapped] {
                let text = rows(last).fitted(width);
                assert!(text.lines().any(|line| line.split_whitespace().any(|word| word == ID)), "{text}");
                assert!(text.contains("processing"), "{text}");
                let is_stacked = text.contains("Owner: ");
                assert!(widest(&text) <= width, "{width}:\n{text}");
                assert_eq!(is_stacked, width < 36 + 2 + 5 + 2 + 10 + 2 + LAST, "{width}:\n{text}");
            }
        }
    }

    #[test]
    fn what_is_optional_goes_first() {
        assert!(rows(Last::Cut).fitted(80).contains("3d"));
        let narrower = rows(Last::Cut).fitted(70);
        assert!(!narrower.contains("3d") && narrower.contains("a title"), "{narrower}");
        assert!(rows(Last::Cut).fitted(40).contains("Age: 3d"), "there is room again");
    }

    #[test]
    fn long_texts_are_wrapped_where_they_are_to_be_read() {
        let text = rows(Last::Wrapped).fitted(80);
        assert!(text.lines().count() > 2 && text.contains("column"), "{text}");
        let text = rows(Last::Cut).fitted(80);
        assert!(text.lines().count() == 2 && text.ends_with('…'), "{text}");
    }

    #[test]
    fn values_stand_beside_their_names_where_there_is_room() {
        let fields = [("Job", ID.to_owned()), ("Status", "a status that takes more than a line".to_owned())];
        let wide = named(&fields, 80);
        assert_eq!(wide, format!("Job     {ID}\nStatus  a status that takes more than a line"));
        let narrow = format!("Job\n  {ID}\nStatus  a status that takes more than\n        a line");
        assert_eq!(named(&fields, 38), narrow);
    }
}
