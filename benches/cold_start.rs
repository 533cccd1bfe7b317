//! What do the checks of a cold start cost? Ours goes from the files on disk to an answered call: the component's digest,
//! the cache entry's MAC, a write-sealed memory file, its seals, one read, deserialise, capabilities and linker from the
//! grant, a store with every limit. The reference deserialises the same native code from memory and instantiates it.
//!
//! The agent's half (digest, MAC, sealing) is made here of the same primitives over the same bytes: the agent's own
//! functions are private to it.

use crate::sandbox::Sandbox;
use aws_lc_rs::{constant_time, hmac};
use redan_benches::{Asking, compare, each, figure, guest};
use redan_protocol::Digest;
use redan_sealed::{Sealed, seal};
use std::time::Duration;
use tempfile::TempDir;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2::bindings::CommandPre;

/// Functions beside the job's own: a component and native code of the size of a small service's.
const FUNCTIONS: u32 = 400;
const TAG_LEN: usize = 32;
/// Runs of which the slowest hundredth is told.
const RUNS: usize = 1_000;

pub(crate) fn bench(asking: &mut Asking) {
    let sandbox = Sandbox::new();
    let wasm = guest::command_with(FUNCTIONS).unwrap();
    let native = Component::new(&sandbox.engine, &wasm)
        .unwrap()
        .serialize()
        .unwrap();
    println!(
        "component {} KiB, native code {} KiB",
        wasm.len() / 1024,
        native.len() / 1024
    );
    let (digest, key) = (Digest::of(&wasm), hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]));
    let disk = TempDir::new().unwrap();
    let (component, entry) = (disk.path().join("component"), disk.path().join("entry"));
    std::fs::write(&component, &wasm).unwrap();
    let tag = hmac::sign(&key, &native);
    std::fs::write(&entry, [tag.as_ref(), &native].concat()).unwrap();

    let ours = || {
        // The agent.
        assert_eq!(Digest::of(&std::fs::read(&component).unwrap()), digest);
        let bytes = std::fs::read(&entry).unwrap();
        let (tag, native) = bytes.split_at(TAG_LEN);
        constant_time::verify_slices_are_equal(hmac::sign(&key, native).as_ref(), tag).unwrap();
        let memory = seal("native", native).unwrap();
        // The executor.
        let component = Sealed::read(&memory).unwrap().component(&sandbox.engine).unwrap();
        sandbox.call(&sandbox.linked(&component), &sandbox.open());
    };
    let unchecked = Sealed::read(seal("native", &native).unwrap()).unwrap();
    let bare = Linker::<()>::new(&sandbox.engine);
    let reference = || {
        let component = unchecked.component(&sandbox.engine).unwrap();
        let entry = CommandPre::new(bare.instantiate_pre(&component).unwrap()).unwrap();
        sandbox.bare_call(&entry);
    };
    percentiles(asking, &ours, &reference);
    compare(
        asking,
        "verified cold start",
        &mut |times| each(times, ours),
        ("deserialise and instantiate", &mut |times| each(times, reference)),
    );
}

/// How long the slowest of a hundred takes, from runs in turns.
fn percentiles(asking: &Asking, ours: &dyn Fn(), reference: &dyn Fn()) {
    let runs = if matches!(asking, Asking::Once) { 1 } else { RUNS };
    let (mut all, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        all.push(each(1, ours));
        beside.push(each(1, reference));
    }
    let slow = |mut times: Vec<Duration>| {
        times.sort();
        times[(times.len() * 99).div_ceil(100) - 1].as_secs_f64() * 1e6
    };
    let name = "verified cold start, 99th percentile";
    figure(
        asking,
        name,
        "µs",
        slow(all),
        ("deserialise and instantiate", slow(beside)),
    )
    .unwrap();
}
