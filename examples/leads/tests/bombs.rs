//! Workbooks that unpack to far more than they should: a clear error, within bounded memory. Alone in this process, since its
//! memory is what is measured.

use std::{
    fs,
    io::{Cursor, Write},
};

use leads::read;
use rust_xlsxwriter::Workbook;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

const MIB: usize = 1 << 20;

/// A workbook whose part `name` has so many MiB of `filling` between its beginning and its end.
fn bomb(name: &str, begin: &str, filling: &str, mib: usize, end: &str) -> Vec<u8> {
    let mut book = Workbook::new();
    book.add_worksheet().write_column(0, 0, ["Name", "Ada", "Grace"]).expect("cells");
    let good = book.save_to_buffer().expect("saved");
    let mut good = ZipArchive::new(Cursor::new(good)).expect("a zip");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..good.len() {
        let part = good.by_index_raw(index).expect("a part");
        if part.name().expect("a name") != name {
            zip.raw_copy_file(part).expect("copied");
        }
    }
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    zip.start_file(name, options).expect("a part");
    zip.write_all(begin.as_bytes()).expect("written");
    let block = filling.repeat(MIB / filling.len());
    (0..mib).for_each(|_| zip.write_all(block.as_bytes()).expect("written"));
    zip.write_all(end.as_bytes()).expect("written");
    zip.finish().expect("finished").into_inner()
}

/// The same, with a directory that says that everything is small.
fn lying(mut bytes: Vec<u8>) -> Vec<u8> {
    for (signature, offset) in [(b"PK\x01\x02", 24), (b"PK\x03\x04", 22)] {
        let places: Vec<_> =
            bytes.windows(4).enumerate().filter(|(_, w)| w == signature).map(|(at, _)| at).collect();
        for at in places {
            let size = at + offset..at + offset + 4;
            let large = bytes
                .get(size.clone())
                .is_some_and(|s| u32::from_le_bytes(s.try_into().expect("four")) > 1 << 24);
            if large {
                bytes[size].copy_from_slice(&1_000_u32.to_le_bytes());
            }
        }
    }
    bytes
}

fn peak_mib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") / 1_024
}

#[test]
fn bombs_end_in_a_clear_error_within_bounded_memory() {
    let sheet = "xl/worksheets/sheet1.xml";
    let begin = r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>"#;
    let end = "</t></is></c></row></sheetData></worksheet>";
    let strings = r#"<?xml version="1.0"?><sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>"#;
    let many =
        r#"<?xml version="1.0"?><sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">"#;
    let bombs = [
        ("one endless cell", bomb(sheet, begin, "x", 400, end)),
        ("one endless string", bomb("xl/sharedStrings.xml", strings, "x", 400, "</t></si></sst>")),
        ("endless strings", bomb("xl/sharedStrings.xml", many, "<si><t>abcdefgh</t></si>", 400, "</sst>")),
    ];
    let before = peak_mib();
    for (name, bytes) in bombs {
        assert!(bytes.len() < 8 * MIB, "{name}: {}", bytes.len());
        for bytes in [lying(bytes.clone()), bytes] {
            let error = read::read(Cursor::new(bytes), &mut |_| Ok(())).expect_err(name);
            assert!(error.code().starts_with("workbook-"), "{name}: {error}");
            let grown = peak_mib() - before;
            assert!(grown < 200, "{name}: {grown} MiB");
        }
    }
}
