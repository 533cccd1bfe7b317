//! What two executors say to each other for the workloads inside them: a message one way, what became of it the other.
//!
//! The agent makes the pair of sockets and hands an end to each ([`super::ToExecutor::Link`]); it keeps none, and so never sees a
//! message. Who is at the far end of a link is what the agent says of it: no message has a sender's name in it.

use crate::{ByteCount, Code, ComponentName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest payload of a message, bytes: with its topic and content type it is one packet ([`super::MESSAGE_LEN_MAX`]). Tripped by
/// `what_is_too_large_for_the_bus_is_told_at_once` and `a_sender_that_keeps_no_rule_is_held_by_its_receiver`.
pub const BUS_PAYLOAD_MAX: ByteCount = ByteCount::kib(64);

/// One end of a link.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum LinkEnd {
    /// The component sends over it.
    Sends {
        /// To whom.
        to: ComponentName,
    },
    /// The component hears what comes over it.
    Hears {
        /// Whom.
        from: ComponentName,
        /// What the sender's grants admit: the layers of filters of each of its rules. A topic must be granted by one of them, whatever
        /// the sender's executor thinks: it may be in somebody else's hands.
        topics: Vec<Vec<Vec<String>>>,
    },
}

/// A message on its way. Prints as nothing.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
pub struct BusMessage {
    /// Repeated in the answer.
    pub id: u32,
    /// How often it was handed over before.
    pub handed: u32,
    /// Its topic.
    pub topic: String,
    /// Its content type; empty: none.
    pub content_type: String,
    /// The bytes.
    pub payload: Vec<u8>,
}

impl fmt::Debug for BusMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusMessage")
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BusAnswer {
    /// Of which.
    pub id: u32,
    /// `None`: it is settled, the sender may forget it. Else why it is not.
    pub code: Option<Code>,
}
