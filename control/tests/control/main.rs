//! The server as its callers meet it: real TLS on loopback, a real database, a fleet founded as custodians found one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod ambiguous;
mod approval;
mod artifacts;
mod audit;
mod authority;
mod ceremony;
mod certificates;
mod checkin;
mod crl;
mod crowd;
mod database;
mod decommission;
mod enrolment;
mod est;
mod expiry;
mod insider;
mod isolation;
mod issuing;
mod limits;
mod lineage;
mod operators;
mod probe;
mod program;
mod quotas;
mod raw;
mod reach;
mod release;
mod renewal;
mod replacement;
mod rests;
mod revocation;
mod rollouts;
mod site;
mod smuggling;
mod start;
mod tls;
mod tokens;
mod witness;
