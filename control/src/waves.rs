//! From what an operator writes about waves to the devices in them, fixed when a rollout starts.

use crate::error::Refused;
use crate::fleet::{DeviceRow, State};
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
