//! Errors of items as a table for spreadsheets: the items as they came in, then what is wrong with them,
//! so that the file can be mended and uploaded again.

use std::io;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};
use serde_json::Value;
use status_core::ItemError;

/// The most columns for the items' own fields; wider items are kept whole in `input`.
const MAX_COLUMNS: usize = 256;
/// The columns that say what is wrong.
const REASON: [&str; 5] = ["line", "batch", "item", "code", "message"];

type Fields = IndexMap<String, Value>;

/// The columns of a download.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    /// A column for each field of the items.
    fields: IndexSet<String>,
    /// Whether there is a column for items that have no such fields.
    has_input: bool,
}

impl Table {
    /// The columns for errors that begin with `first`: every field of the items there, in order of
    /// appearance. If there are `more`, later items may have others.
    pub(crate) fn for_errors(first: &[ItemError], more: bool) -> Self {
        let mut table = Self { fields: IndexSet::new(), has_input: more };
        for input in first.iter().filter_map(|error| error.input.as_deref()) {
            match fields_of(input) {
                Some(fields) if table.fields.len() + fields.len() <= MAX_COLUMNS => {
                    table.fields.extend(fields.into_keys());
                }
                fields => table.has_input |= fields.is_none_or(|fields| !table.has_columns_for(&fields)),
            }
        }
        table
    }

    /// The line that names the columns.
    pub(crate) fn header(&self) -> io::Result<Bytes> {
        let input = self.has_input.then_some("input");
        let names = self.fields.iter().map(String::as_str).chain(input).chain(REASON);
        written([names.map(as_text).collect()])
    }

    /// A line for each error.
    pub(crate) fn rows(&self, errors: &[ItemError]) -> io::Result<Bytes> {
        written(errors.iter().map(|error| self.row(error)))
    }

    fn row(&self, error: &ItemError) -> Vec<String> {
        let fields = error.input.as_deref().and_then(fields_of);
        let fields = fields.filter(|fields| self.has_columns_for(fields));
        let field = |name| fields.as_ref().and_then(|fields| fields.get(name)).map(cell).unwrap_or_default();
        let mut row: Vec<_> = self.fields.iter().map(|name| as_text(&field(name))).collect();
        if self.has_input {
            let whole = error.input.as_deref().filter(|_| fields.is_none());
            row.push(as_text(whole.unwrap_or_default()));
        }
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        row.extend([number(error.line), error.batch.to_string(), number(error.item)]);
        row.extend([as_text(&error.code), as_text(&error.message)]);
        row
    }

    fn has_columns_for(&self, fields: &Fields) -> bool {
        fields.keys().all(|name| self.fields.contains(name))
    }
}

/// The fields of an item that came in as a JSON object.
fn fields_of(input: &str) -> Option<Fields> {
    serde_json::from_str(input).ok()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a spreadsheet would take for a formula is made text (OWASP: CSV injection). A number stays as it
/// is, a telephone number too: it can do no harm, and must be the same when the file is uploaded again.
fn as_text(cell: &str) -> String {
    let is_number = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || " ()./-".contains(c));
    let is_formula = match cell.chars().next() {
        Some('+' | '-') => !is_number(&cell[1..]),
        Some('=' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => true,
        _ => false,
    };
    if is_formula { format!("'{cell}") } else { cell.to_owned() }
}

fn written(lines: impl IntoIterator<Item = Vec<String>>) -> io::Result<Bytes> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    for line in lines {
        csv.write_record(line)?;
    }
    csv.into_inner().map(Bytes::from).map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use status_core::BatchIndex;

    use super::*;

    fn error(input: &str) -> ItemError {
        let batch = BatchIndex::new(3).expect("small");
        ItemError::new(batch, Some(31), "lead-unusable", "It has no name.").at_line(33).with_input(input)
    }

    fn table(first: &[ItemError], more: bool, rows: &[ItemError]) -> Vec<String> {
        let table = Table::for_errors(first, more);
        let text = [table.header().expect("written"), table.rows(rows).expect("written")].concat();
        String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    const WHY: &str = "33,3,31,lead-unusable,It has no name.";

    #[test]
    fn objects_have_a_column_for_each_field_in_order_of_appearance() {
        let rows = [
            error(r#"{"Name":"Ada, Countess","Mail":null}"#),
            error(r#"{"Mail":"a@example.com","Age":36,"Tags":["x"]}"#),
        ];
        assert_eq!(
            table(&rows, false, &rows),
            [
                "Name,Mail,Age,Tags,line,batch,item,code,message".to_owned(),
                format!(r#""Ada, Countess",,,,{WHY}"#),
                format!(r#",a@example.com,36,"[""x""]",{WHY}"#),
            ]
        );
    }

    #[test]
    fn other_inputs_have_a_column_of_their_own() {
        let rows = [error("a line as it stood"), error("[1,2]")];
        assert_eq!(
            table(&rows, false, &rows),
            [
                "input,line,batch,item,code,message".to_owned(),
                format!("a line as it stood,{WHY}"),
                format!("\"[1,2]\",{WHY}"),
            ]
        );
        let bare = ItemError::new(BatchIndex::new(0).expect("small"), None, "c", "m");
        let rows = std::slice::from_ref(&bare);
        assert_eq!(table(rows, false, rows), ["line,batch,item,code,message", ",0,,c,m"]);
    }

    #[test]
    fn later_items_with_other_fields_are_kept_whole() {
        let (first, later) = (error(r#"{"a":"1"}"#), error(r#"{"b":"2"}"#));
        assert_eq!(
            table(std::slice::from_ref(&first), true, &[first.clone(), later]),
            [
                "a,input,line,batch,item,code,message".to_owned(),
                format!("1,,{WHY}"),
                format!(r#","{{""b"":""2""}}",{WHY}"#),
            ]
        );
    }

    #[test]
    fn the_number_of_columns_is_bounded() {
        let wide = |from: usize| {
            let fields: Vec<_> = (from..from + 200).map(|n| format!("\"{n}\":1")).collect();
            error(&format!("{{{}}}", fields.join(",")))
        };
        let table = Table::for_errors(&[wide(0), wide(100), wide(500), wide(0)], false);
        assert_eq!((table.fields.len(), table.has_input), (200, true));
    }

    #[test]
    fn no_cell_is_a_formula_and_numbers_stay_as_they_are() {
        for formula in ["=1+1", "+A1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1"] {
            assert_eq!(as_text(formula), format!("'{formula}"));
        }
        for text in ["+49 (30) 901820-0", "-12.5", "a=b", "", "a@example.com", "'=1"] {
            assert_eq!(as_text(text), text);
        }
        let rows = [error(r#"{"=HYPERLINK(1)":"=1"}"#)];
        let lines = table(&rows, false, &rows);
        assert!(lines[0].starts_with("'=HYPERLINK(1),line") && lines[1].starts_with("'=1,33"), "{lines:?}");
    }
}
