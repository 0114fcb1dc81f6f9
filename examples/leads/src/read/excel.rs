//! Workbooks: `.xlsx` cell by cell, `.xls` sheet by sheet; every worksheet, each with its own header.

use std::io::{Cursor, Read};

use calamine::{Data, DataRef, ExcelDateTime, Reader, Sheet, SheetType, SheetVisible, Xls, Xlsx};
use csv::StringRecord;

use super::{Found, MAX_COLUMNS, ReadError, SAMPLE_ROWS, header, row};
use crate::Columns;

/// What a workbook may unpack to, in bytes and in cells: beyond anything Excel users have, within our memory.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;
const MAX_STRINGS_BYTES: u64 = 128 << 20;
const MAX_CELLS: u64 = 50_000_000;
/// A cell has at most 32,767 characters, and each at most ten bytes of markup.
const MAX_TEXT_BYTES: usize = 512 << 10;

type Visit<'a> = &'a mut dyn FnMut(Found) -> Result<(), ReadError>;

pub(super) fn read_xlsx(
    file: Cursor<Vec<u8>>,
    has_header: &mut bool,
    visit: Visit<'_>,
) -> Result<(), ReadError> {
    refuse_bombs(&file)?;
    let mut book = Xlsx::new(file).map_err(damaged)?;
    let sheets = worksheets(book.sheets_metadata());
    let mut cells_read = 0_u64;
    for (index, name) in sheets.iter().enumerate() {
        visit(Found::Stage(format!("reading worksheet {} of {}", index + 1, sheets.len())))?;
        let mut cells = match book.worksheet_cells_reader(name) {
            Ok(cells) => cells,
            Err(calamine::XlsxError::NotAWorksheet(_)) => continue,
            Err(error) => return Err(damaged(error)),
        };
        let mut table = Table::new();
        let mut current = (0, StringRecord::new());
        while let Some(cell) = cells.next_cell().map_err(damaged)? {
            cells_read += 1;
            let (line, column) = cell.get_position();
            let column = usize::try_from(column).unwrap_or(usize::MAX);
            if cells_read > MAX_CELLS {
                return Err(ReadError::WorkbookExpands);
            }
            if line != current.0 {
                table.take(std::mem::replace(&mut current, (line, StringRecord::new())), visit)?;
            }
            let text = shown_ref(cell.get_value());
            if column >= MAX_COLUMNS {
                // Formatting without content reaches far to the right in many sheets.
                if text.is_empty() {
                    continue;
                }
                return Err(ReadError::TooManyColumns { row: u64::from(line) + 1 });
            }
            while current.1.len() < column {
                current.1.push_field("");
            }
            current.1.push_field(&text);
        }
        table.take(current, visit)?;
        *has_header |= table.end(visit)?;
    }
    Ok(())
}

pub(super) fn read_xls(
    file: Cursor<Vec<u8>>,
    has_header: &mut bool,
    visit: Visit<'_>,
) -> Result<(), ReadError> {
    let mut book = match Xls::new(file) {
        Ok(book) => book,
        Err(calamine::XlsError::Password) => return Err(ReadError::Encrypted),
        Err(error) => return Err(damaged(error)),
    };
    let sheets = worksheets(book.sheets_metadata());
    for (index, name) in sheets.iter().enumerate() {
        visit(Found::Stage(format!("reading worksheet {} of {}", index + 1, sheets.len())))?;
        let range = book.worksheet_range(name).map_err(damaged)?;
        let first = range.start().map_or(0, |(line, _)| line);
        let mut table = Table::new();
        for (line, cells) in (first..).zip(range.rows()) {
            table.take((line, cells.iter().map(shown).collect()), visit)?;
        }
        *has_header |= table.end(visit)?;
    }
    Ok(())
}

/// The worksheets people see, in their order.
fn worksheets(sheets: &[Sheet]) -> Vec<String> {
    let shown = sheets.iter().filter(|s| s.typ == SheetType::WorkSheet && s.visible == SheetVisible::Visible);
    shown.map(|sheet| sheet.name.clone()).collect()
}

/// One worksheet as a table: the first rows are held back until the header is found among them.
struct Table {
    columns: Option<Columns>,
    held: Vec<(u32, StringRecord)>,
}

impl Table {
    fn new() -> Self {
        Self { columns: None, held: Vec::new() }
    }

    fn take(&mut self, (line, values): (u32, StringRecord), visit: Visit<'_>) -> Result<(), ReadError> {
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
    fn end(mut self, visit: Visit<'_>) -> Result<bool, ReadError> {
        if self.columns.is_none() {
            self.find_header(visit)?;
        }
        Ok(self.columns.is_some())
    }

    fn find_header(&mut self, visit: Visit<'_>) -> Result<(), ReadError> {
        let rows: Vec<_> = self.held.iter().map(|(_, values)| values.clone()).collect();
        let mut held = std::mem::take(&mut self.held).into_iter().skip(header::position(&rows));
        let Some((_, names)) = held.next() else { return Ok(()) };
        let mut columns = header::columns(&names);
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
fn shown(cell: &Data) -> String {
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

fn shown_ref(cell: &DataRef<'_>) -> String {
    match cell {
        DataRef::SharedString(text) => (*text).to_owned(),
        other => shown(&Data::from(other.clone())),
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

/// Unpacks every part once, into nothing: what an archive says of its sizes may be a lie. Text that does not end is refused too,
/// since the parts' texts, unlike the parts, are held in memory as a whole.
fn refuse_bombs(file: &Cursor<Vec<u8>>) -> Result<(), ReadError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(file.get_ref().as_slice())).map_err(damaged)?;
    let mut unpacked = 0_u64;
    let mut buffer = vec![0; 64 << 10];
    for index in 0..archive.len() {
        let mut part = archive.by_index(index).map_err(damaged)?;
        let name = part.name().map_err(damaged)?;
        let strings = name.ends_with("sharedStrings.xml");
        if !name.ends_with(".xml") && !name.ends_with(".rels") {
            continue;
        }
        let (mut size, mut text) = (0_u64, 0_usize);
        loop {
            let read = part.read(&mut buffer).map_err(damaged)?;
            if read == 0 {
                break;
            }
            size += read as u64;
            unpacked += read as u64;
            text = match memchr::memrchr(b'<', &buffer[..read]) {
                Some(last) => read - last,
                None => text + read,
            };
            if strings && size > MAX_STRINGS_BYTES || unpacked > MAX_UNPACKED_BYTES || text > MAX_TEXT_BYTES {
                return Err(ReadError::WorkbookExpands);
            }
        }
    }
    Ok(())
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> ReadError {
    ReadError::Workbook(Box::new(error))
}
