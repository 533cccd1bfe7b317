//! A version that a device denied after a failed trial: tried again when an operator says so, and not before.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DENIED: &str = "denied-after-trial";

/// Starts a rollout of the sick set, and waits until it has halted; with why it did.
fn halted(stage: &Stage, more: &[&str]) -> Result<String> {
    let mut start = vec![
        "rollout",
        "start",
        "--set",
        "plant-2",
        "--wave",
        "all=1000permille",
    ];
    start.extend(["--failure-threshold", "1", "--soak", "1s", "--deadline", "60s"]);
    start.extend(more);
    let rollout = stage.redan(&start)?;
    let id = rollout.get("id").context("no id")?.to_string();
    let rollout = stage.await_rollout(id.trim_matches('"'), &["halted"], SOON)?;
    let why = rollout.get("halted_because").and_then(Value::as_str);
    Ok(why.context("it does not say why")?.to_owned())
}

#[test]
fn what_a_device_denied_after_its_trial_is_tried_again_once_it_is_unblocked_and_not_before() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    stage.publish(Release {
        component: SERVICE,
        version: "1.2.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.2.0"), (JOB, "1.0.0")])?;
    ensure!(halted(&stage, &[])? == "unhealthy");
    ensure!(halted(&stage, &[])? == DENIED);

    let sick = stage.programs.guest("thermo", "1.2.0")?;
    let sum = Command::new("sha256sum").arg(&sick).output()?;
    let sum = String::from_utf8(sum.stdout)?;
    let digest = sum.split_whitespace().next().context("no digest")?;
    // Tried, and sick again.
    ensure!(halted(&stage, &["--unblock", digest])? == "unhealthy");
    ensure!(halted(&stage, &[])? == DENIED);

    let views = stage.views()?;
    let runs = views.first().and_then(|view| view.healthy_version(SERVICE));
    ensure!(runs == Some("1.0.0"), "{views:?}");
    stage.stop()
}
