//! The life of a device's certificate with the real programs: renewed in time, or after it has expired, or too late.

use crate::certificate;
use anyhow::{Result, ensure};
use redan_identity::KeyFile;
use redan_kit::stage::{await_that, run};
use redan_kit::traffic::{Load, get};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";

/// Gives the stopped device a certificate for the key it has, whose last second is so many seconds away.
fn certificate_ending_in(stage: &Stage, seconds: i64) -> Result<()> {
    let key = KeyFile::load(&stage.device(DEVICE)?.state.join("identity/key.pem"))?;
    certificate::ending_in(stage, DEVICE, &key.spki(), seconds)
}

/// What the device says of itself.
fn status(stage: &Stage) -> Result<Value> {
    let mut status = Command::new(&stage.programs.device);
    status.args(["status", "--json", "--state"]);
    let ran = run(status.arg(&stage.device(DEVICE)?.state))?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(serde_json::from_str(&ran.stdout)?)
}

fn await_status(stage: &Stage, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    await_that(what, SOON, || {
        let status = status(stage)?;
        Ok(if wanted(&status) {
            Ok(status)
        } else {
            Err(status.to_string())
        })
    })
}

/// Waits until the device has a new certificate and is heard with it; gives its status.
fn await_renewed(stage: &Stage, before: &Value) -> Result<Value> {
    let before = before.pointer("/certificate/not_after").cloned();
    await_status(stage, "a new certificate", |status| {
        let renewal = status.pointer("/certificate/renewal");
        status.pointer("/certificate/not_after") != before.as_ref()
            && renewal == Some(&Value::Null)
            && status.get("offline") == Some(&Value::Null)
    })
}

fn spki(stage: &Stage) -> Result<String> {
    let key = stage.device(DEVICE)?.state.join("identity/key.pem");
    Ok(KeyFile::load(&key)?.spki_sha256().to_string())
}

/// A fleet with one device that does not run, and has nothing to run.
fn prepared(stage: &mut Stage) -> Result<()> {
    stage.run_ceremony()?;
    stage.start_control()?;
    stage.prepare_device(DEVICE)
}

#[test]
fn an_agent_that_wakes_with_an_expired_certificate_renews_while_its_workload_serves() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&[DEVICE])?;
    stage.device_mut(DEVICE)?.stop()?;
    let old = spki(&stage)?;
    certificate_ending_in(&stage, -60)?;
    // The server comes last, so that the renewal happens under load.
    stage.control()?.stop()?;
    stage.start_device(DEVICE)?;
    let service = stage.device(DEVICE)?.service;
    await_that("the committed workload to answer", SOON, || {
        Ok(match get(service, "/thermo/") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    let before = status(&stage)?;
    let load = Load::start(service, "/thermo/");
    stage.start_control()?;
    await_renewed(&stage, &before)?;
    let tally = load.finish();
    assert_eq!(tally.failed, 0, "{:?}", tally.examples);
    let new = spki(&stage)?;
    assert_ne!(new, old);
    let seen = stage.redan(&["device", "show", DEVICE])?;
    assert_eq!(seen.get("spki").and_then(Value::as_str), Some(new.as_str()));
    assert_eq!(seen.get("clone_alarm"), Some(&Value::Null));
    // It is followed as before.
    let rollout = stage.start_rollout("plant-1", &["again=press-1"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    stage.stop()
}

#[test]
fn a_certificate_past_half_of_its_life_is_renewed_and_enrolling_once_more_is_harmless() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    prepared(&mut stage)?;
    let old = spki(&stage)?;
    // Of at least six minutes, at least five are over.
    certificate_ending_in(&stage, 60)?;
    stage.start_device(DEVICE)?;
    await_that("another key", SOON, || {
        let now = spki(&stage)?;
        Ok(if now == old { Err(now) } else { Ok(()) })
    })?;
    await_status(&stage, "the renewal to be over", |status| {
        status.pointer("/certificate/renewal") == Some(&Value::Null)
    })?;
    stage.device_mut(DEVICE)?.stop()?;
    let renewed = spki(&stage)?;
    let device = stage.device(DEVICE)?;
    let mut enrol = Command::new(&stage.programs.device);
    enrol.arg("enrol").arg("--state").arg(&device.state);
    enrol
        .arg("--voucher")
        .arg(folder.path().join("devices/press-1/voucher.json"));
    let ran = run(&mut enrol)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    assert_eq!(spki(&stage)?, renewed);
    stage.stop()
}

#[test]
fn a_renewal_that_is_refused_is_tried_again_said_and_stops_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    prepared(&mut stage)?;
    certificate_ending_in(&stage, -60)?;
    let file = folder.path().join("control.toml");
    let text = std::fs::read_to_string(&file)?;
    stage.control()?.stop()?;
    std::fs::write(&file, format!("{text}renewal_grace_seconds = 30\n"))?;
    stage.start_control()?;
    stage.start_device(DEVICE)?;
    let before = await_status(&stage, "two refused renewals", |status| {
        let failures = status.pointer("/certificate/renewal/failures");
        failures.and_then(Value::as_u64) >= Some(2)
    })?;
    let code = |pointer| before.pointer(pointer).and_then(Value::as_str);
    assert_eq!(code("/certificate/renewal/code"), Some("renewal-too-late"));
    assert_eq!(code("/offline"), Some("certificate-expired"));
    let log = std::fs::read_to_string(folder.path().join("devices/press-1/device.log"))?;
    for said in ["not renewed", "renewal-too-late", "enrol it again", "tried again"] {
        ensure!(log.contains(said), "{said:?} is not in {log}");
    }
    // The operator lets it come back.
    stage.control()?.stop()?;
    std::fs::write(&file, format!("{text}renewal_grace_seconds = 86400\n"))?;
    stage.start_control()?;
    await_renewed(&stage, &before)?;
    stage.stop()
}
