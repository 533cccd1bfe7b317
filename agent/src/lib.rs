//! The device agent: check-in, fetch, disk, admin socket. Holds keys, sees no payload, links no wasmtime.
//!
//! What it is: the shell around `redan-agent-core`. It waits, asks the core, and performs what the core says; it keeps the
//! trust store, the journal, the blobs and the sealed native code on disk; it talks to the control server over
//! `redan-identity`'s mutual TLS and to its sibling processes over inherited channels.
//!
//! Whom it believes: the TUF roots its voucher pinned, what `redan-trust` verified from them, and its own disk only after
//! a digest or MAC said so. The control server it believes nothing; executors only about health, within a closed type.
//!
//! Invariants: a side effect follows the durable record that announces it; nothing runs whose digest was not checked at
//! this start; the closed `Report` is all that is ever sent.
//!
//! Absent on purpose: wasmtime, guest bytes, an `if` about policy or trust.
//!
//! Start reading at `run`, then `main_loop` and `session`.
#![forbid(unsafe_code)]

mod access;
mod admin;
mod again;
mod apply;
mod authorities;
mod broker;
mod bundle;
mod burial;
mod carried;
mod checkin;
mod clock;
mod config;
mod disk;
mod documents;
mod effects;
mod enrol;
mod error;
#[cfg(test)]
mod evil;
mod executor;
mod fetch;
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod join;
mod journal;
mod link;
mod local_bus;
mod lock;
mod main_loop;
#[cfg(test)]
mod mirrors;
mod named;
mod native;
mod next;
mod pair;
mod patience;
pub mod qr;
mod record;
mod recover;
mod refresh;
mod renewal;
mod revocation;
mod run;
mod seal;
mod secret;
mod session;
mod status;
mod store;
mod supervisor;
mod trust;
mod view;

pub use admin::{apply, status};
pub use burial::refuse_decommissioned;
pub use config::Config;
pub use enrol::{enrol, enrol_offline, init};
pub use error::AgentError;
pub use join::join;
pub use recover::{recover, recovery_request};
pub use run::run;
pub use status::{Applied, CertificateStatus, RenewalStatus, SlotStatus, Status};
