//! A hostile native program inside each jail: what it must not get, and what the process must still be able to do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const EPERM: i32 = 1;
const EACCES: i32 = 13;
/// What Landlock says of a file that would get other rights by its move.
const EXDEV: i32 = 18;

/// Denied to every kind of process.
const NOBODY: &[&str] = &[
    "execute",
    "execute-own-file",
    "fork",
    "raw-socket",
    "packet-socket",
    "vsock",
    "signal-victim",
    "signal-victims-thread",
    "trace-victim",
    "read-victim-by-call",
    "limit-victim",
    "become-root",
    "drop-to-nobody",
    "new-user-namespace",
    "new-mount-namespace",
    "mount",
    "change-root",
    "make-device",
    "bpf",
    "io-uring",
    "userfaultfd",
    "perf",
    "keyring",
    "load-module",
    "set-clock",
    "reboot",
    "be-dumpable-again",
    "outlive-parent",
    "type-into-terminal",
    "hold-capabilities",
];
/// Other people's files.
const FILES: &[&str] = &[
    "read-secret",
    "read-secret-by-link",
    "read-secret-by-dots",
    "write-elsewhere",
    "make-folder-elsewhere",
    "remove-elsewhere",
    "rename-out",
    "link-secret-in",
    "list-root",
    "read-victims-environment",
    "read-victims-memory",
    "read-own-memory-file",
];
/// What a lent folder is not for, and what is behind it.
const NOT_LENT: &[&str] = &[
    "write-lent-to-read",
    "overwrite-lent-to-read",
    "remove-lent-to-read",
    "leave-lent-by-dots",
];
/// Folders that the device ceiling lends to guests.
const LENT: &[&str] = &[
    "read-lent",
    "write-lent",
    "read-lent-to-read",
    "list-lent-to-read",
];
/// Its own folder.
const OWN: &[&str] = &["write-own-folder", "read-own-folder"];
/// Talking to a network.
const CONNECT: &[&str] = &["tcp-connect", "udp-send"];
/// Local sockets.
const LOCAL: &[&str] = &["unix-connect", "unix-pair", "netlink-socket"];
/// Offering a service.
const SERVE: &[&str] = &["tcp-listen", "unix-listen"];

/// Another process of the same user; gone with the test, however that ends.
struct Victim(Child);

impl Victim {
    fn start() -> Self {
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("600").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

type Findings = BTreeMap<String, String>;

/// Runs the hostile program in one kind of jail, or in none.
fn hostile(kind: &str) -> Findings {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (data, secret, elsewhere) = (make("data"), make("secret"), make("elsewhere"));
    let key = secret.join("key");
    std::fs::write(&key, "the device key").unwrap();
    std::fs::write(elsewhere.join("removable"), "").unwrap();
    std::fs::write(data.join("note"), "").unwrap();
    for lent in [make("lent"), make("lent-to-read")] {
        std::fs::write(lent.join("note"), "").unwrap();
        std::fs::write(lent.join("removable"), "").unwrap();
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = folder.path().join("admin.sock");
    let _admin = UnixListener::bind(&admin).unwrap();
    let victim = Victim::start();

    let me = std::env::current_exe().unwrap();
    let program = me.parent().unwrap().parent().unwrap().join("examples/hostile");
    let ran = Command::new(program)
        .arg(kind)
        .args([&data, &key, &elsewhere])
        .arg(server.local_addr().unwrap().to_string())
        .arg(&admin)
        .arg(victim.0.id().to_string())
        .output()
        .unwrap();
    drop(victim);
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{kind}: {} {stderr}", ran.status);
    let text = String::from_utf8(ran.stdout).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines
        .map(|(name, outcome)| (name.to_owned(), outcome.to_owned()))
        .collect()
}

#[track_caller]
fn denied(kind: &str, found: &Findings, names: &[&[&str]]) {
    for name in names.iter().copied().flatten() {
        let outcome = &found[*name];
        let refused = [EPERM, EACCES, EXDEV]
            .iter()
            .any(|errno| *outcome == errno.to_string());
        assert!(refused, "{kind}: {name} came to {outcome}");
    }
}

#[track_caller]
fn done(kind: &str, found: &Findings, names: &[&[&str]]) {
    for name in names.iter().copied().flatten() {
        assert_eq!(found[*name], "done", "{kind}: {name}");
    }
}

/// Whether this kernel has the mechanisms at all. What it lacks is reported to the fleet, and then nothing is to be tested.
fn enforced(kind: &str, found: &Findings) -> bool {
    let on = |name: &str| found[name] == "true";
    if !on("seccomp") || (!["agent", "ceremony"].contains(&kind) && !on("landlock")) {
        return false;
    }
    true
}

#[test]
fn outside_of_a_jail_the_same_program_gets_what_it_wants() {
    let found = hostile("none");
    done(
        "none",
        &found,
        &[
            OWN,
            LENT,
            NOT_LENT,
            FILES_ANYBODY,
            CONNECT,
            LOCAL,
            SERVE,
            &["execute", "fork", "start-thread"],
        ],
    );
    done(
        "none",
        &found,
        &[&[
            "signal-victim",
            "limit-victim",
            "be-dumpable-again",
            "outlive-parent",
        ]],
    );
}

/// Of [`FILES`], what an ordinary user's program gets of its own user's files.
const FILES_ANYBODY: &[&str] = &[
    "read-secret",
    "read-secret-by-link",
    "read-secret-by-dots",
    "write-elsewhere",
    "make-folder-elsewhere",
    "remove-elsewhere",
    "rename-out",
    "link-secret-in",
    "list-root",
    "read-victims-environment",
];

#[test]
fn an_executor_has_its_folder_and_the_sockets_it_was_given() {
    let found = hostile("executor");
    if enforced("executor", &found) {
        denied(
            "executor",
            &found,
            &[NOBODY, FILES, NOT_LENT, CONNECT, LOCAL, SERVE],
        );
        done("executor", &found, &[OWN, LENT, &["start-thread"]]);
    }
}

#[test]
fn a_compiler_has_neither_files_nor_sockets() {
    let found = hostile("compiler");
    if enforced("compiler", &found) {
        denied(
            "compiler",
            &found,
            &[NOBODY, FILES, OWN, LENT, NOT_LENT, CONNECT, LOCAL, SERVE],
        );
        done("compiler", &found, &[&["start-thread"]]);
    }
}

#[test]
fn a_broker_connects_and_does_nothing_else() {
    let found = hostile("broker");
    if enforced("broker", &found) {
        denied("broker", &found, &[NOBODY, FILES, OWN, LENT, NOT_LENT, SERVE]);
        done(
            "broker",
            &found,
            &[CONNECT, &["start-thread", "unix-pair", "netlink-socket"]],
        );
    }
}

#[test]
fn an_agent_starts_no_program_and_touches_no_process() {
    let found = hostile("agent");
    if enforced("agent", &found) {
        denied("agent", &found, &[NOBODY]);
        done("agent", &found, &[OWN, CONNECT, SERVE, &["start-thread"]]);
    }
}

#[test]
fn a_ceremony_has_files_and_no_socket_of_any_kind() {
    let found = hostile("ceremony");
    if enforced("ceremony", &found) {
        denied(
            "ceremony",
            &found,
            &[CONNECT, LOCAL, SERVE, &["raw-socket", "packet-socket", "vsock"]],
        );
        done(
            "ceremony",
            &found,
            &[OWN, &["write-elsewhere", "read-secret", "start-thread"]],
        );
    }
}
