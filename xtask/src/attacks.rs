//! The attack lab: builds it, runs it, shows its table.

use crate::build;
use anyhow::Result;

/// Runs every row.
pub(crate) fn run(json: bool) -> Result<()> {
    build::everything()?;
    let mut lab = build::cargo()?;
    lab.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "redan-attack-lab",
        "--bin",
        "attacks",
        "--",
    ]);
    if json {
        lab.arg("--json");
    }
    build::must(&mut lab)
}
