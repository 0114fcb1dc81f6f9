//! Reading lead files as users really have them: CSV in any common delimiter and encoding, streamed in constant memory,
//! and Excel workbooks with all their worksheets. What the file *is* decides, not what it is called. Nothing in it is ever
//! executed, and everything it can make us hold is bounded: what goes beyond is a [`ReadError`] that says so.

mod delimited;
mod error;
mod header;
mod sheet;
mod xls;
mod xlsx;

use std::{
    io::{Chain, Cursor, Read},
    panic::{self, AssertUnwindSafe},
};

use csv::StringRecord;

use crate::{Columns, RawLead};

pub use error::ReadError;

/// The most columns a table may have.
pub const MAX_COLUMNS: usize = 1_000;
/// The most bytes one row may have as JSON, with the names of its columns: a batch has to fit into a message of the queue.
pub const MAX_ROW_BYTES: usize = 64 << 10;
/// The most bytes all rows may have as JSON.
pub const MAX_ROWS_BYTES: u64 = 1 << 30;
/// The most bytes a workbook may have; it has to be in memory as a whole.
pub const MAX_WORKBOOK_BYTES: u64 = 64 << 20;
/// What is looked at to find out encoding, delimiter and header.
const SAMPLE_BYTES: usize = 64 << 10;
/// How many rows of it.
const SAMPLE_ROWS: usize = 50;

/// What reading comes across.
#[derive(Debug)]
pub enum Found {
    /// What is being read, in words: "reading worksheet 2 of 3".
    Stage(String),
    /// A row with something in it.
    Row(RawLead),
}

/// Whoever takes the rows has had enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop;

/// Reads `file` to its end and gives every row that is not blank to `visit`.
///
/// # Errors
/// [`ReadError`], in words a CRM user understands. Rows that were given before stay given.
pub fn read(file: impl Read, visit: &mut dyn FnMut(Found) -> Result<(), Stop>) -> Result<(), ReadError> {
    let (mut rows, mut bytes) = (0_u64, 0_u64);
    let mut header = false;
    let mut count = |found: Found| -> Result<(), ReadError> {
        if let Found::Row(row) = &found {
            rows += 1;
            bytes += row.json_len() as u64;
            if bytes > MAX_ROWS_BYTES {
                return Err(ReadError::TooManyBytes);
            }
        }
        visit(found).map_err(|Stop| ReadError::Stopped)
    };
    let (sample, file) = peek(file)?;
    match Kind::of(&sample) {
        Kind::Empty => return Err(ReadError::Empty),
        Kind::Xlsx => xlsx::read(whole(file)?, &mut header, &mut count)?,
        Kind::Xls => xls::read(whole(file)?, &mut header, &mut count)?,
        Kind::Other(what) => return Err(ReadError::NotATable { what }),
        Kind::Text => delimited::read(&sample, file, &mut header, &mut count)?,
    }
    match (rows, header) {
        (0, true) => Err(ReadError::NoRows),
        (0, false) => Err(ReadError::Empty),
        _ => Ok(()),
    }
}

/// What a file is, by its first bytes.
enum Kind {
    Empty,
    Xlsx,
    Xls,
    Text,
    Other(&'static str),
}

impl Kind {
    fn of(sample: &[u8]) -> Self {
        let signatures: [(&[u8], &'static str); 12] = [
            (b"\x89PNG", "a PNG image"),
            (b"\xff\xd8\xff", "a JPEG image"),
            (b"GIF8", "a GIF image"),
            (b"%PDF", "a PDF document"),
            (b"{\\rtf", "a rich-text document"),
            (b"\x1f\x8b", "a gzip archive; unpack it first"),
            (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
            (b"Rar!", "a RAR archive; unpack it first"),
            (b"BZh", "a bzip2 archive; unpack it first"),
            (b"\x7fELF", "a program"),
            (b"MZ\x90", "a program"),
            (b"SQLite format 3", "a database"),
        ];
        if sample.iter().all(u8::is_ascii_whitespace) {
            return Self::Empty;
        }
        if sample.starts_with(b"PK\x03\x04") || sample.starts_with(b"PK\x05\x06") {
            return Self::Xlsx;
        }
        if sample.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) {
            return Self::Xls;
        }
        match signatures.into_iter().find(|(signature, _)| sample.starts_with(signature)) {
            Some((_, what)) => Self::Other(what),
            None if delimited::is_text(sample) => Self::Text,
            None => Self::Other("not a text file"),
        }
    }
}

type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// The first bytes of the file, and the file from its beginning.
fn peek<R: Read>(mut file: R) -> Result<(Vec<u8>, Peeked<R>), ReadError> {
    let mut sample = Vec::with_capacity(SAMPLE_BYTES);
    Read::by_ref(&mut file).take(SAMPLE_BYTES as u64).read_to_end(&mut sample)?;
    let whole = Cursor::new(sample.clone()).chain(file);
    Ok((sample, whole))
}

fn whole(file: impl Read) -> Result<Cursor<Vec<u8>>, ReadError> {
    let mut bytes = Vec::new();
    file.take(MAX_WORKBOOK_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_WORKBOOK_BYTES {
        return Err(ReadError::WorkbookTooLarge);
    }
    Ok(Cursor::new(bytes))
}

/// A row under `columns`, unless it is blank. `number` is its place in the file, for errors.
fn row(columns: &mut Columns, values: StringRecord, number: u64) -> Result<Option<RawLead>, ReadError> {
    if values.iter().all(|value| value.trim().is_empty()) {
        return Ok(None);
    }
    if values.len() > MAX_COLUMNS {
        return Err(ReadError::TooManyColumns { row: number });
    }
    if values.len() > columns.len() {
        // A ragged row: what has no name gets one, and is kept.
        *columns = header::widened(columns, values.len());
    }
    let lead = RawLead::new(columns.clone(), values);
    if lead.json_len() > MAX_ROW_BYTES {
        return Err(ReadError::RowTooLong { row: number });
    }
    Ok(Some(lead))
}

/// Has a library read: what makes it panic is a damaged file.
fn guarded<T, E>(read: impl FnOnce() -> Result<T, E>) -> Result<T, ReadError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(damaged),
        Err(_) => Err(damaged(std::io::Error::other("the reader panicked"))),
    }
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> ReadError {
    ReadError::Workbook(Box::new(error))
}
