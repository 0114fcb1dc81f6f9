//! Files that are meant to hurt whoever reads them, and files of ordinary people that do.

use std::io::{Cursor, Write};

use rust_xlsxwriter::Workbook;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

const MIB: usize = 1 << 20;

/// What must be refused, and quickly: names, files, and the codes that say why.
pub fn files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let header = |names: &str| format!("{names}\nAda\n").into_bytes();
    let mut truncated = workbook();
    truncated.truncate(truncated.len() / 2);
    vec![
        ("xls, a cell in the far corner", xls(1, &[(0xFFFF, 0xFFFF)]), "too-many-columns"),
        ("xls, far cells in 5 sheets", xls(5, &spread(255)), "workbook-too-sparse"),
        ("xls, far cells in 20 sheets", xls(20, &spread(255)), "workbook-too-sparse"),
        ("xls, no sheet", xls(0, &[]), "file-empty"),
        (
            "xlsx, one endless cell",
            bomb(SHEET, &format!("{SHEET_BEGIN}{CELL_BEGIN}"), "x", 400, CELL_END),
            "workbook-expands",
        ),
        (
            "xlsx, one endless string",
            bomb(STRINGS, &format!("{STRINGS_BEGIN}<si><t>"), "x", 400, "</t></si></sst>"),
            "workbook-expands",
        ),
        (
            "xlsx, endless strings",
            bomb(STRINGS, STRINGS_BEGIN, "<si><t>abcdefgh</t></si>", 400, "</sst>"),
            "workbook-expands",
        ),
        (
            "xlsx, endless strings by another name",
            bomb("xl/SHAREDSTRINGS.XML", STRINGS_BEGIN, "<si><t>abcdefgh</t></si>", 400, "</sst>"),
            "workbook-expands",
        ),
        ("xlsx, room for more strings than there is", room_for(u64::MAX >> 8), "workbook-expands"),
        (
            "xlsx, endless styles",
            bomb("xl/styles.xml", STYLES_BEGIN, "<xf/>", 400, "</cellXfs></styleSheet>"),
            "workbook-expands",
        ),
        (
            "xlsx, a picture that is a worksheet",
            renamed_sheet("xl/media/image1.png", 400),
            "workbook-expands",
        ),
        ("xlsx, a worksheet that is listed again and again", repeated_sheet(200, 100), "workbook-damaged"),
        ("xlsx, entities of entities", entities(), "workbook-damaged"),
        ("xlsx, half of it", truncated, "workbook-damaged"),
        ("csv, 16,000 equal names", header(&vec!["Name"; 16_000].join(",")), "too-many-columns"),
        ("csv, a million columns", header(&",".repeat(1_000_000)), "row-too-long"),
        ("csv, a line of 50 MB", format!("Name\n{}", "a".repeat(50 * MIB)).into_bytes(), "row-too-long"),
        (
            "csv, a quotation mark that is never closed",
            format!("Name\n\"{}", "Ada\n".repeat(MIB)).into_bytes(),
            "row-too-long",
        ),
        ("NUL bytes", vec![0; MIB], "file-not-a-table"),
    ]
}

/// A workbook within every bound on what it unpacks to, whose styles take far more memory than bytes in the file: who reads it
/// within bounded memory dies.
pub fn deadly() -> Vec<u8> {
    bomb("xl/styles.xml", STYLES_BEGIN, "<xf/>", 120, "</cellXfs></styleSheet>")
}

fn room_for(strings: u64) -> Vec<u8> {
    let begin = STRINGS_BEGIN.replace("<sst ", &format!("<sst uniqueCount=\"{strings}\" "));
    bomb(STRINGS, &begin, "<si><t>a</t></si>", 0, "</sst>")
}

const SHEET: &str = "xl/worksheets/sheet1.xml";
const STRINGS: &str = "xl/sharedStrings.xml";
const SHEET_BEGIN: &str = r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>"#;
const CELL_BEGIN: &str = r#"<row r="1"><c r="A1" t="inlineStr"><is><t>"#;
const CELL_END: &str = "</t></is></c></row></sheetData></worksheet>";
const STRINGS_BEGIN: &str =
    r#"<?xml version="1.0"?><sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">"#;
