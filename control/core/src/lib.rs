//! Rollouts and the director's choice, without I/O.
//!
//! What it is: when a wave is offered, when a rollout halts, which signed set a device is directed to, and how fast certificates are
//! signed.
//!
//! Whom it believes: reports of authenticated devices, to the extent that a lying device can only speak about itself.
//!
//! Invariants: a wave is offered only after the one before has held; a halted rollout offers nothing; what is directed is computed
//! at request time.
//!
//! Absent on purpose: clock, disk, sockets, keys.
//!
//! Start reading at [`rollout`].
#![forbid(unsafe_code)]

pub mod direct;
pub mod pace;
pub mod rollout;

pub use direct::desired;
pub use pace::{Pace, PerMinute};
pub use rollout::{Approval, Event, Input, NoApproval, Outcome, Rollout, Rules, State, Wave, WrongState};
