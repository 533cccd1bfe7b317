//! The device program: supervisor, agent, executor, broker and compiler in one binary.
#![forbid(unsafe_code)]

fn main() {}
