//! Keys, a sealed secret and a counter in a real TPM 2.0: `swtpm` (Debian: `swtpm`). Everything is in `tests/`; a package of its own, so
//! that a machine without `swtpm` leaves it out as a whole (`cargo xtask test`). Continuous integration never does.
#![forbid(unsafe_code)]
