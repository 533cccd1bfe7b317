//! What a workload gets: the intersection of ask, fleet policy and device ceiling, resolved once.

mod bus;
mod messages;

pub use bus::{BusBudget, BusRule, BusTrigger};
pub use messages::{Broker, Destination, Messages, MqttRule, MqttTrigger, Outbox, Protocol, PublishBudget};

use redan_protocol::report::Isolation;
use redan_protocol::{ByteCount, ComponentName, Digest, Millis};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Everything a workload may do on this device. What is not in here is not linked.
///
/// Made only by [`crate::intersect()`]. The agent computes it; executor, broker and compiler receive its canonical JSON
/// over their socketpair and read it with [`EffectiveGrant::from_canonical_json`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectiveGrant {
    /// The component.
    pub component: ComponentName,
    /// Its version.
    pub version: semver::Version,
    /// Its world.
    pub world: World,
    /// Local HTTP triggers; empty for a job.
    pub trigger_http: Vec<HttpTrigger>,
    /// Timers; empty for a service.
    pub trigger_timer: Vec<TimerTrigger>,
    /// Arguments of a job, after its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub job_args: Vec<String>,
    /// Outgoing HTTP; empty means the interface is not linked.
    pub net_http: Vec<HttpRule>,
    /// Messages in and out.
    #[serde(default, skip_serializing_if = "Messages::is_empty")]
    pub messages: Messages,
    /// Certificates that rules believe, by the name of their bundle: the base64 of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bundles: BTreeMap<String, Vec<String>>,
    /// Secrets the host adds to requests. Values are not in here: a grant is hashed, reported and shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Injection>,
    /// Named volumes.
    pub fs: Vec<Volume>,
    /// Key-value buckets.
    pub kv: Vec<Bucket>,
    /// Environment, names and values.
    pub env: BTreeMap<String, String>,
    /// `wasi:config` keys and values; `None` means the interface is not linked.
    pub config: Option<BTreeMap<String, String>>,
    /// Clocks; `None`: the interface is linked with a clock that stands still only if the ask lists it optional.
    pub clock: Option<Clock>,
    /// Random numbers.
    pub random: Option<Random>,
    /// Guest logs, stdout and stderr go to the owner's local sink; `None` drops them.
    pub log: Option<Log>,
    /// Limits, always present.
    pub limits: Limits,
    /// What must be in force around whoever runs it. Each document that demands a mechanism adds it.
    pub isolation: BTreeSet<Mechanism>,
    /// How health is judged.
    pub health: HealthContract,
    /// How a new version takes over.
    pub upgrade: Upgrade,
    /// Capabilities the ask wanted as optional and did not get: bound to stubs that refuse with a typed error.
    pub denied_optional: Vec<String>,
}

/// The world a component is built for. WASI 0.2 is the contract; 0.3 is for devices whose owner switched it on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum World {
    /// `wasi:http/proxy@0.2`
    #[serde(rename = "wasi:http/proxy@0.2")]
    HttpProxy,
    /// `wasi:cli/command@0.2`
    #[serde(rename = "wasi:cli/command@0.2")]
    Command,
    /// `redan:messaging/handler@0.1`
    #[serde(rename = "redan:messaging/handler@0.1")]
    Messages,
    /// `wasi:http/service@0.3`
    #[serde(rename = "wasi:http/service@0.3")]
    HttpService,
}

impl World {
    /// As an ask names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpProxy => "wasi:http/proxy@0.2",
            Self::Command => "wasi:cli/command@0.2",
            Self::Messages => "redan:messaging/handler@0.1",
            Self::HttpService => "wasi:http/service@0.3",
        }
    }

    /// Whether it answers requests of a listener.
    pub const fn is_service(self) -> bool {
        matches!(self, Self::HttpProxy | Self::HttpService)
    }

    /// Whether it is of WASI 0.3: linked, compiled and called by what the switch of the device ceiling is for.
    pub const fn is_wasi_0_3(self) -> bool {
        matches!(self, Self::HttpService)
    }
}

/// A route of the workload's listener.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTrigger {
    /// A path, or a prefix when it ends in `/...`.
    pub route: String,
    /// Methods, upper case.
    pub methods: Vec<String>,
}

/// A timer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerTrigger {
    /// Between two starts.
    pub every: Millis,
    /// Random delay up to this.
    pub jitter: Millis,
}

