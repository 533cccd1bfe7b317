//! The executor: the Wasm sandbox, limits, slots, triggers and swap. Sees payload, holds no key.
//!
//! What it is: two processes of the device. [`executor`] runs one publisher's guests; [`compiler`] turns one component
//! into native code and ends.
//!
//! Whom it believes: the agent, at the other end of the inherited channel. It computed the grant, checked the native
//! code's MAC and sealed it; nothing else reaches this process but what workloads are sent and what they send.
//!
//! Invariants: a workload is linked from its grant alone; every call has a fresh instance, a CPU budget, a wall-clock
//! limit and bounded memory; a swap changes one pointer and closes no listener; what goes back to the agent is
//! fixed-size and closed.
//!
//! Absent on purpose: keys, trust, policy decisions, sockets of its own making, any route for guest text to the agent.
//!
//! A publisher's own machine uses the same versions, calls and listeners without those processes: [`mod@bench`]. No device does.
//!
//! Start reading at [`executor`], then `version`, `swap`, `service` and `job`; limits are in `redan_host_api::limits`.
#![forbid(unsafe_code)]

mod activate;
pub mod bench;
mod broker;
pub mod compiler;
mod courier;
pub mod engine;
pub mod executor;
mod job;
mod lifecycle;
mod local_bus;
mod message;
mod service;
mod swap;
mod version;
pub mod watch;
