//! A device's keys, its sealed secret and its counter in `swtpm`, each test with TPMs of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod certificate {
    include!("../../../kit/certificate.rs");
}
mod fleet;
mod room;
mod tpm;
