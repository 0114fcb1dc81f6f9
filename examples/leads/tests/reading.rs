//! Files as users really have them.

use std::io::{Cursor, Read, Write};

use leads::{
    RawLead,
    read::{self, Found, ReadError, Stop},
};
use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook};

fn rows_of(file: impl Read) -> Result<Vec<RawLead>, ReadError> {
    let mut rows = Vec::new();
    read::read(file, &mut |found| {
        if let Found::Row(row) = found {
            rows.push(row);
        }
        Ok(())
    })?;
    Ok(rows)
}

/// The rows as "column=value" where there is a value.
fn shown(bytes: &[u8]) -> Vec<String> {
    let rows = rows_of(Cursor::new(bytes)).unwrap_or_else(|error| panic!("{error}"));
    let cells = |row: &RawLead| {
        let filled = row.iter().filter(|(_, value)| !value.is_empty());
        filled.map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join("|")
    };
    rows.iter().map(cells).collect()
}

#[test]
fn every_common_delimiter_is_found() {
    for delimiter in [",", ";", "\t", "|"] {
        let csv = "Name;E-Mail;Notes\nAda;ada@example.com;one, two\nGrace;grace@example.com;\n"
            .replace(';', delimiter);
        let csv = csv.replace("one, two", if delimiter == "," { "\"one, two\"" } else { "one, two" });
        assert_eq!(
            shown(csv.as_bytes()),
            ["Name=Ada|E-Mail=ada@example.com|Notes=one, two", "Name=Grace|E-Mail=grace@example.com"],
            "{delimiter:?}"
        );
    }
}

#[test]
fn quoted_newlines_quotes_and_delimiters_stay_in_their_cell() {
    let csv = "Name,Notes\r\n\"Lovelace, Ada\",\"first\r\nsecond \"\"line\"\"\"\r\nGrace,x\r\n";
    assert_eq!(
        shown(csv.as_bytes()),
        ["Name=Lovelace, Ada|Notes=first\r\nsecond \"line\"", "Name=Grace|Notes=x"]
    );
}

#[test]
fn every_common_encoding_is_found() {
    let text = "Name;Firma\nZoë Müller;Öl & Söhne\nJosé Núñez;Año\n";
    let (windows, _, _) = encoding_rs::WINDOWS_1252.encode(text);
    let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let marked = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
    for (name, bytes) in [
        ("UTF-8", text.as_bytes().to_vec()),
        ("UTF-8 with a mark", marked(b"\xef\xbb\xbf", text.as_bytes())),
        ("Windows-1252", windows.into_owned()),
        ("UTF-16 LE with a mark", marked(b"\xff\xfe", &utf16(u16::to_le_bytes))),
        ("UTF-16 BE with a mark", marked(b"\xfe\xff", &utf16(u16::to_be_bytes))),
        ("UTF-16 LE", utf16(u16::to_le_bytes)),
    ] {
        assert_eq!(
            shown(&bytes),
            ["Name=Zoë Müller|Firma=Öl & Söhne", "Name=José Núñez|Firma=Año"],
            "{name}"
        );
    }
}

#[test]
fn one_row_in_another_encoding_does_not_spoil_the_others() {
    let mut csv = b"Name,City\n".to_vec();
    for n in 0..20_000 {
        csv.extend_from_slice(format!("Ann{n},Paris\n").as_bytes());
    }
    csv.extend_from_slice(b"Zo\xeb,K\xf6ln\n");
    let rows = shown(&csv);
    assert_eq!((rows.len(), rows[20_000].as_str()), (20_001, "Name=Zoë|City=Köln"));
}

#[test]
fn ragged_rows_and_odd_headers_lose_nothing() {
    assert_eq!(
        shown(b"Name,Phone,Phone,\nAda,1,2,x,beyond\nGrace\n,,,\nJoan,,3\n"),
        ["Name=Ada|Phone=1|Phone (2)=2|Column 4=x|Column 5=beyond", "Name=Grace", "Name=Joan|Phone (2)=3"]
    );
}

#[test]
fn lines_above_the_header_are_skipped() {
    let csv = "Export of 2024-02-29\nAll leads\n\nName,E-Mail,City\nAda,ada@example.com,London\n";
    assert_eq!(shown(csv.as_bytes()), ["Name=Ada|E-Mail=ada@example.com|City=London"]);
}

#[test]
fn a_workbook_is_read_as_people_see_it() {
    let mut book = Workbook::new();
    let date = Format::new().set_num_format("dd.mm.yyyy");
    let sheet = book.add_worksheet();
    sheet.write_row(0, 0, ["Name", "Born", "Score", "Phone", "Active", "Sum"]).expect("a header");
    sheet.write(1, 0, "Ada").expect("a cell");
    sheet
        .write_with_format(1, 1, ExcelDateTime::from_ymd(1915, 12, 10).expect("a date"), &date)
        .expect("a cell");
    sheet.write(1, 2, 0.1 + 0.2).expect("a cell");
    sheet.write(1, 3, 491_711_234_567_u64).expect("a cell");
    sheet.write(1, 4, true).expect("a cell");
    sheet.write(1, 5, Formula::new("=1+2").set_result("3")).expect("a cell");
    sheet.merge_range(2, 0, 3, 0, "Grace", &Format::new()).expect("merged");
    sheet.write(3, 2, 7).expect("a cell");
    let second = book.add_worksheet();
    second.write_row(4, 1, ["Name", "City"]).expect("a header");
    second.write_row(6, 1, ["Zoë", "Köln"]).expect("a row");
    book.add_worksheet().set_hidden(true).write(0, 0, "Nobody").expect("a cell");
    let bytes = book.save_to_buffer().expect("saved");
    assert_eq!(
        shown(&bytes),
        [
            "Name=Ada|Born=1915-12-10|Score=0.3|Phone=491711234567|Active=TRUE|Sum=3",
            "Name=Grace",
            "Score=7",
            "Name=Zoë|City=Köln"
        ]
    );
}

