//! Build, test, demo, bench and check: one command each.
#![forbid(unsafe_code)]

fn main() {}
