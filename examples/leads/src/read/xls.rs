//! Old workbooks (`.xls`).
//!
//! Our library makes one dense table of all cells between the first and the last of a sheet, of every sheet, before it gives
//! any. One stray cell in a far corner, which is common in real files, would take gigabytes. So the records of a workbook's
//! stream are looked at first ([MS-XLS] §2.1.4), and where its tables would be too large its rows and columns are numbered
//! anew: those without cells have no numbers then. It is read from a container of our own, in which that stream is alone.
//!
//! [MS-XLS]: https://learn.microsoft.com/en-us/openspecs/office_file_formats/ms-xls/

use std::{
    collections::BTreeSet,
    io::{self, Cursor, Read, Write},
};

use calamine::{Reader, Xls};
use cfb::CompoundFile;
use csv::StringRecord;

use super::{
    Found, MAX_COLUMNS, ReadError, damaged, guarded,
    sheet::{self, Table, Visit},
};

/// The most cells of all tables, empty ones included.
const MAX_CELLS: usize = 5_000_000;

/// Types of records.
const BOUNDSHEET: u16 = 0x0085;
const BOF: u16 = 0x0809;
const EOF: u16 = 0x000A;
const DIMENSIONS: u16 = 0x0200;
const MULRK: u16 = 0x00BD;
const FILEPASS: u16 = 0x002F;
/// FORMULA, RSTRING, LABELSST, NUMBER, LABEL, BOOLERR, RK: row and column come first, two bytes each.
const CELLS: [u16; 7] = [0x0006, 0x00D6, 0x00FD, 0x0203, 0x0204, 0x0205, 0x027E];

pub(super) fn read(file: Cursor<Vec<u8>>, has_header: &mut bool, visit: Visit<'_>) -> Result<(), ReadError> {
    let mut stream = workbook_stream(file)?;
    let places = lay_out(&mut stream)?;
    let file = alone(&stream).map_err(damaged)?;
    drop(stream);
    let mut book = guarded(|| Xls::new(file))?;
    let sheets = sheet::visible(book.sheets_metadata());
    for (index, (place, name)) in sheets.iter().enumerate() {
        visit(Found::Stage(format!("reading worksheet {} of {}", index + 1, sheets.len())))?;
        let range = guarded(|| book.worksheet_range(name))?;
        let (first, left) = range.start().unwrap_or_default();
        let places = places.get(*place);
        let mut table = Table::new();
        for (line, cells) in (first..).zip(range.rows()) {
            let mut values = StringRecord::new();
            for (column, cell) in (left..).zip(cells) {
                let column = places.map_or(column, |places| places.column(column));
                // What lies between two columns is empty, as it is left of the first.
                while places.is_some() && values.len() < column.saturating_sub(left) as usize {
                    values.push_field("");
                }
                values.push_field(&sheet::shown(cell));
            }
            table.take((places.map_or(line, |places| places.row(line)), values), visit)?;
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

/// What the rows and columns of a sheet were numbered before.
struct Places {
    rows: Vec<u16>,
    columns: Vec<u16>,
}

impl Places {
    fn row(&self, number: u32) -> u32 {
        Self::before(&self.rows, number)
    }

    fn column(&self, number: u32) -> u32 {
        Self::before(&self.columns, number)
    }

    fn before(places: &[u16], number: u32) -> u32 {
        places.get(number as usize).map_or(number, |place| u32::from(*place))
    }
}

/// Sees to it that the tables fit, and gives the places of each sheet, if they are numbered anew.
fn lay_out(stream: &mut [u8]) -> Result<Vec<Places>, ReadError> {
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
    let cells = |of: fn(&BTreeSet<u16>) -> usize| {
        sheets.iter().map(|sheet| of(&sheet.rows) * of(&sheet.columns)).sum::<usize>()
    };
    if cells(between) <= MAX_CELLS {
        return Ok(Vec::new());
    }
    if cells(BTreeSet::len) > MAX_CELLS {
        return Err(ReadError::WorkbookTooSparse);
    }
    Ok(sheets.into_iter().map(|sheet| sheet.number_anew(stream)).collect())
}

/// From the first to the last.
fn between(numbers: &BTreeSet<u16>) -> usize {
    numbers.first().zip(numbers.last()).map_or(0, |(first, last)| usize::from(last - first) + 1)
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
            // What comes after it cannot be told from noise.
            FILEPASS if number(stream, record.at) != 0 => return Err(ReadError::Encrypted),
            EOF => break,
            _ => {}
        }
    }
    Ok(begins)
}

/// What is known of a sheet before its table is made.
struct Sheet {
    /// Where the cells' records have their rows, their columns, and, for several cells in one, their last columns.
    cells: Vec<(usize, Option<usize>)>,
    /// The rows and the columns that have cells.
    rows: BTreeSet<u16>,
    columns: BTreeSet<u16>,
    /// Where its dimensions stand, and how many bytes they are.
    dimensions: Vec<(usize, usize)>,
    /// How much was looked at.
    bytes: usize,
}

impl Sheet {
    fn look(stream: &[u8], begin: usize) -> Result<Self, ReadError> {
        let (mut cells, mut rows, mut columns) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut dimensions = Vec::new();
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
                    if record.len < 6 {
                        return Err(damaged(io::Error::other("a cell without a place")));
                    }
                    let last_at = (kind == MULRK).then_some(end - 2);
                    let (row, column) = (number(stream, record.at), number(stream, record.at + 2));
                    let last = last_at.map_or(column, |at| number(stream, at));
                    if usize::from(last) >= MAX_COLUMNS {
                        return Err(ReadError::TooManyColumns { row: u64::from(row) + 1 });
                    }
                    cells.push((record.at, last_at));
                    rows.insert(row);
                    columns.extend(column..=last);
                }
                _ => {}
            }
        }
        Ok(Self { cells, rows, columns, dimensions, bytes: end - begin })
    }

    /// Numbers its rows and its columns from 0, in their order; what they were numbered before.
    fn number_anew(self, stream: &mut [u8]) -> Places {
        let places =
            Places { rows: self.rows.into_iter().collect(), columns: self.columns.into_iter().collect() };
        let mut anew = |at: usize, places: &[u16]| {
            let place = number(stream, at);
            let nth = places.partition_point(|other| *other < place);
            stream[at..at + 2].copy_from_slice(&u16::try_from(nth).unwrap_or(place).to_le_bytes());
        };
        for (at, last_at) in self.cells {
            anew(at, &places.rows);
            anew(at + 2, &places.columns);
            if let Some(at) = last_at {
                anew(at, &places.columns);
            }
        }
        places
    }
}

/// The number at this place; 0 where there is none.
fn number(stream: &[u8], at: usize) -> u16 {
    stream.get(at..).and_then(|rest| rest.first_chunk::<2>()).map_or(0, |number| u16::from_le_bytes(*number))
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
