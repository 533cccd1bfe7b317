//! Agents that die again and again (attack D14): every start serves the last good set, and an update that kills its device is given up.

use crate::canary::memory::processes;
use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE, await_that, run};
use redan_kit::traffic::Load;
use redan_kit::{Programs, Stage};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
/// More than any trial may have attempts.
const ENOUGH: usize = 12;

/// A process of the device dies. The device begins again by itself; or it ends and says so after too many deaths, for the service
/// manager to start it. Whether it ended.
fn dies(stage: &mut Stage, kind: &str) -> Result<bool> {
    let device = stage.device_mut(DEVICE)?.process()?;
    let before = processes(device.id())?;
    let victim = *before.get(kind).context("a process to kill")?;
    let pid = i32::try_from(victim)
        .ok()
        .and_then(Pid::from_raw)
        .context("a process")?;
    kill_process(pid, Signal::KILL)?;
    let ended = await_that("another agent, or the end of all", SOON, || {
        if !device.runs() {
            return Ok(Ok(true));
        }
        let now = processes(device.id())?;
        // Nobody of the dead one's time is left.
        let others = now
            .iter()
            .filter(|(kind, _)| *kind != "supervisor")
            .all(|(kind, id)| before.get(kind) != Some(id));
        Ok(if others && now.contains_key("agent") {
            Ok(false)
        } else {
            Err(format!("{before:?}, now {now:?}"))
        })
    })?;
    if ended {
        let status = device.wait(SOON)?;
        ensure!(status.code() == Some(70), "the supervisor ended with {status}");
        let said = device.tail();
        ensure!(said.contains("error: the agent process died, after"), "{said}");
    }
    Ok(ended)
}

/// The agent dies, and whoever has to begins again. Whether that was the service manager.
pub(crate) fn the_agent_dies(stage: &mut Stage) -> Result<bool> {
    let ended = dies(stage, "agent")?;
    if ended {
        stage.start_device(DEVICE)?;
    }
    Ok(ended)
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
    let mut ends = Vec::new();
    for death in 0..ENOUGH {
        stage.await_version(DEVICE, "1.0.0", SOON)?;
        if the_agent_dies(&mut stage)? {
            ends.push(death);
        }
    }
    // Five deaths that a supervisor mends by itself; and not so many as there were (a death counts for ten minutes).
    ensure!(
        ends.first().is_some_and(|first| *first >= 5),
        "the device ended at {ends:?}"
    );
    stage.await_version(DEVICE, "1.0.0", SOON)?;
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
    }
    ensure!(deaths >= 2, "one death is no proof: {deaths}");
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    stage.await_rollout(&rollout, &["halted"], SOON)?;
    stage.await_devices("the set before", SOON, |views| {
        views
            .iter()
            .any(|view| view.set.as_deref() == Some("plant-1") && view.rollback.is_some())
    })?;
    // And it is not tried again.
    the_agent_dies(&mut stage)?;
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    ensure!(status(&stage)?["set"] == "plant-1");
    stage.stop()
}

/// The attacker kills what he can reach and has put something into the cache of native code: what begins again by itself is checked as
/// at any start.
#[test]
fn a_device_whose_agent_or_broker_is_killed_under_traffic_serves_again_by_itself_what_it_checked_anew()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&[DEVICE])?;
    let supervisor = stage.device_mut(DEVICE)?.process()?.id();
    stage.await_version(DEVICE, "1.0.0", SOON)?;
    let traffic = Load::start(stage.device(DEVICE)?.service, "/thermo/");
    let native = stage.device(DEVICE)?.state.join("native");
    for kind in ["agent", "broker", "agent"] {
        let mut entries = 0;
        for entry in std::fs::read_dir(&native)? {
            let path = entry?.path();
            let mut code = std::fs::read(&path)?;
            if path.file_name() != Some("refused".as_ref())
                && let Some(last) = code.last_mut()
            {
                *last ^= 1;
                std::fs::write(&path, &code)?;
                entries += 1;
            }
        }
        ensure!(entries > 0, "nothing to poison");
        ensure!(!dies(&mut stage, kind)?, "the device ended with its {kind}");
        stage.await_version(DEVICE, "1.0.0", SOON)?;
        ensure!(
            native.join("refused").exists(),
            "what was poisoned was not looked at"
        );
        std::fs::remove_file(native.join("refused"))?;
    }
    let tally = traffic.finish();
    ensure!(tally.answered > 0 && tally.versions == ["1.0.0"], "{tally:?}");
    let device = stage.device_mut(DEVICE)?.process()?;
    ensure!(device.runs() && device.id() == supervisor, "another supervisor");
    ensure!(status(&stage)?["set"] == "plant-1");
    stage.stop()
}
