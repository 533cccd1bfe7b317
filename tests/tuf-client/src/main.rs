//! The device's TUF workflow behind the command line of the conformance suite.
//!
//! What it is: `redan-trust`'s workflow over plain HTTP, the system's clock and a folder of files, for the suite
//! theupdateframework/tuf-conformance and for tests. Never shipped.
//!
//! Whom it believes: the root it was given. Invariants: a fresh process each time; exit 0, or exactly 1 for every failure; a file
//! is replaced whole and durably or not at all.
//!
//! Absent on purpose: TLS, redirects, caches, retries. Start reading at `client`.
#![forbid(unsafe_code)]

mod client;
mod folder;
mod http;

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// A TUF client as the conformance suite drives it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where trusted metadata is kept.
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where metadata is served: `http://…`
    #[arg(long)]
    metadata_url: Option<String>,
    /// A target to download; may be repeated. Any text is a name.
    #[arg(long, allow_hyphen_values = true)]
    target_name: Vec<String>,
    /// Where targets are served: `http://…`
    #[arg(long)]
    target_base_url: Option<String>,
    /// Where downloaded targets are put.
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trusts a root. Makes no request and no check.
    Init {
        /// The root.
        trusted_root: PathBuf,
    },
    /// Gets current.
    Refresh,
    /// Gets current, then downloads targets.
    Download,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked = !error.use_stderr();
            let _ = error.print();
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "error: {error}");
            let _ = writeln!(stderr, "because: {}", error.code().name());
            let _ = writeln!(stderr, "try: {}", error.code().remedy());
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: Arguments) -> Result<(), client::ClientError> {
    let folder = folder::MetadataDir::new(arguments.metadata_dir);
    let url = arguments.metadata_url.ok_or(client::ClientError::Missing {
        option: "--metadata-url",
    });
    match arguments.command {
        Command::Init { trusted_root } => folder.init(&trusted_root),
        Command::Refresh => client::refresh(&folder, &url?).await.map(drop),
        Command::Download => {
            let base = arguments.target_base_url.ok_or(client::ClientError::Missing {
                option: "--target-base-url",
            })?;
            let into = arguments.target_dir.ok_or(client::ClientError::Missing {
                option: "--target-dir",
            })?;
            client::download(&folder, &url?, &arguments.target_name, &base, &into).await
        }
    }
}
