//! The command line itself. The doc comments here are the manual.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use status_core::{BatchState, JobId, Status, Timestamp, clock};

use crate::place::Place;

/// How the program ends, for its help.
const EXIT_CODES: &str = "\
Exit codes:
    0  Done; of `watch`: the job completed
    1  Any other error, such as a decision that the job's status forbids
    2  Wrong usage
    3  `watch`: the job failed
    4  `watch`: the job was cancelled
    5  There is no such job
    6  The store cannot be reached: no answer, no such file or table, no access
  130  Interrupted

Errors go to standard error; with --json each is an object
{\"error\": {\"code\": \"not-found\", \"exit_code\": 5, \"message\": \"…\"}}.";

/// Looks at jobs in a SQLite file or a DynamoDB table, and cancels and sweeps them.
///
/// In a terminal it prints tables; elsewhere rows of columns between tabs, without a header.
#[derive(Parser)]
#[command(name = "jobstatus", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Where the jobs are: sqlite:FILE or dynamodb:TABLE [env: STATUS_STORE].
    #[arg(long, global = true, value_name = "STORE")]
    pub(crate) store: Option<Place>,
    /// Short for --store dynamodb:NAME [env: STATUS_TABLE].
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "store")]
    pub(crate) table: Option<String>,
    /// The AWS region of the table, if not that of the environment or the profile.
    #[arg(long, global = true)]
    pub(crate) region: Option<String>,
    /// The address of the DynamoDB server, if it is not AWS.
    #[arg(long, env = "AWS_ENDPOINT_URL_DYNAMODB", global = true, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// The longest wait for a server that does not answer: 15s, 2m.
    #[arg(long, global = true, default_value = "15s", value_parser = timeout)]
    pub(crate) timeout: Duration,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes the table or the file, unless it exists.
    CreateTable,
    /// Lists jobs: those of an owner, newest first; without --owner, the jobs of all owners that are not
    /// over.
    ///
    /// Outside of a terminal the columns are: id, owner, status, health, batches completed, batches in
    /// all, items processed, items failed, time of creation, kind, title.
    List {
        #[command(flatten)]
        wanted: Wanted,
        /// The most rows on a page.
        #[arg(long, default_value = "50")]
        limit: NonZeroUsize,
        /// Where the page before ended, as it said.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Shows a job.
    Show {
        /// The id of the job.
        id: JobId,
    },
    /// Follows a job to its end.
    ///
    /// In a terminal it shows a progress bar, elsewhere it prints a line for each change, and with --json
    /// one snapshot a line. When the store does not answer it goes on trying for --timeout. It ends with
    /// 0 if the job completed, 3 if it failed and 4 if it was cancelled.
    Watch {
        /// The id of the job.
        id: JobId,
    },
    /// Asks to cancel a job.
    Cancel {
        /// The id of the job.
        id: JobId,
        /// The reason, for the history of the job.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Lists every decision about a job, oldest first.
    ///
    /// Outside of a terminal the columns are: time, decision, by whom, reason.
    History {
        /// The id of the job.
        id: JobId,
    },
    /// Lists the items that failed, and why.
    ///
    /// Outside of a terminal the columns are: batch, item, line, code, message.
    Errors {
        /// The id of the job.
        id: JobId,
        /// The most rows on a page.
        #[arg(long, default_value = "1000")]
        limit: NonZeroUsize,
        /// Where the page before ended, as it said.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Lists the batches that neither completed nor failed: the same as `batches --state unsettled`.
    Missing {
        /// The id of the job.
        id: JobId,
        #[command(flatten)]
        range: Range,
    },
    /// Lists the batches that are in one state; outside of a terminal, one a line.
    Batches {
        /// The id of the job.
        id: JobId,
        /// The state of the batches.
        #[arg(long, value_enum)]
        state: State,
        #[command(flatten)]
        range: Range,
    },
    /// Completes jobs whose last worker crashed, confirms unanswered cancels and fails jobs past their
    /// deadline. Run it periodically.
    Sweep,
    /// Copies a SQLite file while work goes on. A copy made by other means may lack what is still in the
    /// file's log. To restore one, remove the old file with its `-wal` and `-shm`, and copy it there.
    Backup {
        /// The file to write, which must not exist.
        file: PathBuf,
    },
    /// Prints a script that completes commands and options in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Prints the manual page, or writes those of all commands to a folder.
    Man {
        /// The folder for jobstatus.1, jobstatus-list.1 and so on.
        folder: Option<PathBuf>,
    },
}

/// Which jobs are wanted on a list.
#[derive(Args)]
pub(crate) struct Wanted {
    /// The owner of the jobs.
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Only jobs with this status.
    #[arg(long)]
    pub(crate) status: Option<Status>,
    /// Only jobs that nothing has been heard of for longer than their policy allows.
    #[arg(long)]
    pub(crate) stalled: bool,
    /// Only jobs created since: an age such as 90m or 7d, or a time such as 2026-07-01T12:00:00Z.
    #[arg(long, value_name = "AGE|TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,
    /// Only jobs of this kind.
    #[arg(long)]
    pub(crate) kind: Option<String>,
}

/// A part of a job's batches.
#[derive(Args)]
pub(crate) struct Range {
    /// The first batch to list.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// The most batches to list.
    #[arg(long, default_value = "1000")]
    pub(crate) limit: NonZeroUsize,
}

/// The state of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum State {
    /// Neither completed nor failed.
    Unsettled,
    /// Completed.
    Completed,
    /// Failed, and not completed since.
    Failed,
}

impl From<State> for BatchState {
    fn from(state: State) -> Self {
        match state {
            State::Unsettled => Self::Unsettled,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
        }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(timeout) if timeout >= Duration::from_secs(1) => Ok(timeout),
        Ok(_) => Err("the shortest is 1s".to_owned()),
        Err(why) => Err(format!("{why}; write 15s or 2m")),
    }
}

/// A moment in the past: how long ago, or when.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        let now = Timestamp::now();
        return now.checked_sub(age).map_err(|_| "that is too long ago".to_owned());
    }
    text.parse()
        .map_err(|_| "write an age such as 90m or 7d, or a time such as 2026-07-01T12:00:00Z".to_owned())
}

/// How long ago a moment is.
pub(crate) fn age_of(moment: Timestamp) -> Duration {
    clock::between(moment, Timestamp::now())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        let hours = |text| age_of(moment(text).expect("a moment")).as_secs() / 3_600;
        assert_eq!([hours("2h"), hours("7d")], [2, 7 * 24]);
        assert_eq!(moment("2026-07-01T12:00:00+02:00"), moment("2026-07-01T10:00:00Z"));
        assert!(moment("yesterday").is_err());
    }
}
