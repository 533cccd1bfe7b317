//! Runs the benches and gathers their results into one table of ratios.

use crate::build;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One row, as `benches` writes it and `--json` prints it.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: String,
    reference: String,
    ratio: f64,
}

/// Runs them.
pub(crate) fn run(json: bool, smoke: bool) -> Result<()> {
    build::guests()?;
    let rows_file = build::target()?.join("bench-rows.jsonl");
    if rows_file.exists() {
        std::fs::remove_file(&rows_file)?;
    }
    let mut bench = build::cargo()?;
    bench.args(["bench", "--locked", "--package", "redan-benches"]);
    bench
        .env("REDAN_BENCH_ROWS", &rows_file)
        .env("REDAN_GUESTS", build::target()?.join("guests"));
    if smoke {
        bench.env("REDAN_BENCH_SMOKE", "1");
    }
    if json {
        bench.stdout(std::process::Stdio::null());
    }
    build::must(&mut bench)?;
    let text = std::fs::read_to_string(&rows_file).context("the benches wrote no rows")?;
    let rows: Vec<Row> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "{:<44} {:>12} {:<8} {:>8}  reference",
        "bench", "value", "unit", "ratio"
    );
    for row in &rows {
        println!(
            "{:<44} {:>12.2} {:<8} {:>8.3}  {}",
            row.name, row.value, row.unit, row.ratio, row.reference
        );
    }
    Ok(())
}
