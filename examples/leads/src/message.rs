//! A batch on its way from the splitter to a caller: one message of the queue.

use std::{fmt, sync::Arc};

use csv::StringRecord;
use serde::{
    Deserialize, Serialize,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};
use status_core::{BatchIndex, JobId};

/// The names of a table's columns, shared by its rows.
pub type Columns = Arc<[String]>;

/// Some rows of a file: one batch of a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchMessage {
    /// The job.
    pub job_id: JobId,
    /// The batch's number in the job.
    pub batch: BatchIndex,
    /// The file, as its owner named it.
    pub file_name: String,
    /// The number of the first row: rows with leads are counted from 1 through the whole file.
    pub first_row: u64,
    /// The rows, as column → value.
    pub leads: Vec<RawLead>,
}

/// A row as the file has it. In JSON an object of column → value, in the file's order;
/// what a short row lacks is not in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawLead {
    columns: Columns,
    values: StringRecord,
}

impl RawLead {
    /// A row of a table with these columns. Values beyond the last column are dropped: see that there are none.
    pub fn new(columns: Columns, values: StringRecord) -> Self {
        Self { columns, values }
    }

    /// A row from pairs of column and value.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (columns, values): (Vec<_>, Vec<_>) = pairs.into_iter().map(|(c, v)| (c.to_owned(), v)).unzip();
        Self { columns: columns.into(), values: StringRecord::from(values) }
    }

    /// Column and value, in the file's order; a short row's missing values are empty.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.iter().chain(std::iter::repeat(""));
        self.columns.iter().map(String::as_str).zip(values)
    }

    /// What the row has itself: of a short one, no more. So a few bytes of a file never become many.
    fn own(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns.iter().map(String::as_str).zip(self.values.iter())
    }

    /// How many bytes the row has as JSON.
    pub fn json_len(&self) -> usize {
        let punctuation = r#""":"","#.len();
        self.own()
            .map(|(column, value)| escaped_len(column) + escaped_len(value) + punctuation)
            .sum::<usize>()
            + 2
    }
}

fn escaped_len(text: &str) -> usize {
    let byte_len = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(byte_len).sum()
}

impl Serialize for RawLead {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len().min(self.columns.len())))?;
        for (column, value) in self.own() {
            map.serialize_entry(column, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RawLead {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = RawLead;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of column names and texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawLead, A::Error> {
                let (mut columns, mut values) = (Vec::new(), StringRecord::new());
                while let Some((column, value)) = map.next_entry::<String, String>()? {
                    if columns.len() == crate::read::MAX_COLUMNS {
                        return Err(de::Error::custom("too many columns"));
                    }
                    columns.push(column);
                    values.push_field(&value);
                }
                Ok(RawLead { columns: columns.into(), values })
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}
