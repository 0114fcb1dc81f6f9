//! `frontend`: serves the CRM import. See `--help`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use frontend::{Config, Frontend};
use status_core::JobId;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

#[derive(Parser)]
#[command(name = "frontend", version, about)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Subcommand)]
enum Command {
    /// What this program has itself do with each file.
    #[command(hide = true)]
    ReadFile {
        #[arg(long)]
        job: JobId,
        #[arg(long, env = frontend::FILE_NAME)]
        file_name: String,
        #[arg(long)]
        rows: u32,
    },
}

fn main() -> ExitCode {
    let Program { command, config } = Program::parse();
    if let Some(Command::ReadFile { job, file_name, rows }) = command {
        return end(frontend::read_file(job, &file_name, rows).map_err(Into::into));
    }
    let filter = match std::env::var("RUST_LOG").as_deref().unwrap_or_default() {
        "" => Targets::new().with_default(LevelFilter::INFO),
        filter => match filter.parse::<Targets>() {
            Ok(filter) => filter,
            Err(error) => {
                eprintln!("frontend: RUST_LOG: {error}; say one level, as info, or info,frontend=debug");
                return ExitCode::FAILURE;
            }
        },
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    end(run(config))
}

/// Says why it failed, if it did.
fn end(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut message = format!("frontend: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    eprintln!("{message}");
    ExitCode::FAILURE
}

#[tokio::main]
async fn run(mut config: Config) -> Result<(), Box<dyn std::error::Error>> {
    config.reader = Some(this_program()?);
    let frontend = Frontend::bind(&config).await?;
    println!("Listening on http://{}", frontend.address());
    frontend.serve(terminated()).await?;
    Ok(())
}

/// Where this program is: on Linux also if another has taken its place on the disk.
fn this_program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// Resolves at SIGTERM or SIGINT.
async fn terminated() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! { _ = interrupted => {}, _ = terminate.recv() => {} }
            return;
        }
    }
    let _ = interrupted.await;
}
