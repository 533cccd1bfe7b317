//! Writes guests that nobody thought of, made by wasm-smith from numbered seeds: a line each, `kind seed hex`.
//!
//! `cargo run --locked --release > ../../../runtime/tests/runtime/smith.txt`; the same seeds are the same lines. What becomes of them in the executor:
//! `runtime/tests/runtime/smith.rs`.

use arbitrary::{Arbitrary, Unstructured};
use wasm_smith::{Component, Config, Module};

/// Guests that are kept, of each kind.
const MODULES: u64 = 160;
const COMPONENTS: u64 = 40;
/// Bytes of chance for one guest, and the longest guest that is kept.
const CHANCE: usize = 4_096;
const LENGTH_MAX: usize = 1_536;

/// `(module (func (export "run") (result i32) unreachable))`: what a module has to offer to be called. The memory is no part of it.
const EXPORTS: &[u8] =
    b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x07\x07\x01\x03run\0\0\x0a\x05\x01\x03\0\0\x0b";

/// Chance from a seed (xorshift64*).
fn chance(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..CHANCE).map(|_| next()).collect()
}

/// Small guests of what our engine takes. Every eighth may have what it does not take: garbage collection, exceptions, threads.
fn config(seed: u64) -> Config {
    let wild = seed % 8 == 0;
    Config {
        // Half of them do what traps, and are over soon; half cannot, and run until they are stopped.
        disallow_traps: seed % 2 == 0,
        exceptions_enabled: wild,
        gc_enabled: wild,
        memory64_enabled: wild,
        // With them comes `externref`, which needs garbage collection in wasmtime.
        reference_types_enabled: wild,
        relaxed_simd_enabled: wild,
        threads_enabled: wild,
        max_imports: 0,
        max_funcs: 6,
        max_globals: 6,
        max_instructions: 60,
        max_memories: 1 + (seed % 3) as usize,
        max_memory32_bytes: 64 << 20,
        max_tables: 1 + usize::from(wild),
        max_table_elements: 20_000,
        max_data_segments: 4,
        max_element_segments: 4,
        max_types: 8,
        max_components: 2,
        max_modules: 2,
        max_instances: 2,
        max_nesting_depth: 3,
        ..Config::default()
    }
}

/// The first so many seeds that make something small enough to keep.
fn print(kind: char, count: u64, make: impl Fn(u64) -> Option<Vec<u8>>) {
    let made = (1..).filter_map(|seed| Some((seed, make(seed)?)));
    let small = made.filter(|(_, bytes)| bytes.len() <= LENGTH_MAX);
    for (seed, bytes) in small.take(count as usize) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{kind} {seed} {hex}");
    }
}

fn main() {
    print('m', MODULES, |seed| {
        let config = Config {
            exports: Some(EXPORTS.to_vec()),
            ..config(seed)
        };
        let chance = chance(seed);
        Module::new(config, &mut Unstructured::new(&chance))
            .ok()
            .map(|module| module.to_bytes())
    });
    print('c', COMPONENTS, |seed| {
        let config = Config {
            max_imports: 4,
            ..config(seed)
        };
        let chance = chance(seed);
        let mut chance = Unstructured::new(&chance);
        // Some chance goes first, or neighbours look alike.
        u8::arbitrary(&mut chance).ok()?;
        Component::new(config, &mut chance)
            .ok()
            .map(|component| component.to_bytes())
    });
}
