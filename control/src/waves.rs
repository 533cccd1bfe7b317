//! From what an operator writes about waves to the devices in them, fixed when a rollout starts.

use crate::error::Refused;
use crate::fleet::{DeviceRow, State};
use redan_control_core::{Approval, Rollout};
use redan_protocol::{Code, DeviceId, Permille};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// One wave: named devices, or a cumulative share of the fleet, or devices with all of some labels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveSpec {
    name: String,
    #[serde(default)]
    devices: Vec<DeviceId>,
    #[serde(default)]
    permille: Option<Permille>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Resolves waves to devices: each device belongs to the first wave that names it.
pub(crate) fn waves(state: &State, specs: Vec<WaveSpec>) -> Result<Vec<(String, Vec<DeviceId>)>, Refused> {
    let fleet: Vec<&DeviceId> = state
        .devices
        .iter()
        .filter(|(_, row)| row.enrolled.is_some() && !row.revoked)
        .map(|(id, _)| id)
        .collect();
    let mut taken: BTreeSet<DeviceId> = BTreeSet::new();
    let mut waves = Vec::new();
    for spec in specs {
        let mut members = Vec::new();
        for id in &spec.devices {
            if !fleet.contains(&id) {
                return Err(Refused::because(
                    Code::PreflightRefused,
                    format!("{id} is not an enrolled device"),
                ));
            }
            members.push(id.clone());
        }
        if let Some(share) = spec.permille {
            let count = fleet
                .len()
                .saturating_mul(usize::from(share.get()))
                .div_ceil(1000);
            members.extend(fleet.iter().take(count).map(|id| (*id).clone()));
        }
        if !spec.labels.is_empty() {
            let has = |row: &DeviceRow| {
                spec.labels
                    .iter()
                    .all(|(name, value)| row.labels.get(name) == Some(value))
            };
            members.extend(
                state
                    .devices
                    .iter()
                    .filter(|(id, row)| fleet.contains(id) && has(row))
                    .map(|(id, _)| id.clone()),
            );
        }
        members.retain(|id| taken.insert(id.clone()));
        waves.push((spec.name, members));
    }
    if taken.is_empty() {
        return Err(Refused::because(
            Code::PreflightRefused,
            "no device belongs to any wave",
        ));
    }
    Ok(waves)
}

/// Largest share of a fleet that one person can bring a set to where two have to agree; one device always. Tripped by
/// `one_person_alone_reaches_the_canary_and_nobody_else`.
const CANARY_PERMILLE_MAX: usize = 100;

/// The first wave goes out before anybody agrees, so it must be small: also together with the first waves of other rollouts of the
/// same set to which nobody has agreed.
pub(crate) fn canary_is_small(state: &State, rollout: &Rollout) -> Result<(), Refused> {
    let enrolled = state.devices.values();
    let enrolled = enrolled
        .filter(|row| row.enrolled.is_some() && !row.revoked)
        .count();
    let most = enrolled
        .saturating_mul(CANARY_PERMILLE_MAX)
        .checked_div(1000)
        .unwrap_or(0)
        .max(1);
    let unapproved =
        |other: &&Rollout| other.set == rollout.set && matches!(other.approval, Approval::Asked { .. });
    let reached: BTreeSet<&DeviceId> = state
        .rollouts
        .iter()
        .filter(unapproved)
        .chain([rollout])
        .filter_map(|rollout| rollout.waves.first())
        .flat_map(|wave| wave.devices.keys())
        .collect();
    if reached.len() <= most {
        return Ok(());
    }
    let detail = format!(
        "before a second person agrees, the first waves of this set may have {most} of {enrolled} devices, not {}",
        reached.len()
    );
    Err(Refused::because(Code::PreflightRefused, detail))
}
