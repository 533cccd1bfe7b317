//! The sections of a document, each with the keys all three kinds share.

use super::TlsSection;
use super::bus::{BusTriggerSection, NetBusSection};
use super::messages::{MqttTriggerSection, NetMqttSection};
use crate::egress::parse_origin;
use crate::grant::{Mode, Origin, Strategy};
use crate::units::{PerSpan, Share, Size, Span};
use redan_protocol::UnixSeconds;
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Messages.
    #[serde(default)]
    pub mqtt: Vec<MqttTriggerSection>,
    /// Messages of other workloads of the device.
    #[serde(default)]
    pub bus: Vec<BusTriggerSection>,
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

/// `[job]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSection {
    /// Ask: arguments, after the workload's name.
    #[serde(default)]
    pub args: Vec<String>,
}

/// `[net.sockets]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketsSection {}

/// Outgoing connections.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Ask: a standard library imports sockets; every call of them may be refused.
    pub sockets: Option<SocketsSection>,
    /// Outgoing HTTP.
    #[serde(default)]
    pub http: Vec<NetHttpSection>,
    /// Outgoing messages.
    #[serde(default)]
    pub mqtt: Vec<NetMqttSection>,
    /// Messages to other workloads of the device.
    #[serde(default)]
    pub bus: Vec<NetBusSection>,
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
    /// Whom to believe behind the origins.
    pub tls: Option<TlsSection>,
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
    /// Operations on a bucket.
    pub ops: Option<PerSpan>,
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
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `[random]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomSection {
    /// Bytes in one call.
    pub max_bytes_per_call: Option<Size>,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `[log]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// Bytes kept per span.
    pub budget: Option<PerSpan>,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `[limits]`: what is left out does not narrow.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    /// Sum of all linear memories.
    pub memory_total: Option<Size>,
    /// Of the device's memory, what is kept for this workload whatever others use.
    pub memory_min: Option<Size>,
    /// Sum of all tables, elements.
    pub table_elements: Option<u32>,
    /// Core instances.
    pub instances_max: Option<u32>,
    /// Calls at once.
    pub concurrency: Option<u32>,
    /// CPU time.
    #[serde(default)]
    pub cpu: CpuSection,
    /// Fuel of one call; 0 is none.
    pub fuel_per_call: Option<u64>,
    /// Wall-clock time.
    #[serde(default)]
    pub wall: WallSection,
    /// Wasm stack.
    pub wasm_stack: Option<Size>,
    /// Handles and resources at once.
    pub handles: Option<u32>,
    /// Files and folders open at once.
    pub descriptors: Option<u32>,
    /// Outgoing connections at once.
    pub sockets: Option<u32>,
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
    /// Of one core's time, in the long run.
    pub share: Option<Share>,
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
    /// Whether the old version's calls may go on beside the new version's.
    pub strategy: Option<Strategy>,
    /// How long the old version's calls may go on.
    pub drain: Option<Span>,
    /// How long a version may put its own end off, all in all.
    pub max_defer: Option<Span>,
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

/// `[time]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeSection {
    /// Proven time never passes this, seconds since 1970.
    pub maximum: Option<UnixSeconds>,
}

/// `[totals]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotalsSection {
    /// Linear memories of all workloads of all publishers.
    pub memory: Option<Size>,
}

/// `[identity]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySection {
    /// How long after it expired a device's newest certificate still gets it a new one.
    pub renewal_grace: Option<Span>,
}
