//! What is no time of one function: percentiles, memory, counts. Written as criterion writes its own results, so that there is one table.

use crate::Asking;
use anyhow::Result;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Answers one question by two numbers that the bench found itself. `ours` and the reference are in `unit`.
pub fn figure(
    asking: &Asking,
    question: &str,
    unit: &str,
    ours: f64,
    (reference, other): (&str, f64),
) -> Result<()> {
    eprintln!("{question}: {ours:.2} {unit}, {reference}: {other:.2} {unit}");
    // Without `cargo xtask bench` nobody gathers a table.
    let Some(results) = std::env::var_os("CRITERION_HOME").filter(|_| matches!(asking, Asking::Measured(_)))
    else {
        return Ok(());
    };
    for (function, value) in [("ours", ours), (reference, other)] {
        let folder = Path::new(&results).join(question).join(function).join("new");
        std::fs::create_dir_all(&folder)?;
        let benchmark = json!({ "group_id": question, "function_id": function, "unit": unit });
        std::fs::write(folder.join("benchmark.json"), benchmark.to_string())?;
        let estimates = json!({ "median": { "point_estimate": value } });
        std::fs::write(folder.join("estimates.json"), estimates.to_string())?;
    }
    Ok(())
}

/// The folder everything is built into.
fn target() -> Option<PathBuf> {
    let me = std::env::current_exe().ok()?;
    let folder = me
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())?;
    Some(folder.to_owned())
}

/// A program that is compared with, if it is installed: `cargo install wasmtime-cli --version 48.0.8 --root target/bench-tools`.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = target()?.join("bench-tools/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("left out: {name} is not in target/bench-tools (docs/benches.md says how it comes there)");
    None
}

/// A built guest, if `cargo xtask build` made it.
pub fn built(guest: &str) -> Option<PathBuf> {
    let path = target()?.join("guests").join(guest);
    if path.exists() {
        return Some(path);
    }
    eprintln!("left out: {guest} is not built (`cargo xtask build`)");
    None
}
