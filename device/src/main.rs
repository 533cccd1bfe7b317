//! `redan-device`: supervisor, agent, executor, broker and compiler in one program.
//!
//! What it is: thin. It reads the command line, becomes one kind of process, and says errors as people read them.
//!
//! Start reading at [`supervisor`].
#![forbid(unsafe_code)]

mod children;
mod fault;
mod privacy;
mod restarts;
mod supervisor;

use clap::{Parser, Subcommand};
use fault::Fault;
use redan_protocol::wire::AdmissionRequest;
use redan_protocol::{ByteCount, DeviceId, Millis, PublisherName};
use redan_runtime::watch::Budget;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run signed Wasm components on this device.
#[derive(Parser)]
#[command(name = "redan-device", version)]
struct Arguments {
    #[command(subcommand)]
    command: Device,
}

#[derive(Subcommand)]
enum Device {
    /// Make this device's key and print the request an operator has to admit.
    Init {
        /// Folder of everything the device keeps.
        #[arg(long)]
        state: PathBuf,
        /// The name the device would like to have.
        #[arg(long)]
        id: DeviceId,
        /// pkcs11: URI of the key, or tpm: and the path of a TPM 2.0: it is made there, and never leaves it. Without it, the key is a file in the state folder.
        #[arg(long)]
        key: Option<String>,
        /// With a certificate request, for a device that cannot reach the server: `redan device admit --offline`.
        #[arg(long)]
        offline: bool,
        /// Write the request here instead of printing it.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Write name and key hash here as a QR code (SVG).
        #[arg(long)]
        qr: Option<PathBuf>,
    },
    /// Get a certificate with the voucher an operator wrote, or with a join token for many devices.
    Enrol {
        /// Folder of everything the device keeps.
        #[arg(long)]
        state: PathBuf,
        /// The voucher.
        #[arg(long, required_unless_present = "token")]
        voucher: Option<PathBuf>,
        /// The join token.
        #[arg(long, conflicts_with = "voucher")]
        token: Option<PathBuf>,
        /// The name to ask for [default: the token's prefix and twelve digits of the key's hash].
        #[arg(long, requires = "token")]
        id: Option<DeviceId>,
        /// Where the control server listens, host:port [default: as the voucher says].
        #[arg(long, conflicts_with = "offline")]
        server: Option<String>,
        /// Take the certificate from the voucher, without asking the server.
        #[arg(long)]
        offline: bool,
    },
    /// Bring a device back that lost its trust record.
    Recover {
        /// Folder of everything the device keeps.
        #[arg(long)]
        state: PathBuf,
        /// Print what the holders of the release root have to answer.
        #[arg(long, required_unless_present = "document", conflicts_with = "document")]
        request: bool,
        /// Their answer.
        #[arg(long = "with")]
        document: Option<PathBuf>,
    },
    /// Have the running device follow a direction that was carried to it, without any network.
    Apply {
        /// The folder that `redan bundle` wrote.
        bundle: PathBuf,
        /// Folder of everything the device keeps.
        #[arg(long)]
        state: PathBuf,
    },
    /// Run until SIGTERM or SIGINT.
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// What the running device does, and why it does not do more.
    Status {
        /// Folder of everything the device keeps.
        #[arg(long)]
        state: PathBuf,
        /// On one line.
        #[arg(long)]
        json: bool,
    },
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        config: PathBuf,
    },
    #[command(hide = true)]
    Executor {
        #[arg(long)]
        publisher: PublisherName,
        #[arg(long)]
        data: PathBuf,
        /// A folder of the device's own, to read.
        #[arg(long)]
        lend: Vec<PathBuf>,
        /// The same, to write as well.
        #[arg(long)]
        lend_writable: Vec<PathBuf>,
        #[arg(long)]
        user: Option<u32>,
        #[arg(long = "wasi-0-3")]
        wasi_0_3: bool,
    },
    #[command(hide = true)]
    Broker {
        #[arg(long)]
        user: Option<u32>,
    },
    #[command(hide = true)]
    Compiler {
        #[arg(long)]
        user: Option<u32>,
        #[command(flatten)]
        less: Less,
    },
}

/// What a compilation may take, if less than by default.
#[derive(clap::Args)]
struct Less {
    #[arg(long)]
    cpu_seconds: Option<u64>,
    #[arg(long)]
    memory_mib: Option<u64>,
}

