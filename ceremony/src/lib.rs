//! The air-gapped key tool: file in, file out.
//!
//! What it is: founds fleets. Request, sign, assemble and verify of root rotations come with the complete ceremony.
//!
//! Whom it believes: the people in the room.
//!
//! Invariants: nothing is half-applied; private keys are written with mode 0600 and never over an existing file; this program
//! opens no socket, and denies itself sockets before it reads a key.
//!
//! Absent on purpose: network.
//!
//! Start reading at [`found`].
#![forbid(unsafe_code)]

pub mod delegate;
pub mod error;
pub mod found;
pub mod issue;

pub use error::CeremonyError;
