//! The guest interface and the host side of each capability, made from an effective grant.
#![forbid(unsafe_code)]
