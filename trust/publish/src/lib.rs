//! Building and signing TUF metadata.
#![forbid(unsafe_code)]
