//! The air-gapped key tool: file in, file out.
//!
//! What it is: founds fleets, and carries each later change of their keys from request through signers one after another to a file
//! that devices take: `request`, `inspect`, `sign`, `assemble`, `verify`.
//!
//! Whom it believes: the people in the room; of files, the first root of the folder each signer brought, and whom it leads to.
//!
//! Invariants: nothing is half-applied, and nothing is assembled that a device would refuse; private keys are written with mode 0600 and never over an existing file; this program
//! opens no socket, and denies itself sockets before it reads a key.
//!
//! Absent on purpose: network.
//!
//! Start reading at [`found`], then [`request`].
#![forbid(unsafe_code)]

pub mod assemble;
pub mod authority;
pub mod change;
pub mod crl;
pub mod custody;
pub mod delegate;
pub mod difference;
pub mod error;
pub mod found;
pub mod issue;
pub mod present;
pub mod recovery;
pub mod request;
pub mod sign;
pub mod transcript;
pub mod verify;

pub use error::CeremonyError;
