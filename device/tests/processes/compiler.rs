//! Compile bombs: components that ask for much more work than they have bytes, given to the real compiler process.
//!
//! Attacker: whoever signs a component. Wanted each time: an answer of the closed set, within the budget of time and memory, and
//! never a dead process.
use redan_policy::{EffectiveGrant, intersect, parse_ask, parse_device, parse_fleet};
use redan_protocol::ipc::{Compile, Compiled};
use redan_protocol::{Code, Digest};
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, ExitStatus, Stdio};

/// What the compiler is given here, less than by default, so that the test is soon over.
const CPU_SECONDS: u64 = 4;
const MEMORY_MIB: u64 = 512;
/// What memory may grow between two looks, and what a process without a component has.
const MARGIN_MIB: u64 = 256;

pub(crate) fn grant() -> EffectiveGrant {
    let ask = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/bomb\"\nversion = \"1.0.0\"\nworld = \"wasi:cli/command@0.2\"\n";
    let fleet = "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = 1\n[subject]\npublishers = [\"acme\"]\nnames = [\"acme/*\"]\nworlds = [\"wasi:cli/command@0.2\"]\n";
    let device = "schema = \"redan.policy/1\"\nkind = \"device\"\nhardware = \"gateway\"\n[subject]\nnames = [\"acme/*\"]\n";
    intersect(
        &parse_ask("ask", ask).unwrap(),
        &parse_fleet("fleet", fleet).unwrap(),
        &parse_device("device", device).unwrap(),
    )
    .unwrap()
}

/// What came of one component.
struct Outcome {
    answer: Result<Vec<u8>, Code>,
    status: ExitStatus,
    /// The highest resident memory that was seen, MiB.
    peak: u64,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answer = self.answer.as_ref().map(Vec::len);
        write!(f, "{answer:?}, {}, at most {} MiB", self.status, self.peak)
    }
}

/// The device's own program as compiler, as the supervisor starts it; the shell puts the channel where a child finds it.
fn compile(wasm: &[u8], budget: &[&str]) -> Outcome {
    let (agent, compiler) = redan_channel::pair().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_redan-device"))
        .arg("compiler")
        .args(budget)
        .stdin(Stdio::from(compiler))
        .spawn()
        .unwrap();
    let status = std::fs::File::open(format!("/proc/{}/status", child.id())).unwrap();
    let job = Compile {
        digest: Digest::of(wasm),
        grant: grant().canonical_json(),
    };
    let component = redan_sealed::seal("component", wasm).unwrap();
    redan_channel::send(&agent, &job, &[component.as_fd()]).unwrap();
    let answer = std::thread::spawn(move || receive(&agent));
    let mut peak = 0;
    let ended = loop {
        peak = peak.max(memory_line(&status, "VmHWM:"));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::yield_now();
    };
    Outcome {
        answer: answer.join().unwrap(),
        status: ended,
        peak,
    }
}

fn receive(agent: &OwnedFd) -> Result<Vec<u8>, Code> {
    match redan_channel::recv::<Compiled>(agent) {
        Ok(received) => match received.message {
            Compiled::Done { length, .. } => {
                let mut native = vec![0; usize::try_from(length.get()).unwrap()];
                let file = std::fs::File::from(received.descriptors.into_iter().next().unwrap());
                file.read_exact_at(&mut native, 0).unwrap();
                Ok(native)
            }
            Compiled::Refused { code } => Err(code),
        },
        // What the agent makes of a compiler that ends without a word.
        Err(_) => Err(Code::CompilerFailed),
    }
}

/// Native code of a component that is no bomb.
pub(crate) fn compiled(wasm: &[u8]) -> Vec<u8> {
    compile(wasm, &[]).answer.unwrap()
}

