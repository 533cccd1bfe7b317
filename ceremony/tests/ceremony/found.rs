//! Founding a fleet and issuing certificates.

use crate::room::{PASSPHRASE, ceremony, passphrase_file, refused};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const EXISTS: &str = "exists already";

fn init<'a>(out: &'a str, profile: &'a str, more: &[&'a str]) -> Output {
    let mut arguments = vec![
        "init",
        "--profile",
        profile,
        "--fleet",
        "plant.example",
        "--publisher",
        "acme",
    ];
    arguments.extend(["--component", "acme/thermo", "--out", out]);
    arguments.extend(more);
    ceremony(&arguments)
}

/// Every file below a folder, with its mode.
fn files(folder: &Path, below: &Path, found: &mut BTreeMap<String, u32>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            files(&path, below, found);
        } else {
            found.insert(path.strip_prefix(below).unwrap().display().to_string(), mode);
        }
    }
}

fn path(folder: &tempfile::TempDir, name: &str) -> (PathBuf, String) {
    let path = folder.path().join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[test]
fn a_production_fleet_has_a_key_for_every_holder_and_private_keys_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text) = path(&folder, "fleet");
    let words = passphrase_file(folder.path(), "words", PASSPHRASE);
    let ran = init(&text, "production", &["--passphrase-file", &words]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let mut found = BTreeMap::new();
    files(&out, &out, &mut found);
    for role in [
        "release.root",
        "release.targets",
        "release.plan",
        "release.policy",
        "release.snapshot",
        "director.root",
        "component.acme.thermo",
    ] {
        for holder in 1..=3 {
            assert_eq!(
                found.get(&format!("offline/{role}-{holder}.key.json")),
                Some(&0o600),
                "{role} {holder}"
            );
        }
    }
    for (name, mode) in &found {
        if name.starts_with("offline/") || name.starts_with("online/") || name.starts_with("operators/") {
            assert_eq!(*mode, 0o600, "{name}");
        }
    }
    let root: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("public/release/1.root.json")).unwrap()).unwrap();
    assert_eq!(root["signed"]["profile"], "production");
    assert_eq!(root["signed"]["roles"]["root"]["threshold"], 2);
    assert_eq!(
        root["signed"]["roles"]["root"]["keyids"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(root["signed"]["roles"]["timestamp"]["threshold"], 1);
}

#[test]
fn a_production_fleet_with_a_threshold_of_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text) = path(&folder, "fleet");
    refused(
        &init(&text, "production", &["--threshold", "1"]),
        2,
        &["threshold"],
    );
    assert!(!out.exists());
}

#[test]
fn a_threshold_above_its_holders_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let words = passphrase_file(folder.path(), "words", PASSPHRASE);
    let (_, text) = path(&folder, "fleet");
    refused(
        &init(
            &text,
            "production",
            &["--threshold", "4", "--passphrase-file", &words],
        ),
        1,
        &["threshold"],
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_fleet_is_never_founded_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text) = path(&folder, "fleet");
    assert!(init(&text, "development", &[]).status.success());
    let before = std::fs::read(out.join("public/release/1.root.json")).unwrap();
    refused(&init(&text, "development", &[]), 2, &[EXISTS]);
    assert_eq!(
        std::fs::read(out.join("public/release/1.root.json")).unwrap(),
        before
    );
}

#[test]
fn a_component_of_nobody_named_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text) = path(&folder, "fleet");
    refused(
        &init(&text, "development", &["--component", "evil/thermo"]),
        2,
        &["evil/thermo"],
    );
    assert!(!out.exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = path(&folder, "file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("fleet");
    refused(&init(below.to_str().unwrap(), "development", &[]), 3, &["fleet"]);
}

#[test]
fn certificates_are_issued_by_the_issuer_for_it_and_by_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text) = path(&folder, "fleet");
    assert!(init(&text, "development", &[]).status.success());
    let issue = |issuer: &str, to: &str, more: &[&str]| {
        let public = out.join("public");
        let (issuer, to) = (out.join(issuer), folder.path().join(to));
        let mut arguments = vec!["issue", "--fleet-dir", public.to_str().unwrap()];
        arguments.extend([
            "--issuer",
            issuer.to_str().unwrap(),
            "--out",
            to.to_str().unwrap(),
        ]);
        arguments.extend(more);
        ceremony(&arguments)
    };
    let (operators, servers) = ("offline/operator-issuer.pem", "offline/server-issuer.pem");
    assert!(
        issue(operators, "alice.pem", &["--operator", "alice"])
            .status
            .success()
    );
    assert!(issue(servers, "server.pem", &[]).status.success());
    refused(
        &issue(operators, "alice.pem", &["--operator", "alice"]),
        2,
        &[EXISTS],
    );
    // The device issuer's key is online; it makes neither.
    for (issuer, more) in [
        (servers, &["--operator", "mallory"][..]),
        (operators, &[]),
        ("online/device-issuer.pem", &["--operator", "mallory"]),
        ("online/device-issuer.pem", &[]),
    ] {
        refused(&issue(issuer, "mallory.pem", more), 1, &["issuer"]);
        assert!(!folder.path().join("mallory.pem").exists());
    }
}

#[test]
fn the_next_device_issuer_is_made_with_the_fleets_root_and_with_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text) = path(&folder, "fleet");
    assert!(init(&text, "development", &[]).status.success());
    let made = folder.path().join("device-issuer.pem");
    let issue = |by: &str| {
        let (public, by) = (out.join("public"), out.join(by));
        let mut arguments = vec![
            "issue",
            "--device-issuer",
            "--fleet-dir",
            public.to_str().unwrap(),
        ];
        arguments.extend(["--issuer", by.to_str().unwrap(), "--out", made.to_str().unwrap()]);
        ceremony(&arguments)
    };
    for by in ["offline/server-issuer.pem", "online/device-issuer.pem"] {
        refused(&issue(by), 1, &["P-384"]);
        assert!(!made.exists());
    }
    let said = issue("offline/fleet-ca.key.pem");
    assert!(said.status.success());
    assert!(String::from_utf8_lossy(&said.stdout).contains("the device issuer of plant.example"));
    let (before, after) = (
        std::fs::read(out.join("online/device-issuer.pem")),
        std::fs::read(&made),
    );
    assert_ne!(before.unwrap(), after.unwrap());
    refused(&issue("offline/fleet-ca.key.pem"), 2, &[EXISTS]);
}

#[test]
fn the_tool_has_denied_itself_sockets_before_it_reads_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text) = path(&folder, "fleet");
    assert!(init(&text, "development", &[]).status.success());
    // It waits for somebody to write the issuer into this pipe, and can be looked at meanwhile.
    let pipe = folder.path().join("issuer.pem");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_redan-ceremony"))
        .args(["issue", "--operator", "alice", "--fleet-dir"])
        .arg(out.join("public"))
        .arg("--issuer")
        .arg(&pipe)
        .arg("--out")
        .arg(folder.path().join("alice.pem"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Opening the writing end returns once the tool has opened the reading end.
    let writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", waiting.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("Seccomp:")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("2"), "{line}");
    drop(writer);
    assert_eq!(
        waiting.wait().unwrap().code(),
        Some(1),
        "an empty pipe is no issuer"
    );
}
