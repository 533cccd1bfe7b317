//! Signing keys and identities in `SoftHSM2` tokens, each test with a token folder of its own.

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
mod ceremony;
mod fleet;
mod room;
mod token;
