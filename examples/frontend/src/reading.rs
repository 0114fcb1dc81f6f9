//! Files are read where they can hurt nobody: in a process of this program's own, with bounds on its memory and its time, that
//! knows nothing but the file. It is killed when the job ends, or when this process is asked to end.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use leads::read::{MAX_ROWS_BYTES, ReadError, Stop};
use serde::{Deserialize, Serialize};
use splitter::{Batcher, Spool, Unread, cut};
use status_core::{JobId, Totals};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::watch,
};

/// What a reader may have of memory and of a processor; and, should it hang, of time.
const MAX_MEMORY: u64 = 768 << 20;
const MAX_CPU: Duration = Duration::from_secs(30);
const MAX_TIME: Duration = Duration::from_secs(120);
/// A file that has ended its reader so often is not read again; nor is one during whose reading this process has ended so often,
/// which has other reasons as a rule.
const MAX_DEATHS: u32 = 2;
const MAX_ENDS: u32 = 5;

/// How files are read.
#[derive(Clone, Debug)]
pub(crate) enum Reader {
    /// By this program.
    Program(PathBuf),
    /// By this process, which embeds us. A hostile file can end it.
    Here,
}

/// A file to be read.
pub(crate) struct Upload<'a> {
    pub(crate) job: JobId,
    pub(crate) file_name: &'a str,
    pub(crate) path: &'a Path,
}

/// What a reader says on its standard error, a line each. Other lines are its last words.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Stage(String),
    Cut(Totals),
    Refused { code: String, message: String },
    Failed(String),
}

impl Reader {
    /// Reads a file into batches of so many rows, and tells `stages` where it is.
    pub(crate) async fn read(
        &self,
        upload: &Upload<'_>,
        batch_size: u32,
        stages: watch::Sender<String>,
    ) -> Result<Spool, Unread> {
        let attempt = Attempt::begin(upload.path)?;
        let folder = upload.path.parent().unwrap_or(Path::new("."));
        // Without a name: it goes with whoever holds it.
        let batches = tempfile::tempfile_in(folder)?;
        let file = File::open(upload.path)?;
        match self {
            Self::Here => {
                let batcher = Batcher::new(upload.job, upload.file_name, batch_size);
                Spool::fill(batches, batcher, file, stages).await
            }
            Self::Program(program) => {
                let totals = in_a_process(program, upload, batch_size, file, batches.try_clone()?, stages);
                match tokio::time::timeout(MAX_TIME, totals).await.unwrap_or(Ok(Ended::Unread(refused())))? {
                    Ended::Cut(totals) => Ok(Spool { batches, totals }),
                    Ended::Unread(unread) => Err(unread),
                    Ended::Died => {
                        tracing::warn!(job = %upload.job, "reading a file ended its reader");
                        attempt.died();
                        Err(Unread::Failed("the reader died".into()))
                    }
                }
            }
        }
    }
}

/// How a reader ended.
enum Ended {
    Cut(Totals),
    Unread(Unread),
    Died,
}

async fn in_a_process(
    program: &Path,
    upload: &Upload<'_>,
    batch_size: u32,
    file: File,
    batches: File,
    stages: watch::Sender<String>,
) -> io::Result<Ended> {
    let mut command = Command::new(program);
    command
        .arg("read-file")
        .arg(format!("--job={}", upload.job))
        .arg(format!("--rows={batch_size}"))
        // It needs no secrets; and what somebody's file is called is nothing for a list of processes.
        .env_clear()
        .env(FILE_NAME, upload.file_name)
        .stdin(file)
        .stdout(batches)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // An interrupt at the terminal is for this process.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn()?;
    let said = child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
    let (mut lines, mut ended) = (BufReader::new(said).lines(), Ended::Died);
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line) {
            Ok(Said::Stage(stage)) => drop(stages.send(stage)),
            Ok(Said::Cut(totals)) => ended = Ended::Cut(totals),
            Ok(Said::Refused { code, message }) => ended = Ended::Unread(Unread::Refused { code, message }),
            Ok(Said::Failed(why)) => ended = Ended::Unread(Unread::Failed(why.into())),
            Err(_) => tracing::debug!(job = %upload.job, line, "a reader's last words"),
        }
    }
    let status = child.wait().await?;
    Ok(match ended {
        ended if status.success() => ended,
        // It would again.
        _ if took_too_long(status) => Ended::Unread(refused()),
        _ => Ended::Died,
    })
}

