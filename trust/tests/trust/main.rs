//! Tests of `redan-trust` from outside: repositories made and signed here, read as a device reads them.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod algorithms;
mod carried;
mod decide;
mod decommission;
mod delegated;
mod forged;
mod lookup;
mod maker;
mod properties;
mod recovery;
mod root;
mod scene;
mod sets;
mod statement;
mod stored;
mod versions;
mod workflow;
