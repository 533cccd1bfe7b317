//! The ceremony tool as custodians meet it: each holder with a medium of their own, and devices that judge the result.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod authority;
mod change;
mod crl;
mod custody;
mod device;
mod direction;
mod faults;
mod found;
mod recovery;
mod room;
mod sticks;
mod transcript;
mod walk;
