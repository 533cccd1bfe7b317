//! The straight path with real processes, in the order of ARCHITECTURE.md, and what happens when it is disturbed.
#![forbid(unsafe_code)]

mod authority;
mod bad_input;
mod carried;
mod ceremony;
mod clock;
mod decommission;
mod disturbed;
mod interrupted;
mod join;
mod narrowed;
mod offline;
mod path;
mod recovery;
mod renewal;
mod service;
mod several;
mod stolen;
mod storage;
mod unblock;
mod wire;
