//! The registry: every row of the attack table, and which rows have a program here.

use anyhow::{Context, Result, ensure};
use redan_kit::Stage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The registry file.
const FILE: &str = include_str!("../registry.toml");

/// One row as the registry lists it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Stable id.
    pub id: String,
    /// What the attacker does.
    pub title: String,
    /// What must happen.
    pub expected: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    attack: Vec<Row>,
}

/// How a row ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Refused as expected.
    #[serde(rename = "refused")]
    Refused,
    /// The attacker got what he wanted.
    #[serde(rename = "accepted")]
    Accepted,
    /// No program here plays it yet.
    #[serde(rename = "not covered")]
    NotCovered,
}

/// One line of the table that `cargo xtask attacks` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Stable id.
    pub id: String,
    /// What the attacker does.
    pub title: String,
    /// How it ended.
    pub status: Status,
    /// The code that refused it.
    pub code: Option<String>,
}

/// A program that plays one row on a running fleet and returns the name of the code that refused it.
/// An error means that the attack was not refused as expected, or could not be played.
pub type Attack = fn(&Stage) -> Result<String>;

/// The rows that have a program, in the order they are played.
pub const PLAYED: &[(&str, Attack)] = &[
    ("P03", crate::foreign::certificate_of_another_fleet),
    ("T02", crate::resigned::metadata_signed_with_the_servers_own_keys),
    ("T01", crate::tampered::bytes_replaced_in_the_store),
];

/// Reads the registry and holds it against [`PLAYED`].
pub fn rows() -> Result<Vec<Row>> {
    let registry: Registry = toml::from_str(FILE).context("registry.toml")?;
    let ids: BTreeSet<&str> = registry.attack.iter().map(|row| row.id.as_str()).collect();
    ensure!(
        ids.len() == registry.attack.len(),
        "registry.toml lists an id twice"
    );
    for (id, _) in PLAYED {
        ensure!(ids.contains(id), "{id} is played but not listed in registry.toml");
    }
    Ok(registry.attack)
}

/// Plays the rows that have a program; lists the others when `all` are wanted.
pub fn play(stage: &Stage, all: bool) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let rows = rows()?;
    for (id, attack) in PLAYED {
        let row = rows
            .iter()
            .find(|row| row.id == *id)
            .context("checked by rows()")?;
        let (status, code) = match attack(stage) {
            Ok(code) => (Status::Refused, Some(code)),
            Err(error) => {
                redan_kit::interrupt::check()?;
                eprintln_row(id, &error);
                (Status::Accepted, None)
            }
        };
        outcomes.push(Outcome {
            id: row.id.clone(),
            title: row.title.clone(),
            status,
            code,
        });
    }
    if all {
        outcomes.extend(
            rows.into_iter()
                .filter(|row| PLAYED.iter().all(|(id, _)| *id != row.id))
                .map(|row| Outcome {
                    id: row.id,
                    title: row.title,
                    status: Status::NotCovered,
                    code: None,
                }),
        );
    }
    Ok(outcomes)
}

fn eprintln_row(id: &str, error: &anyhow::Error) {
    eprintln!("{id}: {error:#}");
}

/// The public table, `docs/attacks.md`.
pub fn table() -> Result<String> {
    let text = String::from(
        "# Attacks\n\nGenerated from `tests/attack-lab/registry.toml`; a test fails when it is stale. \"played\" rows run in\n\
         `cargo xtask attacks` and in the tests, against real processes, with the same flow passing without the attack. A row\n\
         without a program is listed as not covered, never omitted.\n\n| id | attack | expected | status |\n|---|---|---|---|\n",
    );
    let lines = rows()?.into_iter().map(|row| {
        let played = PLAYED.iter().any(|(id, _)| *id == row.id);
        let status = if played { "played" } else { "not covered" };
        let cell = |text: &str| text.replace('|', "\\|");
        format!(
            "| {} | {} | {} | {status} |\n",
            row.id,
            cell(&row.title),
            cell(&row.expected)
        )
    });
    Ok(text + &lines.collect::<String>())
}
