//! Keys in real PKCS#11 tokens: `SoftHSM2` (Debian: `softhsm2`). Everything is in `tests/`; a package of its own, so that a machine
//! without `SoftHSM2` leaves it out as a whole (`cargo xtask test`). Continuous integration never does.
#![forbid(unsafe_code)]
