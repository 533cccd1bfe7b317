//! Somebody else on the device (attacks D11, D12, D13): another user of the machine, and whoever reads the memory of one of its processes.
#![allow(clippy::indexing_slicing, reason = "helpers of tests fail as tests do")]

use crate::canary::memory::{memory, processes};
use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::{must, run};
use redan_kit::{Programs, Stage};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// A user of no name and no group.
const STRANGER: &str = "61235";

/// What the stranger tries, for `sh`; `$1` is the state folder, `$2` a process, `$3` the program. Every one of these must fail.
const TRIES: &[&str] = &[
    "ls \"$1\"",
    "cat \"$1/identity/key.pem\"",
    "cat \"$1/identity/seal.key\"",
    "cat \"$1/identity/chain.pem\"",
    "cat \"$1/journal/a\"",
    "cat \"$1/trust/a\"",
    "ls \"$1/native\"",
    "ls \"$1/blobs\"",
    "ls \"$1/data/acme\"",
    "cat \"$1/data/acme/logs/\"*",
    "touch \"$1/planted\"",
    "ln -s /etc/passwd \"$1/native/planted\"",
    "\"$3\" status --state \"$1\"",
    "\"$3\" recover --request --state \"$1\"",
    "\"$3\" init --id stranger --state \"$1\"",
    "cat /proc/$2/environ",
    "head -c 1 /proc/$2/mem",
    "cat /proc/$2/maps",
    "ls /proc/$2/fd",
    "readlink /proc/$2/exe",
    "readlink /proc/$2/cwd",
    "cat /proc/$2/stack",
    "cat /proc/$2/syscall",
    "kill -0 $2",
    "kill -TERM $2",
    "kill -QUIT $2",
];

#[test]
fn another_user_of_the_machine_gets_nothing_of_a_device_and_its_processes_hold_only_what_is_theirs()
-> Result<()> {
    if !rustix::process::geteuid().is_root() {
        ensure!(
            std::env::var_os("REDAN_SERVICES").is_none(),
            "only root can be two users"
        );
        eprintln!("left out: another user (only root can be two)");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    // Up to the state folder, everybody may walk.
    for open in ["", "devices", "devices/press-1"] {
        std::fs::create_dir_all(folder.path().join(open))?;
        std::fs::set_permissions(folder.path().join(open), std::fs::Permissions::from_mode(0o755))?;
    }
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    let program = folder.path().join("redan-device");
    std::fs::copy(&stage.programs.device, &program)?;
    stage.play_first_release(&["press-1"])?;
    let home = stage.device("press-1")?.state.clone();
    let supervisor = stage.device_mut("press-1")?.process()?.id();
    let all = processes(supervisor)?;
    ensure!(
        ["supervisor", "agent", "broker", "executor"]
            .iter()
            .all(|kind| all.contains_key(*kind)),
        "{all:?}"
    );

    for (kind, process) in &all {
        for attempt in TRIES {
            let mut stranger = Command::new("setpriv");
            stranger.args([
                "--reuid",
                STRANGER,
                "--regid",
                STRANGER,
                "--clear-groups",
                "--bounding-set",
                "-all",
            ]);
            stranger
                .args(["sh", "-c", attempt, "sh"])
                .arg(&home)
                .arg(process.to_string())
                .arg(&program);
            let ran = run(&mut stranger)?;
            ensure!(ran.code != Some(0), "{kind}: {attempt}: {}", ran.stdout);
            // Positive control: it was the user that was wrong, not the attempt.
            let harmless = !["kill -", "init", "touch", "ln ", "stack", "cat /proc/$2/environ"]
                .iter()
                .any(|no| attempt.contains(no));
            if harmless {
                let mut root = Command::new("sh");
                root.args(["-c", attempt, "sh"])
                    .arg(&home)
                    .arg(process.to_string())
                    .arg(&program);
                if attempt.contains("recover") || attempt.contains("syscall") || attempt.contains("mem") {
                    continue;
                }
                must(run(&mut root)?, attempt)?;
            }
        }
        ensure!(
            std::path::Path::new(&format!("/proc/{process}")).exists(),
            "{kind} is gone"
        );
    }

    holds_no_keys(&home, &all)?;
    runs_apart(&all)?;
    stage.stop()
}

type Processes = std::collections::BTreeMap<String, u32>;

/// Keys are in no argument, no variable, no memory and no core dump, but in the agent's memory.
fn holds_no_keys(home: &Path, all: &Processes) -> Result<()> {
    let pem = std::fs::read_to_string(home.join("identity/key.pem"))?;
    let seal = std::fs::read(home.join("identity/seal.key"))?;
    let line = pem.lines().nth(1).context("a line of the key")?.to_owned();
    let scalar = scalar(&pem)?;
    for (kind, process) in all {
        let open = ["cmdline", "environ"].map(|file| std::fs::read(format!("/proc/{process}/{file}")));
        let open = open.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        let secret_names = ["KEY", "SECRET", "TOKEN", "PIN"]
            .iter()
            .any(|name| contains(&open, name.as_bytes()));
        ensure!(
            !secret_names && !contains(&open, line.as_bytes()),
            "{kind}: {}",
            String::from_utf8_lossy(&open)
        );
        let memory = memory(*process)?;
        let holds = [&scalar[..], &seal[..], line.as_bytes()].map(|secret| contains(&memory, secret));
        // The agent works with them: that it has them shows that the search finds what is there.
        let wanted = if kind == "agent" {
            holds[0]
        } else {
            holds == [false; 3]
        };
        ensure!(wanted, "{kind} holds key, seal key, text of the key: {holds:?}");
        // Nobody of them would leave a core dump, whatever the limit of whoever started the device.
        let limits = std::fs::read_to_string(format!("/proc/{process}/limits"))?;
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .context("a limit")?;
        let numbers: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
        ensure!(numbers == ["0", "0"], "{kind}: {core}");
        // Not dumpable (prctl(2), PR_SET_DUMPABLE): then its files in /proc are root's, whoever runs it.
        let owner =
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{process}/environ"))?);
        ensure!(owner == 0, "{kind} is dumpable");
    }

    Ok(())
}

/// Guests run as somebody else, in a network where nobody is.
fn runs_apart(all: &Processes) -> Result<()> {
    let status = |process: u32, field: &str| -> Result<String> {
        let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field).map(str::to_owned));
        line.with_context(|| format!("no {field}"))
    };
    let users: std::collections::BTreeSet<_> = all
        .values()
        .map(|process| status(*process, "Uid:"))
        .collect::<Result<_>>()?;
    ensure!(
        users.len() == 3,
        "agent and supervisor, broker, executor: {users:?}"
    );
    let network = |process: u32| std::fs::read_link(format!("/proc/{process}/ns/net"));
    ensure!(
        network(all["executor"])? != network(all["supervisor"])?,
        "the executor shares the network"
    );
    ensure!(network(all["agent"])? == network(all["supervisor"])?);
    Ok(())
}

/// The number that is the key: 32 bytes after the version of its `ECPrivateKey` (RFC 5915 §3).
fn scalar(pem: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(lines)?;
    let head = [2, 1, 1, 4, 32];
    let at = der
        .windows(head.len())
        .position(|window| window == head)
        .context("an ECPrivateKey")?;
    Ok(der[at + head.len()..][..32].to_vec())
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    let first = what[0];
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    starts.into_iter().any(|(at, _)| bytes[at..].starts_with(what))
}
