//! The guest interface and the host side of each capability, made from an effective grant.
//!
//! What it is: [`state::Capabilities`], opened once for a version from its grant; [`link::linker`], which offers exactly
//! those; [`state::new_store`], the state and every limit of one call. `wit/` is what guests build against.
//!
//! Whom it believes: the grant, which the agent computed from three signed or root-owned documents. Guests are believed
//! in nothing: names, lengths, headers and addresses they give are parsed, bounded and matched here.
//!
//! Invariants: no authority comes from anywhere but the grant; the first limit a call breaks is remembered as a closed
//! code; guest text goes to the owner's file and nowhere else; the only way out is a socket the broker connected.
//!
//! Absent on purpose: sockets, default senders, ambient folders or variables, keys, any `Debug` of payload.
//!
//! Start reading at [`link`], then [`state`] and [`limits`].
#![forbid(unsafe_code)]

pub mod bench;
pub mod bindings;
pub mod body;
mod clock;
pub mod egress;
mod files;
pub mod keyvalue;
pub mod kv;
pub mod limits;
pub mod link;
pub mod local_bus;
pub mod log;
pub mod mqtt;
pub mod outbox;
mod output;
mod payload;
mod slice;
pub mod state;
mod tokens;
pub mod volume;
mod wasi_0_3;
mod watch;
pub mod workload;

pub use payload::Payload;
