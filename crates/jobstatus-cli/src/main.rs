//! `jobstatus`: the operator's command line. See `jobstatus --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobstatus_cli::run()
}
