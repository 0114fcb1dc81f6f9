//! Old workbooks (`.xls`).
//!
//! Our library makes one dense table of all cells between the first and the last of a sheet, of every sheet, before it gives
//! any. One stray cell in a far corner, which is common in real files, would take gigabytes. So the records of a workbook's
//! stream are looked at first ([MS-XLS] §2.1.4), and where its tables would be too large its rows are numbered anew: rows
//! without cells have no numbers then. It is read from a container of our own, in which that stream is alone.
//!
//! [MS-XLS]: https://learn.microsoft.com/en-us/openspecs/office_file_formats/ms-xls/

use std::{
    collections::BTreeSet,
    io::{self, Cursor, Read, Write},
};

use calamine::{Reader, Xls, XlsError};
use cfb::CompoundFile;

use super::{
    Found, MAX_COLUMNS, ReadError, damaged, guarded,
    sheet::{self, Table, Visit},
};

/// The most cells of all tables, empty ones included.
const MAX_CELLS: usize = 3_000_000;

/// Types of records.
const BOUNDSHEET: u16 = 0x0085;
const BOF: u16 = 0x0809;
const EOF: u16 = 0x000A;
const DIMENSIONS: u16 = 0x0200;
const MULRK: u16 = 0x00BD;
/// FORMULA, RSTRING, LABELSST, NUMBER, LABEL, BOOLERR, RK: row and column come first, two bytes each.
const CELLS: [u16; 7] = [0x0006, 0x00D6, 0x00FD, 0x0203, 0x0204, 0x0205, 0x027E];

pub(super) fn read(file: Cursor<Vec<u8>>, has_header: &mut bool, visit: Visit<'_>) -> Result<(), ReadError> {
    let mut stream = workbook_stream(file)?;
    let rows = lay_out(&mut stream)?;
    let file = alone(&stream).map_err(damaged)?;
    drop(stream);
    let mut encrypted = false;
    let book =
        guarded(|| Xls::new(file).inspect_err(|error| encrypted = matches!(error, XlsError::Password)));
    let mut book = if encrypted { Err(ReadError::Encrypted) } else { book }?;
    let sheets = sheet::visible(book.sheets_metadata());
    for (index, (place, name)) in sheets.iter().enumerate() {
        visit(Found::Stage(format!("reading worksheet {} of {}", index + 1, sheets.len())))?;
        let range = guarded(|| book.worksheet_range(name))?;
        let first = range.start().map_or(0, |(line, _)| line);
        let numbers = rows.get(*place).map_or(&[][..], Vec::as_slice);
        let mut table = Table::new();
        for (line, cells) in (first..).zip(range.rows()) {
            let number = numbers.get(line as usize).map_or(line, |line| u32::from(*line));
            table.take((number, cells.iter().map(sheet::shown).collect()), visit)?;
        }
        *has_header |= table.end(visit)?;
    }
    Ok(())
}

/// The stream of the workbook, which holds everything we read.
fn workbook_stream(file: Cursor<Vec<u8>>) -> Result<Vec<u8>, ReadError> {
    let mut container = guarded(|| CompoundFile::open(file))?;
    if container.exists("EncryptedPackage") {
        return Err(ReadError::Encrypted);
    }
    let name = if container.exists("Workbook") { "Workbook" } else { "Book" };
    guarded(|| {
        let mut stream = Vec::new();
        container.open_stream(name)?.read_to_end(&mut stream)?;
        Ok::<_, io::Error>(stream)
    })
}

/// A container of this stream alone.
fn alone(stream: &[u8]) -> io::Result<Cursor<Vec<u8>>> {
    let file = Cursor::new(Vec::with_capacity(stream.len() + (64 << 10)));
    let mut container = CompoundFile::create_with_version(cfb::Version::V3, file)?;
    container.create_stream("Workbook")?.write_all(stream)?;
    container.flush()?;
    let mut file = container.into_inner();
    file.set_position(0);
    Ok(file)
}

/// Sees to it that the tables fit, and gives for each sheet what its rows were numbered before, if they are numbered anew.
fn lay_out(stream: &mut [u8]) -> Result<Vec<Vec<u16>>, ReadError> {
    let begins = sheets(stream)?;
    let mut sheets = Vec::with_capacity(begins.len());
    // Sheets do not share their records. Those of a damaged workbook may, and be looked at again and again.
    let mut looked_at = 0;
    for begin in &begins {
        let sheet = Sheet::look(stream, *begin)?;
        looked_at += sheet.bytes;
        if looked_at > stream.len() {
            return Err(damaged(io::Error::other("worksheets overlap")));
        }
        sheets.push(sheet);
    }
    // What a sheet says of its size is not needed, and may be a lie.
    let dimensions: Vec<_> = sheets.iter().flat_map(|sheet| sheet.dimensions.iter().copied()).collect();
    for (at, len) in dimensions {
        stream[at..at + len].fill(0);
    }
    let cells = |rows: fn(&Sheet) -> usize| {
        sheets.iter().map(|sheet| rows(sheet).saturating_mul(sheet.columns)).fold(0, usize::saturating_add)
    };
    if cells(Sheet::rows_between) <= MAX_CELLS {
        return Ok(Vec::new());
    }
    if cells(|sheet| sheet.rows.len()) > MAX_CELLS {
        return Err(ReadError::WorkbookTooSparse);
    }
    Ok(sheets.into_iter().map(|sheet| sheet.number_anew(stream)).collect())
}