/// A line of the kernel's about a process, in MiB; nothing when the process has ended.
pub(crate) fn memory_line(status: &std::fs::File, name: &str) -> u64 {
    let mut text = [0; 8192];
    let length = status.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(text.get(..length).unwrap());
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// A command around this much of a core module.
pub(crate) fn component(fields: &str) -> Vec<u8> {
    around("", fields)
}

fn around(before: &str, fields: &str) -> Vec<u8> {
    let text = format!(
        "(component {before}
           (core module $m {fields} (func (export \"run\") (result i32) i32.const 0))
           (core instance $i (instantiate $m))
           (func $run (result (result)) (canon lift (core func $i \"run\")))
           (instance $e (export \"run\" (func $run)))
           (export \"wasi:cli/run@0.2.0\" (instance $e)))"
    );
    wat::parse_str(text).unwrap()
}

/// So many times, with the number where the text has `{}`.
fn times(count: usize, text: &str) -> String {
    let (before, after) = text.split_once("{}").unwrap_or((text, ""));
    let numbered = text.contains("{}");
    let mut all = String::new();
    for n in 0..count {
        all.push_str(before);
        if numbered {
            write!(all, "{n}").unwrap();
        }
        all.push_str(after);
    }
    all
}

/// What can be much: each a few dozen kilobytes to a few megabytes.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    [first(), second()].concat()
}

/// The first half.
fn first() -> Vec<(&'static str, Vec<u8>)> {
    let function = |body: &str| {
        component(&format!(
            "(memory 1) (func (param i32) (result i32) (local i64) {body} local.get 0)"
        ))
    };
    let mix = "local.get 0 i32.load local.get 0 i32.mul i32.const 7 i32.div_u local.set 0 ";
    vec![
        ("one function of megabytes", function(&times(400_000, mix))),
        ("a million functions", component(&times(999_000, "(func)"))),
        (
            "functions that each do much",
            component(&format!(
                "(memory 1){}",
                times(20_000, &format!("(func (param i32) {} )", times(40, mix)))
            )),
        ),
        (
            "types by the hundred thousand",
            component(&times(
                100_000,
                "(type (func (param i32 i64 f32 f64) (result i32)))",
            )),
        ),
        (
            "data segments",
            component(&format!(
                "(memory 16){}",
                times(99_000, "(data (i32.const {}) \"x\")")
            )),
        ),
        (
            "element segments",
            component(&format!(
                "(func $f)(table 10 funcref){}",
                times(99_000, "(elem (i32.const 1) $f)")
            )),
        ),
        (
            "one branch table of a million",
            function(&format!(
                "(block local.get 0 br_table {} )",
                times(1_000_000, "0 ")
            )),
        ),
        (
            "branch tables, each wide",
            component(&times(
                50,
                &format!(
                    "(func (param i32) (block local.get 0 br_table {}))",
                    times(60_000, "0 ")
                ),
            )),
        ),
        (
            "blocks within blocks",
            function(&format!("{}{}", times(100_000, "block "), times(100_000, "end "))),
        ),
        (
            "loops within loops",
            function(&format!(
                "{}{}",
                times(20_000, "loop "),
                times(20_000, "local.get 0 br_if 0 end ")
            )),
        ),
    ]
}

/// The second half.
fn second() -> Vec<(&'static str, Vec<u8>)> {
    let function = |body: &str| {
        component(&format!(
            "(memory 1) (func (param i32) (result i32) (local i64) {body} local.get 0)"
        ))
    };
    vec![
        (
            "ifs within ifs, all values alive",
            function(&format!(
                "{}{}",
                times(5_000, "local.get 0 local.get 0 if (result i32) "),
                times(
                    5_000,
                    "local.get 0 else local.get 0 i32.const {} i32.add end i32.add local.set 0 "
                )
            )),
        ),
        (
            "locals, all of them used",
            component(&format!(
                "(func (local {}) {})",
                times(49_000, "i64 "),
                times(49_000, "i64.const 1 local.set {} ")
            )),
        ),
        (
            "values all alive at once",
            function(&format!(
                "{}{} drop",
                times(50_000, "local.get 0 i32.load "),
                times(49_999, "i32.add ")
            )),
        ),
        (
            "calls with a thousand arguments",
            component(&format!(
                "(func $f (param {})) (func {})",
                times(1_000, "i64 "),
                times(300, &format!("{} call $f ", times(1_000, "i64.const 1 ")))
            )),
        ),
        (
            "globals",
            component(&times(500_000, "(global i64 (i64.const 1))")),
        ),
        (
            "exports",
            component(&format!(
                "(func $f){}",
                times(200_000, "(export \"e{}\" (func $f))")
            )),
        ),
        (
            "vectors",
            function(&format!(
                "v128.const i64x2 1 2 {} drop",
                times(300_000, "v128.const i32x4 1 2 3 4 i32x4.mul ")
            )),
        ),
        (
            "core modules",
            around(
                &times(990, "(core module (func (param i64) (result i64) local.get 0))"),
                "",
            ),
        ),
        (
            "component types",
            around(
                &times(50_000, "(type (record (field \"a\" u32) (field \"b\" string)))"),
                "",
            ),
        ),
        (
            "components within components",
            around(&format!("{}{}", times(90, "(component "), times(90, ")")), ""),
        ),
    ]
}

#[test]
fn no_component_takes_more_than_the_compiler_may_have() {
    let budget = [
        format!("--cpu-seconds={CPU_SECONDS}"),
        format!("--memory-mib={MEMORY_MIB}"),
    ];
    let budget = budget.each_ref().map(String::as_str);
    let mut over = Vec::new();
    for (name, wasm) in bombs() {
        let length = wasm.len() >> 10;
        let outcome = compile(&wasm, &budget);
        println!("{name}: {length} KiB, {outcome:?}");
        assert!(outcome.status.success(), "{name}: {outcome:?}");
        assert!(
            matches!(
                outcome.answer,
                Ok(_) | Err(Code::CompileBudget | Code::MalformedComponent)
            ),
            "{name}: {outcome:?}"
        );
        assert!(outcome.peak <= MEMORY_MIB + MARGIN_MIB, "{name}: {outcome:?}");
        if outcome.answer == Err(Code::CompileBudget) {
            over.push(name);
        }
    }
    assert!(over.len() >= 2, "only {over:?} were bombs");
}

#[test]
fn a_component_as_large_as_pythons_is_compiled_within_the_budget() {
    let body = times(
        25,
        "local.get 0 i32.load local.get 0 i32.mul i32.const 7 i32.add local.set 0 local.get 0 if local.get 0 i32.const 1 i32.store end ",
    );
    let code = times(20_000, &format!("(func (param i32) {body})"));
    let data = format!("(memory 200) (data (i32.const 0) \"{}\")", "x".repeat(8 << 20));
    let wasm = component(&format!("{data}{code}"));
    assert!(wasm.len() > 18 << 20, "{} bytes", wasm.len());
    let outcome = compile(&wasm, &[]);
    println!("as large as Python's: {outcome:?}");
    assert!(outcome.answer.is_ok() && outcome.status.success(), "{outcome:?}");
}
