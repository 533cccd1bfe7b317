//! One question a file.
#![forbid(unsafe_code)]
