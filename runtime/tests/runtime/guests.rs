//! The guests: Rust ones built from `guest-examples/hostile`, text ones read from there and from `guests/`.

use crate::device::compile;
use redan_policy::EffectiveGrant;
use redan_runtime::engine::Native;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

const TARGET: &str = "wasm32-wasip2";

/// `hostile/job`.
pub(crate) fn hostile_job() -> Vec<u8> {
    std::fs::read(built().join("hostile-job.wasm")).unwrap()
}

/// `hostile/service`.
pub(crate) fn hostile_service() -> Vec<u8> {
    std::fs::read(built().join("hostile_service.wasm")).unwrap()
}

/// `conformance/tasks`: a service of WASI 0.3.
pub(crate) fn tasks() -> Vec<u8> {
    std::fs::read(built().join("conformance_tasks.wasm")).unwrap()
}

/// `rust/uploader`.
pub(crate) fn uploader() -> Vec<u8> {
    std::fs::read(built().join("uploader.wasm")).unwrap()
}

/// `hostile/handler`.
pub(crate) fn hostile_handler() -> Vec<u8> {
    std::fs::read(built().join("hostile_handler.wasm")).unwrap()
}

/// A component in the text format, `guest-examples/hostile/<name>/guest.wat`.
pub(crate) fn hostile(name: &str) -> Vec<u8> {
    wat::parse_str(hostile_text(name)).unwrap()
}

/// The text of it.
pub(crate) fn hostile_text(name: &str) -> String {
    let path = repository().join("guest-examples/hostile").join(name);
    std::fs::read_to_string(path.join("guest.wat")).unwrap()
}

/// A component in the text format that harms nobody, `guests/<name>.wat`.
pub(crate) fn harmless(name: &str) -> Vec<u8> {
    let path = repository().join("runtime/tests/runtime/guests").join(name);
    wat::parse_file(path.with_extension("wat")).unwrap()
}

/// A component of so many core instances, each with so much of the given.
pub(crate) fn many(instances: u32, of: &str) -> Vec<u8> {
    let instances = (0..instances).map(|n| format!("(core instance $i{n} (instantiate $m))\n"));
    let text = format!(
        "(component
           (core module $m {of} (func (export \"run\") (result i32) i32.const 0))
           {}
           (func $run (result (result)) (canon lift (core func $i0 \"run\")))
           (instance $e (export \"run\" (func $run)))
           (export \"wasi:cli/run@0.2.0\" (instance $e)))",
        instances.collect::<String>()
    );
    wat::parse_str(text).unwrap()
}

/// Compiled by the compiler process's own code, once a guest and engine.
pub(crate) fn native(wasm: &[u8], grant: &EffectiveGrant) -> Arc<Vec<u8>> {
    type Compiled = Mutex<HashMap<(Vec<u8>, String), Arc<OnceLock<Arc<Vec<u8>>>>>>;
    static COMPILED: OnceLock<Compiled> = OnceLock::new();
    let kind = format!("{:?}", Native::of(grant));
    let place = {
        let mut compiled = COMPILED.get_or_init(Mutex::default).lock().unwrap();
        Arc::clone(compiled.entry((wasm.to_owned(), kind)).or_default())
    };
    Arc::clone(place.get_or_init(|| Arc::new(compile(wasm, grant).unwrap())))
}

pub(crate) fn repository() -> PathBuf {
    let me = Path::new(env!("CARGO_MANIFEST_DIR"));
    me.parent().unwrap().to_owned()
}

/// Builds the Rust guests where `cargo xtask build` builds its own; nothing to do when they are fresh.
fn built() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("guest-build");
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(repository().join("guest-examples"))
            .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
            .args([
                "--package",
                "hostile-job",
                "--package",
                "hostile-service",
                "--package",
                "hostile-handler",
                "--package",
                "uploader",
                "--package",
                "conformance-tasks",
            ])
            .env("CARGO_TARGET_DIR", &target);
        // Set for this package by the cargo that runs the tests.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
            build.env_remove(name);
        }
        let done = build.output().unwrap();
        assert!(
            done.status.success(),
            "the hostile guests do not build (they need `rustup target add {TARGET}`): {}",
            String::from_utf8_lossy(&done.stderr)
        );
        target.join(TARGET).join("release")
    });
    folder.clone()
}
