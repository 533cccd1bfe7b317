//! WASI 0.2, and services of 0.3, compared: each guest runs under plain `wasmtime-wasi`, as `wasmtime run` and `serve` embed it, and under this runtime
//! with a grant for everything it uses. What comes out must be the same, byte for byte; where it is not meant to be, the test says so
//! and docs/runtime.md says why.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod commands;
mod guest;
mod later;
mod ours;
mod outgoing;
mod reference;
mod services;
mod versions;

/// What a program leaves behind.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Outcome {
    /// Its exit code; `None`: it trapped.
    exit: Option<i32>,
    out: String,
    err: String,
}

/// What a program is started with.
#[derive(Clone, Debug, Default)]
struct Start {
    arguments: Vec<&'static str>,
    env: Vec<(&'static str, &'static str)>,
    input: &'static [u8],
}

/// Folders for `/state` and `/lib`, both as the test wants them.
struct Folders {
    state: tempfile::TempDir,
    lib: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let folders = Self {
            state: tempfile::tempdir().unwrap(),
            lib: tempfile::tempdir().unwrap(),
        };
        std::fs::write(folders.lib.path().join("given"), b"read me").unwrap();
        folders
    }
}
