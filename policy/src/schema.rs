//! `redan.policy/1`: one schema for the publisher's ask, the fleet policy and the device ceiling.
//!
//! Strict on purpose: an unknown key is an error, because a mistyped limit must not silently be no limit.

mod bus;
mod messages;
mod outside;
mod sections;
mod standing;

pub use bus::*;
pub use messages::*;
pub use outside::*;
pub use sections::*;
pub use standing::*;

use crate::grant::World;
use redan_protocol::{ComponentName, PublisherName, ReleaseCounter};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

/// Version of the schema.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize)]
pub enum Schema {
    /// Version 1.
    #[serde(rename = "redan.policy/1")]
    V1,
}

/// Which of the three documents it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Signed by the publisher with the component.
    Ask,
    /// Signed by policy signers in the release repository.
    Fleet,
    /// A local file of the device.
    Device,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask => "ask",
            Self::Fleet => "fleet",
            Self::Device => "device",
        })
    }
}

/// A whole document, before it is known to be of the wanted kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Which version of the schema it follows.
    pub schema: Schema,
    /// Which document it is.
    pub kind: Kind,
    /// Fleet: only grows.
    pub serial: Option<u64>,
    /// Device: its hardware class.
    pub hardware: Option<String>,
    /// Whom it is about.
    #[serde(default)]
    pub subject: Subject,
    /// What may start a workload.
    #[serde(default)]
    pub trigger: Triggers,
    /// Ask: what a job is started with.
    #[serde(default)]
    pub job: JobSection,
    /// Outgoing connections.
    #[serde(default)]
    pub net: Net,
    /// Named volumes.
    #[serde(default)]
    pub fs: Vec<VolumeSection>,
    /// Key-value buckets.
    #[serde(default)]
    pub kv: Vec<KvSection>,
    /// Queues on disk for what is to be sent.
    #[serde(default)]
    pub outbox: Vec<OutboxSection>,
    /// Device: its brokers of messages.
    #[serde(default)]
    pub broker: Vec<BrokerSection>,
    /// Environment.
    pub env: Option<NamesSection>,
    /// Configuration.
    pub config: Option<KeysSection>,
    /// Secrets the host adds to requests.
    pub secrets: Option<SecretsSection>,
    /// Fleet and device: certificates of private CAs, by name.
    #[serde(default)]
    pub bundles: BTreeMap<String, String>,
    /// Clocks.
    pub clock: Option<ClockSection>,
    /// Random numbers.
    pub random: Option<RandomSection>,
    /// Guest logs.
    pub log: Option<LogSection>,
    /// Limits.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Health.
    #[serde(default)]
    pub health: HealthSection,
    /// Upgrades.
    #[serde(default)]
    pub upgrade: UpgradeSection,
    /// Fleet: what no device may run any more.
    #[serde(default)]
    pub revoke: RevokeSection,
    /// Fleet and device: what the device must have. Fleet: what must be true of what is adopted.
    #[serde(default)]
    pub require: RequireSection,
    /// Fleet and device: what happens when metadata cannot be refreshed.
    #[serde(default)]
    pub stale: StaleSection,
    /// Fleet: what must be true of the device's runtime. Device: what of it is switched on.
    #[serde(default)]
    pub runtime: RuntimeSection,
    /// Fleet and device: what is reported.
    #[serde(default)]
    pub report: ReportSection,
    /// Fleet: lowest release counters.
    #[serde(default)]
    pub floors: BTreeMap<ComponentName, ReleaseCounter>,
    /// Fleet: bounds of time.
    #[serde(default)]
    pub time: TimeSection,
    /// Fleet: the life of devices' certificates.
    #[serde(default)]
    pub identity: IdentitySection,
    /// Device: what all workloads together may use.
    #[serde(default)]
    pub totals: TotalsSection,
    /// Device: where workloads listen.
    #[serde(default)]
    pub listen: BTreeMap<ComponentName, SocketAddr>,
}

/// Whom a document is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Ask: the component.
    pub name: Option<ComponentName>,
    /// Ask: its version.
    pub version: Option<semver::Version>,
    /// Ask: its world.
    pub world: Option<World>,
    /// Fleet: publishers it admits.
    #[serde(default)]
    pub publishers: BTreeSet<PublisherName>,
    /// Fleet and device: components, `publisher/*` for all of one.
    #[serde(default)]
    pub names: BTreeSet<String>,
    /// Fleet and device: components that are out whatever `names` says.
    #[serde(default)]
    pub deny: BTreeSet<String>,
    /// Fleet: worlds it admits.
    #[serde(default)]
    pub worlds: BTreeSet<World>,
    /// Fleet: hardware classes it is for; empty: all.
    #[serde(default)]
    pub device_class: BTreeSet<String>,
}
