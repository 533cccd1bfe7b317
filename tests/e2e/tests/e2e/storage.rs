//! Disks that are full, read-only, or hold half an artifact.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{FLEET, SERVICE, run};
use redan_kit::{Programs, Stage};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);

/// A command in mount and user namespaces of its own, on a small disk that `spoil` has spoilt. No root needed.
fn on_a_spoilt_disk(
    disk: &Path,
    spoil: &str,
    program: &Path,
    arguments: &[&str],
) -> Result<redan_kit::stage::Ran> {
    std::fs::create_dir_all(disk)?;
    // The disk is gone with the namespace: what was left on it is listed from inside.
    let script = format!(
        "mount -t tmpfs -o size=64k none \"$1\" && {spoil} && disk=\"$1\" && shift && {{ \"$@\"; code=$?; \
         find \"$disk\" -type f ! -name fill ! -name lock -printf 'left behind: %p\\n'; exit $code; }}"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    run(command.arg(disk).arg(program).args(arguments))
}

const FULL: &str = "{ head -c 1M /dev/zero >\"$1/fill\" 2>/dev/null || true; }";
const READ_ONLY: &str = "mount -o remount,ro none \"$1\"";

fn init_on(spoil: &str, word: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let programs = Programs::find()?;
    let disk = folder.path().join("disk");
    let state = disk.join("state").to_string_lossy().into_owned();
    let ran = on_a_spoilt_disk(
        &disk,
        spoil,
        &programs.device,
        &["init", "--id", "press-1", "--state", &state],
    )?;
    ensure!(ran.code == Some(3), "{ran:?}");
    for wanted in ["error:", "because:", "try:", word, "state"] {
        ensure!(
            ran.stderr.contains(wanted),
            "{wanted:?} is missing in {}",
            ran.stderr
        );
    }
    // Neither a file nor a request for a key that was not kept.
    ensure!(ran.stdout.is_empty(), "{}", ran.stdout);
    Ok(())
}

#[test]
fn a_device_makes_no_key_on_a_full_disk_and_says_so() -> Result<()> {
    init_on(FULL, "disk-full")
}

#[test]
fn a_device_makes_no_key_on_a_read_only_disk_and_says_so() -> Result<()> {
    init_on(READ_ONLY, "disk-failed")
}

#[test]
fn a_ceremony_on_a_full_disk_leaves_no_half_fleet() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let programs = Programs::find()?;
    let disk = folder.path().join("disk");
    let out = disk.join("fleet").to_string_lossy().into_owned();
    let arguments = [
        "init",
        "--profile",
        "development",
        "--fleet",
        FLEET,
        "--publisher",
        "acme",
        "--component",
        SERVICE,
        "--out",
        &out,
    ];
    let listed = "mkdir \"$1/x\"; { head -c 40K /dev/zero >\"$1/fill\" 2>/dev/null || true; }";
    let ran = on_a_spoilt_disk(&disk, listed, &programs.ceremony, &arguments)?;
    ensure!(ran.code == Some(3), "{ran:?}");
    ensure!(
        ran.stderr.contains("error:") && ran.stderr.contains("try:"),
        "{}",
        ran.stderr
    );
    ensure!(ran.stdout.is_empty(), "{}", ran.stdout);
    Ok(())
}

#[test]
fn an_artifact_cut_short_in_the_store_is_refused_and_taken_when_it_is_whole_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let artifact = service_artifact(&stage)?;
    let whole = std::fs::read(&artifact)?;
    std::fs::write(&artifact, whole.get(..whole.len() / 2).context("half")?)?;
    stage.add_device("press-2")?;
    let rollout = stage.start_rollout("plant-1", &["late=press-2"])?;
    stage.await_devices("press-2 to refuse half an artifact", SOON, |views| {
        views
            .iter()
            .any(|view| view.device == "press-2" && view.refusal.is_some() && view.set.is_none())
    })?;
    std::fs::write(&artifact, whole)?;
    stage.redan(&["rollout", "abort", &rollout])?;
    let rollout = stage.start_rollout("plant-1", &["late=press-2"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    stage.stop()
}

/// Where the server keeps the service's bytes: the largest artifact.
fn service_artifact(stage: &Stage) -> Result<PathBuf> {
    let folder = stage.control_state().join("fleets").join(FLEET).join("artifacts");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        found.push((entry.metadata()?.len(), entry.path()));
    }
    found.sort();
    Ok(found.pop().context("no artifact")?.1)
}
