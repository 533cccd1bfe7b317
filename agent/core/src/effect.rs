//! What the machine is told, and what it tells the shell to do.

use crate::{MemberRecord, Mono, Record, Seq, SetRecord};
use redan_protocol::ipc::{Signals, SlotId};
use redan_protocol::report::Health;
use redan_protocol::{ByteCount, Code, ComponentName, Digest, DirectionSequence, Millis, PublisherName};
use redan_trust::Plan;

/// A set that `decide()` said yes to. Made only from a [`Plan`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer(pub(crate) SetRecord);

impl From<&Plan> for Offer {
    fn from(plan: &Plan) -> Self {
        Self(SetRecord::from(plan))
    }
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// A direction was read from verified metadata.
    Offered(DirectionSequence),
    /// `decide()` said no. The sequence is zero when no direction could be read.
    Refused {
        /// To which direction.
        sequence: DirectionSequence,
        /// Which rule.
        code: Code,
    },
    /// Verified metadata directs this device to nothing: what runs goes on, what was under way ends.
    Undirected,
    /// `decide()` said yes.
    Planned(Box<Offer>),
    /// The blob with this digest is on disk, its hash met.
    Fetched(Digest),
    /// It could not be had.
    FetchFailed(Digest, Code),
    /// The slot is linked.
    Loaded(SlotId),
    /// The slot has the traffic.
    Activated(SlotId),
    /// The slot is gone.
    Unloaded(SlotId),
    /// Whether the slot may end now, or would rather in so long.
    Yields {
        /// Which slot.
        slot: SlotId,
        /// In how long; `None`: now.
        after: Option<Millis>,
    },
    /// The slot could not do what it was told.
    Failed(SlotId, Code),
    /// What a probe said.
    Probed {
        /// Of which slot.
        slot: SlotId,
        /// How it is.
        health: Health,
        /// Why.
        code: Option<Code>,
    },
    /// What the host saw.
    Signals {
        /// Of which slot.
        slot: SlotId,
        /// What.
        signals: Signals,
    },
    /// An executor is gone, and every slot in it.
    ExecutorEnded(PublisherName),
    /// The record is durable.
    Journaled(Seq),
    /// The record could not be written.
    JournalFailed(Seq, Code),
    /// Whether workloads have to stop although nothing is wrong with them: policy stops them while metadata is stale.
    Suspended(bool),
    /// Time passed.
    Tick,
}

/// What the shell does, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Make this record durable. Answer: [`Input::Journaled`] or [`Input::JournalFailed`].
    Journal(Box<Record>),
    /// Get these bytes onto the disk. Answer: [`Input::Fetched`] or [`Input::FetchFailed`].
    Fetch {
        /// Their digest.
        digest: Digest,
        /// Their length.
        length: ByteCount,
    },
    /// Compile if need be, seal, and link beside whatever runs. Answer: [`Input::Loaded`] or [`Input::Failed`].
    Load {
        /// The new slot.
        slot: SlotId,
        /// What to load.
        member: Box<MemberRecord>,
    },
    /// Answer: [`Input::Probed`] or [`Input::Failed`].
    Probe {
        /// Which slot.
        slot: SlotId,
        /// Its component.
        component: ComponentName,
    },
    /// Give the slot its component's traffic. Answer: [`Input::Activated`] or [`Input::Failed`].
    Activate {
        /// Which slot.
        slot: SlotId,
        /// Its component.
        component: ComponentName,
    },
    /// Ask the slot whether it may end. Answer: [`Input::Yields`] or [`Input::Failed`].
    PrepareStop {
        /// Which slot.
        slot: SlotId,
        /// Its component.
        component: ComponentName,
        /// After so long it ends whatever it says.
        deadline: Millis,
    },
    /// Take the traffic from a component altogether. No answer.
    Deactivate {
        /// Which.
        component: ComponentName,
    },
    /// Take a slot out. Answer: [`Input::Unloaded`].
    Unload {
        /// Which slot.
        slot: SlotId,
        /// Its component.
        component: ComponentName,
        /// How long its calls may go on.
        drain: Millis,
    },
    /// What is committed or denied changed: bring the trust record up to date, report at once.
    Settled,
    /// Send [`Input::Tick`] at this moment. Replaces an earlier one.
    Wake(Mono),
}

/// What [`crate::Machine::step`] answers with.
pub type Effects = Vec<Effect>;
