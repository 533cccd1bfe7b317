//! What does a job's whole start cost, from nothing to its end? Ours starts an executor's process, builds engine and pool, confines
//! itself, and is handed a component whose digest and native code's MAC were checked first; it links, runs and answers. The reference is
//! `wasmtime run` of the same component compiled before, which believes its file. Both are told when the job has ended.

use crate::request::answer;
use aws_lc_rs::{constant_time, hmac};
use redan_benches::fleet::{ASK_JOB, grant};
use redan_benches::{Asking, built, compare, each, tool};
use redan_channel::{pair, send};
use redan_jail::{Folders, Kind, Spec, confine, inherited, reserve, spawn};
use redan_protocol::ipc::{FromExecutor, SlotId, ToExecutor, WorkloadKind};
use redan_protocol::{ByteCount, ComponentName, Digest};
use redan_runtime::compiler::admit;
use redan_runtime::engine::{Native, Sizes, compiler_engine};
use redan_runtime::executor::Executor;
use redan_sealed::seal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// The first argument of this program when it is to become an executor.
pub(crate) const EXECUTOR: &str = "executor-process";
const TAG_LEN: usize = 32;
/// `SIGKILL`: an executor dies with whoever started it.
const KILL: i32 = 9;

pub(crate) fn bench(asking: &mut Asking) {
    let (Some(wasm), Some(wasmtime)) = (built("tick-1.0.0.wasm"), tool("wasmtime")) else {
        return;
    };
    reserve().unwrap();
    let data = TempDir::new().unwrap();
    let precompiled = data.path().join("tick.cwasm");
    let mut compile = Command::new(&wasmtime);
    compile.arg("compile").arg(&wasm).arg("-o").arg(&precompiled);
    assert!(compile.status().unwrap().success());
    let component = std::fs::read(&wasm).unwrap();
    let grant = grant(ASK_JOB).unwrap();
    let native = admit(&compiler_engine(Native::Plain).unwrap(), &component, &grant)
        .unwrap()
        .serialize()
        .unwrap();
    let (digest, key) = (
        Digest::of(&component),
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]),
    );
    let entry = data.path().join("entry");
    std::fs::write(&entry, [hmac::sign(&key, &native).as_ref(), &native].concat()).unwrap();
    let folder = data.path().join("data");
    std::fs::create_dir(&folder).unwrap();

    let ours = || {
        let (agent, of_agent) = pair().unwrap();
        let (_broker, of_broker) = pair().unwrap();
        let mut process = spawn(Spec {
            arguments: vec![EXECUTOR.into(), folder.clone().into_os_string()],
            descriptors: vec![of_agent, of_broker],
            environment: Vec::new(),
            with_parent: KILL,
        })
        .unwrap();
        assert_eq!(Digest::of(&std::fs::read(&wasm).unwrap()), digest);
        let bytes = std::fs::read(&entry).unwrap();
        let (tag, native) = bytes.split_at(TAG_LEN);
        constant_time::verify_slices_are_equal(hmac::sign(&key, native).as_ref(), tag).unwrap();
        let memory = seal("native", native).unwrap();
        let slot = SlotId(1);
        let load = ToExecutor::Load {
            slot,
            component: ComponentName::parse("acme/tick").unwrap(),
            digest,
            kind: WorkloadKind::Job,
            grant: grant.canonical_json(),
        };
        assert!(matches!(answer(&agent), FromExecutor::Ready { .. }));
        let share = ToExecutor::Memory {
            total: ByteCount::mib(1024),
        };
        send(&agent, &share, &[]).unwrap();
        send(&agent, &load, &[memory.as_fd()]).unwrap();
        assert_eq!(answer(&agent), FromExecutor::Loaded { slot });
        send(&agent, &ToExecutor::Run { slot }, &[]).unwrap();
        assert!(matches!(answer(&agent), FromExecutor::Probed { code: None, .. }));
        process.kill().unwrap();
        process.wait().unwrap();
    };
    let reference = || {
        let mut run = Command::new(&wasmtime);
        let ran = run
            .args(["run", "--allow-precompiled"])
            .arg(&precompiled)
            .output()
            .unwrap();
        assert!(ran.stdout.starts_with(b"tick at"), "{ran:?}");
    };
    compare(
        asking,
        "job, from nothing to its end",
        &mut |times| each(times, ours),
        ("wasmtime run, precompiled", &mut |times| each(times, reference)),
    );
}

/// What `redan-device executor` does.
pub(crate) fn become_executor(folder: &str) {
    let (agent, broker) = (inherited(3).unwrap(), inherited(4).unwrap());
    let data = std::fs::File::open(folder).unwrap();
    let prepared = Executor::prepare(&Sizes::default(), false).unwrap();
    let folders = Folders {
        data: Some(data.as_fd()),
        lent: &[],
    };
    let isolation = confine(Kind::Executor, folders, None).unwrap();
    // It ends with its channel.
    drop(prepared.run(agent, broker, PathBuf::from("."), isolation));
}
