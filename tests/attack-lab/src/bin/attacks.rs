//! Plays the attack lab and prints its table: with a stage named, the programs on that stage; without, every row, and the theft
//! of every key.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a table is what this program is for")]

use anyhow::{Context, Result};
use redan_attack_lab::registry::{self, Cover, Outcome, Row, Status};
use redan_attack_lab::{cargo, theft};
use redan_kit::{Programs, Stage, interrupt};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The devices of a stage of our own.
const DEVICES: [&str; 2] = ["press-1", "press-2"];

#[derive(Default)]
struct Options {
    json: bool,
    stage: Option<PathBuf>,
    server: Option<SocketAddr>,
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.json = true,
            "--stage" => options.stage = Some(words.next().context("--stage takes a folder")?.into()),
            "--server" => options.server = Some(words.next().context("--server takes an address")?.parse()?),
            other => {
                anyhow::bail!("{other} is not an option; there are --json, --stage DIR and --server ADDRESS")
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match play() {
        Ok(outcomes) if outcomes.iter().any(|outcome| outcome.status == Status::Accepted) => {
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> Result<Vec<Outcome>> {
    interrupt::watch()?;
    let options = options()?;
    let programs = Programs::find()?;
    let rows = registry::rows()?;
    let outcomes = if let (Some(folder), Some(server)) = (&options.stage, options.server) {
        registry::play(&Stage::attach(programs, folder, server))?
    } else {
        let ran = cargo::run(&registry::tests(&rows))?;
        let folder = tempfile::tempdir()?;
        let mut stage = Stage::new(programs, folder.path())?;
        stage.play_first_release(&DEVICES)?;
        let played = registry::play(&stage)?;
        let thefts = theft::play(&stage)?;
        stage.stop()?;
        let mut outcomes = registry::outcomes(&rows, &played, &ran);
        outcomes.extend(thefts);
        outcomes
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    } else {
        print(&rows, &outcomes);
    }
    Ok(outcomes)
}

fn print(rows: &[Row], outcomes: &[Outcome]) {
    for outcome in outcomes {
        let row = rows.iter().find(|row| row.id == outcome.id);
        let status = match outcome.status {
            Status::Refused => "refused",
            Status::Accepted => "ACCEPTED",
            Status::NotCovered => row.map_or(Cover::Not, Row::cover).name(),
        };
        println!(
            "{:<4} {:<12} {:<20} {}",
            outcome.id,
            status,
            outcome.code.as_deref().unwrap_or("–"),
            outcome.title
        );
    }
}
