//! What continuous integration runs, in its order. The tests come last, so that their summary ends the output.

use crate::{build, tidy};
use anyhow::{Result, bail};
use std::process::{Command, Stdio};

/// Runs everything.
pub(crate) fn run() -> Result<()> {
    step("format");
    build::must(build::cargo()?.args(["fmt", "--all", "--check"]))?;
    step("tidy");
    tidy::check()?;
    step("licences, bans and sources");
    deny()?;
    step("clippy");
    build::must(build::cargo()?.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    step("documentation");
    build::must(
        build::cargo()?
            .args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    step("the demo");
    crate::demo::play(&crate::demo::Options::for_ci())?;
    step("tests");
    build::test(&[], build::Services::Mandatory)
}

fn step(what: &str) {
    println!("== {what}");
}

fn deny() -> Result<()> {
    let there = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        bail!("cargo-deny is missing: run `cargo install cargo-deny --locked`");
    }
    let check = |what: &[&str]| -> Result<Command> {
        let mut deny = Command::new("cargo-deny");
        deny.current_dir(build::repository()?)
            .args(["--locked", "check"])
            .args(what);
        Ok(deny)
    };
    build::must(&mut check(&["licenses", "bans", "sources"])?)?;
    advisories(&mut check(&["advisories"])?)
}

/// Known vulnerabilities. The database is on the network; without it this step says so and judges nothing.
fn advisories(deny: &mut Command) -> Result<()> {
    let ran = deny.output()?;
    let text = String::from_utf8_lossy(&ran.stderr);
    if !ran.status.success() && text.contains("failed to fetch advisory database") {
        println!("the advisory database cannot be reached: advisories were not checked");
        return Ok(());
    }
    eprint!("{text}");
    if !ran.status.success() {
        bail!("an advisory speaks of a dependency; update it, or argue in deny.toml why it does not apply");
    }
    Ok(())
}
