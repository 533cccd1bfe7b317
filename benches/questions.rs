//! The benches, one question a file. `cargo bench -p redan-benches -- decide` asks the questions so named.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up has nothing to measure"
)]
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench speaks on standard output, and fails as tests do"
)]

mod cold_start;
mod decide;
mod instantiate;
mod request;
mod sandbox;
mod tuf_refresh;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    instantiate::bench(&mut criterion);
    request::bench(&mut criterion);
    cold_start::bench(&mut criterion);
    decide::bench(&mut criterion);
    tuf_refresh::bench(&mut criterion);
    criterion.final_summary();
}
