//! The control server: mutual TLS, EST, storage, operator interface.
//!
//! What it is: delivers what others signed, chooses among it for each device, and writes down what devices say.
//!
//! Whom it believes: identities out of verified handshakes, per request; release metadata only after walking it as a device would.
//! Nobody has to believe it: devices verify everything again.
//!
//! Invariants: no acceptance without audit, in one transaction; the fleet is chosen by the name of the connection and judged by that
//! fleet's anchors; offline-signed bytes are served unchanged.
//!
//! Absent on purpose: keys of root, targets, snapshot or components; plain HTTP; any way to change a fleet's roots over the network.
//!
//! Start reading at [`server`].
#![forbid(unsafe_code)]

pub mod artifacts;
mod authorities;
pub mod checkin;
pub mod claims;
pub mod config;
pub mod crl;
pub mod director;
pub mod error;
pub mod est;
pub mod expiry;
mod finish;
pub mod fleet;
mod gate;
pub mod held;
mod issuing;
mod keys;
pub mod lineage;
mod live;
pub mod local;
pub mod metrics;
pub mod operator;
pub mod operators;
mod policy;
pub mod register;
pub mod release;
pub mod replacement;
mod routes;
pub mod server;
mod speak;
pub mod store;
pub mod table;
pub mod tokens;
mod turn;
mod twice;
mod view;
pub mod waves;
