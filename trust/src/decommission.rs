//! A device's last order: the policy signers say that it is a device of the fleet no longer (decision 0011).
//!
//! One target a device, `policy/decommissioned-<id>.json`, signed by the policy role and by nobody else: a stolen online key can
//! revoke a device, and hold this order back, but not make one.

use crate::decide::{Document, signed_bytes};
use redan_protocol::{ByteCount, DeviceId, Digest, FleetId, SpiffeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Largest order, bytes: the hashes of three years of keys are under 8 KiB. Tripped by
/// `an_order_that_is_not_for_this_device_and_one_of_its_keys_is_none`.
pub const ORDER_LEN_MAX: ByteCount = ByteCount::kib(16);

/// Where a device's order is in the release repository.
pub fn decommission_path(device: &DeviceId) -> String {
    format!("policy/decommissioned-{device}.json")
}

/// The order as it is signed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decommission {
    /// Always `redan.decommission/1`.
    pub schema: DecommissionSchema,
    /// The fleet.
    pub fleet: FleetId,
    /// The device.
    pub device: DeviceId,
    /// Keys it has had. A machine that later gets the same name has another key, and is not meant.
    pub keys: BTreeSet<Digest>,
}

/// The one schema of a [`Decommission`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum DecommissionSchema {
    /// Version 1.
    #[serde(rename = "redan.decommission/1")]
    V1,
}

/// Proof that the policy signers decommissioned this very device. Made by [`decommissioned`] only; what it permits cannot be undone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decommissioned {
    device: SpiffeId,
    order: Digest,
}

impl Decommissioned {
    /// Who.
    pub fn device(&self) -> &SpiffeId {
        &self.device
    }

    /// SHA-256 of the order.
    pub fn order(&self) -> Digest {
        self.order
    }
}

/// Whether a document that was looked up at [`decommission_path`] orders this device, which has had these keys, to end. `None`: it
/// does not, for whatever reason.
pub fn decommissioned(document: &Document, device: &SpiffeId, keys: &[Digest]) -> Option<Decommissioned> {
    let SpiffeId::Device(fleet, id) = device else {
        return None;
    };
    if document.target.entry.length > ORDER_LEN_MAX.get() {
        return None;
    }
    let bytes = signed_bytes(Some(document), &decommission_path(id), "policy")?;
    let order: Decommission = serde_json::from_value(crate::json::parse(bytes)?).ok()?;
    let meant =
        order.fleet == *fleet && order.device == *id && keys.iter().any(|key| order.keys.contains(key));
    meant.then(|| Decommissioned {
        device: device.clone(),
        order: Digest::of(bytes),
    })
}
