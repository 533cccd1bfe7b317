//! Identity from the outside: every line of the certificate profile, what webpki lets pass, real handshakes in memory, and other
//! people's tools reading what we write.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a panic is how a test fails; helpers are not test functions to the lint"
)]

mod authority;
mod bodies;
mod change;
mod client;
mod crl;
mod forge;
mod handshake;
mod hostile;
mod malformed;
mod openssl;
mod profile;
mod stage;
mod webpki;
