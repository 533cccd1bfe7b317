//! Components built for any patch release of WASI 0.2, and what is not 0.2.

use crate::{ours, reference};
use redan_protocol::Code;

/// A command that imports one interface of one version, with a function of it, and exports `wasi:cli/run` of that version.
fn built_for(version: &str, interface: &str, function: &str) -> Vec<u8> {
    let text = format!(
        "(component
           (import \"{interface}@{version}\" (instance {function}))
           (core module $m (func (export \"run\") (result i32) i32.const 0))
           (core instance $i (instantiate $m))
           (func $run (result (result)) (canon lift (core func $i \"run\")))
           (instance $e (export \"run\" (func $run)))
           (export \"wasi:cli/run@{version}\" (instance $e)))"
    );
    wat::parse_str(text).unwrap()
}

const INTERFACES: [(&str, &str); 4] = [
    (
        "wasi:clocks/monotonic-clock",
        "(export \"resolution\" (func (result u64)))",
    ),
    (
        "wasi:cli/environment",
        "(export \"get-arguments\" (func (result (list string))))",
    ),
    (
        "wasi:random/random",
        "(export \"get-random-u64\" (func (result u64)))",
    ),
    (
        "wasi:random/insecure-seed",
        "(export \"insecure-seed\" (func (result (tuple u64 u64))))",
    ),
];

#[test]
fn every_patch_release_of_wasi_0_2_links_older_and_newer_than_this_one() {
    for patch in (0..=12).chain([13, 99]) {
        for (interface, function) in INTERFACES {
            let wasm = built_for(&format!("0.2.{patch}"), interface, function);
            assert!(reference::links(&wasm), "{interface} 0.2.{patch}");
            assert_eq!(ours::links(&wasm), Ok(()), "{interface} 0.2.{patch}");
        }
    }
}

#[test]
fn drafts_and_later_releases_of_wasi_are_refused_by_name() {
    let (interface, function) = INTERFACES[0];
    for (version, code) in [
        ("0.2.0-rc-2023-11-10", Code::UndeclaredImport),
        ("0.3.0", Code::WasiNotOffered),
        ("0.3.0-rc-2025-09-16", Code::WasiNotOffered),
        ("0.1.0", Code::UndeclaredImport),
        ("1.0.0", Code::UndeclaredImport),
    ] {
        let wasm = built_for(version, interface, function);
        assert_eq!(ours::links(&wasm), Err(code), "{version}");
    }
}
