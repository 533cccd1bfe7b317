//! Drives one target of `redan-fuzz`, named by `REDAN_FUZZ`, with libFuzzer. Valid inputs contain keys of this process, so they are offered
//! from inside: now and then a mutation begins from one of them.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use redan_fuzz::{TARGETS, Target};
use std::sync::OnceLock;

/// One mutation in so many begins from a valid input.
const FROM_A_SEED: u32 = 16;

fn chosen() -> &'static (Target, Vec<Vec<u8>>) {
    static CHOSEN: OnceLock<(Target, Vec<Vec<u8>>)> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("REDAN_FUZZ").unwrap_or_default();
        let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("error: set REDAN_FUZZ to one of {}", names.join(", "));
            std::process::exit(2);
        };
        (*target, (target.seeds)())
    })
}

fuzz_target!(|input: &[u8]| {
    (chosen().0.run)(input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let seeds = &chosen().1;
    let mut size = size;
    if seed % FROM_A_SEED == 0 {
        let valid = &seeds[(seed / FROM_A_SEED) as usize % seeds.len()];
        size = valid.len().min(max_size);
        data[..size].copy_from_slice(&valid[..size]);
    }
    fuzzer_mutate(data, size, max_size)
});
