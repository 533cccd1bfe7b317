//! `redan-ceremony`: the air-gapped key tool.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand, ValueEnum};
use redan_ceremony::CeremonyError;
use redan_ceremony::found::{Founding, found};
use redan_ceremony::issue::{Issuing, Whose, issue};
use redan_protocol::{ComponentName, FleetId, OperatorName, PublisherName, UnixSeconds};
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
    /// Make a key and certificate for an operator (7 days) or for the control server (90 days).
    Issue {
        /// For an operator of this name; without it, for the control server.
        #[arg(long)]
        operator: Option<OperatorName>,
        /// The fleet's public/ folder.
        #[arg(long)]
        fleet_dir: PathBuf,
        /// offline/operator-issuer.pem, or offline/server-issuer.pem.
        #[arg(long)]
        issuer: PathBuf,
        /// File to write; must not exist.
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
    // Before anything is read. A kernel without seccomp cannot help; the machine has no network anyway, or it is the wrong one.
    let denied = redan_jail::deny_sockets();
    let outcome = match denied {
        Ok(_) => run(Arguments::parse().command),
        Err(_) => Err(CeremonyError::Bug),
    };
    match outcome {
        Ok(text) => {
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

/// Does it, and gives what to say.
fn run(command: Ceremony) -> Result<String, CeremonyError> {
    match command {
        Ceremony::Init {
            profile,
            fleet,
            publishers,
            components,
            holders,
            threshold,
            out,
        } => {
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
            if profile == Profile::Production && founding.threshold < 2 {
                return Err(CeremonyError::Threshold);
            }
            found(&founding, &out)?;
            Ok(format!(
                "Founded fleet {} in {}.\n  offline/    custodians' keys: move each to its holder's medium\n  online/     \
                 for redan-control fleet add\n  public/     roots and first metadata, for everyone\n  operators/  the first \
                 administrator\n",
                founding.fleet,
                out.display()
            ))
        }
        Ceremony::Issue {
            operator,
            fleet_dir,
            issuer,
            out,
        } => {
            let issuing = Issuing {
                whose: operator.map_or(Whose::Server, Whose::Operator),
                public: fleet_dir,
                issuer,
                now: now(),
            };
            let (id, expires) = issue(&issuing, &out)?;
            let out = out.display();
            Ok(format!(
                "Wrote key and certificate of {id} to {out}; it ends at {expires}.\n"
            ))
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
