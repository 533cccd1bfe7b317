//! SPIFFE identities, certificate profile, EST, keys, and the only platform TLS set-up.
#![forbid(unsafe_code)]
