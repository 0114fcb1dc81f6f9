//! A worksheet of any workbook: its header, its rows, and its cells as people see them.

use calamine::{Data, ExcelDateTime, Sheet, SheetType, SheetVisible};
use csv::StringRecord;

use super::{Found, ReadError, SAMPLE_ROWS, header, row};
use crate::Columns;

pub(super) type Visit<'a> = &'a mut dyn FnMut(Found) -> Result<(), ReadError>;

/// The worksheets people see, in their order: their places among all sheets, and their names.
pub(super) fn visible(sheets: &[Sheet]) -> Vec<(usize, String)> {
    let is_shown =
        |sheet: &Sheet| sheet.typ == SheetType::WorkSheet && sheet.visible == SheetVisible::Visible;
    let shown = sheets.iter().enumerate().filter(|(_, sheet)| is_shown(sheet));
    shown.map(|(place, sheet)| (place, sheet.name.clone())).collect()
}

/// One worksheet as a table: the first rows are held back until the header is found among them.
pub(super) struct Table {
    columns: Option<Columns>,
    held: Vec<(u32, StringRecord)>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { columns: None, held: Vec::new() }
    }

    pub(super) fn take(
        &mut self,
        (line, values): (u32, StringRecord),
        visit: Visit<'_>,
    ) -> Result<(), ReadError> {
        if values.iter().all(|value| value.trim().is_empty()) {
            return Ok(());
        }
        match &mut self.columns {
            Some(columns) => give(columns, line, values, visit),
            None => {
                self.held.push((line, values));
                if self.held.len() == SAMPLE_ROWS { self.find_header(visit) } else { Ok(()) }
            }
        }
    }

    /// Gives what is still held; tells whether there was a header.
    pub(super) fn end(mut self, visit: Visit<'_>) -> Result<bool, ReadError> {
        if self.columns.is_none() {
            self.find_header(visit)?;
        }
        Ok(self.columns.is_some())
    }

    fn find_header(&mut self, visit: Visit<'_>) -> Result<(), ReadError> {
        let rows: Vec<_> = self.held.iter().map(|(_, values)| values.clone()).collect();
        let mut held = std::mem::take(&mut self.held).into_iter().skip(header::position(&rows));
        let Some((line, names)) = held.next() else { return Ok(()) };
        let mut columns = header::columns(&names, u64::from(line) + 1)?;
        for (line, values) in held {
            give(&mut columns, line, values, visit)?;
        }
        self.columns = Some(columns);
        Ok(())
    }
}

fn give(columns: &mut Columns, line: u32, values: StringRecord, visit: Visit<'_>) -> Result<(), ReadError> {
    match row(columns, values, u64::from(line) + 1)? {
        Some(lead) => visit(Found::Row(lead)),
        None => Ok(()),
    }
}

/// A cell as people see it.
pub(super) fn shown(cell: &Data) -> String {
    match cell {
        Data::Int(number) => number.to_string(),
        Data::Float(number) => shown_number(*number),
        Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => text.clone(),
        Data::Bool(truth) => if *truth { "TRUE" } else { "FALSE" }.into(),
        Data::DateTime(at) => shown_time(at),
        // An error (#N/A) says nothing of the lead; other cells say nothing at all.
        _ => String::new(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits, as checked")]
fn shown_number(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return (number as i64).to_string();
    }
    // Fifteen significant digits, as Excel shows: 0.1 + 0.2 is 0.3.
    format!("{number:.14e}").parse::<f64>().unwrap_or(number).to_string()
}

fn shown_time(at: &ExcelDateTime) -> String {
    if at.is_duration() || at.as_f64() < 1.0 {
        let seconds = at.as_f64() * 86_400.0;
        let (hours, minutes) = ((seconds / 3_600.0).floor(), (seconds / 60.0).floor() % 60.0);
        return format!("{hours}:{minutes:02}:{:02}", (seconds % 60.0).round());
    }
    let (year, month, day, hour, minute, second, _) = at.to_ymd_hms_milli();
    let date = format!("{year:04}-{month:02}-{day:02}");
    match (hour, minute, second) {
        (0, 0, 0) => date,
        (_, _, 0) => format!("{date} {hour:02}:{minute:02}"),
        _ => format!("{date} {hour:02}:{minute:02}:{second:02}"),
    }
}
