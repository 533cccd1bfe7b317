//! The crate edges, held over cargo metadata.
#![forbid(unsafe_code)]