const STYLES_BEGIN: &str = r#"<?xml version="1.0"?><styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><cellXfs>"#;

/// A sound workbook.
pub fn workbook() -> Vec<u8> {
    let mut book = Workbook::new();
    book.add_worksheet().write_column(0, 0, ["Name", "Ada", "Grace"]).expect("cells");
    book.save_to_buffer().expect("saved")
}

/// A workbook whose part `name` has so many MiB of `filling` between its beginning and its end.
pub fn bomb(name: &str, begin: &str, filling: &str, mib: usize, end: &str) -> Vec<u8> {
    with_part(name, |zip| {
        zip.write_all(begin.as_bytes()).expect("written");
        let block = filling.repeat(MIB / filling.len());
        (0..mib).for_each(|_| zip.write_all(block.as_bytes()).expect("written"));
        zip.write_all(end.as_bytes()).expect("written");
    })
}

type Zip = ZipWriter<Cursor<Vec<u8>>>;

/// A sound workbook, of which one part is another.
fn with_part(name: &str, write: impl FnOnce(&mut Zip)) -> Vec<u8> {
    replaced(workbook(), name, write)
}

/// The archive with another part of this name, instead of the one it may have.
fn replaced(archive: Vec<u8>, name: &str, write: impl FnOnce(&mut Zip)) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).expect("a zip");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let part = archive.by_index_raw(index).expect("a part");
        if !part.name().expect("a name").eq_ignore_ascii_case(name) {
            zip.raw_copy_file(part).expect("copied");
        }
    }
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    zip.start_file(name, options).expect("a part");
    write(&mut zip);
    zip.finish().expect("finished").into_inner()
}

/// The archive with this part's text changed.
fn changed(archive: Vec<u8>, name: &str, change: impl FnOnce(String) -> String) -> Vec<u8> {
    let mut parts = ZipArchive::new(Cursor::new(archive.as_slice())).expect("a zip");
    let text = std::io::read_to_string(parts.by_name(name).expect("there")).expect("text");
    let text = change(text);
    replaced(archive, name, |zip| zip.write_all(text.as_bytes()).expect("written"))
}

/// A workbook whose only worksheet is a part of this name, which begins like no worksheet.
fn renamed_sheet(name: &str, mib: usize) -> Vec<u8> {
    let target = name.strip_prefix("xl/").expect("beside the workbook");
    let book = bomb(name, "\x01PNG", "x", mib, "");
    changed(book, "xl/_rels/workbook.xml.rels", |rels| rels.replace("worksheets/sheet1.xml", target))
}

