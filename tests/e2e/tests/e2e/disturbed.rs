//! Power cuts, a server that is gone, and two agents on one store.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE, await_that, run};
use redan_kit::traffic::{get, version};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);

/// The version a device answers with, once it answers.
fn await_version(stage: &Stage, id: &str, wanted: &str) -> Result<()> {
    let address = stage.device(id)?.service;
    await_that(&format!("{id} to answer with {wanted}"), SOON, || {
        match get(address, "/thermo/") {
            Ok(answer) if version(&answer.body).as_deref() == Some(wanted) => Ok(Ok(())),
            Ok(answer) => Ok(Err(format!("{answer:?}"))),
            Err(error) => Ok(Err(format!("{error:#}"))),
        }
    })
}

/// How long ago a device says that its server answered.
fn contact(stage: &Stage, id: &str) -> Result<Value> {
    let mut status = Command::new(&stage.programs.device);
    status.args(["status", "--json", "--state"]);
    let ran = run(status.arg(&stage.device(id)?.state))?;
    let status: Value = serde_json::from_str(&ran.stdout)?;
    status.get("contact_seconds").cloned().context(ran.stdout)
}

#[test]
fn what_was_committed_runs_again_after_a_power_cut_with_no_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let before = contact(&stage, "press-1")?;
    ensure!(before.is_u64(), "no age of the last contact: {before}");
    stage.control()?.stop()?;
    stage.device_mut("press-1")?.kill()?;
    stage.start_device("press-1")?;
    await_version(&stage, "press-1", "1.0.0")?;
    let after = contact(&stage, "press-1")?;
    ensure!(after.is_null(), "a contact with no server: {after}");
    stage.device_mut("press-1")?.stop()
}

#[test]
fn a_server_killed_in_mid_rollout_finishes_it_after_its_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1", "press-2"])?;
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    let rollout = stage.start_rollout("plant-2", &["canary=press-1", "all=1000permille"])?;
    stage.control()?.kill()?;
    stage.start_control()?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    await_version(&stage, "press-2", "1.1.0")?;
    stage.redan(&["audit", "verify"])?;
    stage.stop()
}

#[test]
fn a_second_agent_on_the_same_store_is_refused_and_harms_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let mut second = Command::new(&stage.programs.device);
    second
        .arg("run")
        .arg("--config")
        .arg(folder.path().join("devices/press-1/device.toml"));
    let ran = run(&mut second)?;
    ensure!(
        ran.code.is_some_and(|code| code != 0),
        "the second agent ran: {ran:?}"
    );
    ensure!(
        ran.stderr.contains("error:") && ran.stderr.contains("try:"),
        "no clear error: {}",
        ran.stderr
    );
    await_version(&stage, "press-1", "1.0.0")?;
    stage.stop()
}
