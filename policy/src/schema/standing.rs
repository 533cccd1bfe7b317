//! What a fleet demands of devices and asks beyond what a workload may do.

use crate::grant::Mechanism;
use crate::units::Span;
use redan_protocol::{ComponentName, Digest};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// `[revoke]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeSection {
    /// Digests no device may run.
    #[serde(default)]
    pub digests: BTreeSet<Digest>,
    /// Versions below which no device runs a component.
    #[serde(default)]
    pub min_version: BTreeMap<ComponentName, semver::Version>,
}

/// `[require]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequireSection {
    /// Mechanisms that must be in force around whoever runs the workload.
    #[serde(default)]
    pub isolation: BTreeSet<Mechanism>,
    /// How long ago release signers may have signed what is adopted.
    pub ask_signed_within: Option<Span>,
    /// Known to be refused: a device has nothing to hold it against.
    pub provenance: Option<String>,
}

/// `[stale]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaleSection {
    /// How long a device may go without metadata it could verify as current.
    pub max_age: Option<Span>,
    /// What happens then.
    pub after: Option<AfterStale>,
}

/// What happens to workloads of a device whose metadata is stale.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterStale {
    /// They go on.
    KeepRunning,
    /// They stop until the metadata is current again.
    Stop,
}

/// `[runtime]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSection {
    /// Fleet: oldest `redan-device` that may adopt anything.
    pub min: Option<semver::Version>,
    /// Device: services of WASI 0.3 too. Off unless written; what it opens is experimental upstream
    /// (docs/decisions/0027-wasi-0-3-behind-one-switch.md).
    pub wasi_0_3: Option<bool>,
}

/// `[report]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportSection {
    /// What may be reported.
    pub events: Option<BTreeSet<ReportEvent>>,
}

/// A part of the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportEvent {
    /// Which version, healthy or not, and why not. Always reported.
    State,
    /// How many calls there were and how many of them failed, in buckets.
    Counters,
}
