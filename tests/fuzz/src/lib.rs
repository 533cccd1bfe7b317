//! What must hold of every parser and decision an attacker reaches, whatever the bytes.
//!
//! What it is: [`TARGETS`], each with valid inputs to begin from and a function that panics when a property is broken.
//! `tests/replay.rs` runs every kept input and thousands of mutations in each `cargo test`; `libfuzzer/` beside it drives the same
//! functions with coverage, for hours (`docs/fuzzing.md`).
//!
//! Whom it believes: nobody. A target may refuse whatever it likes; it may not panic, may not take much longer for
//! worse input, and what it accepts must mean one thing.
//!
//! Absent on purpose: targets that only count that nothing crashed. Each says what accepting means.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a broken property is a panic: that is what a fuzzer looks for"
)]

mod cache;
mod carried;
mod decision;
mod identity;
mod messages;
pub mod mutate;
mod policy;
mod trust;
mod wire;

/// One thing that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder of kept inputs.
    pub name: &'static str,
    /// Valid inputs, new at each call where keys are in them.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics when a property is broken. Says whether the input was accepted, so that a target which refuses everything is noticed.
    pub run: fn(&[u8]) -> bool,
    /// Mutations in one `cargo test`: as many as a second or two allows.
    pub mutations: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    trust::METADATA,
    trust::RECORD,
    trust::WORKFLOW,
    decision::CUSTOM,
    decision::DECIDE,
    cache::CACHE,
    carried::DIRECTION,
    carried::DECOMMISSION,
    carried::RECOVERY,
    carried::DRAFT,
    policy::DOCUMENTS,
    policy::GRANT,
    policy::EGRESS,
    policy::COMPONENT,
    identity::CERTIFICATE,
    identity::CSR,
    identity::CHAIN,
    identity::PEM,
    identity::CRL,
    identity::PKCS11,
    wire::VOUCHER,
    wire::CHECK_IN,
    wire::IPC,
    wire::TOKEN,
    messages::MQTT,
];

/// The target of a name, for a driver outside.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no target {name}")).run)(input);
}
