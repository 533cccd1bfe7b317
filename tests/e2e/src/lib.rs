//! Real processes, real mutual TLS.
#![forbid(unsafe_code)]
