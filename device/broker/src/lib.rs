//! Egress: rule check, resolve, address check, dial, pass the descriptor.
#![forbid(unsafe_code)]
