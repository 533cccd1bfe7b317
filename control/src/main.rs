//! The control server: mutual TLS, EST, storage, operator interface.
#![forbid(unsafe_code)]

fn main() {}
