//! Real processes, real mutual TLS: the tests are in `tests/`.
#![forbid(unsafe_code)]
