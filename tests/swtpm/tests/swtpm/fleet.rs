//! Fleets with real programs whose device has its key, its sealing key and its counter in a TPM.

use crate::certificate;
use crate::room::Tpm;
use anyhow::{Context, Result, ensure};
use redan_identity::key::{KeyProvider, held};
use redan_kit::stage::{JOB, Ran, Release, SERVICE, await_that, must, run};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";

fn state(stage: &Stage) -> Result<PathBuf> {
    Ok(stage.device(DEVICE)?.state.clone())
}

fn key_text(stage: &Stage) -> Result<String> {
    Ok(std::fs::read_to_string(state(stage)?.join("identity/key.pem"))?)
}

fn key(stage: &Stage) -> Result<Arc<dyn KeyProvider>> {
    Ok(held(&key_text(stage)?)?)
}

fn device(stage: &Stage, arguments: &[&str]) -> Result<Ran> {
    let mut command = Command::new(&stage.programs.device);
    let (first, rest) = arguments.split_first().context("a command")?;
    run(command.arg(first).arg("--state").arg(state(stage)?).args(rest))
}

/// Starts a device that does not come up, and gives what it said.
fn start_in_vain(stage: &Stage) -> Result<String> {
    let mut start = Command::new(&stage.programs.device);
    let config = stage.folder.join("devices").join(DEVICE).join("device.toml");
    let ran = run(start.arg("run").arg("--config").arg(config))?;
    ensure!(ran.code != Some(0), "{ran:?}");
    Ok(ran.stderr)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let ran = run(Command::new("cp").arg("-a").arg("-T").arg(from).arg(to))?;
    must(ran, "cp").map(drop)
}

/// Every file that a device has, as bytes of text.
fn says_anywhere(folder: &Path, what: &str) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let found = if kind.is_dir() {
            says_anywhere(&entry.path(), what)?
        } else {
            kind.is_file() && String::from_utf8_lossy(&std::fs::read(entry.path())?).contains(what)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the holders of the release root answer to a device's request; gives the answer's file.
fn answered(stage: &Stage, request: &str) -> Result<String> {
    let at = |name: &str| stage.folder.join(name).display().to_string();
    let (asked, wanted, signature) = (at("asked.json"), at("wanted.json"), at("signature.json"));
    std::fs::write(&asked, request)?;
    let ceremony = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(&stage.programs.ceremony);
        command
            .args(arguments)
            .arg("--public")
            .arg(stage.fleet().join("public"));
        Ok(must(run(&mut command)?, "redan-ceremony")?.stdout)
    };
    let ask = [
        "request",
        "recover",
        "--device-request",
        &asked,
        "--sequence",
        "12",
        "--out",
        &wanted,
    ];
    let said = ceremony(&ask)?;
    let digest = said.lines().find_map(|line| line.strip_prefix("payload sha256 "));
    let typed = digest.and_then(|digest| digest.get(..8)).context("the digest")?;
    let holder = stage.key("release.root-1");
    ceremony(&[
        "sign",
        "--request",
        &wanted,
        "--key",
        &holder,
        "--confirm",
        typed,
        "--out",
        &signature,
    ])?;
    let said = ceremony(&["assemble", "--request", &wanted, "--signature", &signature])?;
    let path = said.strip_prefix("Wrote ").and_then(|rest| rest.split_once(". "));
    Ok(path.context("where it was written")?.0.to_owned())
}

/// The first release, on a device with this TPM.
fn first_release(folder: &Path, tpm: &Tpm) -> Result<Stage> {
    let mut stage = Stage::new(Programs::find()?, folder)?;
    stage.run_ceremony()?;
    stage.start_control()?;
    stage.prepare_device_with(DEVICE, &["--key", &tpm.text()], "")?;
    stage.start_device(DEVICE)?;
    stage.roll_first_release_out()?;
    Ok(stage)
}

