//! The device's TUF workflow behind the command line of the conformance suite.
#![forbid(unsafe_code)]

fn main() {}
