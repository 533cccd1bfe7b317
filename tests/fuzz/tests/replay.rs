//! Every kept input, and thousands of small damages to valid ones, through every target.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use redan_fuzz::TARGETS;
use redan_fuzz::mutate::{Numbers, mutate};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn every_kept_input_keeps_the_properties() {
    for target in TARGETS {
        for (path, input) in corpus(target.name) {
            let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            assert!(ran.is_ok(), "{} breaks {}", path.display(), target.name);
        }
    }
}

#[test]
fn of_the_kept_entries_of_the_cache_only_the_one_sealed_for_this_key_is_taken() {
    let target = TARGETS.iter().find(|target| target.name == "cache").unwrap();
    let kept = corpus(target.name);
    assert!(kept.len() > 10, "{} entries are kept", kept.len());
    let taken = kept.iter().filter(|(_, input)| (target.run)(input));
    let taken: Vec<_> = taken.map(|(path, _)| path.file_name().unwrap()).collect();
    assert_eq!(taken, ["as-it-was-sealed"]);
}

#[test]
fn every_folder_of_kept_inputs_belongs_to_a_target() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        let known = TARGETS.iter().any(|target| name == target.name);
        assert!(known, "corpus/{} belongs to no target", name.display());
    }
}

#[test]
fn every_seed_is_accepted() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} begins from nothing", target.name);
        for (number, seed) in seeds.iter().enumerate() {
            assert!((target.run)(seed), "seed {number} of {} is refused", target.name);
        }
    }
}

#[test]
fn damaged_inputs_keep_the_properties() {
    for target in TARGETS {
        let mut inputs = (target.seeds)();
        inputs.extend(corpus(target.name).into_iter().map(|(_, bytes)| bytes));
        let mut refused = false;
        for number in 0..target.mutations {
            let mut numbers = Numbers::new(u64::from(number) + 1);
            let pick = |numbers: &mut Numbers| inputs[numbers.below(inputs.len())].clone();
            let (one, other) = (pick(&mut numbers), pick(&mut numbers));
            let input = mutate(&one, &other, &mut numbers);
            let Ok(accepted) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) else {
                let path = std::env::temp_dir().join(format!("redan-fuzz-{}-{number}", target.name));
                std::fs::write(&path, &input).unwrap();
                panic!(
                    "mutation {number} breaks {}; the input is in {}: mend it and keep the input in corpus/{0}",
                    target.name,
                    path.display()
                );
            };
            refused |= !accepted;
        }
        assert!(refused, "{} refuses nothing", target.name);
    }
}
