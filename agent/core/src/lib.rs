//! The update and rollback state machine of a device and its journal record, without I/O.
//!
//! What it is: one [`Machine`] over whole release sets. The shell (`redan-agent`) feeds it [`Input`]s and the monotonic
//! time, and performs the [`Effect`]s it gets back, in order.
//!
//! Whom it believes: an [`Offer`] is made only from a `redan_trust::Plan`, so `decide()` has said yes to it. What an executor
//! reports is a claim about health; what the host counted outranks it (see [`trial`]). The journal it is started from was
//! authenticated by the shell.
//!
//! Invariants: a side effect is emitted only after the record that announces it is durable ([`Input::Journaled`]), except
//! going back, which must not wait for a full disk; of one component at most one slot is told to take traffic; the
//! committed set is replaced only by a set that passed its trial whole; the version before stays linked until then.
//!
//! Absent on purpose: clock, disk, sockets, randomness, and any rule about whether a set may be adopted.
//!
//! Start reading at [`update`], which begins with the diagram.
#![forbid(unsafe_code)]

pub mod cadence;
pub mod deadline;
pub mod effect;
pub mod journal;
mod slots;
pub mod state;
pub mod trial;
pub mod update;
pub mod view;

pub use effect::{Effect, Effects, Input, Offer};
pub use journal::{Denied, MemberRecord, Record, Seq, SetRecord};
pub use state::{Fault, State};
pub use update::Machine;
pub use view::{SlotView, View};

use redan_protocol::Millis;
use serde::{Deserialize, Serialize};

/// A moment of the device's monotonic clock, milliseconds since an arbitrary start. Says nothing about the date.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub struct Mono(u64);

impl Mono {
    /// `millis` after the start.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This moment and a span later.
    #[must_use]
    pub const fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.get()))
    }
}

#[cfg(test)]
mod tests;