/// One rule of outgoing HTTP. A call must match one `allow` of *each* layer and no `deny` of any.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRule {
    /// The ask's name for it.
    pub id: String,
    /// For each layer (ask, fleet, device) that constrains it, the alternatives of which one must match.
    pub allow: Vec<Vec<Origin>>,
    /// Denied by any layer.
    pub deny: Vec<Origin>,
    /// Methods, upper case.
    pub methods: Vec<String>,
    /// For each layer that constrains it, path patterns (`*` matches within a segment, a final `/...` everything below).
    pub paths: Vec<Vec<String>>,
    /// Whether private addresses (RFC 1918, RFC 4193) may be dialled. Special ranges never.
    pub private_addresses: bool,
    /// Whom to believe behind an `https` origin.
    #[serde(default, skip_serializing_if = "Roots::is_public")]
    pub roots: Roots,
    /// Budget of the rule.
    pub budget: NetBudget,
}

/// Whose certificates a rule believes. Written `webpki` or `bundle:NAME`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Roots {
    /// The public ones.
    #[default]
    Public,
    /// Those of a bundle, and no public one.
    Bundle(String),
}

impl Roots {
    fn is_public(&self) -> bool {
        *self == Self::Public
    }
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("webpki"),
            Self::Bundle(name) => write!(f, "bundle:{name}"),
        }
    }
}

impl From<Roots> for String {
    fn from(roots: Roots) -> Self {
        roots.to_string()
    }
}

impl TryFrom<String> for Roots {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("bundle:") {
            Some(name) if redan_protocol::WorkloadName::parse(name).is_ok() => {
                Ok(Self::Bundle(name.to_owned()))
            }
            None if text == "webpki" => Ok(Self::Public),
            _ => Err(format!(
                "`{text}` is not \"webpki\" or the name of a bundle such as \"bundle:acme-ca\""
            )),
        }
    }
}

/// A secret the host adds to every request of one rule.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// Its handle, one of the component's publisher.
    pub secret: String,
    /// The `id` of the rule.
    pub net: String,
    /// The header field, in lower case.
    pub header: String,
}

/// `scheme://host:port`; the host may begin with `*.` for sub-domains only.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// `https`, else `http`.
    pub https: bool,
    /// Lower-case host name, IP address, or `*.` and a host name.
    pub host: String,
    /// Port; the scheme's own when the document named none.
    pub port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// A rate: an amount for a span.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How much.
    pub amount: u64,
    /// In which span.
    pub per: Millis,
}

/// Budget of one egress rule. `None` is unlimited only if every layer left it out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetBudget {
    /// Bytes sent.
    pub bytes_out: Option<Rate>,
    /// Requests.
    pub requests: Option<Rate>,
    /// Connections at once.
    pub concurrent: Option<u32>,
}

/// Access to a volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub enum Mode {
    /// Read only.
    #[serde(rename = "ro")]
    Read,
    /// Read and write.
    #[serde(rename = "rw")]
    ReadWrite,
}

/// A named volume.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name; a folder below the workload's own data folder, unless the device maps it to one of its own.
    pub name: String,
    /// Where the guest sees it, absolute.
    pub guest: String,
    /// The device's own folder for it, when mapped.
    pub host: Option<String>,
    /// Access.
    pub mode: Mode,
    /// Bytes.
    pub bytes: ByteCount,
    /// Files.
    pub files: u32,
}

/// A mechanism of the kernel or of the device that keeps a workload in, as devices report it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// A process of its own for each publisher.
    Processes,
    /// A user of its own for each publisher.
    Users,
    /// Landlock: files and TCP ports.
    Landlock,
    /// A seccomp filter.
    Seccomp,
    /// `no_new_privs`.
    NoNewPrivs,
}

impl Mechanism {
    /// Whether it is in force.
    pub const fn is_in(self, isolation: &Isolation) -> bool {
        match self {
            Self::Processes => isolation.processes,
            Self::Users => isolation.users,
            Self::Landlock => isolation.landlock,
            Self::Seccomp => isolation.seccomp,
            Self::NoNewPrivs => isolation.no_new_privs,
        }
    }
}

/// A key-value bucket on disk, kept across versions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Its name.
    pub label: String,
    /// Bytes of keys and values.
    pub bytes: ByteCount,
    /// Keys.
    pub keys: u32,
    /// Operations; `None` is unlimited only if every layer left it out.
    pub ops: Option<Rate>,
}

/// Clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Wall clock too; else only monotonic.
    pub wall: bool,
    /// Coarsest step shown.
    pub resolution: Millis,
}

/// Random numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Random {
    /// Bytes in one call.
    pub max_bytes_per_call: ByteCount,
}

/// The owner's local log sink.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Bytes kept per span; more is dropped and counted.
    pub budget: Rate,
}

/// Limits. Every one has a default, so none can be forgotten.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Sum of all linear memories of one instance.
    pub memory_total: ByteCount,
    /// Of the device's memory, what is kept for this workload whatever others use.
    pub memory_min: ByteCount,
    /// Sum of all tables, elements.
    pub table_elements: u32,
    /// Core instances in one component instance.
    pub instances_max: u32,
    /// Calls at once.
    pub concurrency: u32,
    /// CPU time of one call.
    pub cpu_per_call: Millis,
    /// CPU time of all its calls in the long run, permille of one core. `None` is unlimited only if every layer left it out.
    pub cpu_share: Option<u16>,
    /// Fuel of one call; 0 is no such limit.
    pub fuel_per_call: u64,
    /// Wall-clock time of one call.
    pub wall_call: Millis,
    /// Wall-clock time of instantiation and of a health probe's start.
    pub wall_start: Millis,
    /// Wasm stack.
    pub wasm_stack: ByteCount,
    /// Handles and resources at once.
    pub handles: u32,
    /// Files and folders the workload may have open at once, all its calls together.
    pub descriptors: u32,
    /// Outgoing connections of a version at once.
    pub sockets: u32,
    /// Bytes a guest may pass to the host in one call.
    pub hostcall_bytes: ByteCount,
    /// Request body.
    pub body_request: ByteCount,
    /// Response body.
    pub body_response: ByteCount,
    /// All header fields of a message.
    pub header_bytes: ByteCount,
}

/// How health is judged during trial and after.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthContract {
    /// Between two probes.
    pub interval: Millis,
    /// For one probe.
    pub timeout: Millis,
    /// Failed probes in a row that make it unhealthy.
    pub fail_after: u32,
    /// Length of the trial.
    pub probation: Millis,
    /// Failed calls of all calls during the trial, permille.
    pub max_error_permille: u16,
    /// Executor or device restarts during the trial.
    pub max_restarts: u32,
}

/// How a new version takes over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// Whether the old version's calls may go on beside the new version's.
    #[serde(default, skip_serializing_if = "Strategy::is_swap")]
    pub strategy: Strategy,
    /// How long the old version's calls may go on.
    pub drain: Millis,
    /// Calls one instance may serve; above one only where the signed ask declares calls independent.
    pub reuse_calls: u32,
    /// How long a version may put its own end off, all in all. A version that is on trial or at fault is not asked.
    #[serde(default, skip_serializing_if = "nothing")]
    pub max_defer: Millis,
}

/// So that grants that were written before this was there keep their bytes.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde calls")]
fn nothing(span: &Millis) -> bool {
    span.get() == 0
}

/// Whether two versions may answer at the same time for a while.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One pointer changes; calls of the old version end beside the new one's.
    #[default]
    Swap,
    /// The new version answers once the old one's calls have ended: for what only one may hold. Calls wait or are refused meanwhile.
    StopStart,
}

impl Strategy {
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature serde's `skip_serializing_if` calls"
    )]
    fn is_swap(&self) -> bool {
        *self == Self::Swap
    }
}

/// A grant that does not read back.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the grant is not canonical JSON of this version")]
pub struct GrantError;

impl EffectiveGrant {
    /// The canonical JSON (OLPC) that is hashed, reported and handed to the executor.
    #[allow(clippy::missing_panics_doc, reason = "see expect")]
    pub fn canonical_json(&self) -> Vec<u8> {
        #[expect(
            clippy::expect_used,
            reason = "integers, strings and maps with string keys always encode"
        )]
        crate::canonical::to_vec(self).expect("a grant encodes")
    }

    /// SHA-256 of [`Self::canonical_json`]: what the device reports as `grant`.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical_json())
    }

    /// Reads what [`Self::canonical_json`] wrote.
    pub fn from_canonical_json(bytes: &[u8]) -> Result<Self, GrantError> {
        serde_json::from_slice(bytes).map_err(|_| GrantError)
    }
}
