//! The update and rollback state machine and its journal, without I/O.
#![forbid(unsafe_code)]
