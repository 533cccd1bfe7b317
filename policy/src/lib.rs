//! Policy schema, intersection, effective grants and explanations.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod grant;

pub use grant::EffectiveGrant;
