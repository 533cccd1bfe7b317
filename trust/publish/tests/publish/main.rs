//! What is published, read back: by the workflow devices run, and by tough, which nobody here wrote.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod component;
mod keys;
mod read_back;
mod release;
