//! Why a file cannot be read, for the person who uploaded it.

use super::{MAX_COLUMNS, MAX_ROW_BYTES, MAX_ROWS_BYTES, MAX_WORKBOOK_BYTES};

/// Why a file cannot be read. The messages are for CRM users.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No bytes, or nothing but blanks.
    #[error("The file is empty. Please choose a file with a header row and at least one lead.")]
    Empty,
    /// A header and nothing below.
    #[error("The file has a header row but no leads below it.")]
    NoRows,
    /// Something else than a table.
    #[error("The file is not a table: it is {what}. Please upload a CSV or Excel file.")]
    NotATable {
        /// What it is.
        what: &'static str,
    },
    /// A table in a format that we do not read.
    #[error("The file is {what}. Please save it as .xlsx or CSV.")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// A row that does not fit into a message.
    #[error("Row {row} is longer than {max} KB. Please check that the quotation marks around it are closed.", max = MAX_ROW_BYTES >> 10)]
    RowTooLong {
        /// Its place in the file.
        row: u64,
    },
    /// More columns than anybody has.
    #[error("Row {row} has more than {MAX_COLUMNS} columns. Please remove the columns that are not needed.")]
    TooManyColumns {
        /// Its place in the file.
        row: u64,
    },
    /// More than a job can be cut into.
    #[error("The rows of the file, with the names of their columns, are more than {max} MB. Please split the file.", max = MAX_ROWS_BYTES >> 20)]
    TooManyBytes,
    /// Too large a workbook.
    #[error("The Excel file is larger than {max} MB. Please save it as CSV or split it.", max = MAX_WORKBOOK_BYTES >> 20)]
    WorkbookTooLarge,
    /// A workbook that unpacks to far more than it should, or never ends.
    #[error("The Excel file unpacks to far more data than it can hold. Please save it as CSV.")]
    WorkbookExpands,
    /// An old workbook whose cells lie so far apart that the table between them is too large.
    #[error("The cells of the Excel file lie too far apart. Please save it as .xlsx or CSV.")]
    WorkbookTooSparse,
    /// An encrypted workbook.
    #[error("The Excel file is protected by a password. Please save it without one.")]
    Encrypted,
    /// A damaged workbook, or an archive of something else.
    #[error(
        "The Excel file is damaged or not a workbook. Please open it, save it again and upload it once more."
    )]
    Workbook(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The bytes stopped coming.
    #[error("The file could not be read to its end. Please try again.")]
    Io(#[from] std::io::Error),
    /// Whoever takes the rows asked to stop.
    #[error("reading was stopped")]
    Stopped,
}

impl ReadError {
    /// A stable slug.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "file-empty",
            Self::NoRows => "file-without-rows",
            Self::NotATable { .. } => "file-not-a-table",
            Self::Unsupported { .. } => "file-format-unsupported",
            Self::RowTooLong { .. } => "row-too-long",
            Self::TooManyColumns { .. } => "too-many-columns",
            Self::TooManyBytes => "file-too-many-bytes",
            Self::WorkbookTooLarge => "workbook-too-large",
            Self::WorkbookExpands => "workbook-expands",
            Self::WorkbookTooSparse => "workbook-too-sparse",
            Self::Encrypted => "workbook-encrypted",
            Self::Workbook(_) => "workbook-damaged",
            Self::Io(_) => "file-unreadable",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the same file may be readable another time.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}
