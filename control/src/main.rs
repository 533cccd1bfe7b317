//! `redan-control`: the control server.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use redan_control::config::Config;
use redan_control::error::ServerError;
use redan_control::local::{Door, Outcome, Told, tell};
use redan_control::register;
use redan_control::replacement::{Replaced, replace};
use redan_control::server::{Reloaded, Reloader, Server};
use redan_protocol::FleetId;
use sd_notify::NotifyState;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Deliver signed components to fleets of devices over mutual TLS.
#[derive(Parser)]
#[command(name = "redan-control", version)]
struct Arguments {
    #[command(subcommand)]
    command: Control,
}

#[derive(Subcommand)]
enum Control {
    /// Fleets of this server; changed on its own host, never over the network.
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Serve until SIGTERM or SIGINT. SIGHUP takes new keys, certificates and roots over without dropping a connection.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
enum FleetCommand {
    /// Register a fleet founded with redan-ceremony.
    Add {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The ceremony's online/ folder: the only keys this server holds.
        #[arg(long)]
        online: PathBuf,
        /// The ceremony's public/ folder.
        #[arg(long)]
        public: PathBuf,
    },
    /// Set a fleet's folder aside, whole; other fleets are not touched. A running server drops it with SIGHUP.
    Remove {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The fleet.
        fleet: FleetId,
    },
    /// Take new online keys, certificates and roots over, also while the server runs. A check that fails changes nothing.
    Keys {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Folder of the new key files and certificates, under the names of those they replace; what it does not have stays.
        #[arg(long)]
        online: Option<PathBuf>,
        /// The custodians' public/ folder, with the new roots of both repositories.
        #[arg(long)]
        public: PathBuf,
    },
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("REDAN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,redan_control=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(
                &format!("no threads: {error}"),
                "internal",
                "free memory or raise limits",
                3,
            );
        }
    };
    let outcome = match Arguments::parse().command {
        Control::Fleet(FleetCommand::Add {
            config,
            online,
            public,
        }) => runtime.block_on(async {
            let fleet = register::add(&Config::load(&config)?, &online, &public).await?;
            say(&format!("redan-control: registered fleet {fleet}"));
            Ok(())
        }),
        Control::Fleet(FleetCommand::Remove { config, fleet }) => Config::load(&config)
            .and_then(|config| register::remove(&config, &fleet))
            .map(|aside| {
                let aside = aside.display();
                say(&format!(
                    "redan-control: fleet {fleet} is kept in {aside}; SIGHUP a running server"
                ));
            }),
        Control::Fleet(FleetCommand::Keys {
            config,
            online,
            public,
        }) => runtime.block_on(async { keys(&Config::load(&config)?, online.as_deref(), &public).await }),
        Control::Serve { config } => runtime.block_on(async { serve(Config::load(&config)?).await }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(
            &error.to_string(),
            error.code().name(),
            error.remedy(),
            error.exit(),
        ),
    }
}

async fn serve(config: Config) -> Result<(), ServerError> {
    let address = config.listen;
    let refused = |error: std::io::Error| ServerError::Listen {
        address,
        what: error.to_string(),
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let door = Door::open(&config.state)?;
    let server = Server::open(config).await?;
    let bound = listener.local_addr().map_err(refused)?;
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(refused)?;
    let reloader = server.reloader();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => drop(reload(&reloader).await),
                telling = door.told() => telling.answer(&reload(&reloader).await).await,
            }
        }
    });
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    say(&format!("redan-control: listening on {bound}"));
    manager(&[NotifyState::Ready]);
    tokio::spawn(beat());
    let serving = server.serve(listener, stopped);
    tokio::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = told() => {}
    }
    // Nobody listening any more means that the server has stopped already.
    let _ = stop.send(true);
    say("redan-control: stopping; what has begun is answered first");
    manager(&[NotifyState::Stopping]);
    tokio::select! {
        ended = serving => ended,
        // Told twice: whoever is still being answered has to ask again.
        () = told() => Ok(()),
    }
}

/// Tells the service manager, if one started this program and asked to be told (`NOTIFY_SOCKET`, `sd_notify(3)`).
fn manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager was not told: {error}");
    }
}

/// Twice in the time the service manager's watchdog allows, if it has one.
async fn beat() {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        manager(&[NotifyState::Watchdog]);
        tokio::time::sleep(within.div_f32(2.0)).await;
    }
}

/// Takes new keys, certificates and roots over, and says for each fleet how that went.
async fn reload(reloader: &Reloader) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (fleet, outcome) in reloader.reload().await {
        let refused = match outcome {
            Ok(Reloaded::Dropped) => {
                say(&format!("redan-control: {fleet} is served no longer"));
                None
            }
            Ok(Reloaded::Served) => {
                say(&format!(
                    "redan-control: {fleet} goes on with the keys, certificates and roots that are there now"
                ));
                None
            }
            Err(error) => {
                complain(&error.to_string(), error.code().name(), error.remedy());
                say(&format!(
                    "redan-control: {fleet} goes on with the keys, certificates and roots it had"
                ));
                Some((error.code(), error.to_string()))
            }
        };
        outcomes.push(Outcome { fleet, refused });
    }
    outcomes
}

/// Replaces keys and roots, and tells the server if it runs.
async fn keys(config: &Config, online: Option<&Path>, public: &Path) -> Result<(), ServerError> {
    let Replaced { fleet, files } = replace(config, online, public).await?;
    for file in files {
        say(&format!("redan-control: {fleet}: took {file}"));
    }
    match tell(&config.state).await? {
        Told::NotRunning => say(&format!(
            "redan-control: {fleet} is not served now; the next start takes them over"
        )),
        Told::Answered(outcomes) => {
            let own = outcomes.into_iter().find(|outcome| outcome.fleet == fleet);
            if let Some((code, what)) = own.and_then(|own| own.refused) {
                return Err(ServerError::NotTaken { code, what });
            }
            say(&format!("redan-control: {fleet} is served with them now"));
        }
    }
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // A closed standard output does not stop a server.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

fn fail(what: &str, because: &str, remedy: &str, exit: u8) -> ExitCode {
    complain(what, because, remedy);
    ExitCode::from(exit)
}

fn complain(what: &str, because: &str, remedy: &str) {
    let text = format!("error: {what}\nbecause: {because}\ntry: {remedy}\n");
    drop(std::io::stderr().write_all(text.as_bytes()));
}
