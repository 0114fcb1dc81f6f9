//! Rows into batches: so many rows, or so many bytes, whichever comes first; the same file gives the same batches.

use leads::{BatchMessage, RawLead};
use status_core::{BatchIndex, JobId, Totals};

/// The most bytes of a message. SQS takes 1 MiB in all for ten messages at once, and counts names and attributes too.
pub const MAX_MESSAGE_BYTES: usize = 100 << 10;

/// Rows into batches.
#[derive(Debug)]
pub struct Batcher {
    job: JobId,
    file_name: String,
    batch_size: usize,
    rows: Vec<RawLead>,
    bytes: usize,
    batches: u64,
    items: u64,
}

impl Batcher {
    /// Batches of `batch_size` rows for `job`.
    pub fn new(job: JobId, file_name: &str, batch_size: u32) -> Self {
        let (rows, file_name) = (Vec::new(), file_name.to_owned());
        let batch_size = usize::try_from(batch_size.max(1)).unwrap_or(usize::MAX);
        Self { job, file_name, batch_size, rows, bytes: 0, batches: 0, items: 0 }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    /// Takes a row; gives the batch that is full, if one is.
    pub fn push(&mut self, row: RawLead) -> Option<BatchMessage> {
        let bytes = row.json_len() + 1;
        // A batch is given only when the next row comes, so there is never more than one to give.
        let full = self.rows.len() == self.batch_size || self.bytes + bytes > MAX_MESSAGE_BYTES;
        let batch = if full { self.batch() } else { None };
        self.rows.push(row);
        self.bytes += bytes;
        batch
    }

    /// Gives the last batch, if rows are left, and what there was in all.
    pub fn finish(mut self) -> (Option<BatchMessage>, Totals) {
        let last = self.batch();
        (last, Totals { batches: self.batches, items: Some(self.items) })
    }

    fn batch(&mut self) -> Option<BatchMessage> {
        if self.rows.is_empty() {
            return None;
        }
        // More batches than a job may have fail at the seal, with a message that says so.
        let batch = BatchIndex::new(self.batches.min(BatchIndex::MAX)).ok()?;
        let leads = std::mem::take(&mut self.rows);
        let first_row = self.items + 1;
        self.items += leads.len() as u64;
        self.batches += 1;
        self.bytes = 0;
        Some(BatchMessage { job_id: self.job, batch, file_name: self.file_name.clone(), first_row, leads })
    }
}
