//! One test a row of the attack registry.
#![forbid(unsafe_code)]
