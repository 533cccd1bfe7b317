//! One question a file: what does a guarantee cost, as a ratio to a reference measured in the same run?
//!
//! What it is: the benches' own files lie beside `Cargo.toml`; here is what they share. [`compare`] measures one question,
//! [`guest`] and [`fleet`] make what is measured. `docs/benches.md` says what each ratio means.
//!
//! Whom it believes: nobody; it makes its own guests, keys and repositories, so that a bench needs nothing but cargo.
//!
//! Absent on purpose: absolute goals. Microseconds are a property of a machine; a ratio travels.
#![forbid(unsafe_code)]

pub mod decision;
mod figure;
pub mod fleet;
pub mod guest;
mod interleave;

pub use figure::{built, figure, tool};
pub use interleave::{Asking, Timed, compare, each};
