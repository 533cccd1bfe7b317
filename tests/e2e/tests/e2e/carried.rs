//! A direction on a stick: to a device that reaches no server, signed by release managers, judged like any other.

use anyhow::{Result, ensure};
use redan_kit::stage::{JOB, Ran, Release, SERVICE, await_that, run};
use redan_kit::{Programs, Stage};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);

fn apply(stage: &Stage, id: &str, bundle: &Path) -> Result<Ran> {
    let mut command = Command::new(&stage.programs.device);
    command.arg("apply").arg(bundle).arg("--state");
    run(command.arg(&stage.device(id)?.state))
}

fn status(stage: &Stage, id: &str) -> Result<String> {
    let mut status = Command::new(&stage.programs.device);
    status.args(["status", "--json", "--state"]);
    Ok(run(status.arg(&stage.device(id)?.state))?.stdout)
}

fn refused(ran: &Ran, word: &str) -> Result<()> {
    ensure!(
        ran.code == Some(1) && ran.stderr.contains(word),
        "{word}: {ran:?}"
    );
    ensure!(ran.stderr.contains("try:"), "{ran:?}");
    Ok(())
}

fn copied(from: &Path, to: PathBuf) -> Result<PathBuf> {
    let ran = run(Command::new("cp").arg("-a").arg("-T").arg(from).arg(&to))?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(to)
}

/// Where the new component is in a bundle.
fn component(stage: &Stage, bundle: &Path) -> Result<PathBuf> {
    let wanted = std::fs::read(stage.programs.guest("thermo", "1.1.0")?)?;
    for entry in std::fs::read_dir(bundle.join("blobs"))? {
        let path = entry?.path();
        if std::fs::read(&path)? == wanted {
            return Ok(path);
        }
    }
    anyhow::bail!("{} does not hold the component", bundle.display())
}

/// Release managers sign a direction, and somebody writes the folder to carry.
/// Signs a direction and takes it out on a stick.
fn bundle(stage: &Stage, device: &str, sequence: &str, set: &str) -> Result<PathBuf> {
    direct(stage, device, sequence, set)?;
    taken_out(stage, device, sequence)
}

fn direct(stage: &Stage, device: &str, sequence: &str, set: &str) -> Result<()> {
    let (signer, snapshot) = (stage.key("release.direction-1"), stage.key("release.snapshot-1"));
    let device = ["--device", device, "--sequence", sequence, "--set", set];
    let keys = ["--good-for", "24h", "--key", &signer, "--key", &snapshot];
    stage.redan(&[&["direction", "publish"][..], &device, &keys].concat())?;
    Ok(())
}

fn taken_out(stage: &Stage, device: &str, sequence: &str) -> Result<PathBuf> {
    let out = stage.folder.join(format!("stick-{device}-{sequence}"));
    let path = out.display().to_string();
    stage.redan(&[
        "bundle",
        "--device",
        device,
        "--sequence",
        sequence,
        "--out",
        &path,
    ])?;
    Ok(out)
}

#[test]
fn a_stick_updates_a_device_without_a_network_and_a_bad_one_is_refused_with_its_code() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1", "press-2"])?;
    // The keys that a server holds sign no direction.
    let online = stage
        .fleet()
        .join("online/release.timestamp.key.json")
        .display()
        .to_string();
    let snapshot = stage.key("release.snapshot-1");
    let by_the_server = stage.redan_raw(&[
        "direction",
        "publish",
        "--device",
        "press-1",
        "--sequence",
        "7",
        "--set",
        "plant-1",
        "--good-for",
        "24h",
        "--key",
        &online,
        "--key",
        &snapshot,
    ])?;
    refused(&by_the_server, "threshold-not-met")?;

    let early = bundle(&stage, "press-1", "8", "plant-1")?;
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    // Both first: the device may read of either from the server at any time, and knows then what an older stick does not.
    direct(&stage, "press-2", "9", "plant-2")?;
    direct(&stage, "press-1", "9", "plant-2")?;
    let other = taken_out(&stage, "press-2", "9")?;
    let stick = taken_out(&stage, "press-1", "9")?;
    stage.control()?.stop()?;

    // Another device's stick, and the same with the hint changed: its direction is another device's all the same.
    refused(&apply(&stage, "press-1", &other)?, "wrong-device")?;
    let relabelled = copied(&other, folder.path().join("relabelled"))?;
    let note = std::fs::read_to_string(relabelled.join("bundle.json"))?;
    let hint = note.replace("device/press-2\"", "device/press-1\"");
    std::fs::write(relabelled.join("bundle.json"), hint)?;
    refused(&apply(&stage, "press-1", &relabelled)?, "wrong-device")?;

    // Edited, cut, or no bundle at all.
    let edited = copied(&stick, folder.path().join("edited"))?;
    let blob = component(&stage, &edited)?;
    let mut bytes = std::fs::read(&blob)?;
    if let Some(byte) = bytes.get_mut(9) {
        *byte ^= 1;
    }
    std::fs::write(&blob, bytes)?;
    refused(&apply(&stage, "press-1", &edited)?, "digest-mismatch")?;
    std::fs::remove_file(&blob)?;
    refused(&apply(&stage, "press-1", &edited)?, "artifact-missing")?;
    let resigned = copied(&stick, folder.path().join("resigned"))?;
    let path = resigned.join("release/snapshot.json");
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(
        &path,
        text.replace("\"_type\":\"snapshot\"", "\"_type\":\"snapshot\",\"x\":1"),
    )?;
    refused(&apply(&stage, "press-1", &resigned)?, "threshold-not-met")?;
    std::fs::remove_file(&path)?;
    refused(&apply(&stage, "press-1", &resigned)?, "bundle-invalid")?;
    refused(&apply(&stage, "press-1", folder.path())?, "bundle-invalid")?;
    stage.await_version("press-1", "1.0.0", SOON)?;

    // The right one, with nobody to ask.
    let applied = apply(&stage, "press-1", &stick)?;
    ensure!(
        applied.code == Some(0) && applied.stdout.contains("direction 9"),
        "{applied:?}"
    );
    stage.await_version("press-1", "1.1.0", SOON)?;
    await_that("the set to be committed", SOON, || {
        let said = status(&stage, "press-1")?;
        Ok(if said.contains("\"set\":\"plant-2\"") {
            Ok(())
        } else {
            Err(said)
        })
    })?;
    // Once is once, and an old stick is an old stick: its repository is older than what this device has seen.
    refused(&apply(&stage, "press-1", &stick)?, "direction-replayed")?;
    refused(&apply(&stage, "press-1", &early)?, "metadata-rollback")?;
    stage.await_version("press-1", "1.1.0", SOON)?;
    stage.await_version("press-2", "1.0.0", SOON)?;

    // A server that comes back with what it directed before takes nothing back: sequences grow over both ways.
    stage.start_control()?;
    await_that("the server's old direction to be refused", SOON, || {
        let said = status(&stage, "press-1")?;
        let refused = said.contains("\"refusal\":\"direction-replayed\"");
        Ok(if refused && said.contains("\"set\":\"plant-2\"") {
            Ok(())
        } else {
            Err(said)
        })
    })?;
    stage.await_version("press-1", "1.1.0", SOON)?;
    stage.stop()
}
