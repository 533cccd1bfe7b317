//! Guests that want much memory, in the real executor process: what it takes is measured from outside.
//!
//! Attacker: a workload. Wanted: the limit's code, the same process alive, and its memory no more than the grant plus a tenth.

use crate::compiler::{compiled, component, memory_line};
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::{FromExecutor, SlotId, ToExecutor, WorkloadKind};
use redan_protocol::report::Health;
use redan_protocol::{ByteCount, Code, Digest, Millis};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

/// What the grant has.
const TOTAL_MIB: u64 = 64;
/// Beside guests' memory: what the pool keeps resident of each place that was used, native code, threads' stacks.
const MARGIN_MIB: u64 = 24;

/// A running executor, as the supervisor starts it, and its agent's end.
struct Executor {
    child: Child,
    agent: OwnedFd,
    status: File,
    next: u32,
    _broker: OwnedFd,
    data: std::path::PathBuf,
}

impl Executor {
    fn start() -> Self {
        let data = std::env::temp_dir().join(format!("redan-executor-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        let (agent, far) = redan_channel::pair().unwrap();
        let (broker, far_broker) = redan_channel::pair().unwrap();
        let child = Command::new("sh")
            .args(["-c", "exec 3<&0 4<&1 </dev/null >/dev/null; exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_redan-device"))
            .args(["executor", "--publisher", "acme", "--data"])
            .arg(&data)
            .stdin(Stdio::from(far))
            .stdout(Stdio::from(far_broker))
            .spawn()
            .unwrap();
        let status = File::open(format!("/proc/{}/status", child.id())).unwrap();
        let mut executor = Self {
            child,
            agent,
            status,
            next: 0,
            _broker: broker,
            data,
        };
        assert!(matches!(executor.hear(), FromExecutor::Ready { .. }));
        let total = ByteCount::mib(1024);
        executor.say(&ToExecutor::Memory { total });
        executor
    }

    fn say(&self, order: &ToExecutor) {
        redan_channel::send(&self.agent, order, &[]).unwrap();
    }

    fn hear(&mut self) -> FromExecutor {
        loop {
            match redan_channel::recv::<FromExecutor>(&self.agent).unwrap().message {
                FromExecutor::Signals { .. } => {}
                answer => return answer,
            }
        }
    }

    fn load(&mut self, wasm: &[u8], grant: &EffectiveGrant) -> Result<SlotId, Code> {
        self.next += 1;
        let order = ToExecutor::Load {
            slot: SlotId(self.next),
            component: grant.component.clone(),
            digest: Digest::of(wasm),
            kind: WorkloadKind::Job,
            grant: grant.canonical_json(),
        };
        let native = redan_sealed::seal("native", &compiled(wasm)).unwrap();
        redan_channel::send(&self.agent, &order, &[native.as_fd()]).unwrap();
        match self.hear() {
            FromExecutor::Loaded { slot } => Ok(slot),
            FromExecutor::Failed { code, .. } => Err(code),
            other => panic!("{other:?} is no answer to a load"),
        }
    }

    fn run(&mut self, slot: SlotId) -> Result<(), Code> {
        self.say(&ToExecutor::Run { slot });
        match self.hear() {
            FromExecutor::Probed {
                health: Health::Healthy,
                ..
            } => Ok(()),
            FromExecutor::Probed { code: Some(code), .. } | FromExecutor::Failed { code, .. } => Err(code),
            other => panic!("{other:?} is no answer to a run"),
        }
    }

    /// Resident memory now, and the most it ever was, MiB.
    fn memory(&self) -> (u64, u64) {
        let read = |name| memory_line(&self.status, name);
        (read("VmRSS:"), read("VmHWM:"))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// Grows by a megabyte and writes to all of it, until it is refused.
const GROWS: &str = "(memory 1) (func $grow (local $at i32)
    (loop $again
        (local.set $at (memory.size))
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (memory.fill (i32.shl (local.get $at) (i32.const 16)) (i32.const 1) (i32.const 0x100000))
        (br $again)))";

#[test]
fn an_executor_takes_no_more_memory_than_its_grants_whatever_its_guests_want() {
    let mut grant = crate::compiler::grant();
    grant.limits.memory_total = ByteCount::mib(TOTAL_MIB);
    grant.limits.cpu_per_call = Millis::seconds(60);
    grant.limits.wall_call = Millis::seconds(60);
    let mut executor = Executor::start();
    let harmless = executor.load(&component(""), &grant).unwrap();
    assert_eq!(executor.run(harmless), Ok(()));
    let (before, _) = executor.memory();
    let grows = component(&format!("{GROWS} (start $grow)"));
    let eight = component(&format!(
        "{} (func $fill {}) (start $fill)",
        "(memory 1)".repeat(8),
        (0..8).map(|n| format!("(if (i32.eq (memory.grow {n} (i32.const 144)) (i32.const -1)) (then unreachable)) (memory.fill {n} (i32.const 0) (i32.const 1) (i32.const 0x900000))")).collect::<Vec<_>>().concat()
    ));
    let tables = component(&format!(
        "{} (func $fill (loop (if (i32.eq (table.grow 0 (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable)) (br 0))) (start $fill)",
        "(table 0 funcref)".repeat(8)
    ));
    for (name, wasm, code) in [
        ("one memory that grows", &grows, Code::MemoryLimit),
        ("eight memories that grow", &eight, Code::MemoryLimit),
        ("a table that grows", &tables, Code::TableLimit),
    ] {
        let slot = executor.load(wasm, &grant).unwrap();
        for _ in 0..5 {
            assert_eq!(executor.run(slot), Err(code), "{name}");
        }
        let (_, most) = executor.memory();
        println!("{name}: {before} MiB before, {most} MiB at most");
        assert!(
            most <= before + TOTAL_MIB + TOTAL_MIB / 10 + MARGIN_MIB,
            "{name}: {before} MiB before, {most} MiB at most"
        );
    }
    let hundred = component(&"(memory 1)".repeat(100));
    assert_eq!(executor.load(&hundred, &grant), Err(Code::MemoryLimit));
    assert_eq!(executor.run(harmless), Ok(()), "and others are served");
    let (after, _) = executor.memory();
    println!("{after} MiB afterwards");
    assert!(
        after <= before + MARGIN_MIB,
        "{before} MiB before, {after} MiB afterwards"
    );
}
