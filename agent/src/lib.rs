//! The device agent: check-in, fetch, disk, admin socket. Holds keys, sees no payload.
#![forbid(unsafe_code)]
