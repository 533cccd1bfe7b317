//! The `openssl` command: somebody else's opinion.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs it; both outputs.
pub(crate) fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Runs it; it must succeed; its output.
pub(crate) fn read(arguments: &[&str], input: &[u8]) -> String {
    let output = run(arguments, input);
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A block of PEM around a body that is base64 already.
pub(crate) fn block(label: &str, body: &str) -> Vec<u8> {
    let body = body.replace("\r\n", "\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
}
