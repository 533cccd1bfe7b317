//! What tests share: fleets, evil builders, processes on loopback.
#![forbid(unsafe_code)]
