//! The guests: Rust ones built from `guest-examples/hostile`, text ones read from there and from `guests/`.

use crate::device::compile;
use redan_policy::EffectiveGrant;
use redan_runtime::engine::Native;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

include!("../../../guest-examples/built.rs");

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
    std::fs::read(built().join("tasks.wasm")).unwrap()
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

fn built() -> &'static Path {
    all_built(&[
        "hostile-job",
        "hostile-service",
        "hostile-handler",
        "uploader",
        "tasks",
    ])
}
