//! The TUF client workflow, the one threshold function, `decide()` and the trust record.
#![forbid(unsafe_code)]

pub mod custom;
pub mod plan;
pub mod release_set;

pub use plan::Plan;
