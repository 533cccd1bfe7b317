//! What the device's processes say to each other, one `SOCK_SEQPACKET` message each, descriptors beside it.
//!
//! The direction of trust: the agent tells, the others answer. What an executor, which runs guests, can say back is
//! fixed-size and closed ([`FromExecutor`]); the agent treats it as a claim about health and nothing more.
//! Encoding: postcard. A message over [`MESSAGE_LEN_MAX`] is refused on both sides.

mod bus;

pub use bus::{BUS_PAYLOAD_MAX, BusAnswer, BusMessage, LinkEnd};

use crate::report::{Bucket, Health, Isolation};
use crate::{ByteCount, Code, ComponentName, Digest, Millis, PublisherName};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Largest message, bytes: a grant is at most 64 KiB of canonical JSON, plus its envelope.
pub const MESSAGE_LEN_MAX: ByteCount = ByteCount::kib(96);
/// Most descriptors beside one message.
pub const DESCRIPTORS_MAX: usize = 4;

/// How often the agent says that it runs. A watchdog waits several times as long.
pub const RUNNING_EVERY: Duration = Duration::from_secs(15);

/// One installed version of a workload on this device. Numbers are never reused while the device lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(pub u32);

/// A folder of the device's own that some volume is mapped to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LentFolder {
    /// Where it is, absolute.
    pub path: String,
    /// Whether guests may write there at all.
    pub writable: bool,
}

/// Agent → supervisor.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// Start an executor. Answer: [`FromSupervisor::Started`] with two descriptors: the executor's channel to the agent,
    /// and the far end of its channel to the broker (to be handed to the broker with [`ToBroker::Attach`]).
    StartExecutor {
        /// One executor per publisher.
        publisher: PublisherName,
        /// Whether it is to run WASI 0.3 too, as the device ceiling says.
        wasi_0_3: bool,
        /// The folders that the device ceiling maps volumes to.
        lent: Vec<LentFolder>,
    },
    /// Start a compiler. Answer: [`FromSupervisor::Started`] with one descriptor, its channel.
    StartCompiler,
    /// The agent's main loop turns: said when it first does, and every [`RUNNING_EVERY`] from then on. No answer. The supervisor
    /// passes it on to the service manager, whose watchdog starts a device again that has stopped saying so.
    Running,
    /// Stop an executor.
    StopExecutor {
        /// Whose.
        publisher: PublisherName,
    },
}

/// Supervisor → agent.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum FromSupervisor {
    /// The process runs. Descriptors beside it.
    Started {
        /// Isolation it runs under.
        isolation: Isolation,
    },
    /// It could not be started.
    Failed {
        /// Why.
        code: Code,
    },
    /// An executor ended, by itself or because it was stopped. May arrive at any time.
    ExecutorEnded {
        /// Whose.
        publisher: PublisherName,
    },
}

/// What kind of workload a slot holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// `wasi:http/proxy@0.2.x`: answers requests of a listener.
    Service,
    /// `wasi:cli/command@0.2.x`: runs on a timer.
    Job,
    /// `redan:messaging/handler@0.1.x`: called for each message of a broker.
    Message,
}

/// The value of a secret on its way to the executor that adds it to requests. Prints as nothing.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Marks bytes as a secret.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the request they belong to.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue")
    }
}

/// Agent → executor.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ToExecutor {
    /// Values for the secrets of the grant that the next `Load` of this slot brings. No answer.
    Secrets {
        /// The slot that will be loaded.
        slot: SlotId,
        /// By handle.
        values: Vec<(String, SecretValue)>,
    },
    /// From the next call on, the slot has what the grant it was loaded with and this one both give: never more than it was loaded
    /// with. No answer.
    Narrow {
        /// Which.
        slot: SlotId,
        /// Canonical JSON of the later `EffectiveGrant`.
        grant: Vec<u8>,
    },
    /// Link a version beside whatever runs. Descriptors: the native code in a write-sealed memfd; for a service also
    /// its listening socket. Answer: [`FromExecutor::Loaded`] or [`FromExecutor::Failed`].
    Load {
        /// The new slot.
        slot: SlotId,
        /// Whose version it is.
        component: ComponentName,
        /// Digest of the verified component (for logs and the cache, not re-checked here).
        digest: Digest,
        /// Service, job or handler of messages.
        kind: WorkloadKind,
        /// Canonical JSON of the `EffectiveGrant`.
        grant: Vec<u8>,
    },
    /// Ask for the slot's health. Answer: [`FromExecutor::Probed`].
    Probe {
        /// Which.
        slot: SlotId,
    },
    /// Send the component's traffic to this slot from now on: one atomic pointer swap; timers move with it.
    /// Answer: [`FromExecutor::Activated`].
    Activate {
        /// Which.
        slot: SlotId,
    },
    /// Take the slot out: calls that hold it may finish until the deadline, then are interrupted.
    /// Answer: [`FromExecutor::Unloaded`].
    Unload {
        /// Which.
        slot: SlotId,
        /// How long calls may go on.
        drain: Millis,
    },
    /// Run a job once, now. Answer: [`FromExecutor::Probed`].
    Run {
        /// Which.
        slot: SlotId,
    },
    /// Stop taking traffic for a component: answer 503.
    Deactivate {
        /// Which.
        component: ComponentName,
    },
    /// What all workloads of this executor may have in linear memories. Nothing, until it is said. No answer.
    Memory {
        /// In all.
        total: ByteCount,
    },
    /// How a broker of messages is spoken to, before the [`ToExecutor::Load`] of the slot that needs it. Beside it, opened by
    /// the agent: the file of believed certificates, then the file of credentials, as far as there are any. No answer.
    Access {
        /// Of which slot.
        slot: SlotId,
        /// The broker's label.
        label: String,
        /// Under which name.
        client: String,
        /// Whether a file of certificates is beside it.
        roots: bool,
        /// Whether a file of credentials is beside it.
        credentials: bool,
    },
    /// Ask the slot whether it may end. Answer: [`FromExecutor::Yields`].
    PrepareStop {
        /// Which.
        slot: SlotId,
        /// After so long it ends whatever it says.
        deadline: Millis,
    },
    /// From now on the component is linked with another workload of this device, over the socket beside it. Replaces the link with the
    /// same workload at the same end. No answer.
    Link {
        /// Whose end it is.
        component: ComponentName,
        /// Which end.
        end: LinkEnd,
    },
    /// The component is linked with another workload no longer. No answer.
    Unlink {
        /// Whose end it was.
        component: ComponentName,
        /// Who was at the other end.
        peer: ComponentName,
        /// Whether it was the end that hears.
        hears: bool,
    },
}