/// A workbook whose only part of so many MiB is so many worksheets.
fn repeated_sheet(times: usize, mib: usize) -> Vec<u8> {
    let book = bomb(SHEET, SHEET_BEGIN, "<x/>", mib, "</sheetData></worksheet>");
    let sheets: String =
        (1..=times).map(|n| format!(r#"<sheet name="S{n}" sheetId="{n}" r:id="rId1"/>"#)).collect();
    changed(book, "xl/workbook.xml", |workbook| {
        let (before, rest) = workbook.split_once("<sheets>").expect("sheets");
        let (_, after) = rest.split_once("</sheets>").expect("sheets");
        format!("{before}<sheets>{sheets}</sheets>{after}")
    })
}

/// A sound workbook with parts that are of no use for its rows: pictures with long texts, data of its connections, copies of
/// its rows for pivot tables.
pub fn with_other_parts() -> Vec<u8> {
    let parts = [
        ("xl/media/image1.svg", "<svg><image href='data:", 1),
        ("customXml/item1.xml", "<DataMashup>", 1),
        ("xl/pivotCache/pivotCacheRecords1.xml", "<pivotCacheRecords>", 150),
        ("xl/drawings/vmlDrawing1.vml", "<xml>", 1),
    ];
    parts.into_iter().fold(workbook(), |book, (name, begin, mib)| {
        replaced(book, name, |zip| {
            zip.write_all(begin.as_bytes()).expect("written");
            let block = "A".repeat(MIB);
            (0..mib).for_each(|_| zip.write_all(block.as_bytes()).expect("written"));
        })
    })
}

/// "A billion laughs."
fn entities() -> Vec<u8> {
    let mut text = String::from(r#"<?xml version="1.0"?><!DOCTYPE worksheet [<!ENTITY e0 "ha">"#);
    for level in 1..30 {
        let before = format!("&e{};", level - 1).repeat(10);
        text += &format!(r#"<!ENTITY e{level} "{before}">"#);
    }
    text += r#"]><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>"#;
    text += &format!("{CELL_BEGIN}Name</t></is></c></row>");
    text += r#"<row r="2"><c r="A2" t="inlineStr"><is><t>&e29;"#;
    text += CELL_END;
    with_part(SHEET, |zip| zip.write_all(text.as_bytes()).expect("written"))
}

/// One cell in each row, each further to the right, so that no column is empty.
pub fn spread(width: u16) -> Vec<(u16, u16)> {
    (0..=u16::MAX).map(|row| (row, row % (width + 1))).collect()
}

/// An old workbook: in each sheet a small table of people, and numbers in these cells (row, column) beside it. Each sheet says
/// that it is as large as can be.
pub fn xls(sheets: usize, cells: &[(u16, u16)]) -> Vec<u8> {
    old_workbook(sheets, cells, &[])
}

/// An old workbook that is said to be encrypted: what its records hold is noise.
pub fn encrypted_xls() -> Vec<u8> {
    // FILEPASS, by RC4.
    old_workbook(1, &[(7, 0xFFFF)], &[0x2F, 0, 2, 0, 1, 0])
}

/// `first` comes first of its globals.
fn old_workbook(sheets: usize, cells: &[(u16, u16)], first: &[u8]) -> Vec<u8> {
    let record = |kind: u16, data: &[u8]| {
        let len = u16::try_from(data.len()).expect("a short record");
        [&kind.to_le_bytes()[..], &len.to_le_bytes(), data].concat()
    };
    let begin = |kind: u16| {
        let fields = [0x0600_u16, kind, 0, 0, 0, 0, 0, 0];
        record(0x0809, &fields.iter().flat_map(|field| field.to_le_bytes()).collect::<Vec<_>>())
    };
    let end = record(0x000A, &[]);
    let name = |number: usize| format!("Sheet{number}");
    let bound = |number: usize, at: usize| {
        let name = name(number);
        let at = u32::try_from(at).expect("a small file").to_le_bytes();
        record(
            0x0085,
            &[&at[..], &[0, 0, u8::try_from(name.len()).expect("short"), 0], name.as_bytes()].concat(),
        )
    };
    let place = |row: u16, column: u16| [row.to_le_bytes(), column.to_le_bytes(), [0, 0]].concat();
    let text = |row: u16, column: u16, text: &str| {
        let len = u16::try_from(text.len()).expect("short").to_le_bytes();
        record(0x0204, &[&place(row, column)[..], &len, &[0], text.as_bytes()].concat())
    };
    let mut sheet = begin(0x0010);
    let huge = [0_u32.to_le_bytes(), 0xFFFF_u32.to_le_bytes()].concat();
    sheet.extend(record(0x0200, &[&huge[..], &[0, 0, 0xFF, 0xFF, 0, 0]].concat()));
    for (row, name) in [(0, "Name"), (1, "Ada"), (2, "Grace")] {
        sheet.extend(text(row, 0, name));
    }
    for (row, column) in cells {
        sheet.extend(record(0x0203, &[&place(*row, *column)[..], &1.0_f64.to_le_bytes()].concat()));
    }
    sheet.extend(&end);
    let globals: usize = begin(0x0005).len()
        + first.len()
        + (0..sheets).map(|number| bound(number, 0).len()).sum::<usize>()
        + end.len();
    let mut stream = [&begin(0x0005)[..], first].concat();
    (0..sheets).for_each(|number| stream.extend(bound(number, globals + number * sheet.len())));
    stream.extend(&end);
    (0..sheets).for_each(|_| stream.extend(&sheet));
    // Small streams lie elsewhere in the file.
    stream.resize(stream.len().max(4_096), 0);
    let mut file =
        cfb::CompoundFile::create_with_version(cfb::Version::V3, Cursor::new(Vec::new())).expect("a file");
    file.create_stream("Workbook").expect("a stream").write_all(&stream).expect("written");
    file.flush().expect("written");
    file.into_inner().into_inner()
}
