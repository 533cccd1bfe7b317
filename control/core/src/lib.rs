//! Rollouts, the director's choice, roles and the audit chain, without I/O.
#![forbid(unsafe_code)]
