//! Ctrl-C and SIGTERM in the middle of the demo: every process it started is gone, and it says so.

use anyhow::{Context, Result, ensure};
use redan_kit::{Process, Programs};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// For an orderly stop of a server and three devices on a busy machine, the attack lab's end included.
const STOPPED_WITHIN: Duration = Duration::from_mins(2);

/// Plays the demo until a step was seen to hold, sends a signal into the next one, and looks for leftovers.
fn interrupt_after(step: &str, signal: Signal) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stage = folder.path().join("stage");
    let programs = Programs::find()?;
    let xtask = programs.device.with_file_name("xtask");
    ensure!(
        xtask.exists(),
        "{} is not built; run `cargo xtask test`",
        xtask.display()
    );
    let log = folder.path().join("demo.log");
    let mut demo = Command::new(xtask);
    demo.args(["demo", "--no-build", "--json", "--folder"])
        .arg(&stage)
        .process_group(0);
    let mut demo = Process::start("the demo", &mut demo, &log)?;
    loop {
        let line = demo.ready("{")?;
        ensure!(line.contains("\"ok\":true"), "{line}");
        if line.contains(&format!("\"step\":\"{step}\"")) {
            break;
        }
    }
    ensure!(
        !running_below(&stage)?.is_empty(),
        "nothing ran when the signal was sent"
    );
    if signal == Signal::INT {
        // As a terminal does it: the demo and every process it started are told at once.
        let group = i32::try_from(demo.id()).ok().and_then(Pid::from_raw);
        kill_process_group(group.context("a process id")?, signal)?;
    } else {
        demo.signal(signal)?;
    }
    let status = demo.wait(STOPPED_WITHIN)?;
    ensure!(!status.success(), "an interrupted demo ended with {status}");
    let left = running_below(&stage)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    let said = std::fs::read_to_string(&log)?;
    ensure!(
        said.contains("interrupted") && !said.contains("failed story"),
        "{said}"
    );
    Ok(())
}

/// Command lines of running processes that name a folder.
fn running_below(folder: &Path) -> Result<Vec<String>> {
    let name = folder.to_str().context("a temporary folder has a plain name")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) && !line.contains("xtask") {
            found.push(line);
        }
    }
    Ok(found)
}

#[test]
fn ctrl_c_while_devices_enrol_leaves_no_process() -> Result<()> {
    interrupt_after("control", Signal::INT)
}

#[test]
fn ctrl_c_in_the_middle_of_a_swap_under_load_leaves_no_process() -> Result<()> {
    interrupt_after("requests", Signal::INT)
}

#[test]
fn sigterm_while_a_release_rolls_out_leaves_no_process() -> Result<()> {
    interrupt_after("enrol", Signal::TERM)
}

#[test]
fn sigterm_in_the_middle_of_a_swap_under_load_leaves_no_process() -> Result<()> {
    interrupt_after("requests", Signal::TERM)
}
