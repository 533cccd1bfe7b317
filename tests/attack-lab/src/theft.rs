//! What the theft of each key gives: `theft.toml` says it, a thief with exactly that key finds it out, and both must be equal.
//!
//! Seven columns are played against the device's own library path ([`device`]) in a production fleet whose every key is at hand
//! ([`fleet`]); what needs sockets and certificates is played against real processes ([`live`]). `docs/theft.md` is generated.
//!
//! The thief of any key also has the delivery: he chooses what a device is served, out of everything ever published and all he
//! can sign. Each forgery has its positive control: the rightful signers do the same, and the device adopts it.

pub mod device;
pub mod evil;
pub mod fleet;
pub mod freeze;
pub mod live;
pub mod page;
pub mod tries;

use crate::registry::{Outcome, Status};
use anyhow::{Context, Result, ensure};
use fleet::Role;
use redan_kit::Stage;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use tries::{Scene, Try};

/// The table.
const FILE: &str = include_str!("../theft.toml");

/// One row: the keys of one theft, and what they give.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Stable id.
    pub id: String,
    /// What is stolen, for readers.
    pub key: String,
    /// Where it lives.
    pub lives: String,
    /// What a thief has of it, in words.
    pub gives: String,
    /// How many keys of which signing roles are stolen.
    #[serde(default)]
    pub stolen: BTreeMap<String, usize>,
    /// Each column: the codes that refuse, or what is adopted.
    pub new_code: String,
    /// See [`Try::RollBack`].
    pub roll_back: String,
    /// See [`Try::Freeze`].
    pub freeze: String,
    /// See [`Try::OtherFleet`].
    pub other_fleet: String,
    /// See [`Try::Ring`].
    pub ring: String,
    /// See [`Try::Grant`].
    pub grant: String,
    /// See [`Try::Choose`].
    pub choose: String,
    /// What is seen when it is played against real processes.
    #[serde(default)]
    pub live: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    key: Vec<Row>,
}

impl Row {
    /// Columns in the order of the table.
    pub fn cells(&self) -> [(Try, &str); 7] {
        [
            (Try::NewCode, &self.new_code),
            (Try::RollBack, &self.roll_back),
            (Try::Freeze, &self.freeze),
            (Try::OtherFleet, &self.other_fleet),
            (Try::Ring, &self.ring),
            (Try::Grant, &self.grant),
            (Try::Choose, &self.choose),
        ]
    }

    /// The stolen keys.
    pub fn hand(&self) -> Result<Vec<(Role, usize)>> {
        let role = |(name, count): (&String, &usize)| {
            let role = Role::ALL.into_iter().find(|role| role.name() == name);
            Ok((
                role.with_context(|| format!("{}: no role {name}", self.id))?,
                *count,
            ))
        };
        self.stolen.iter().map(role).collect()
    }

    /// Plays every column; an error names those that are not as the table says.
    pub fn play(&self, scene: &Scene) -> Result<()> {
        let stolen = self.hand()?;
        let mut wrong = Vec::new();
        for (column, expected) in self.cells() {
            let seen = scene
                .tries(column, &stolen)
                .with_context(|| format!("{} {}", self.id, self.key))?;
            if seen != expected {
                wrong.push(format!(
                    "{column:?}: the table says {expected:?}, seen was {seen:?}"
                ));
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} {}\n  {}",
            self.id,
            self.key,
            wrong.join("\n  ")
        );
        Ok(())
    }

    /// Plays what needs real processes, where the row has any.
    pub fn play_live(&self, stage: &Stage) -> Result<()> {
        let program = live::PLAYED.iter().find(|(id, _)| *id == self.id);
        let seen = program.map_or(Ok(Vec::new()), |(_, program)| program(stage))?;
        ensure!(
            seen == self.live,
            "{} {}: the table says {:#?}, seen was {seen:#?}",
            self.id,
            self.key,
            self.live
        );
        Ok(())
    }
}

/// Reads the table.
pub fn rows() -> Result<Vec<Row>> {
    let Table { key } = toml::from_str(FILE).context("theft.toml")?;
    let ids: BTreeSet<&str> = key.iter().map(|row| row.id.as_str()).collect();
    ensure!(ids.len() == key.len(), "an id is listed twice");
    for row in &key {
        row.hand()?;
    }
    for (id, _) in live::PLAYED {
        ensure!(ids.contains(id), "{id} is played but not listed");
    }
    Ok(key)
}

/// Plays every row on a running fleet.
pub fn play(stage: &Stage) -> Result<Vec<Outcome>> {
    let scene = Scene::new()?;
    let outcome = |row: Row| {
        redan_kit::interrupt::check()?;
        let played = row.play(&scene).and_then(|()| row.play_live(stage));
        if let Err(error) = &played {
            redan_kit::interrupt::check()?;
            eprintln!("{error:#}");
        }
        Ok(Outcome {
            title: format!("theft of {}: {}", row.key.replace('`', ""), row.gives),
            status: if played.is_ok() {
                Status::Refused
            } else {
                Status::Accepted
            },
            code: played.is_ok().then_some(row.new_code),
            id: row.id,
        })
    };
    rows()?.into_iter().map(outcome).collect()
}
