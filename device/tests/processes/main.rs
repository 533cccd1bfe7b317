//! The device's processes as the supervisor starts them, each given what is hostile, and measured from outside.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod compiler;
mod executor;
