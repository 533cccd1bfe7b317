//! A device and a server as a service manager runs them: told when they run, and with no more privileges than their units give.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::await_that;
use redan_kit::traffic::get;
use redan_kit::{Programs, Stage};
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
/// The service's user, of no name.
const USER: u32 = 61_234;
/// The unit's `CapabilityBoundingSet=` and `AmbientCapabilities=`, as setpriv(1) writes them and as the kernel shows them.
const CAPABILITIES: &str = "-all,+chown,+kill,+setgid,+setuid";
const SHOWN: &str = "00000000000000e1";

/// What a service manager hears on its socket.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Self(socket))
    }

    /// Waits until this state was told.
    fn await_state(&self, wanted: &str) -> Result<()> {
        let mut packet = [0; 4096];
        loop {
            let length = self
                .0
                .recv(&mut packet)
                .with_context(|| format!("{wanted} was not told"))?;
            let told = String::from_utf8_lossy(packet.get(..length).unwrap_or_default()).into_owned();
            if told.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
    }
}

#[test]
fn a_service_manager_is_told_when_a_device_runs_and_that_it_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    stage.prepare_device("press-1")?;
    let socket = folder.path().join("notify");
    let manager = Manager::listen(&socket)?;
    let mut device = Command::new(&stage.programs.device);
    device.env("NOTIFY_SOCKET", &socket);
    stage.start_device_by("press-1", device)?;
    manager.await_state("READY=1")?;
    // Said by the agent's main loop, and passed on.
    manager.await_state("WATCHDOG=1")?;
    manager.await_state("WATCHDOG=1")?;
    // Nor is it left alone with a device that begins again by itself.
    let supervisor = stage.device_mut("press-1")?.process()?.id();
    let agent = crate::canary::memory::processes(supervisor)?["agent"];
    let agent = rustix::process::Pid::from_raw(i32::try_from(agent)?).context("a process")?;
    rustix::process::kill_process(agent, rustix::process::Signal::KILL)?;
    manager.await_state("STATUS=beginning again: a process died")?;
    manager.await_state("STATUS=running")?;
    stage.device_mut("press-1")?.stop()?;
    manager.await_state("STOPPING=1")
}

#[test]
fn a_service_manager_is_told_when_a_server_listens_and_that_it_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    stage.control()?.stop()?;
    let socket = folder.path().join("notify");
    let manager = Manager::listen(&socket)?;
    let mut serve = Command::new(&stage.programs.control);
    serve
        .args(["serve", "--config"])
        .arg(folder.path().join("control.toml"))
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "200000");
    let mut server = redan_kit::Process::start("redan-control", &mut serve, &folder.path().join("log"))?;
    manager.await_state("READY=1")?;
    manager.await_state("WATCHDOG=1")?;
    manager.await_state("WATCHDOG=1")?;
    server.stop()?;
    manager.await_state("STOPPING=1")
}

/// One line of a process' status file.
fn status(process: &str, field: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    Ok(line.with_context(|| format!("no {field}"))?.trim().to_owned())
}

/// Processes below one, by their kind: user and capabilities.
fn processes_below(parent: u32) -> Result<BTreeMap<String, (String, String)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Others come and go while this looks.
        if status(&name, "PPid:").is_ok_and(|id| id == parent.to_string()) {
            let line = std::fs::read(format!("/proc/{name}/cmdline"))?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let kind = line.split('\0').nth(1).unwrap_or_default().to_owned();
            let users = status(&name, "Uid:")?;
            let user = users.split_whitespace().nth(1).unwrap_or_default().to_owned();
            let mut capabilities = Vec::new();
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                capabilities.push(status(&name, set)?);
            }
            found.insert(kind, (user, capabilities.join(" ")));
        }
    }
    Ok(found)
}

/// Gives a folder and what is in it to a user.
fn give(path: &Path, user: u32) -> Result<()> {
    chown(path, Some(user), Some(user))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}

