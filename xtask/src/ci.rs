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
    build::test(&[])
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
    let mut deny = Command::new("cargo-deny");
    deny.current_dir(build::repository()?).args([
        "--offline",
        "--locked",
        "check",
        "licenses",
        "bans",
        "sources",
    ]);
    build::must(&mut deny)
}
