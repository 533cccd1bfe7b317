//! The air-gapped key tool: file in, file out.
#![forbid(unsafe_code)]
