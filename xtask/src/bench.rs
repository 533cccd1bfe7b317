//! Runs the benches and gathers criterion's estimates into one table of ratios.
//!
//! Every bench is a criterion group of two functions: `ours`, and one named after its reference, measured in turns. The
//! ratio is of medians taken in the same run on the same machine; absolute figures mean little elsewhere.

use crate::build;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// One row of the table, and one object of `--json`.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: String,
    reference: String,
    ratio: f64,
}

#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    /// Of a number that is no time: criterion's own are nanoseconds, and have none.
    #[serde(default)]
    unit: Option<String>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Runs them.
pub(crate) fn run(json: bool, smoke: bool) -> Result<()> {
    if smoke {
        return once();
    }
    let results = build::target()?.join("criterion");
    if results.exists() {
        std::fs::remove_dir_all(&results)?;
    }
    let mut bench = build::cargo()?;
    bench.args([
        "bench",
        "--locked",
        "--package",
        "redan-benches",
        "--bench",
        "questions",
        "--",
        "--noplot",
    ]);
    bench.env("CRITERION_HOME", &results);
    if json {
        bench.stdout(std::process::Stdio::null());
    }
    build::must(&mut bench)?;
    let rows = rows(&results)?;
    ensure!(
        !rows.is_empty(),
        "the benches left no results in {}",
        results.display()
    );
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "\n{:<36} {:>12} {:<4} {:>8}  reference (ratio = ours / reference)",
        "bench", "median", "unit", "ratio"
    );
    for row in &rows {
        println!(
            "{:<36} {:>12.2} {:<4} {:>8.3}  {}",
            row.name, row.value, row.unit, row.ratio, row.reference
        );
    }
    Ok(())
}

/// Asks every question once, unoptimised: is every bench alive, not how fast it is. Shares its build with the tests.
fn once() -> Result<()> {
    let mut test = build::cargo()?;
    test.args(["test", "--locked", "--package", "redan-benches", "--benches"]);
    build::must(&mut test)
}

/// The unit of a question, and its functions with their medians.
type Group = (Option<String>, Vec<(String, f64)>);

fn rows(results: &Path) -> Result<Vec<Row>> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for group in std::fs::read_dir(results).with_context(|| format!("no results in {}", results.display()))? {
        for function in std::fs::read_dir(group?.path()).into_iter().flatten() {
            let folder = function?.path().join("new");
            let Ok(text) = std::fs::read_to_string(folder.join("benchmark.json")) else {
                continue;
            };
            let benchmark: Benchmark = serde_json::from_str(&text)?;
            let text = std::fs::read_to_string(folder.join("estimates.json"))?;
            let estimates: Estimates = serde_json::from_str(&text)?;
            let function = benchmark.function_id.context("every bench has a function name")?;
            let group = groups.entry(benchmark.group_id).or_default();
            group.0 = benchmark.unit;
            group.1.push((function, estimates.median.point_estimate));
        }
    }
    let row = |(name, (unit, functions)): (String, Group)| {
        let (_, ours) = functions.iter().find(|(function, _)| function == "ours")?;
        let (reference, other) = functions.iter().find(|(function, _)| function != "ours")?;
        let row = Row {
            name,
            value: if unit.is_some() { *ours } else { ours / 1000.0 },
            unit: unit.unwrap_or_else(|| "µs".to_owned()),
            reference: reference.clone(),
            ratio: ours / other,
        };
        Some(row)
    };
    Ok(groups.into_iter().filter_map(row).collect())
}
