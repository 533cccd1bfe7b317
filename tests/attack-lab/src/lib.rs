//! What attackers try, and how it ends: one program a row of the registry.
//!
//! What it is: attackers of ours, each holding what its first line says, against a fleet of real processes. `registry.toml`
//! lists all rows; [`registry::PLAYED`] those that have a program. Other rows name the tests of the crates that play them.
//!
//! Invariant: every program first shows that the same flow without the attack passes (positive control), or says which
//! step of the stage has shown it.
//!
//! Start reading at [`registry`]; [`theft`] is a family of its own, one row a key.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "helpers of tests fail as tests do"
    )
)]

pub mod cargo;
pub mod foreign;
pub mod guinea;
pub mod mirror;
pub mod named;
pub mod registry;
pub mod resigned;
pub mod revoked;
pub mod table;
pub mod tampered;
pub mod theft;