#[cfg(unix)]
fn took_too_long(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(rustix::process::Signal::XCPU.as_raw())
}

#[cfg(not(unix))]
fn took_too_long(_: ExitStatus) -> bool {
    false
}

/// One reading of a file. That it has begun is written beside the file, and goes when it has ended or was given up; that it
/// ended its reader stays.
struct Attempt {
    note: PathBuf,
    before: Ends,
    is_death: bool,
}

/// How often the reading of a file has ended with this process, and how often with its reader.
#[derive(Clone, Copy, Default)]
struct Ends {
    of_process: u32,
    of_reader: u32,
}

impl Ends {
    /// What cannot be read was not written to its end: the disk was full, or the machine stopped.
    fn read(note: &Path) -> io::Result<Self> {
        match fs::read_to_string(note) {
            Ok(text) => {
                let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
                let mut next = || numbers.next().unwrap_or_default();
                Ok(Self { of_process: next(), of_reader: next() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn write(self, note: &Path) -> io::Result<()> {
        let Self { of_process, of_reader } = self;
        if of_process + of_reader == 0 {
            return fs::remove_file(note);
        }
        let mut file = File::create(note)?;
        write!(file, "{of_process} {of_reader}")?;
        file.sync_all()
    }
}

impl Attempt {
    fn begin(file: &Path) -> Result<Self, Unread> {
        let note = note(file);
        let before = Ends::read(&note)?;
        if before.of_reader >= MAX_DEATHS || before.of_process >= MAX_ENDS {
            return Err(refused());
        }
        Ends { of_process: before.of_process + 1, ..before }.write(&note)?;
        Ok(Self { note, before, is_death: false })
    }

    /// It has ended its reader.
    fn died(mut self) {
        self.is_death = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let ends = Ends { of_reader: self.before.of_reader + u32::from(self.is_death), ..self.before };
        match ends.write(&self.note) {
            // In a temporary folder, it may have gone with it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(note = ?self.note, %error, "a note about a reading cannot be brought up to date");
            }
            _ => {}
        }
    }
}

fn refused() -> Unread {
    Unread::Refused {
        code: "file-reading-died".into(),
        message:
            "The file needs more memory or time to be read than there is. Please save it as CSV, or split it."
                .into(),
    }
}

/// By which a reader is told what its file is called.
pub const FILE_NAME: &str = "FILE_NAME";

/// The extension of a note, beside the file it is about.
const NOTE: &str = "deaths";

/// Where it is written how often reading this file has ended its reader.
pub(crate) fn note(file: &Path) -> PathBuf {
    file.with_extension(NOTE)
}

/// Whether this is the name of such a note.
pub(crate) fn is_note(name: &str) -> bool {
    name.split_once('.').is_some_and(|(file, extension)| file.parse::<JobId>().is_ok() && extension == NOTE)
}

/// What the process does that reads a file: from its standard input, to its standard output.
///
/// # Errors
/// If it cannot say how it ended.
pub fn read_file(job: JobId, file_name: &str, rows: u32) -> io::Result<()> {
    limit()?;
    let said = io::stderr();
    let say = |what: &Said| -> io::Result<()> {
        serde_json::to_writer(&said, what)?;
        (&said).write_all(b"\n")
    };
    let mut stage = |stage| say(&Said::Stage(stage)).map_err(|_| Stop);
    let (file, batches) = (io::stdin().lock(), BufWriter::new(io::stdout().lock()));
    let ended = match cut(file, Batcher::new(job, file_name, rows), batches, &mut stage) {
        Ok(totals) => Said::Cut(totals),
        Err(error @ ReadError::Io(_)) => {
            Said::Failed(format!("{error} ({:?})", std::error::Error::source(&error)))
        }
        Err(error) => Said::Refused { code: error.code().into(), message: error.to_string() },
    };
    say(&ended)
}

/// Bounds what this process may have.
#[cfg(unix)]
fn limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    // Nobody waits for it any more when the process is gone that began it.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // Beside the rows there are the names of jobs and of files.
    let file = 2 * MAX_ROWS_BYTES;
    for (resource, most) in [(Resource::As, MAX_MEMORY), (Resource::Fsize, file), (Resource::Core, 0)] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    // At the lower bound it is told why it ends.
    let cpu = MAX_CPU.as_secs();
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu), maximum: Some(cpu + 1) })?;
    // Whoever waits for a page goes first.
    nice(10)?;
    Ok(())
}

#[cfg(not(unix))]
fn limit() -> io::Result<()> {
    Ok(())
}
