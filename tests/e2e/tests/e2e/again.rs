//! Agents that die again and again (attack D14): every start serves the last good set, and an update that kills its device is given up.

use crate::canary::memory::processes;
use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE, await_that, run};
use redan_kit::traffic::{get, version};
use redan_kit::{Programs, Stage};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
/// More than any trial may have attempts.
const ENOUGH: usize = 12;

/// The agent dies; the supervisor notices, stops everybody and says so, for the service manager to start it all again.
fn the_agent_dies(stage: &mut Stage) -> Result<()> {
    let device = stage.device_mut(DEVICE)?.process()?;
    let agent = *processes(device.id())?.get("agent").context("an agent")?;
    let agent = i32::try_from(agent)
        .ok()
        .and_then(Pid::from_raw)
        .context("a process")?;
    kill_process(agent, Signal::KILL)?;
    let ended = device.wait(SOON)?;
    ensure!(!ended.success(), "the supervisor ended with {ended}");
    Ok(())
}

fn serves(stage: &Stage, wanted: &str) -> Result<()> {
    let service = stage.device(DEVICE)?.service;
    await_that(&format!("version {wanted}"), SOON, || {
        Ok(match get(service, "/thermo/") {
            Ok(answer) if version(&answer.body).as_deref() == Some(wanted) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
}

fn status(stage: &Stage) -> Result<Value> {
    let mut status = Command::new(&stage.programs.device);
    status
        .args(["status", "--json", "--state"])
        .arg(&stage.device(DEVICE)?.state);
    Ok(serde_json::from_str(&run(&mut status)?.stdout).unwrap_or_default())
}

#[test]
fn an_agent_that_dies_again_and_again_serves_the_last_good_set_at_every_start_and_gives_a_deadly_update_up()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&[DEVICE])?;
    // Nothing is wrong with what runs: it never costs the device its set.
    for _ in 0..ENOUGH {
        serves(&stage, "1.0.0")?;
        the_agent_dies(&mut stage)?;
        stage.start_device(DEVICE)?;
    }
    serves(&stage, "1.0.0")?;
    ensure!(status(&stage)?["set"] == "plant-1");

    // An update under which the agent dies each time it is on trial.
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("deadly", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    let rollout = stage.start_rollout("deadly", &["all=1000permille"])?;
    let mut deaths = 0;
    loop {
        let over = await_that("a trial, or the end of it", SOON, || {
            let seen = status(&stage)?;
            let given_up = seen["rollback"] != Value::Null;
            let on_trial = seen["phase"] == "trial";
            Ok(if given_up || on_trial {
                Ok(given_up)
            } else {
                Err(seen.to_string())
            })
        })?;
        if over {
            break;
        }
        deaths += 1;
        ensure!(deaths < ENOUGH, "the update is tried for ever");
        the_agent_dies(&mut stage)?;
        stage.start_device(DEVICE)?;
    }
    ensure!(deaths >= 2, "one death is no proof: {deaths}");
    serves(&stage, "1.0.0")?;
    stage.await_rollout(&rollout, &["halted"], SOON)?;
    stage.await_devices("the set before", SOON, |views| {
        views
            .iter()
            .any(|view| view.set.as_deref() == Some("plant-1") && view.rollback.is_some())
    })?;
    // And it is not tried again.
    the_agent_dies(&mut stage)?;
    stage.start_device(DEVICE)?;
    serves(&stage, "1.0.0")?;
    ensure!(status(&stage)?["set"] == "plant-1");
    stage.stop()
}
