//! The attack lab: builds it, runs it, shows its table.

use crate::build;
use anyhow::Result;
use std::process::{Command, Stdio};

/// Plays the programs on a running fleet, runs the tests that rows name, lists every row.
pub(crate) fn run(json: bool) -> Result<()> {
    build::everything()?;
    let mut lab = lab()?;
    if json {
        lab.arg("--json");
    }
    build::must(&mut lab)
}

/// The built program.
pub(crate) fn lab() -> Result<Command> {
    let mut lab = Command::new(build::target()?.join("debug/attacks"));
    lab.stdin(Stdio::null());
    Ok(lab)
}
