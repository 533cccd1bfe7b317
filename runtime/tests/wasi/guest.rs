//! The guests, built from `guest-examples/conformance`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "wasm32-wasip2";

pub(crate) fn job() -> Vec<u8> {
    std::fs::read(built().join("conformance-job.wasm")).unwrap()
}

pub(crate) fn service() -> Vec<u8> {
    std::fs::read(built().join("conformance_service.wasm")).unwrap()
}

/// Of WASI 0.3.
pub(crate) fn tasks() -> Vec<u8> {
    std::fs::read(built().join("conformance_tasks.wasm")).unwrap()
}

/// Builds them where `cargo xtask build` builds its own; nothing to do when they are fresh.
fn built() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("guest-build");
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-examples");
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(guests)
            .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
            .args(["--package", "conformance-job", "--package", "conformance-service"])
            .args([
                "--package",
                "conformance-tasks",
                "--package",
                "conformance-sender",
            ])
            .env("CARGO_TARGET_DIR", &target);
        // Set for this package by the cargo that runs the tests.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
            build.env_remove(name);
        }
        let done = build.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "the conformance guests do not build: {said}"
        );
        target.join(TARGET).join("release")
    });
    folder.clone()
}
