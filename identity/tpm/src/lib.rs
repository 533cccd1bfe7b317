//! What a device keeps in its TPM 2.0: keys that sign, secrets that only this TPM unseals, a number that only grows.
//!
//! What it is: the dozen commands of the TPM 2.0 Library that this takes, marshalled here ([decision 21]), over the kernel's resource
//! manager (`/dev/tpmrm0`), or over the socket of a software TPM.
//!
//! Whom it believes: the TPM it was told to use, about its secrets and its counter. About a signature it believes nothing: each is verified
//! under the public half before it is given away. What a TPM answers is read within fixed bounds and to its last byte.
//!
//! Invariants: keys and secrets are made in the TPM, or for it, and are fixed to it (`fixedTPM`, `fixedParent`): what is on the disk is of
//! use to this very TPM and nobody else. Nothing is left in the TPM but the counter.
//!
//! Absent on purpose: importing keys, persistent handles, passwords, policies over measured boot, a C library.
//!
//! Start reading at [`Key`].
//!
//! [decision 21]: https://redan.invalid/redan/docs/decisions/0021-what-a-tpm-keeps.md
#![forbid(unsafe_code)]

mod client;
mod counter;
mod error;
mod key;
mod name;
mod sealed;
mod template;
mod transport;
mod wire;

pub use counter::Counter;
pub use error::{ResponseCode, TpmError};
pub use key::Key;
pub use name::{Address, Blob};
pub use sealed::{SECRET_LEN_MAX, seal, unseal};
