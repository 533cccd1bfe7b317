//! `redan-ceremony`: the air-gapped key tool.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand, ValueEnum};
use redan_ceremony::CeremonyError;
use redan_ceremony::found::{Founding, found};
use redan_protocol::{ComponentName, FleetId, PublisherName, UnixSeconds};
use redan_publish::Profile;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Found a fleet and keep its keys. Run it on a machine without a network.
#[derive(Parser)]
#[command(name = "redan-ceremony", version)]
struct Arguments {
    #[command(subcommand)]
    command: Ceremony,
}

#[derive(Subcommand)]
enum Ceremony {
    /// Found a fleet: keys, TUF roots, fleet CA, first metadata.
    Init {
        /// `development` keeps keys in files with threshold 1, and can never become `production`.
        #[arg(long)]
        profile: ProfileArgument,
        /// Name of the fleet, for example plant.example.
        #[arg(long)]
        fleet: FleetId,
        /// A publisher; may be given several times.
        #[arg(long = "publisher", required = true)]
        publishers: Vec<PublisherName>,
        /// A component to delegate, publisher/workload; may be given several times.
        #[arg(long = "component")]
        components: Vec<ComponentName>,
        /// Key holders of each offline role [default: 1 in development, 3 in production].
        #[arg(long)]
        holders: Option<u32>,
        /// How many of them must sign [default: 1 in development, 2 in production].
        #[arg(long)]
        threshold: Option<u32>,
        /// Folder to write; must not exist. offline/ is for the custodians' media, online/ for the control server.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileArgument {
    Development,
    Production,
}

fn main() -> ExitCode {
    let Ceremony::Init {
        profile,
        fleet,
        publishers,
        components,
        holders,
        threshold,
        out,
    } = Arguments::parse().command;
    let (profile, default_holders, default_threshold) = match profile {
        ProfileArgument::Development => (Profile::Development, 1, 1),
        ProfileArgument::Production => (Profile::Production, 3, 2),
    };
    let founding = Founding {
        fleet,
        profile,
        publishers,
        components,
        holders: holders.unwrap_or(default_holders),
        threshold: threshold.unwrap_or(default_threshold),
        now: now(),
    };
    let outcome = if profile == Profile::Production && founding.threshold < 2 {
        Err(CeremonyError::Threshold)
    } else {
        found(&founding, &out)
    };
    match outcome {
        Ok(()) => {
            let text = format!(
                "Founded fleet {} in {}.\n  offline/    custodians' keys: move each to its holder's medium\n  online/     \
                 for redan-control fleet add\n  public/     roots and first metadata, for everyone\n  operators/  the first \
                 administrator\n",
                founding.fleet,
                out.display()
            );
            // A closed standard output changes nothing about what was done.
            drop(std::io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let text = format!(
                "error: {error}\nbecause: {}\ntry: {}\n",
                error.code(),
                error.remedy()
            );
            drop(std::io::stderr().write_all(text.as_bytes()));
            ExitCode::from(error.exit())
        }
    }
}

fn now() -> UnixSeconds {
    UnixSeconds::new(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    )
}