#[test]
fn an_old_workbook_is_read_as_people_see_it() {
    assert_eq!(
        shown(include_bytes!("../../../tests/data/people.xls")),
        [
            "Name=Ada Lovelace|Born=1915-12-10|Seen=2024-02-29 13:05|Score=0.3|Active=TRUE|Email=ada@example.com",
            "Name=Grace Hopper|Score=42|Email=grace@example.com",
            "Email=hopper@example.com",
            "Name=Zoë|Phone=491711234567",
        ]
    );
}

#[test]
fn a_stray_cell_far_away_costs_nothing_and_is_read() {
    let far = ["Name=Ada", "Name=Grace", "Column 256=1"];
    assert_eq!(shown(&hostile::xls(1, &[(0xFFFF, 255)])), far);
    assert_eq!(shown(&hostile::xls(3, &[(0xFFFF, 255)])), [far, far, far].concat());
    // Wide and long, but for one cell.
    let long: Vec<_> = (3..40_000).map(|row| (row, 1)).chain([(2, 255)]).collect();
    let rows = shown(&hostile::xls(1, &long));
    assert_eq!(
        (rows.len(), rows[1].as_str(), rows[2].as_str()),
        (39_999, "Name=Grace|Column 256=1", "Column 2=1")
    );
    // The row is named as people see it.
    let error = rows_of(Cursor::new(hostile::xls(1, &[(0xFFFF, 1_000)]))).expect_err("too many columns");
    assert!(matches!(error, ReadError::TooManyColumns { row: 65_536 }), "{error}");
}

#[test]
fn full_and_large_workbooks_are_read_whatever_else_is_in_them() {
    let full: Vec<_> = (3..62_000).flat_map(|row| (0..50).map(move |column| (row, column))).collect();
    assert_eq!(
        rows_of(Cursor::new(hostile::xls(1, &full))).expect("read").len(),
        61_996,
        "the first full row names the columns"
    );
    assert_eq!(shown(&hostile::with_other_parts()), ["Name=Ada", "Name=Grace"]);
}

#[test]
fn a_short_row_is_no_longer_than_it_is() {
    let file = format!("{}\na\n", (0..1_000).map(|n| format!("Column {n}")).collect::<Vec<_>>().join(","));
    let rows = rows_of(file.as_bytes()).expect("read");
    assert_eq!(serde_json::to_string(&rows[0]).expect("JSON"), r#"{"Column 0":"a"}"#);
    assert_eq!((rows[0].json_len(), rows[0].iter().count()), (17, 1_000));
}

#[test]
fn equal_names_are_numbered() {
    assert_eq!(
        shown(b"Tel,Tel (2),Tel,Tel,\n1,2,3,4,5\n"),
        ["Tel=1|Tel (2)=2|Tel (3)=3|Tel (4)=4|Column 5=5"]
    );
}

#[test]
fn what_cannot_be_read_says_why() {
    let zip = |name: &str| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("an entry");
        zip.write_all(b"hello").expect("written");
        zip.finish().expect("finished").into_inner()
    };
    let wide = format!("{}\n{}\n", "a,".repeat(1_001), "b,".repeat(1_001));
    for (bytes, code) in [
        (b"".to_vec(), "file-empty"),
        (b" \n\n".to_vec(), "file-empty"),
        (b"Name,E-Mail\n".to_vec(), "file-without-rows"),
        (b"%PDF-1.7".to_vec(), "file-not-a-table"),
        (b"\x89PNG\r\n".to_vec(), "file-not-a-table"),
        (b"\x00\x01\x02\x03\x04\x05\x06".to_vec(), "file-not-a-table"),
        (zip("readme.txt"), "workbook-damaged"),
        (b"PK\x03\x04 and then nothing".to_vec(), "workbook-damaged"),
        (b"\xd0\xcf\x11\xe0 and then nothing".to_vec(), "workbook-damaged"),
        (wide.into_bytes(), "too-many-columns"),
        (hostile::encrypted_xls(), "workbook-encrypted"),
    ] {
        let error = rows_of(Cursor::new(&bytes)).expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().ends_with('.'), "a sentence: {error}");
    }
}

#[test]
fn a_quotation_mark_that_is_never_closed_ends_in_an_error_not_in_memory() {
    let endless = Cursor::new(b"Name,Notes\nAda,\"".to_vec()).chain(std::io::repeat(b'x'));
    assert_eq!(rows_of(endless).expect_err("endless").code(), "row-too-long");
}

#[test]
fn whoever_has_had_enough_can_stop() {
    let endless = Cursor::new(b"Name,City\n".to_vec()).chain(Repeat);
    let mut seen = 0;
    let stopped = read::read(endless, &mut |_| {
        seen += 1;
        if seen == 1_000 { Err(Stop) } else { Ok(()) }
    });
    assert_eq!((stopped.expect_err("stopped").code(), seen), ("stopped", 1_000));
}

struct Repeat;

impl Read for Repeat {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let line = b"Ada,London\n";
        let lines = buf.len() / line.len();
        buf.chunks_exact_mut(line.len()).for_each(|chunk| chunk.copy_from_slice(line));
        Ok(lines * line.len())
    }
}
