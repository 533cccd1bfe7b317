//! The executor and the compiler from outside: real channels, sealed memory files, hostile guests. Each test of a limit
//! breaks it, asks for the exact code, and has the same executor serve somebody else afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod admission;
mod cancelled;
mod client;
mod device;
mod documented;
mod egress;
mod far_end;
mod grants;
mod guests;
mod hostile;
mod jobs;
mod load;
mod local_bus;
mod logs;
mod messages;
mod narrow;
mod outbox;
mod plant;
mod pool;
mod secrets;
mod server;
mod services;
mod shares;
mod smith;
mod stop_start;
mod swap;
mod tasks;
mod upstream;
mod volumes;
