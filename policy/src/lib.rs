//! Policy `redan.policy/1`: schema, intersection, effective grants and explanations.
//!
//! What it is: three documents of one schema (the publisher's ask, the fleet policy, the device ceiling), read strictly, and
//! [`intersect()`], which makes of them the one [`EffectiveGrant`] a workload runs under.
//!
//! Whom it believes: nobody. Who signed a document is for `redan-trust` to say, before it is read here.
//!
//! Invariants: a grant is never wider than any of its three documents; a section that one of them leaves out grants nothing;
//! deny wins; an unknown key is an error; the same three documents give the same bytes and so the same digest.
//!
//! Absent on purpose: defaults that grant, wildcards over publishers, clocks, files.
//!
//! Start reading at [`mod@intersect`].
#![forbid(unsafe_code)]

pub mod canonical;
pub mod egress;
pub mod explain;
pub mod grant;
mod help;
pub mod imports;
pub mod intersect;
pub mod narrow;
pub mod parse;
pub mod pem;
pub mod place;
pub mod schema;
pub mod standing;
pub mod suppose;
pub mod topic;
pub mod units;
mod wellformed;

pub use explain::{Explanation, explain};
pub use grant::EffectiveGrant;
pub use intersect::{Denied, intersect};
pub use parse::{Ask, DeviceCeiling, FleetPolicy, PolicyError, parse_ask, parse_device, parse_fleet};
