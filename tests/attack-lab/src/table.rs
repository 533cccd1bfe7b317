//! The public table, `docs/attacks.md`.

use crate::registry::{Cover, Row};
use std::fmt::Write as _;

const HEAD: &str = "# Attacks

Generated from `tests/attack-lab/registry.toml`; a test fails when it is stale, or when a test it names is gone.

- **played**: a program of `tests/attack-lab` plays it against real processes; tests show what of the title it does not play.
- **tested**: named tests play the whole of it, and the positive control shows that the same flow passes without it.
- **in part**: what is not covered yet is said. It counts as not covered.
- **not covered**: never omitted.

`cargo xtask attacks` plays the programs on a running fleet, runs every named test, and lists every row. It also plays
[the theft of every key](theft.md), a family of its own.
";

/// The page.
pub fn page(rows: &[Row]) -> String {
    let count = |cover| rows.iter().filter(|row| row.cover() == cover).count();
    let mut text = String::from(HEAD);
    let _ = writeln!(
        text,
        "\n{} rows: {} played, {} tested, {} in part, {} not covered.\n",
        rows.len(),
        count(Cover::Played),
        count(Cover::Tested),
        count(Cover::InPart),
        count(Cover::Not)
    );
    text += "| id | attack | expected | status | code | shown by | positive control | open |\n|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let mut tests: Vec<String> = row.tests.iter().map(|test| format!("`{test}`")).collect();
        tests.extend(
            row.bench
                .iter()
                .map(|bench| format!("its time by the bench `{bench}`")),
        );
        let control = row.control.as_ref().map(|test| format!("`{test}`"));
        let cells = [
            row.id.clone(),
            row.title.clone(),
            row.expected.clone(),
            row.cover().name().to_owned(),
            row.code.clone().unwrap_or_default(),
            tests.join("<br>"),
            control.unwrap_or_default(),
            row.open.clone().unwrap_or_default(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}
