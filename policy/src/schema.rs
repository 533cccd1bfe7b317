//! `redan.policy/1`: one schema for the publisher's ask, the fleet policy and the device ceiling.
//!
//! Strict on purpose: an unknown key is an error, because a mistyped limit must not silently be no limit.

use crate::egress::parse_origin;
use crate::grant::{Mode, Origin, World};
use crate::units::{PerSpan, Share, Size, Span};
use redan_protocol::{ComponentName, Digest, PublisherName, ReleaseCounter, UnixSeconds};
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Outgoing connections.
    #[serde(default)]
    pub net: Net,
    /// Named volumes.
    #[serde(default)]
    pub fs: Vec<VolumeSection>,
    /// Key-value buckets.
    #[serde(default)]
    pub kv: Vec<KvSection>,
    /// Environment.
    pub env: Option<NamesSection>,
    /// Configuration.
    pub config: Option<KeysSection>,
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
    /// Fleet: revoked digests.
    #[serde(default)]
    pub revoke: RevokeSection,
    /// Fleet: lowest release counters.
    #[serde(default)]
    pub floors: BTreeMap<ComponentName, ReleaseCounter>,
    /// Fleet: bounds of time.
    #[serde(default)]
    pub time: TimeSection,
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
    /// Fleet: worlds it admits.
    #[serde(default)]
    pub worlds: BTreeSet<World>,
    /// Fleet: hardware classes it is for; empty: all.
    #[serde(default)]
    pub device_class: BTreeSet<String>,
}

/// What may start a workload.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triggers {
    /// Requests of a local listener.
    #[serde(default)]
    pub http: Vec<HttpSection>,
    /// Timers.
    #[serde(default)]
    pub timer: Vec<TimerSection>,
}

/// `[[trigger.http]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSection {
    /// A path, or a prefix when it ends in `/...`.
    pub route: String,
    /// Methods.
    pub methods: BTreeSet<String>,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `[[trigger.timer]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerSection {
    /// Ask: between two starts. Fleet and device: at least this.
    pub every: Span,
    /// Random delay up to this.
    pub jitter: Option<Span>,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// Outgoing connections.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Outgoing HTTP.
    #[serde(default)]
    pub http: Vec<NetHttpSection>,
}

/// `scheme://host[:port]` in a document.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct OriginText(pub Origin);

impl<'de> Deserialize<'de> for OriginText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_origin(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format_args!(
                "`{text}` is not an origin such as \"https://api.example:443\" or \"https://*.example\""
            ))
        })
    }
}

/// `[[net.http]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetHttpSection {
    /// Its name.
    pub id: String,
    /// Origins.
    #[serde(default)]
    pub allow: Vec<OriginText>,
    /// Origins that are out whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<OriginText>,
    /// Methods; left out: whatever the other documents say.
    pub methods: Option<BTreeSet<String>>,
    /// Paths; left out: whatever the other documents say.
    pub paths: Option<Vec<String>>,
    /// Whether private addresses may be dialled.
    #[serde(default)]
    pub private_addresses: bool,
    /// Budget.
    #[serde(default)]
    pub budget: BudgetSection,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `budget` of an egress rule.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetSection {
    /// Bytes sent.
    pub bytes_out: Option<PerSpan>,
    /// Requests.
    pub requests: Option<PerSpan>,
    /// Connections at once.
    pub concurrent: Option<u32>,
}

/// `[[fs]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSection {
    /// Its name.
    pub name: String,
    /// Ask: where the guest sees it.
    pub guest: Option<String>,
    /// Device: its own folder for it.
    pub host: Option<String>,
    /// Access.
    pub mode: Mode,
    /// Quota.
    #[serde(default)]
    pub quota: QuotaSection,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `quota` of a volume or a bucket.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaSection {
    /// Bytes.
    pub bytes: Option<Size>,
    /// Files of a volume.
    pub files: Option<u32>,
    /// Keys of a bucket.
    pub keys: Option<u32>,
}

/// `[[kv]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvSection {
    /// Its name.
    pub label: String,
    /// Quota.
    #[serde(default)]
    pub quota: QuotaSection,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `[env]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesSection {
    /// Names that may pass.
    #[serde(default)]
    pub allow: BTreeSet<String>,
    /// Fleet and device: values. A device's value wins.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Refuse the workload if one name has no value.
    #[serde(default)]
    pub required: bool,
}

/// `[config]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysSection {
    /// Keys that may pass.
    #[serde(default)]
    pub keys: BTreeSet<String>,
    /// Fleet and device: values. A device's value wins.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Refuse the workload if one key has no value.
    #[serde(default)]
    pub required: bool,
}

/// `[clock]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockSection {
    /// The wall clock too.
    #[serde(default)]
    pub wall: bool,
    /// Coarsest step shown.
    pub resolution: Option<Span>,
}

/// `[random]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomSection {
    /// Bytes in one call.
    pub max_bytes_per_call: Option<Size>,
}

/// `[log]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// Bytes kept per span.
    pub budget: Option<PerSpan>,
}

/// `[limits]`: what is left out does not narrow.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    /// Sum of all linear memories.
    pub memory_total: Option<Size>,
    /// Sum of all tables, elements.
    pub table_elements: Option<u32>,
    /// Core instances.
    pub instances_max: Option<u32>,
    /// Calls at once.
    pub concurrency: Option<u32>,
    /// CPU time.
    #[serde(default)]
    pub cpu: CpuSection,
    /// Wall-clock time.
    #[serde(default)]
    pub wall: WallSection,
    /// Wasm stack.
    pub wasm_stack: Option<Size>,
    /// Handles and resources at once.
    pub handles: Option<u32>,
    /// Bytes from guest to host in one call.
    pub hostcall_bytes: Option<Size>,
    /// Bodies and headers.
    #[serde(default)]
    pub body: BodySection,
}

/// `limits.cpu`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuSection {
    /// Of one call.
    pub per_call: Option<Span>,
}

/// `limits.wall`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WallSection {
    /// Of one call.
    pub call: Option<Span>,
    /// Of instantiation.
    pub start: Option<Span>,
}

/// `limits.body`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodySection {
    /// Request body.
    pub request: Option<Size>,
    /// Response body.
    pub response: Option<Size>,
    /// All header fields of a message.
    pub header_bytes: Option<Size>,
}

/// `[health]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSection {
    /// Between two probes.
    pub interval: Option<Span>,
    /// For one probe.
    pub timeout: Option<Span>,
    /// Failed probes in a row.
    pub fail_after: Option<u32>,
    /// Length of the trial.
    pub probation: Option<Span>,
    /// Failed calls of all calls.
    pub max_error_rate: Option<Share>,
    /// Restarts during the trial.
    pub max_restarts: Option<u32>,
}

/// `[upgrade]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeSection {
    /// How long the old version's calls may go on.
    pub drain: Option<Span>,
    /// Reuse of instances.
    #[serde(default)]
    pub reuse: ReuseSection,
}

/// `upgrade.reuse`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReuseSection {
    /// Calls one instance may serve.
    pub calls: Option<u32>,
}

/// `[revoke]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeSection {
    /// Digests no device may run.
    #[serde(default)]
    pub digests: BTreeSet<Digest>,
}

/// `[time]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeSection {
    /// Proven time never passes this, seconds since 1970.
    pub maximum: Option<UnixSeconds>,
}
