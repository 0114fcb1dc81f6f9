//! Workbooks (`.xlsx`), cell by cell.

use std::{
    collections::HashSet,
    io::{Cursor, Read},
};

use calamine::{DataRef, Reader, Xlsx, XlsxError};
use csv::StringRecord;
use zip::ZipArchive;

use super::{
    Found, MAX_COLUMNS, ReadError, damaged, guarded,
    sheet::{self, Table, Visit},
};

/// What the parts of a workbook may unpack to in all: beyond anything Excel users have, and read in seconds.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;
/// The same of those parts that are held in memory, which all are but the worksheets.
const MAX_HELD_BYTES: u64 = 128 << 20;
/// Cells that are read.
const MAX_CELLS: u64 = 50_000_000;
/// A cell has at most 32,767 characters, and each at most ten bytes of markup.
const MAX_TEXT_BYTES: usize = 512 << 10;

pub(super) fn read(file: Cursor<Vec<u8>>, has_header: &mut bool, visit: Visit<'_>) -> Result<(), ReadError> {
    refuse_bombs(&file)?;
    let mut book = guarded(|| Xlsx::new(file))?;
    let sheets = sheet::visible(book.sheets_metadata());
    let mut cells_read = 0_u64;
    for (index, (_, name)) in sheets.iter().enumerate() {
        visit(Found::Stage(format!("reading worksheet {} of {}", index + 1, sheets.len())))?;
        let mut is_none = false;
        let cells = guarded(|| {
            book.worksheet_cells_reader(name)
                .inspect_err(|error| is_none = matches!(error, XlsxError::NotAWorksheet(_)))
        });
        let mut cells = match cells {
            Err(_) if is_none => continue,
            cells => cells?,
        };
        let mut table = Table::new();
        let mut current = (0, StringRecord::new());
        while let Some(cell) = guarded(|| cells.next_cell())? {
            cells_read += 1;
            let (line, column) = cell.get_position();
            let column = usize::try_from(column).unwrap_or(usize::MAX);
            if cells_read > MAX_CELLS {
                return Err(ReadError::WorkbookExpands);
            }
            if line != current.0 {
                table.take(std::mem::replace(&mut current, (line, StringRecord::new())), visit)?;
            }
            let text = shown(cell.get_value());
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

fn shown(cell: &DataRef<'_>) -> String {
    match cell {
        DataRef::SharedString(text) => (*text).to_owned(),
        other => sheet::shown(&calamine::Data::from(other.clone())),
    }
}

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Unpacks every part once that is read, into nothing: what an archive says of its sizes may be a lie. Text that does not end is
/// refused too, since the parts' texts, unlike the worksheets, are held in memory as a whole.
fn refuse_bombs(file: &Cursor<Vec<u8>>) -> Result<(), ReadError> {
    let mut archive = guarded(|| ZipArchive::new(Cursor::new(file.get_ref().as_slice())))?;
    refuse_others(&mut archive)?;
    let mut budget = Budget::default();
    let named = named(&mut archive, &mut budget)?;
    for index in 0..archive.len() {
        let Some(mut part) = Part::open(&mut archive, index) else { continue };
        if part.is_read(&named) {
            // Room is made for so many strings before there is one.
            if part.says_of_strings() > MAX_CELLS {
                return Err(ReadError::WorkbookExpands);
            }
            let (is_held, is_workbook) = (part.is_held(), part.is_workbook());
            let mut text = Vec::new();
            budget.unpack(&mut part, is_held, |bytes| {
                if is_workbook {
                    text.extend_from_slice(bytes);
                }
            })?;
            refuse_repeated(&text)?;
        }
    }
    Ok(())
}

/// A worksheet that is listed again and again would be read again and again.
fn refuse_repeated(workbook: &[u8]) -> Result<(), ReadError> {
    let text = String::from_utf8_lossy(workbook);
    let mut seen = HashSet::new();
    for element in text.split('<').filter(|element| is_called(element, "sheet")) {
        let id = element.split_once(":id=").map(|(_, id)| id.trim_start_matches(['"', '\'']));
        let id = id.and_then(|id| id.split(['"', '\'']).next());
        if id.is_some_and(|id| !seen.insert(id)) {
            return Err(damaged(std::io::Error::other("a worksheet is listed twice")));
        }
    }
    Ok(())
}

/// Whether an element, without its bracket, has this name, with a prefix or without.
fn is_called(element: &str, name: &str) -> bool {
    let called = element.split(|letter: char| letter.is_whitespace() || "/>".contains(letter)).next();
    called.is_some_and(|called| called.rsplit(':').next() == Some(name))
}

/// Other archives that are spreadsheets.
fn refuse_others(archive: &mut Archive<'_>) -> Result<(), ReadError> {
    let has = |archive: &mut Archive<'_>, name: &str| archive.index_for_name(name).is_some();
    if has(archive, "xl/workbook.bin") {
        return Err(ReadError::Unsupported { what: "a binary Excel workbook (.xlsb)" });
    }
    if has(archive, "mimetype") && has(archive, "content.xml") {
        return Err(ReadError::Unsupported { what: "an OpenDocument spreadsheet (.ods)" });
    }
    Ok(())
}

/// The relationships that name a workbook or its sheets, in lower case. A part whose name stands in one is read, whatever it is
/// called; each only once.
fn named(archive: &mut Archive<'_>, budget: &mut Budget) -> Result<String, ReadError> {
    let mut named = String::new();
    for index in 0..archive.len() {
        let Some(mut part) = Part::open(archive, index) else { continue };
        if part.name.ends_with(".rels") {
            let mut text = Vec::new();
            budget.unpack(&mut part, true, |bytes| text.extend_from_slice(bytes))?;
            let text = String::from_utf8_lossy(&text).to_lowercase();
            let is_read = |element: &&str| {
                ["sheet\"", "sheet'", "/officedocument\"", "/officedocument'"]
                    .iter()
                    .any(|kind| element.contains(kind))
            };
            let mut targets = HashSet::new();
            for element in text.split('<').filter(is_read) {
                let target =
                    element.split_once("target=").map(|(_, target)| target.trim_start_matches(['"', '\'']));
                let target = target.and_then(|target| target.split(['"', '\'']).next()).unwrap_or_default();
                if !targets.insert(target.trim_start_matches("/xl/").to_owned()) {
                    return Err(damaged(std::io::Error::other("a part is named twice")));
                }
                named += element;
            }
        }
    }
    Ok(named)
}

/// One part of the archive, and how it begins.
struct Part<'a, 'f> {
    /// In lower case, as it is looked for.
    name: String,
    begin: Vec<u8>,
    rest: zip::read::ZipFile<'a, Cursor<&'f [u8]>>,
}

/// The parts that have a name of their own; relationships say what the others are.
const FIXED: [&str; 4] = ["sharedstrings.xml", "styles.xml", "theme1.xml", ".rels"];
/// How much of a part is looked at to find out what it is.
const BEGIN: u64 = 4 << 10;

impl<'a, 'f> Part<'a, 'f> {
    /// What cannot be unpacked here cannot be unpacked by anybody who needs it.
    fn open(archive: &'a mut Archive<'f>, index: usize) -> Option<Self> {
        let mut rest = archive.by_index(index).ok()?;
        let name = rest.name().ok()?.to_lowercase();
        let mut begin = Vec::new();
        Read::by_ref(&mut rest).take(BEGIN).read_to_end(&mut begin).ok()?;
        Some(Self { name, begin, rest })
    }

    /// Whether it is opened at all. Pictures, pivot tables and the like are not.
    fn is_read(&self, named: &str) -> bool {
        let file = self.name.rsplit('/').next().unwrap_or_default();
        FIXED.iter().any(|end| file.ends_with(end)) || named.contains(file)
    }

    fn is_workbook(&self) -> bool {
        let text = String::from_utf8_lossy(&self.begin);
        text.split('<').any(|element| is_called(element, "workbook"))
    }

    /// How many strings it says it has.
    fn says_of_strings(&self) -> u64 {
        let text = String::from_utf8_lossy(&self.begin);
        let Some((_, rest)) = text.split_once("uniqueCount") else { return 0 };
        let number = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let digits = number.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
        if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u64::MAX) }
    }

    /// Worksheets are read cell by cell.
    fn is_held(&self) -> bool {
        let text = String::from_utf8_lossy(&self.begin);
        let is_sheet = text.split('<').any(|element| is_called(element, "worksheet"));
        !is_sheet || FIXED.iter().any(|end| self.name.ends_with(end))
    }
}

/// What was unpacked so far.
#[derive(Default)]
struct Budget {
    unpacked: u64,
    held: u64,
}

impl Budget {
    fn unpack(
        &mut self,
        part: &mut Part<'_, '_>,
        is_held: bool,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let mut buffer = vec![0; 64 << 10];
        let mut text = 0;
        let mut begin = std::mem::take(&mut part.begin);
        loop {
            let read = if begin.is_empty() {
                part.rest.read(&mut buffer).map_err(damaged)?
            } else {
                let read = begin.len();
                buffer[..read].copy_from_slice(&begin);
                begin.clear();
                read
            };
            if read == 0 {
                return Ok(());
            }
            self.unpacked += read as u64;
            self.held += if is_held { read as u64 } else { 0 };
            text = match memchr::memrchr(b'<', &buffer[..read]) {
                Some(last) => read - last,
                None => text + read,
            };
            if self.unpacked > MAX_UNPACKED_BYTES || self.held > MAX_HELD_BYTES || text > MAX_TEXT_BYTES {
                return Err(ReadError::WorkbookExpands);
            }
            take(&buffer[..read]);
        }
    }
}
