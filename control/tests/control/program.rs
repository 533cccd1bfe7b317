//! The program as whoever runs it meets it: what it says, and how it ends.

use crate::raw::Raw;
use crate::site::{ceremony_at, config, now};
use redan_control::register;
use redan_protocol::{FleetId, UnixSeconds};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tempfile::TempDir;

pub(crate) fn control(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redan-control"));
    command.args(arguments).env_remove("REDAN_LOG");
    command
}

/// What, why and what to do, in three lines.
#[track_caller]
pub(crate) fn said(ran: &Output, exit: i32, what: &str, why: &str, try_this: &str) {
    let text = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(text, format!("error: {what}\nbecause: {why}\ntry: {try_this}\n"));
    assert_eq!(ran.status.code(), Some(exit));
}

/// A folder with a configuration.
pub(crate) fn set_up(listen: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.toml");
    let state = folder.path().join("state");
    std::fs::write(
        &file,
        format!("state = '{}'\nlisten = \"{listen}\"\n", state.display()),
    )
    .unwrap();
    (folder, file)
}

fn serve(file: &Path) -> Output {
    control(&["serve", "--config", file.to_str().unwrap()])
        .output()
        .unwrap()
}

/// With a registered fleet.
pub(crate) async fn registered() -> (TempDir, PathBuf) {
    registered_at(now()).await
}

/// With one that was founded then.
pub(crate) async fn registered_at(when: UnixSeconds) -> (TempDir, PathBuf) {
    let (folder, file) = set_up("127.0.0.1:0");
    let founded = folder.path().join("fleet");
    ceremony_at("plant.example", &founded, when);
    register::add(
        &config(folder.path()),
        &founded.join("online"),
        &founded.join("public"),
    )
    .await
    .unwrap();
    (folder, file)
}

const CONFIGURATION: &str = "correct the named line; docs/control.md lists every key";
const FILE: &str = "check that the file exists and may be read or written";

#[test]
fn an_unknown_key_of_the_configuration_is_named_with_its_line() {
    let (_folder, file) = set_up("127.0.0.1:0");
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("verify = false\n");
    std::fs::write(&file, text).unwrap();
    let keys = "`state`, `listen`, `checkin_interval_seconds`, `renewal_grace_seconds`, `connections_max`, `handshakes_max`, `handshakes_per_address_max`, `fleets`";
    let what = format!(
        "{}: line 3: unknown field `verify`, expected one of {keys}",
        file.display()
    );
    said(&serve(&file), 2, &what, "bad-request", CONFIGURATION);
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let what = "/no/such/control.toml: No such file or directory (os error 2)";
    let ran = serve(Path::new("/no/such/control.toml"));
    said(&ran, 2, what, "bad-request", CONFIGURATION);
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (_folder, file) = set_up(&address.to_string());
    let what = format!("cannot listen on {address}: Address already in use (os error 98)");
    let try_this = "stop the program that listens there, or name another address with `listen`";
    said(&serve(&file), 3, &what, "unreachable", try_this);
}

#[test]
fn a_server_without_a_fleet_says_how_to_register_one() {
    let (_folder, file) = set_up("127.0.0.1:0");
    let what = "no fleet is registered with this server";
    let try_this = "register one: redan-control fleet add --config … --online … --public …";
    said(&serve(&file), 2, what, "not-found", try_this);
}

#[tokio::test]
async fn a_missing_key_and_one_that_others_can_read_are_named() {
    let (folder, file) = registered().await;
    let online = folder.path().join("state/fleets/plant.example/online");
    for name in ["server.pem", "device-issuer.pem", "director.targets.key.json"] {
        let key = online.join(name);
        let mode = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        let what = format!("{} can be read by others (mode 640)", key.display());
        let try_this = "make the file readable by its owner alone: chmod 600";
        said(&serve(&file), 1, &what, "disk-failed", try_this);
        mode(0o600);
        let aside = folder.path().join(name);
        std::fs::rename(&key, &aside).unwrap();
        let what = format!("{}: No such file or directory (os error 2)", key.display());
        said(&serve(&file), 3, &what, "disk-failed", FILE);
        std::fs::rename(&aside, &key).unwrap();
    }
}

/// The running program, once it listens, and what it says from then on.
pub(crate) fn running(file: &Path) -> (Child, BufReader<ChildStdout>, SocketAddr) {
    let mut child = control(&["serve", "--config", file.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let said = line(&mut out);
    let address = said.trim().strip_prefix("redan-control: listening on ").unwrap();
    let address = address.parse().unwrap();
    (child, out, address)
}

pub(crate) fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line
}

pub(crate) fn tell(child: &Child, signal: Signal) {
    let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_well() {
    let (_folder, file) = registered().await;
    for signal in [Signal::TERM, Signal::INT] {
        let (mut child, mut out, _) = running(&file);
        tell(&child, signal);
        assert_eq!(
            line(&mut out),
            "redan-control: stopping; what has begun is answered first\n"
        );
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_what_has_begun() {
    let (folder, file) = registered().await;
    let (mut child, mut out, address) = running(&file);
    let fleet = FleetId::parse("plant.example").unwrap();
    let admin = folder.path().join("fleet/operators/admin.pem");
    let mut begun = Raw::at(address, &fleet, &admin).await;
    begun
        .send(
            "POST /v1/rollouts HTTP/1.1\r\nhost: control.plant.example\r\ncontent-length: 2\r\n\
             expect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(begun.status().await, "100", "the request has begun");
    tell(&child, Signal::TERM);
    line(&mut out);
    tell(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Had it waited, the request would have been answered, if only with a refusal.
    assert_eq!(begun.rest().await, "");
}
