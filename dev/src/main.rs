//! `redan-dev`: runs a component on its publisher's own machine. `redan dev` starts it.
//!
//! What it is: the admission, policy, linking, limits and listener of a device, as a library in one process, without what a device
//! has to believe: no trust store, no keys, no server. Nothing is verified here, and it says so.
//!
//! Whom it believes: the publisher at the terminal.
//!
//! Invariants: a grant comes out of the same intersection as on a device; the compiler is a confined process of its own; it
//! listens on loopback only; a device's program has no way in here (`tests/boundaries`).
//!
//! Absent on purpose: trust, identity, anything a device would take over.
//!
//! Start reading at [`mod@bench`].
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod compile;
mod dial;
mod fault;
mod learn;
mod offer;

use clap::Parser as _;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match compile::asked_to_compile() {
        Some(outcome) => outcome.map(|()| 0),
        None => arguments::Arguments::parse()
            .checked()
            .and_then(|arguments| bench::run(&arguments)),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(fault) => {
            drop(std::io::stderr().write_all(fault.render().as_bytes()));
            ExitCode::from(fault.exit())
        }
    }
}

/// A line of this program's own on standard error; the guest's own lines go there too.
fn remark(line: &str) {
    drop(writeln!(std::io::stderr(), "redan dev: {line}"));
}
