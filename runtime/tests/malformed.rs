//! Damaged components by the thousand: each is refused with a code or is a component, nothing panics, and memory stays.
//!
//! A process of its own, so that its memory is that of the refusals. More of it: `tests/fuzz`, target `component`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use redan_policy::{EffectiveGrant, intersect, parse_ask, parse_device, parse_fleet};
use redan_protocol::Code;
use redan_runtime::compiler::admit;
use redan_runtime::engine::{Native, compiler_engine};
use std::path::Path;

const CASES: u64 = 50_000;
/// What all cases together may add to the process's highest memory, MiB. Inputs have a few kilobytes each; what is valid is compiled.
const GROWTH_MIB: u64 = 64;

/// Numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % most.max(1)
    }
}

/// One to eight damages: bytes changed, cut out, doubled, brought from another component, or made numbers that are too large.
fn damage(random: &mut Random, of: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = of.get(random.below(of.len())).unwrap().clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len());
        let end = (at + random.below(40)).min(bytes.len());
        let range = at..end;
        let instead = match random.below(6) {
            0 => bytes
                .get(at)
                .map(|byte| byte ^ (1 << random.below(8)))
                .into_iter()
                .collect(),
            1 => vec![u8::try_from(random.below(256)).unwrap()],
            2 => Vec::new(),
            3 => bytes.get(range.clone()).unwrap().repeat(2),
            4 => {
                let other = of.get(random.below(of.len())).unwrap();
                let from = random.below(other.len());
                let to = (from + random.below(200)).min(other.len());
                other.get(from..to).unwrap().to_vec()
            }
            _ => vec![0xff, 0xff, 0xff, 0xff, 0x0f],
        };
        let range = if instead.len() == 1 {
            at..(at + 1).min(bytes.len())
        } else {
            range
        };
        bytes.splice(range, instead);
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

fn grant() -> EffectiveGrant {
    let ask = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/any\"\nversion = \"1.0.0\"\nworld = \"wasi:cli/command@0.2\"\n";
    let fleet = "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = 1\n[subject]\npublishers = [\"acme\"]\nnames = [\"acme/*\"]\nworlds = [\"wasi:cli/command@0.2\"]\n";
    let device = "schema = \"redan.policy/1\"\nkind = \"device\"\nhardware = \"gateway\"\n[subject]\nnames = [\"acme/*\"]\n";
    intersect(
        &parse_ask("ask", ask).unwrap(),
        &parse_fleet("fleet", fleet).unwrap(),
        &parse_device("device", device).unwrap(),
    )
    .unwrap()
}

/// All guests in the text format.
fn guests() -> Vec<Vec<u8>> {
    let me = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::fs::read_dir(me.join("../guest-examples/hostile")).unwrap();
    let mut texts: Vec<_> = folder
        .map(|entry| entry.unwrap().path().join("guest.wat"))
        .filter(|path| path.exists())
        .collect();
    texts.push(me.join("tests/runtime/guests/well-behaved.wat"));
    texts.sort();
    texts.iter().map(|path| wat::parse_file(path).unwrap()).collect()
}

/// `VmHWM` of this process, MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn damaged_components_are_refused_with_a_code_and_cost_no_memory() {
    let (engine, grant, guests) = (compiler_engine(Native::Plain).unwrap(), grant(), guests());
    for guest in &guests {
        assert_eq!(
            admit(&engine, guest, &grant).map(drop),
            Ok(()),
            "a guest as it is"
        );
    }
    let mut random = Random(0x7265_6461_6e00_0001);
    let before = peak();
    let (mut taken, mut refused) = (0, 0);
    for case in 0..CASES {
        match admit(&engine, &damage(&mut random, &guests), &grant) {
            Ok(_) => taken += 1,
            Err(
                Code::MalformedComponent
                | Code::CoreModule
                | Code::UndeclaredImport
                | Code::MissingExport
                | Code::WasiNotOffered,
            ) => refused += 1,
            Err(code) => panic!("case {case} came to {code:?}"),
        }
    }
    let grown = peak().saturating_sub(before);
    println!("{taken} taken, {refused} refused, {grown} MiB");
    assert!(
        taken > 10 && refused > CASES / 2,
        "{taken} taken, {refused} refused"
    );
    assert!(grown <= GROWTH_MIB, "{grown} MiB for {CASES} small components");
}
