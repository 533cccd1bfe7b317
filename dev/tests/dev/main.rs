//! The bench as a publisher uses it: the built program, real guests, a site on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod guest;
mod learned;
mod programs;
mod services;
mod site;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// The bench, quiet, with these words.
fn bench(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redan-dev"));
    command.args(words).stdin(Stdio::null());
    command
}

fn ran(mut command: Command) -> Output {
    command.output().unwrap()
}

/// With something on standard input.
fn fed(mut command: Command, input: &[u8]) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The three lines of a refusal.
#[track_caller]
fn refused(output: &Output, code: &str, exit: i32) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    let because = said.lines().find_map(|line| line.strip_prefix("because: "));
    assert_eq!(because, Some(code), "{said}");
    assert!(said.contains("\ntry: "), "{said}");
}