impl Less {
    fn budget(&self) -> Budget {
        let most = Budget::default();
        let cpu = self.cpu_seconds.map(Millis::seconds);
        let memory = self.memory_mib.map(ByteCount::mib);
        Budget {
            cpu: cpu.map_or(most.cpu, |cpu| cpu.min(most.cpu)),
            memory: memory.map_or(most.memory, |memory| memory.min(most.memory)),
        }
    }
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    privacy::begin(&command);
    let outcome = match command {
        Device::Init {
            state,
            id,
            key,
            offline,
            out,
            qr,
        } => redan_agent::init(&state, &id, key.as_deref(), offline)
            .map_err(Fault::from)
            .and_then(|request| hand_over(request, out.as_deref(), qr.as_deref()))
            .map(|()| 0),
        Device::Enrol {
            state,
            voucher,
            token,
            id,
            server,
            offline,
        } => match (voucher, token) {
            (_, Some(token)) => redan_agent::join(&state, &token, id.as_ref(), server.as_deref()),
            (voucher, None) if offline => redan_agent::enrol_offline(&state, &voucher.unwrap_or_default()),
            (voucher, None) => redan_agent::enrol(&state, &voucher.unwrap_or_default(), server.as_deref()),
        }
        .map_err(Fault::from)
        .map(|id| {
            say(&format!("redan-device: enrolled as {id}"));
            0
        }),
        Device::Recover {
            state,
            document: None,
            ..
        } => redan_agent::recovery_request(&state)
            .map_err(Fault::from)
            .map(|request| {
                say(&compact(&request));
                0
            }),
        Device::Recover {
            state,
            document: Some(document),
            ..
        } => redan_agent::recover(&state, &document)
            .map_err(Fault::from)
            .map(|id| {
                say(&format!("redan-device: recovered {id}"));
                0
            }),
        Device::Apply { bundle, state } => redan_agent::apply(&state, &bundle)
            .and_then(|applied| match applied.refusal {
                Some(code) => Err(redan_agent::AgentError::Bundle(code)),
                None => Ok(applied.direction),
            })
            .map_err(Fault::from)
            .map(|direction| {
                say(&match direction.get() {
                    0 => "redan-device: knows the fleet's newest root".to_owned(),
                    direction => format!("redan-device: follows direction {direction}"),
                });
                0
            }),
        Device::Run { config } => supervisor::run(&config),
        Device::Status { state, json } => redan_agent::status(&state).map_err(Fault::from).map(|status| {
            say(&if json {
                compact(&status)
            } else {
                serde_json::to_string_pretty(&status).unwrap_or_default()
            });
            0
        }),
        Device::Agent { config } => children::agent(&config).map(|()| 0),
        Device::Executor {
            publisher,
            data,
            lend,
            lend_writable,
            user,
            wasi_0_3,
        } => {
            let to_read = lend.into_iter().map(|folder| (folder, false));
            let to_write = lend_writable.into_iter().map(|folder| (folder, true));
            let lent: Vec<_> = to_read.chain(to_write).collect();
            children::executor(&publisher, &data, &lent, user, wasi_0_3).map(|()| 0)
        }
        Device::Broker { user } => children::broker(user).map(|()| 0),
        Device::Compiler { user, less } => children::compiler(user, less.budget()).map(|()| 0),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            drop(std::io::stderr().write_all(fault.render().as_bytes()));
            ExitCode::from(fault.exit())
        }
    }
}

/// The request to the operator: printed or as a file, and as a QR code at a terminal or as a file. The code holds what a person
/// compares, name and key hash; a certificate request would make it unreadable.
fn hand_over(request: AdmissionRequest, out: Option<&Path>, qr: Option<&Path>) -> Result<(), Fault> {
    let whole = compact(&request);
    let short = compact(&AdmissionRequest { csr: None, ..request });
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(Fault::system("writing the admission request"))
    };
    match out {
        Some(path) => write(path, &format!("{whole}\n"))?,
        None => say(&whole),
    }
    match qr {
        Some(path) => write(path, &redan_agent::qr::svg(&short).unwrap_or_default())?,
        None if std::io::stdout().is_terminal() => {
            say(&redan_agent::qr::terminal(&short).unwrap_or_default());
        }
        None => {}
    }
    Ok(())
}

fn compact(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // A closed standard output stops nothing.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
