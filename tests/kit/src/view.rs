//! What an operator sees of a device: one entry of `redan device list --json`.

use serde::{Deserialize, Serialize};

/// A device as the control server shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DeviceView {
    /// Its id.
    pub device: String,
    /// The set it has committed.
    #[serde(default)]
    pub set: Option<String>,
    /// The set it is directed to.
    #[serde(default)]
    pub desired_set: Option<String>,
    /// Where its update stands.
    #[serde(default)]
    pub phase: Option<String>,
    /// Why it does not adopt what it is offered: a code's name.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Why its last trial was rolled back: a code's name.
    #[serde(default)]
    pub rollback: Option<String>,
    /// Isolation in force on the device.
    #[serde(default)]
    pub isolation: Option<serde_json::Value>,
    /// Its workloads.
    #[serde(default)]
    pub slots: Vec<SlotView>,
}

/// One workload of a device.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SlotView {
    /// The component.
    pub component: String,
    /// Its version.
    pub version: String,
    /// Its health.
    pub health: String,
    /// Why it is not healthy.
    #[serde(default)]
    pub code: Option<String>,
}

impl DeviceView {
    /// The version of a component this device runs in health.
    pub fn healthy_version(&self, component: &str) -> Option<&str> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.component == component && slot.health == "healthy")?;
        Some(&slot.version)
    }
}
