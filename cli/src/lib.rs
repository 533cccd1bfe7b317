//! Publish components and operate fleets.
//!
//! What it is: the publisher's and the operator's side. Talks to the platform like everybody else: mutual TLS, from pinned roots.
//!
//! Whom it believes: the fleet's public folder it was given, and whom its roots lead to. Not the server.
//!
//! Invariants: a component is held against its ask before anything is signed; what is signed anew was verified first; the audit
//! chain is checked here, and held to the newest head this machine has seen.
//!
//! Absent on purpose: a way around the signatures; control crates.
//!
//! Start reading at [`publish`].
#![forbid(unsafe_code)]

pub mod access;
pub mod bundle;
pub mod dev;
pub mod draft;
pub mod error;
pub mod new;
pub mod operate;
pub mod publish;
pub mod release;
pub mod show;
pub mod sign;
pub mod witness;
