//! Text tables: the encoding, the delimiter and the header are found in a sample, the rest is streamed.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use csv::{ByteRecord, ReaderBuilder, StringRecord};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use encoding_rs_io::DecodeReaderBytesBuilder;

use super::{Found, MAX_ROW_BYTES, ReadError, SAMPLE_BYTES, SAMPLE_ROWS, header, row};

const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Whether the sample is text in any encoding we read.
pub(super) fn is_text(sample: &[u8]) -> bool {
    let control =
        sample.iter().filter(|b| **b < 0x20 && !matches!(**b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)).count();
    utf16(sample).is_some() || control * 200 <= sample.len() && !sample.contains(&0)
}

pub(super) fn read(
    sample: &[u8],
    file: impl Read,
    has_header: &mut bool,
    visit: &mut dyn FnMut(Found) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let complete = sample.len() < SAMPLE_BYTES;
    let encoding = encoding(sample);
    let mut text = Vec::new();
    transcoded(sample, encoding).read_to_end(&mut text)?;
    let (delimiter, preamble) = layout(&text, complete, encoding.fallback());
    let bytes_since_row = Rc::new(Cell::new(0));
    let bounded = Bounded { inner: transcoded(file, encoding), bytes_since_row: bytes_since_row.clone() };
    let mut csv = reader(delimiter, bounded);
    let mut record = ByteRecord::new();
    let mut columns = None;
    let mut number = 0_u64;
    loop {
        let more = csv.read_byte_record(&mut record).map_err(|error| too_long_or_io(error, number + 1))?;
        if !more {
            return Ok(());
        }
        bytes_since_row.set(0);
        number += 1;
        if number <= preamble {
            continue;
        }
        let values = decoded(&record, encoding.fallback());
        match &mut columns {
            None => {
                *has_header = true;
                columns = Some(header::columns(&values, number)?);
            }
            Some(columns) => {
                if let Some(lead) = row(columns, values, number)? {
                    visit(Found::Row(lead))?;
                }
            }
        }
    }
}

/// How bytes become text.
#[derive(Clone, Copy)]
enum Encoded {
    /// ASCII-compatible: cut into cells first, then each row is UTF-8 or, if it is not, this.
    ByRow(&'static Encoding),
    /// Decoded as a whole before it is cut.
    Whole(&'static Encoding),
}

impl Encoded {
    fn fallback(self) -> &'static Encoding {
        match self {
            Self::ByRow(encoding) => encoding,
            Self::Whole(_) => UTF_8,
        }
    }
}

fn encoding(sample: &[u8]) -> Encoded {
    if let Some(utf16) = utf16(sample) {
        return Encoded::Whole(utf16);
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, sample.len() < SAMPLE_BYTES);
    let guess = detector.guess(None, Utf8Detection::Allow);
    if guess == UTF_8 || sample.is_ascii() {
        // Beyond the sample there may yet be a row that is not.
        Encoded::ByRow(WINDOWS_1252)
    } else if guess.is_single_byte() {
        Encoded::ByRow(guess)
    } else {
        Encoded::Whole(guess)
    }
}

/// UTF-16 by its mark, or by every other byte being zero.
fn utf16(sample: &[u8]) -> Option<&'static Encoding> {
    if let Some((encoding, _)) = Encoding::for_bom(sample) {
        return (encoding != UTF_8).then_some(encoding);
    }
    let zeros = |offset: usize| sample.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd, enough) = (zeros(0), zeros(1), sample.len() / 4);
    match sample.len() {
        0..4 => None,
        _ if odd > enough && even == 0 => Some(UTF_16LE),
        _ if even > enough && odd == 0 => Some(UTF_16BE),
        _ => None,
    }
}

fn transcoded<'a>(file: impl Read + 'a, encoding: Encoded) -> Box<dyn Read + 'a> {
    match encoding {
        Encoded::ByRow(_) => Box::new(WithoutMark { inner: file, begun: false }),
        Encoded::Whole(encoding) => {
            Box::new(DecodeReaderBytesBuilder::new().encoding(Some(encoding)).bom_override(true).build(file))
        }
    }
}

/// UTF-8 without the mark some programs put before it.
struct WithoutMark<R> {
    inner: R,
    begun: bool,
}

impl<R: Read> Read for WithoutMark<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        if std::mem::replace(&mut self.begun, true) || !buf[..read].starts_with(b"\xef\xbb\xbf") {
            return Ok(read);
        }
        buf.copy_within(3..read, 0);
        if read == 3 { self.inner.read(buf) } else { Ok(read - 3) }
    }
}

fn decoded(record: &ByteRecord, fallback: &'static Encoding) -> StringRecord {
    match StringRecord::from_byte_record(record.clone()) {
        Ok(text) => text,
        Err(_) => record.iter().map(|cell| fallback.decode_without_bom_handling(cell).0).collect(),
    }
}

/// The delimiter, and how many records stand above the header.
fn layout(text: &[u8], complete: bool, fallback: &'static Encoding) -> (u8, u64) {
    let rows = |delimiter| {
        let mut csv = reader(delimiter, text);
        let rows = csv.byte_records().map_while(Result::ok).take(SAMPLE_ROWS + 1);
        let mut rows: Vec<_> = rows.map(|row| decoded(&row, fallback)).collect();
        if rows.len() > 1 && (rows.len() > SAMPLE_ROWS || !complete) {
            // The sample may end within it.
            rows.pop();
        }
        rows
    };
    // The delimiter by which the most rows have the same number of cells; of equals the one with more cells.
    let rank = |rows: &[StringRecord]| {
        let width = header::common_width(rows);
        let same = rows.iter().filter(|row| row.len() == width && width > 1).count();
        (same * 100 / rows.len().max(1) / 10, width)
    };
    let best = DELIMITERS.into_iter().map(|d| (d, rows(d))).max_by_key(|(d, rows)| (rank(rows), *d == b','));
    let (delimiter, rows) = best.unwrap_or((b',', Vec::new()));
    (delimiter, header::position(&rows) as u64)
}

fn reader<R: Read>(delimiter: u8, file: R) -> csv::Reader<R> {
    ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(SAMPLE_BYTES)
        .from_reader(file)
}

/// A reader that gives up when a row does not end.
struct Bounded<R> {
    inner: R,
    bytes_since_row: Rc<Cell<usize>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the row does not end")]
struct Endless;

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.bytes_since_row.set(self.bytes_since_row.get() + read);
        if self.bytes_since_row.get() > MAX_ROW_BYTES + 2 * SAMPLE_BYTES {
            return Err(io::Error::other(Endless));
        }
        Ok(read)
    }
}

fn too_long_or_io(error: csv::Error, row: u64) -> ReadError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.get_ref().is_some_and(|source| source.is::<Endless>()) => {
            ReadError::RowTooLong { row }
        }
        csv::ErrorKind::Io(error) => ReadError::Io(error),
        other => ReadError::Io(io::Error::other(format!("{other:?}"))),
    }
}