#[test]
fn a_device_with_a_tpm_enrols_follows_its_fleet_and_renews_with_another_key_of_the_same_tpm() -> Result<()> {
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (tpm, other) = (Tpm::start(here.path()), Tpm::start(there.path()));
    let mut stage = first_release(&here.path().join("stage"), &tpm)?;
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    let first = key_text(&stage)?;
    ensure!(first.starts_with(&format!("{}?public=", tpm.text())), "{first}");
    let identity = state(&stage)?.join("identity");
    ensure!(identity.join("seal.tpm").exists() && !identity.join("seal.key").exists());
    ensure!(!says_anywhere(&state(&stage)?, "PRIVATE KEY")?);

    // A second `init` says the same; another TPM, or a token, is another key.
    stage.device_mut(DEVICE)?.stop()?;
    let again = must(
        device(&stage, &["init", "--id", DEVICE, "--key", &tpm.text()])?,
        "init",
    )?
    .stdout;
    ensure!(again.contains(&key(&stage)?.spki_sha256().to_string()), "{again}");
    let refused = device(&stage, &["init", "--id", DEVICE, "--key", &other.text()])?;
    ensure!(refused.stderr.contains("has another key already"), "{refused:?}");

    let old = key(&stage)?.spki_sha256();
    // More than half of its life is over.
    certificate::ending_in(&stage, DEVICE, &key(&stage)?.spki(), 120)?;
    stage.start_device(DEVICE)?;
    await_that("another key in the place of the old one", SOON, || {
        let (text, next) = (key_text(&stage)?, identity.join("next/key.pem").exists());
        let over = text != first && !next;
        Ok(if over {
            Ok(())
        } else {
            Err(format!("{text} {next}"))
        })
    })?;
    let new = key(&stage)?.spki_sha256();
    assert_ne!(new, old);
    ensure!(key_text(&stage)?.starts_with(&tpm.text()));
    let seen = stage.redan(&["device", "show", DEVICE])?;
    assert_eq!(
        seen.get("spki").and_then(Value::as_str),
        Some(new.to_string().as_str())
    );
    assert_eq!(seen.get("clone_alarm"), Some(&Value::Null));
    stage.await_version(DEVICE, "1.0.0", SOON)?;

    // The disk in another machine: nothing starts, and no other key is made.
    stage.device_mut(DEVICE)?.stop()?;
    let kept = key_text(&stage)?;
    let seal = std::fs::read_to_string(identity.join("seal.tpm"))?;
    for (file, text) in [("key.pem", &kept), ("seal.tpm", &seal)] {
        std::fs::write(identity.join(file), text.replace(&tpm.text(), &other.text()))?;
    }
    let said = start_in_vain(&stage)?;
    ensure!(
        said.contains("was made by another TPM") && said.contains("tpm-foreign"),
        "{said}"
    );
    for (file, text) in [("key.pem", &kept), ("seal.tpm", &seal)] {
        std::fs::write(identity.join(file), text)?;
    }
    // Without its TPM the same, and back with it all is well.
    drop(tpm);
    let said = start_in_vain(&stage)?;
    ensure!(
        said.contains("cannot be talked to") && said.contains("tpm-missing"),
        "{said}"
    );
    assert_eq!(key_text(&stage)?, kept);
    let _tpm = Tpm::start(here.path());
    stage.start_device(DEVICE)?;
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    stage.stop()
}

#[test]
fn a_whole_disk_put_back_adopts_nothing_without_any_network() -> Result<()> {
    // What the attacker holds: the device, and a copy of its whole disk from before an update; nobody can be asked.
    let here = tempfile::tempdir()?;
    let tpm = Tpm::start(here.path());
    let mut stage = first_release(&here.path().join("stage"), &tpm)?;
    stage.device_mut(DEVICE)?.stop()?;
    let [old, new, back] = ["old", "new", "back"].map(|name| here.path().join(name));
    copy(&state(&stage)?, &old)?;
    stage.start_device(DEVICE)?;
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    let rollout = stage.start_rollout("plant-2", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    stage.device_mut(DEVICE)?.stop()?;
    copy(&state(&stage)?, &new)?;
    stage.control()?.kill()?;

    let loss = |stage: &Stage| -> Result<Option<String>> {
        let ran = must(device(stage, &["status", "--json"])?, "status")?;
        let status: Value = serde_json::from_str(&ran.stdout)?;
        Ok(status.get("refusal").and_then(Value::as_str).map(str::to_owned))
    };
    let put = |stage: &Stage, from: &Path| -> Result<()> {
        std::fs::remove_dir_all(state(stage)?)?;
        copy(from, &state(stage)?)
    };
    put(&stage, &new)?;
    stage.start_device(DEVICE)?;
    stage.await_version(DEVICE, "1.1.0", SOON)?;
    assert_ne!(loss(&stage)?.as_deref(), Some("state-lost"), "positive control");
    stage.device_mut(DEVICE)?.stop()?;
    put(&stage, &old)?;
    stage.start_device(DEVICE)?;
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    assert_eq!(loss(&stage)?.as_deref(), Some("state-lost"));
    let asked = device(&stage, &["recover", "--request"])?;
    ensure!(
        asked.code == Some(0),
        "it may ask the custodians for the way back: {asked:?}"
    );
    let log = std::fs::read_to_string(here.path().join("stage/devices").join(DEVICE).join("device.log"))?;
    ensure!(log.contains("the trust record is an older copy"), "{log}");
    stage.device_mut(DEVICE)?.stop()?;
    // Their answer brings it back, from where the TPM has counted to.
    let answer = answered(&stage, &asked.stdout)?;
    must(device(&stage, &["recover", "--with", &answer])?, "recover")?;
    stage.start_device(DEVICE)?;
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    assert_ne!(loss(&stage)?.as_deref(), Some("state-lost"));
    stage.device_mut(DEVICE)?.stop()?;
    copy(&state(&stage)?, &back)?;

    // What was the newest copy is an older one since.
    put(&stage, &new)?;
    stage.start_device(DEVICE)?;
    assert_eq!(loss(&stage)?.as_deref(), Some("state-lost"));
    stage.device_mut(DEVICE)?.stop()?;

    // Positive control: the newest copy is the device's own state.
    put(&stage, &back)?;
    stage.start_device(DEVICE)?;
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    assert_ne!(loss(&stage)?.as_deref(), Some("state-lost"));
    let whole = device(&stage, &["recover", "--request"])?;
    ensure!(whole.stderr.contains("recovery-not-needed"), "{whole:?}");
    stage.device_mut(DEVICE)?.stop()
}
