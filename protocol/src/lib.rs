//! The words every part of Redan shares.
//!
//! What it is: identifiers, amounts, digests, the closed table of [`Code`]s, the closed [`report`], the wire
//! types of the device interface ([`wire`]) and of the socketpairs between the device's processes ([`ipc`]).
//!
//! Whom it believes: nobody. Everything here is *parsed*, which says that it has the right shape and nothing about
//! who said it. Trust is added in `redan-trust` and `redan-identity`.
//!
//! Invariants: an identifier that exists obeys its grammar; a code that was shipped keeps its number for ever; no type
//! that travels to the platform can hold free text or bytes a workload chose.
//!
//! Absent on purpose: clocks, files, sockets, randomness, error types that carry a `String` from outside.
//!
//! Start reading at [`ids`], then [`report`].
#![forbid(unsafe_code)]

pub mod amounts;
pub mod audit;
pub mod authority;
pub mod code;
pub mod digest;
pub mod ids;
pub mod ipc;
pub mod join;
pub mod report;
pub mod role;
pub mod wire;

pub use amounts::{
    ByteCount, DirectionSequence, Millis, Permille, ReleaseCounter, Seconds, UnixSeconds, Version64,
};
pub use authority::{Authorities, Authority, AuthorityState};
pub use code::Code;
pub use digest::Digest;
pub use ids::{
    ComponentName, DeviceId, FleetId, NameError, OperatorName, PublisherName, SetId, SpiffeId, WorkloadName,
};
pub use role::Role;
