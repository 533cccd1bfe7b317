//! Publish components and operate fleets.
#![forbid(unsafe_code)]

fn main() {}
