//! Build, test, demo, bench and check: one command each.
//!
//! What it is: the project's only entry point for people and CI. `cargo xtask --help` lists the commands.
//!
//! Whom it believes: cargo, and the exit codes of what it runs.
//!
//! Absent on purpose: any logic of the product. The demo drives the built programs as a person would.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "a build tool speaks on standard output; nothing of the product is linked in"
)]

mod attacks;
mod bench;
mod build;
mod ci;
mod demo;
mod languages;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Build, test, demo, bench and check Redan.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the guests, in every language there is a toolchain for, and every program.
    Build,
    /// Play the whole story on this machine: found a fleet, enrol devices, roll out, roll back, attack.
    Demo(demo::Options),
    /// Run every test, building the guests they need.
    Test {
        /// Passed on to the test runner, for example the name of one test.
        filter: Vec<String>,
    },
    /// Play the attack lab on a running fleet, run the tests its rows name, list every row.
    Attacks {
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Run the benches and print their ratios.
    Bench {
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
        /// Shorter runs: is every bench alive, not how fast it is.
        #[arg(long)]
        smoke: bool,
    },
    /// Check what no compiler checks: file sizes, test names, the path in ARCHITECTURE.md.
    Tidy,
    /// Everything continuous integration runs, in its order.
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Build => build::everything().and_then(|_| languages::build(build::Services::IfThere)),
        Task::Demo(options) => demo::play(&options),
        Task::Test { filter } => build::test(&filter, build::Services::IfThere),
        Task::Attacks { json } => attacks::run(json),
        Task::Bench { json, smoke } => bench::run(json, smoke),
        Task::Tidy => tidy::check(),
        Task::Ci => ci::run(),
    };
    report(outcome)
}

fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