/// Executor → agent: fixed-size, closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum FromExecutor {
    /// First message: the executor runs, and deserialises only native code of this engine.
    Ready {
        /// Digest over wasmtime's version, compatibility hash, CPU features and configuration.
        engine: Digest,
        /// The same of the engine for workloads whose fuel is limited.
        metered: Digest,
        /// The same of the engine for WASI 0.3, if the executor was started with one.
        wasi_0_3: Option<Digest>,
        /// Isolation in force inside.
        isolation: Isolation,
    },
    /// The slot is linked.
    Loaded {
        /// Which.
        slot: SlotId,
    },
    /// Something was refused or failed; the slot is as it was before.
    Failed {
        /// Which.
        slot: SlotId,
        /// Why.
        code: Code,
    },
    /// The health of a slot.
    Probed {
        /// Which.
        slot: SlotId,
        /// How it is.
        health: Health,
        /// Why.
        code: Option<Code>,
    },
    /// The slot has the traffic.
    Activated {
        /// Which.
        slot: SlotId,
    },
    /// The slot is gone.
    Unloaded {
        /// Which.
        slot: SlotId,
    },
    /// Whether the slot may end.
    Yields {
        /// Which.
        slot: SlotId,
        /// Better in so long; `None`: now.
        after: Option<Millis>,
    },
    /// Host signals of an active slot since the last such message; sent once a second when there were calls.
    Signals {
        /// Which.
        slot: SlotId,
        /// What happened.
        signals: Signals,
    },
}

/// What the host itself saw of a workload. Outranks the workload's own word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// Calls begun.
    pub calls: u32,
    /// Calls that trapped or broke a limit.
    pub failures: u32,
    /// The code of the latest failure.
    pub last: Option<Code>,
    /// Size of the calls' CPU time, milliseconds.
    pub cpu: Bucket,
}

/// Agent → broker.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ToBroker {
    /// An executor's channel, as descriptor.
    Attach {
        /// Whose executor.
        publisher: PublisherName,
    },
    /// The egress rules of a component, replacing those before. Canonical JSON of the grant's `net` section.
    Rules {
        /// Whose.
        component: ComponentName,
        /// The rules.
        rules: Vec<u8>,
    },
    /// Addresses nobody may reach whatever a rule says: the control server.
    Forbid {
        /// `address:port` of the control server, resolved by the agent.
        addresses: Vec<std::net::SocketAddr>,
    },
    /// The component has no egress any more.
    Remove {
        /// Whose.
        component: ComponentName,
    },
    /// The brokers of messages a component may reach, replacing those before: as the device's own file maps its labels.
    Brokers {
        /// Whose.
        component: ComponentName,
        /// Host and port of each.
        brokers: Vec<(String, u16)>,
    },
}

/// Executor → broker.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    /// Repeated in the answer.
    pub id: u32,
    /// For which component: the broker checks that it belongs to this executor's publisher.
    pub component: ComponentName,
    /// Scheme as in the rule: `http` or `https`.
    pub https: bool,
    /// Host name or address as the guest gave it, already parsed as an authority.
    pub host: String,
    /// Port.
    pub port: u16,
    /// A broker of messages: admitted is what the device ceiling names for the component, and no rule of `net.http`.
    pub messages: bool,
}

/// Broker → executor. With [`Connected::Yes`] comes the connected socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Connected {
    /// The socket is beside this message.
    Yes {
        /// Which request.
        id: u32,
    },
    /// No.
    No {
        /// Which request.
        id: u32,
        /// Why.
        code: Code,
    },
}

/// Agent → compiler, once, with the component in a write-sealed memfd.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Compile {
    /// The agent's digest of the component; the compiler hashes what it got and refuses if they differ.
    pub digest: Digest,
    /// Canonical JSON of the `EffectiveGrant`: admission refuses imports it does not cover.
    pub grant: Vec<u8>,
}

/// Compiler → agent, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Compiled {
    /// The native code is beside this message, in a memfd the agent seals after reading.
    Done {
        /// Must equal the executor's.
        engine: Digest,
        /// Length of the native code, bytes.
        length: ByteCount,
    },
    /// Refused or failed.
    Refused {
        /// Why.
        code: Code,
    },
}
