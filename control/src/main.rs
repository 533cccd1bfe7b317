//! `redan-control`: the control server.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use redan_control::config::Config;
use redan_control::error::ServerError;
use redan_control::register;
use redan_control::server::{Reloaded, Reloader, Server};
use redan_protocol::FleetId;
use sd_notify::NotifyState;
use std::io::Write as _;
use std::path::PathBuf;
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
    /// Serve until SIGTERM or SIGINT. SIGHUP takes a new server.pem over without dropping a connection.
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
    let server = Server::open(config).await?;
    let bound = listener.local_addr().map_err(refused)?;
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(refused)?;
    let reloader = server.reloader();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload(&reloader).await;
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

/// Takes new server certificates over, and says for each fleet how that went.
async fn reload(reloader: &Reloader) {
    for (fleet, outcome) in reloader.reload().await {
        match outcome {
            Ok(Reloaded::Dropped) => say(&format!("redan-control: {fleet} is served no longer")),
            Ok(Reloaded::Served) => say(&format!(
                "redan-control: {fleet} is served with the server.pem that is there now"
            )),
            Err(error) => {
                complain(&error.to_string(), error.code().name(), error.remedy());
                say(&format!(
                    "redan-control: {fleet} is served with the server.pem it had"
                ));
            }
        }
    }
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
