//! Policy as its users meet it: documents in, grant or refusal out.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

mod cases;
mod documents;
mod properties;
mod schema;
mod texts;