#[test]
fn under_its_units_privileges_each_kind_of_process_has_a_user_of_its_own_and_no_capability() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root can give the unit's privileges");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    // Where the other user can reach it.
    let program = folder.path().join("redan-device");
    std::fs::copy(&stage.programs.device, &program)?;
    stage.play_first_release(&["press-1"])?;
    stage.device_mut("press-1")?.stop()?;
    // As a package's first installation would find it: nothing of it is anybody else's.
    let kept = stage.device("press-1")?.state.clone();
    give(&kept, USER)?;
    let service = stage.device("press-1")?.service;
    // The second time, the executor's folder is its user's already.
    for start in ["first", "second"] {
        let mut unit = Command::new("setpriv");
        unit.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string()])
            .args(["--clear-groups", "--no-new-privs", "--bounding-set", CAPABILITIES])
            .args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES])
            .arg(&program);
        stage.start_device_by("press-1", unit)?;
        await_that("the workload to answer", SOON, || {
            match get(service, "/thermo/") {
                Ok(answer) if answer.status == 200 => Ok(Ok(())),
                Ok(answer) => Ok(Err(format!("{answer:?}"))),
                Err(error) => Ok(Err(format!("{error:#}"))),
            }
        })?;
        let supervisor = stage.device_mut("press-1")?.process()?.id();
        ensure!(
            status(&supervisor.to_string(), "CapEff:")? == SHOWN,
            "{start} start"
        );
        let children = processes_below(supervisor)?;
        let none = ["0000000000000000"; 4].join(" ");
        for kind in ["agent", "broker", "executor"] {
            let (user, capabilities) = children
                .get(kind)
                .with_context(|| format!("no {kind}: {children:?}"))?;
            ensure!(
                *capabilities == none,
                "{start} start: {kind} holds {capabilities}"
            );
            ensure!(
                (*user == USER.to_string()) == (kind == "agent"),
                "{start} start: {kind} runs as {user}"
            );
        }
        stage.device_mut("press-1")?.stop()?;
    }
    stage.stop()
}

/// Whoever reads a machine's swap reads what was in its memory.
#[test]
fn an_agents_memory_stays_out_of_swap_where_it_may_be_locked_and_is_said_not_to_elsewhere() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root may lock all memory without a limit being raised for it");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let service = stage.device("press-1")?.service;
    let home = stage.device("press-1")?.state.clone();
    // The same device again, without the privilege, and with the limit that most systems begin with.
    for locked in [true, false] {
        if !locked {
            stage.device_mut("press-1")?.stop()?;
            let mut less = Command::new("prlimit");
            less.args(["--memlock=8388608:8388608", "setpriv"])
                .args(["--bounding-set", "-ipc_lock,-sys_resource"])
                .arg("--inh-caps=-all")
                .arg(&stage.programs.device);
            stage.start_device_by("press-1", less)?;
        }
        await_that("the workload to answer", SOON, || {
            Ok(match get(service, "/thermo/") {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })?;
        let children = crate::canary::memory::processes(stage.device_mut("press-1")?.process()?.id())?;
        let line = |kind: &str, field: &str| status(&children[kind].to_string(), field);
        println!(
            "locked: {locked}, agent: {}, {}",
            line("agent", "VmLck:")?,
            line("agent", "VmRSS:")?
        );
        ensure!(
            (line("agent", "VmLck:")? != "0 kB") == locked,
            "{}",
            line("agent", "VmLck:")?
        );
        for kind in ["supervisor", "executor", "broker"] {
            assert_eq!(line(kind, "VmLck:")?, "0 kB", "{kind}");
        }
        let mut told = Command::new(&stage.programs.device);
        told.args(["status", "--json", "--state"]).arg(&home);
        let told: serde_json::Value = serde_json::from_slice(&told.output()?.stdout)?;
        assert_eq!(told["memory_locked"], locked);
    }
    stage.stop()
}
