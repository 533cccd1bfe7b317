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
//! Start reading at [`mod@run`], then `checkin`.
#![forbid(unsafe_code)]

mod config;
#[allow(dead_code, reason = "the main loop calls it")]
mod disk;
mod error;
#[allow(dead_code, reason = "the main loop calls it")]
mod fetch;
#[allow(dead_code, reason = "the main loop calls it")]
mod journal;
#[allow(dead_code, reason = "the main loop calls it")]
mod lock;
#[allow(dead_code, reason = "the main loop calls it")]
mod pair;
#[allow(dead_code, reason = "the main loop calls it")]
mod seal;
mod status;

pub use config::Config;
pub use error::AgentError;
pub use status::{SlotStatus, Status};

use redan_protocol::wire::AdmissionRequest;
use redan_protocol::{DeviceId, SpiffeId};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Makes the device's key, once, and says what an operator must admit. Doing it twice gives the same answer.
pub fn init(state: &Path, device: &DeviceId) -> Result<AdmissionRequest, AgentError> {
    let _ = (state, device);
    Err(AgentError::Unfinished)
}

/// Enrols with the control server named in the voucher (or `server`), over mutual TLS with the device's own key.
///
/// Everything is pinned from the voucher before the first byte is sent. Enrolling twice is harmless.
pub fn enrol(state: &Path, voucher: &Path, server: Option<&str>) -> Result<SpiffeId, AgentError> {
    let _ = (state, voucher, server);
    Err(AgentError::Unfinished)
}

/// Asks the running agent of this state folder, over its admin socket, how it is.
pub fn status(state: &Path) -> Result<Status, AgentError> {
    let _ = state;
    Err(AgentError::Unfinished)
}

/// Runs the agent until SIGTERM, SIGINT, or the supervisor is gone. Builds its own async runtime: call it from plain `main`.
///
/// `ready` is called once, when what was committed is starting and the admin socket listens.
pub fn run(
    config: &Config,
    supervisor: OwnedFd,
    broker: OwnedFd,
    ready: impl FnOnce(&SpiffeId),
) -> Result<(), AgentError> {
    let _ = (config, supervisor, broker, ready);
    Err(AgentError::Unfinished)
}
