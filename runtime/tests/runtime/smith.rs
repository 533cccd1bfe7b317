//! Guests that nobody thought of: `smith.txt`, made by wasm-smith (`tests/fuzz/smith`), a line each, `kind seed hex`. Modules offer a `run` and
//! may have a start function; components are whatever wasm-smith makes of one. All go the way of any guest, under a tight grant that counts
//! fuel, so that the outcome of a seed is the same each time.

use crate::device::Device;
use crate::grants;
use redan_policy::EffectiveGrant;
use redan_policy::grant::World;
use redan_protocol::{ByteCount, Code, Millis};
use redan_runtime::compiler::{admit, surface};
use redan_runtime::engine::{Native, compiler_engine};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wasmparser::{Parser, Payload};
use wasmtime::Engine;

/// A component begins with this (component model, binary format: preamble).
const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";

/// One line of the file.
struct Made {
    /// The line without its bytes: what a failure names.
    name: String,
    module: bool,
    bytes: Vec<u8>,
}

fn made() -> Vec<Made> {
    let lines = include_str!("smith.txt").lines();
    let made = lines.map(|line| {
        let (name, digits) = line.rsplit_once(' ').unwrap();
        let digits = digits.as_bytes().chunks(2);
        let bytes = digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap());
        Made {
            name: name.to_owned(),
            module: name.starts_with("m "),
            bytes: bytes.collect(),
        }
    });
    made.collect()
}

/// Whether a module has a start function.
fn starts(module: &[u8]) -> bool {
    let mut parts = Parser::new(0).parse_all(module);
    parts.any(|part| matches!(part, Ok(Payload::StartSection { .. })))
}

/// A component in the text format whose first part is the empty module or component, with `part` in the place of that.
fn with_first(part: &[u8], text: &str) -> Vec<u8> {
    let wasm = wat::parse_str(text).unwrap();
    let rest = wasm.strip_prefix(PREAMBLE).unwrap();
    // Section id, length, and eight bytes of preamble.
    let (empty, rest) = rest.split_at(10);
    assert!(
        [1, 4].contains(&empty[0]) && empty[1..6] == *b"\x08\0asm",
        "{text} begins with something empty"
    );
    let mut wasm = [PREAMBLE, &empty[..1]].concat();
    let mut length = part.len();
    while length > 0x7f {
        wasm.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    wasm.push(u8::try_from(length).unwrap());
    [wasm.as_slice(), part, rest].concat()
}

const RUN: &str = "(func $run (result (result)) (canon lift (core func $i \"run\")))
    (instance $e (export \"run\" (func $run)))
    (export \"wasi:cli/run@0.2.0\" (instance $e))";

/// A job whose `run` is that of the module.
fn job_of(module: &[u8]) -> Vec<u8> {
    let text = format!("(component (core module) (core instance $i (instantiate 0)) {RUN})");
    with_first(module, &text)
}

/// A job that succeeds, with the component in it: instantiated where it needs nothing.
fn job_around(component: &[u8]) -> Vec<u8> {
    let needs_nothing = surface(component).is_some_and(|(imports, _)| imports.is_empty());
    let instance = if needs_nothing {
        "(instance (instantiate 0))"
    } else {
        ""
    };
    let text = format!(
        "(component (component) {instance}
           (core module $m (func (export \"run\") (result i32) i32.const 0))
           (core instance $i (instantiate $m)) {RUN})"
    );
    with_first(component, &text)
}

fn tight() -> EffectiveGrant {
    let mut grant = grants::bare("acme/smith", World::Command);
    grant.limits.memory_total = ByteCount::mib(1);
    grant.limits.table_elements = 100;
    grant.limits.fuel_per_call = 100_000;
    grant
}

/// How far a guest came, and what it came to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Came {
    Refused(Code),
    NotLinked(Code),
    Ran(Result<(), Code>),
}

fn send(device: &mut Device, engine: &Engine, wasm: &[u8], grant: &EffectiveGrant) -> Came {
    let compiled = admit(engine, wasm, grant)
        .and_then(|component| component.serialize().map_err(|_| Code::CompilerFailed));
    let native = match compiled {
        Ok(native) => native,
        Err(code) => return Came::Refused(code),
    };
    let slot = match device.load_native(&native, grant) {
        Ok(slot) => slot,
        Err(code) => return Came::NotLinked(code),
    };
    let ran = device.run(slot);
    device.unload(slot, Millis::seconds(60));
    Came::Ran(ran)
}

/// Whether this is an end that such a guest may come to. None of them imports anything that the host has.
fn is_an_end(came: Came) -> bool {
    match came {
        Came::Refused(code) => [
            Code::MalformedComponent,
            Code::UndeclaredImport,
            Code::MissingExport,
        ]
        .contains(&code),
        Came::NotLinked(code) => [Code::MemoryLimit, Code::TableLimit, Code::InstanceLimit].contains(&code),
        Came::Ran(Ok(())) => true,
        Came::Ran(Err(code)) => [
            Code::Trapped,
            Code::JobFailed,
            Code::FuelLimit,
            Code::StackLimit,
            Code::MemoryLimit,
            Code::TableLimit,
        ]
        .contains(&code),
    }
}

#[test]
fn guests_that_nobody_thought_of_end_with_a_code_and_harm_nobody() {
    let (engine, grant) = (compiler_engine(Native::Metered).unwrap(), tight());
    let mut device = Device::start();
    let (mut tally, mut started): (BTreeMap<Came, u32>, u32) = (BTreeMap::new(), 0);
    for (number, made) in made().iter().enumerate() {
        let jobs = if made.module {
            vec![job_of(&made.bytes)]
        } else {
            vec![made.bytes.clone(), job_around(&made.bytes)]
        };
        for wasm in jobs {
            let came = catch_unwind(AssertUnwindSafe(|| send(&mut device, &engine, &wasm, &grant)));
            let came = came.unwrap_or_else(|_| panic!("seed `{}`: a panic", made.name));
            assert!(is_an_end(came), "seed `{}`: {came:?}", made.name);
            *tally.entry(came).or_default() += 1;
            started += u32::from(made.module && starts(&made.bytes) && matches!(came, Came::Ran(_)));
        }
        if number % 20 == 0 {
            device.serves_others();
        }
    }
    device.serves_others();
    let sum = |of: &[Came]| -> u32 { of.iter().filter_map(|came| tally.get(came)).sum() };
    let limits = [
        Code::FuelLimit,
        Code::StackLimit,
        Code::MemoryLimit,
        Code::TableLimit,
    ];
    let limited = sum(&limits.map(|code| Came::Ran(Err(code))));
    let done = sum(&[Came::Ran(Ok(()))]);
    assert!(limited >= 60, "{limited} came to a limit: {tally:?}");
    assert!(done >= 20, "{done} ended well: {tally:?}");
    assert!(
        started >= 5,
        "{started} with a start function were instantiated: {tally:?}"
    );
}
