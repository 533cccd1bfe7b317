//! The end of a device with the real programs: ordered by the policy signers, learnt by the device, and said by what is left.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{await_that, run};
use redan_kit::traffic::get;
use redan_kit::{Programs, Stage};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);

fn decommission(stage: &Stage, id: &str) -> Result<()> {
    let (policy, snapshot) = (stage.key("release.policy-1"), stage.key("release.snapshot-1"));
    let answer = stage.redan(&["device", "decommission", id, "--key", &policy, "--key", &snapshot])?;
    ensure!(
        answer.get("revoked").is_some_and(|revoked| revoked == true),
        "{answer}"
    );
    Ok(())
}

/// What is left in a device's folder.
fn left(state: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(state)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Holds that a state folder is that of a device that was ended, and that everybody who asks is told so.
fn ended(stage: &Stage, id: &str) -> Result<()> {
    let kept = stage.device(id)?.state.clone();
    assert_eq!(left(&kept)?, ["decommissioned.json", "lock"]);
    let config = stage.folder.join("devices").join(id).join("device.toml");
    let program = &stage.programs.device;
    let mut asked = [
        Command::new(program),
        Command::new(program),
        Command::new(program),
    ];
    let [status, again, init] = &mut asked;
    status.args(["status", "--state"]).arg(&kept);
    again.args(["run", "--config"]).arg(&config);
    init.args(["init", "--id", id, "--state"]).arg(&kept);
    for command in &mut asked {
        let ran = run(command)?;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        for said in [
            &format!("/device/{id} and was decommissioned"),
            "because: decommissioned",
            "empty state folder",
        ] {
            ensure!(ran.stderr.contains(said), "{said:?} is not in {ran:?}");
        }
    }
    assert_eq!(left(&kept)?, ["decommissioned.json", "lock"]);
    Ok(())
}

#[test]
fn a_decommissioned_device_wipes_itself_and_says_so_and_a_revoked_one_does_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1", "press-2", "press-3"])?;
    // All that a server can do by itself: the device is refused, and stays what it is.
    stage.redan(&["device", "revoke", "press-3"])?;
    // One that runs learns at its next check-in, and ends with all its processes.
    decommission(&stage, "press-1")?;
    let status = stage.device_mut("press-1")?.process()?.wait(SOON)?;
    assert_eq!(
        status.code(),
        Some(1),
        "{}",
        stage.device_mut("press-1")?.process()?.tail()
    );
    ended(&stage, "press-1")?;
    ensure!(get(stage.device("press-1")?.service, "/thermo/").is_err());
    // One that was away learns when it comes back.
    stage.device_mut("press-2")?.stop()?;
    decommission(&stage, "press-2")?;
    ensure!(left(&stage.device("press-2")?.state)?.contains(&"identity".to_owned()));
    stage.start_device("press-2")?;
    let status = stage.device_mut("press-2")?.process()?.wait(SOON)?;
    assert_eq!(status.code(), Some(1));
    ended(&stage, "press-2")?;

    await_that("press-3 to be refused", SOON, || {
        let log = folder.path().join("devices/press-3/device.log");
        let log = std::fs::read_to_string(log)?;
        Ok(if log.contains("certificate-revoked") {
            Ok(())
        } else {
            Err(log)
        })
    })?;
    let answer = get(stage.device("press-3")?.service, "/thermo/")?;
    assert_eq!(answer.status, 200, "a revoked device goes on with what it has");
    ensure!(stage.device("press-3")?.state.join("identity/key.pem").exists());

    let shown = stage.redan(&["device", "show", "press-1"])?;
    assert_eq!(shown.pointer("/decommissioned"), Some(&true.into()));
    ensure!(
        shown
            .pointer("/order_fetched")
            .is_some_and(serde_json::Value::is_u64),
        "{shown}"
    );
    let audit = stage.redan(&["audit", "list"])?;
    let entries = audit.as_array().context("a list")?;
    let told = entries
        .iter()
        .filter(|entry| entry.pointer("/action") == Some(&"device-decommissioned".into()));
    assert_eq!(told.count(), 2);
    for id in ["press-1", "press-2"] {
        // Their processes have ended already.
        stage.device_mut(id)?.kill()?;
    }
    stage.stop()
}
