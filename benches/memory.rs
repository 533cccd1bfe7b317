//! How much memory do instances and a whole device take? Live instances are counted by what the process grows by while they are held,
//! ours in the store of a call under its grant, the reference in a bare one. A device is a real one with the demonstration's two
//! workloads (of the programs that `cargo xtask build` made; the device's own as released, where `target/release` has it), and its figure what
//! its agent and executor hold.

use crate::sandbox::Sandbox;
use redan_benches::{Asking, built, figure};
use redan_kit::{Programs, Stage};
use redan_runtime::engine::Sizes;
use std::fs::read_to_string;
use wasmtime::component::Component;

/// Instances held at once.
const HELD: u32 = 1_000;
/// The most a device may take, MiB: the goal.
const DEVICE_MIB: f64 = 40.0;

pub(crate) fn bench(asking: &mut Asking) {
    instances(asking);
    if let Err(error) = device(asking) {
        println!("left out: the memory of a device ({error:#})");
    }
}

fn instances(asking: &Asking) {
    let Some(wasm) = built("tick-1.0.0.wasm") else {
        return;
    };
    let held = if matches!(asking, Asking::Once) { 2 } else { HELD };
    let count = |under_grant: bool| {
        // An engine of its own: what was once touched in a pool stays.
        let sizes = Sizes {
            instances: held,
            ..Sizes::default()
        };
        let sandbox = Sandbox::sized(&sizes);
        let component = Component::new(&sandbox.engine, std::fs::read(&wasm).unwrap()).unwrap();
        let (linked, capabilities) = (sandbox.linked(&component), sandbox.open());
        let linked_bare = sandbox.linked_plain(&component);
        // Without its first instance, nothing that is made once.
        let first = sandbox.hold(&linked, &capabilities);
        let before = resident("self");
        let mut all = Vec::new();
        let mut bare = Vec::new();
        for _ in 1..held {
            if under_grant {
                all.push(sandbox.hold(&linked, &capabilities));
            } else {
                bare.push(sandbox.hold_bare(&linked_bare));
            }
        }
        let grown = resident("self").saturating_sub(before).max(1);
        drop((first, all, bare));
        f64::from(held - 1) * 1_048_576.0 / f64::from(u32::try_from(grown).unwrap())
    };
    let (ours, bare) = (count(true), count(false));
    figure(asking, "live instances in a GiB", "", ours, ("bare store", bare)).unwrap();
}

/// What a process holds, KiB.
fn resident(process: &str) -> u64 {
    held(
        &read_to_string(format!("/proc/{process}/status")).unwrap(),
        "VmRSS:",
    )
}

/// A line of `proc_pid_status(5)`, KiB.
fn held(status: &str, what: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn device(asking: &Asking) -> anyhow::Result<()> {
    if matches!(asking, Asking::Once) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut programs = Programs::find()?;
    let release = programs.device.with_file_name("../release/redan-device");
    if release.exists() {
        programs.device = release;
    }
    let mut stage = Stage::new(programs, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let supervisor = stage.device_mut("press-1")?.process()?.id();
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let status = read_to_string(entry.path().join("status")).unwrap_or_default();
        let line = read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let kind = line.split('\0').nth(1).unwrap_or_default();
        if status.contains(&format!("PPid:\t{supervisor}\n")) && ["agent", "executor"].contains(&kind) {
            // The rest is pages of the one program that both of them are: they are there once, and counted twice.
            let (all, own) = (held(&status, "VmRSS:"), held(&status, "RssAnon:"));
            println!("{kind}: {all} KiB, of them its own {own} KiB");
            sum += all;
        }
    }
    stage.stop()?;
    let mib = f64::from(u32::try_from(sum)?) / 1024.0;
    figure(
        asking,
        "device memory, agent and executor",
        "MiB",
        mib,
        ("goal", DEVICE_MIB),
    )
}
