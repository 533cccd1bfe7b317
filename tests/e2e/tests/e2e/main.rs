//! The straight path with real processes, in the order of ARCHITECTURE.md, and what happens when it is disturbed.
#![forbid(unsafe_code)]

mod certificate {
    include!("../../../kit/certificate.rs");
}
mod again;
mod authority;
mod bad_input;
mod canary;
mod carried;
mod ceremony;
mod clock;
mod crl;
mod decommission;
mod disturbed;
mod full;
mod interrupted;
mod join;
mod languages;
mod later;
mod local_bus;
mod messages;
mod narrowed;
mod neighbours;
mod newcomer;
mod offline;
mod outside;
mod path;
mod poisoned;
mod recovery;
mod renewal;
mod service;
mod several;
mod stolen;
mod storage;
mod unblock;
mod wire;
