//! The TUF client workflow, the one threshold function, `decide()` and the trust record.
//!
//! What it is: everything between bytes from anywhere and "this device may run this". No I/O: the driver fetches and stores.
//!
//! Whom it believes: the persisted root of each repository, and whom it leads to by signatures. Not the server, the network, the
//! wall clock, or its own disk before a hash or a signature was checked.
//!
//! Invariants: [`Verified`] has one origin; signatures are counted in one function; a [`Plan`] is made by [`decide()`] only; what
//! was trusted once is a floor for ever.
//!
//! Absent on purpose: clocks, disks, sockets, randomness; any switch that skips a check.
//!
//! Start reading at [`workflow`], then [`mod@decide`].
#![forbid(unsafe_code)]

pub mod claimed;
pub mod clock;
pub mod custom;
pub mod decide;
pub mod decommission;
mod delegation;
mod envelope;
pub mod error;
mod json;
pub mod listed;
pub mod lookup;
pub mod metadata;
pub mod plan;
pub mod record;
pub mod recovery;
pub mod refusal;
pub mod rehearse;
pub mod release_set;
pub mod repository;
pub mod statement;
pub mod versions;
pub mod workflow;

pub use claimed::{Claimed, Verified};
pub use clock::ProvenTime;
pub use decide::{
    DeviceFacts, Directing, Directive, Document, Offered, POLICY_PATH, TrustState, believed_policy,
    carried_direction, decide, direction_path, directive, plan_path,
};
pub use decommission::{Decommissioned, decommission_path, decommissioned};
pub use error::TufError;
pub use lookup::{Lookup, LookupStep, Target};
pub use plan::{Plan, PlannedMember};
pub use record::{TrustRecord, newest_valid};
pub use refusal::Refusal;
pub use repository::Repository;
pub use statement::verify_statement;
pub use versions::RoleVersions;
pub use workflow::{Answer, Refresh, Step, Trusted};
