//! A file that is cut as a whole before any batch of it is sent: one message a line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write},
};

use leads::{
    BatchMessage,
    read::{self, Found, ReadError, Stop},
};
use status_core::{BoxError, Totals};
use tokio::sync::watch;

use crate::Batcher;

/// The batches of a file, until they are sent.
#[derive(Debug)]
pub struct Spool {
    /// One message a line, as [`cut`] writes them.
    pub batches: File,
    /// How many there are.
    pub totals: Totals,
}

/// Why there is no spool.
#[derive(Debug)]
pub enum Unread {
    /// The file never can be read.
    Refused {
        /// A stable slug.
        code: String,
        /// Why, in words for the person who uploaded it.
        message: String,
    },
    /// It may be another time.
    Failed(BoxError),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        if error.is_retryable() {
            return Self::Failed(error.into());
        }
        Self::Refused { code: error.code().to_owned(), message: error.to_string() }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Cuts `file` and writes the messages to `out`, one JSON object a line; `stage` is told what is being read.
///
/// # Errors
/// [`ReadError`] if the file cannot be read, the output not be written, or `stage` has it stop.
pub fn cut(
    file: impl Read,
    mut batcher: Batcher,
    mut out: impl Write,
    stage: &mut dyn FnMut(String) -> Result<(), Stop>,
) -> Result<Totals, ReadError> {
    let mut failed = None;
    let mut write = |batch: &BatchMessage| {
        let written = serde_json::to_writer(&mut out, batch).map_err(io::Error::from);
        written.and_then(|()| out.write_all(b"\n")).map_err(|error| {
            failed = Some(error);
            Stop
        })
    };
    let read = read::read(file, &mut |found| match found {
        Found::Stage(what) => stage(what),
        Found::Row(row) => batcher.push(row).as_ref().map_or(Ok(()), &mut write),
    });
    let read = read.and_then(|()| {
        let (last, totals) = batcher.finish();
        last.as_ref().map_or(Ok(()), &mut write).map_err(|Stop| ReadError::Stopped)?;
        Ok(totals)
    });
    match failed {
        Some(error) => Err(ReadError::Io(error)),
        None => out.flush().map_err(ReadError::Io).and(read),
    }
}

impl Spool {
    /// Has `file` cut into `batches`, on a thread of this process. Who drops `stages` has it stop at the next stage.
    ///
    /// # Errors
    /// [`Unread`].
    pub async fn fill(
        mut batches: File,
        batcher: Batcher,
        file: impl Read + Send + 'static,
        stages: watch::Sender<String>,
    ) -> Result<Self, Unread> {
        let filled = tokio::task::spawn_blocking(move || {
            let mut tell = |stage| stages.send(stage).map_err(|_| Stop);
            let totals = cut(file, batcher, BufWriter::new(&mut batches), &mut tell)?;
            Ok(Self { batches, totals })
        });
        filled.await.map_err(|panicked| Unread::Failed(panicked.into()))?
    }

    /// Gives the batches to `send`, one after the other, until it has had enough.
    pub(crate) fn send(self, send: impl Fn(BatchMessage) -> Result<(), Stop>) -> io::Result<()> {
        let mut batches = self.batches;
        batches.rewind()?;
        for line in BufReader::new(batches).lines() {
            if send(serde_json::from_str(&line?)?).is_err() {
                break;
            }
        }
        Ok(())
    }
}
