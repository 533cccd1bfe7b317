// How tests build guests. The tests of `runtime` and `dev` `include!` it: no crate of ours depends on test code.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "wasm32-wasip2";

/// Builds these packages where `cargo xtask build` builds its own; nothing to do when they are fresh. The folder they are in. Asked once a
/// process, always for the same.
fn all_built(packages: &[&str]) -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(packages))
}

fn build(packages: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("guest-build");
    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-examples"))
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
        .args(packages.iter().flat_map(|name| ["--package", name]))
        .env("CARGO_TARGET_DIR", &target);
    // Set for the tests' package by the cargo that runs them.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
        build.env_remove(name);
    }
    let done = build.output().unwrap();
    assert!(
        done.status.success(),
        "the guests do not build (they need `rustup target add {TARGET}`): {}",
        String::from_utf8_lossy(&done.stderr)
    );
    target.join(TARGET).join("release")
}
