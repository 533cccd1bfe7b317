//! Messages of a broker: what is on the wire ([`codec`]), how it is cut into packets, and the session ([`Bus`]).
//!
//! Whom it believes: nobody at the far end. The broker process checked its address; what it says is read as hostile.
//!
//! Invariants: a message is acknowledged after it was settled and never before, in the order messages came; what is read from a
//! broker and not settled yet is bounded ([`bus::WINDOW_MAX`] messages, one packet); whatever it does, it costs a connection
//! and no more.
//!
//! Absent on purpose: quality of service 2, wills, topic aliases, shared subscriptions, sockets of its own making.

pub mod bus;
pub mod codec;
pub mod frames;

pub use bus::{Access, Bus, Receive, Settings};
