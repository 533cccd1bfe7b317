//! Guests, built from `guest-examples`, and written as text.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "wasm32-wasip2";

/// A built guest by its file's name.
pub(crate) fn built(name: &str) -> String {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("guest-build");
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-examples"))
            .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
            .args([
                "--package",
                "collect",
                "--package",
                "conformance-job",
                "--package",
                "conformance-service",
            ])
            .env("CARGO_TARGET_DIR", &target);
        // Set for this package by the cargo that runs the tests.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
            build.env_remove(name);
        }
        let done = build.output().unwrap();
        assert!(
            done.status.success(),
            "the guests do not build: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        target.join(TARGET).join("release")
    });
    folder.join(name).display().to_string()
}

/// A component in the text format, as a file.
pub(crate) fn written(folder: &Path, text: &str) -> String {
    let path = folder.join("guest.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path.display().to_string()
}

/// A command that imports an empty instance of this name.
pub(crate) fn importing(folder: &Path, interface: &str) -> String {
    let text = format!(
        "(component
           (import \"{interface}\" (instance))
           (core module $m (func (export \"run\") (result i32) i32.const 0))
           (core instance $i (instantiate $m))
           (func $run (result (result)) (canon lift (core func $i \"run\")))
           (instance $e (export \"run\" (func $run)))
           (export \"wasi:cli/run@0.2.0\" (instance $e)))"
    );
    written(folder, &text)
}