/// Where the sheets begin, in their order.
fn sheets(stream: &[u8]) -> Result<Vec<usize>, ReadError> {
    let mut begins = Vec::new();
    for record in records(stream, 0) {
        match record.kind {
            BOUNDSHEET => {
                let begin = stream.get(record.at..).and_then(|data| data.first_chunk::<4>());
                let begin = begin.map_or(usize::MAX, |begin| u32::from_le_bytes(*begin) as usize);
                if begin > stream.len() {
                    return Err(damaged(io::Error::other("a worksheet begins beyond the end")));
                }
                begins.push(begin);
            }
            EOF => break,
            _ => {}
        }
    }
    Ok(begins)
}

/// What is known of a sheet before its table is made.
struct Sheet {
    /// Where the cells' records have their rows.
    cells: Vec<usize>,
    /// The rows that have cells.
    rows: BTreeSet<u16>,
    /// From the first column with cells to the last.
    columns: usize,
    /// Where its dimensions stand, and how many bytes they are.
    dimensions: Vec<(usize, usize)>,
    /// How much was looked at.
    bytes: usize,
}

impl Sheet {
    fn look(stream: &[u8], begin: usize) -> Result<Self, ReadError> {
        let (mut cells, mut rows, mut dimensions) = (Vec::new(), BTreeSet::new(), Vec::new());
        let (mut first, mut last) = (u16::MAX, 0);
        // Charts within the sheet have records of their own.
        let mut depth = 0;
        let mut end = begin;
        for record in records(stream, begin) {
            end = record.at + record.len;
            match record.kind {
                BOF => depth += 1,
                EOF if depth <= 1 => break,
                EOF => depth -= 1,
                _ if depth > 1 => {}
                DIMENSIONS => dimensions.push((record.at, record.len)),
                kind if kind == MULRK || CELLS.contains(&kind) => {
                    let number = |at: usize| u16::from_le_bytes([stream[at], stream[at + 1]]);
                    if record.len < 4 {
                        return Err(damaged(io::Error::other("a cell without a place")));
                    }
                    let (row, column) = (number(record.at), number(record.at + 2));
                    let until = if kind == MULRK { number(end - 2) } else { column };
                    if usize::from(column.max(until)) >= MAX_COLUMNS {
                        return Err(ReadError::TooManyColumns { row: u64::from(row) + 1 });
                    }
                    cells.push(record.at);
                    rows.insert(row);
                    (first, last) = (first.min(column), last.max(until).max(column));
                }
                _ => {}
            }
        }
        let columns = if cells.is_empty() { 0 } else { usize::from(last - first.min(last)) + 1 };
        Ok(Self { cells, rows, columns, dimensions, bytes: end - begin })
    }

    /// How many rows its table has, from the first with cells to the last.
    fn rows_between(&self) -> usize {
        let (first, last) = (self.rows.first(), self.rows.last());
        first.zip(last).map_or(0, |(first, last)| usize::from(last - first) + 1)
    }

    /// Numbers its rows from 0, in their order; what they were numbered before.
    fn number_anew(self, stream: &mut [u8]) -> Vec<u16> {
        let rows: Vec<_> = self.rows.into_iter().collect();
        for at in self.cells {
            let row = u16::from_le_bytes([stream[at], stream[at + 1]]);
            let number = rows.partition_point(|other| *other < row);
            stream[at..at + 2].copy_from_slice(&u16::try_from(number).unwrap_or(row).to_le_bytes());
        }
        rows
    }
}

/// A record: its type, and where its data is.
struct Record {
    kind: u16,
    at: usize,
    len: usize,
}

/// The records from `begin` to the end of the stream.
fn records(stream: &[u8], begin: usize) -> impl Iterator<Item = Record> + '_ {
    let mut next = begin;
    std::iter::from_fn(move || {
        let [kind0, kind1, len0, len1] = *stream.get(next..)?.first_chunk::<4>()?;
        let (at, len) = (next + 4, usize::from(u16::from_le_bytes([len0, len1])));
        next = at + len;
        (next <= stream.len()).then_some(Record { kind: u16::from_le_bytes([kind0, kind1]), at, len })
    })
}
