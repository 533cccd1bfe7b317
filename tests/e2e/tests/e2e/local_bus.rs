//! Workloads of two publishers speak with each other on one device: signed, rolled out, in processes of their own (attack W22).

use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::await_that;
use redan_kit::{Programs, Stage};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(2);
const DEVICE: &str = "press-1";
const SENDER: &str = "acme/uploader";
const RECEIVER: &str = "other/alarm";

const ASK_OF_SENDER: &str = r#"schema = "redan.policy/1"
kind = "ask"
[subject]
name = "acme/uploader"
version = "1.0.0"
world = "wasi:cli/command@0.2"
[[trigger.timer]]
every = "1s"
required = true
[[net.bus]]
id = "readings"
to = "other/alarm"
publish = ["plant/+/temp"]
required = true
[[outbox]]
id = "cloud"
to = "readings"
required = true
[env]
allow = ["UPLOAD_TO"]
required = true
[clock]
wall = true
[log]
[health]
interval = "250ms"
timeout = "2s"
probation = "2s"
"#;

const ASK_OF_RECEIVER: &str = r#"schema = "redan.policy/1"
kind = "ask"
[subject]
name = "other/alarm"
version = "1.0.0"
world = "redan:messaging/handler@0.1"
[[trigger.bus]]
id = "readings"
from = "acme/uploader"
subscribe = ["plant/#"]
[[net.bus]]
id = "alarms"
to = "acme/siren"
publish = ["plant/+/alarm"]
[[outbox]]
id = "alarms"
to = "alarms"
[log]
[health]
interval = "250ms"
timeout = "2s"
probation = "2s"
"#;

const HEAD_OF_FLEET: &str = r#"schema = "redan.policy/1"
kind = "fleet"
serial = 1
[subject]
publishers = ["acme", "other"]
names = ["acme/*", "other/*"]
worlds = ["redan:messaging/handler@0.1", "wasi:cli/command@0.2"]
"#;

const HEAD_OF_DEVICE: &str = r#"schema = "redan.policy/1"
kind = "device"
hardware = "gateway"
[subject]
names = ["acme/*", "other/*"]
"#;

/// What lets the receiver hear: where it is missing, the sender alone says that they may speak.
const HEARS: &str = r#"[[trigger.bus]]
id = "line-7"
from = "acme/*"
subscribe = ["plant/7/#"]
"#;

const REST: &str = r#"[[trigger.timer]]
every = "1s"
[[net.bus]]
id = "plant"
to = "other/alarm"
publish = ["plant/#"]
[[net.bus]]
id = "sirens"
to = "acme/siren"
publish = ["plant/#"]
[[outbox]]
id = "cloud"
[[outbox]]
id = "alarms"
[env]
allow = ["UPLOAD_TO"]
values = { UPLOAD_TO = "plant/7/temp" }
[clock]
wall = true
[log]
"#;

fn settle(folder: &Path) -> Result<Stage> {
    let mut stage = Stage::new(Programs::find()?, folder)?;
    stage.run_ceremony_for(&[SENDER, RECEIVER])?;
    stage.start_control()?;
    stage.prepare_device(DEVICE)?;
    std::fs::write(ceiling(&stage), [HEAD_OF_DEVICE, HEARS, REST].concat())?;
    stage.start_device(DEVICE)?;
    let policy = folder.join("policy.toml");
    std::fs::write(&policy, [HEAD_OF_FLEET, HEARS, REST].concat())?;
    stage.publish_policy(&policy)?;
    for (component, ask) in [(SENDER, ASK_OF_SENDER), (RECEIVER, ASK_OF_RECEIVER)] {
        let workload = component.split('/').next_back().context("a workload")?;
        let file = folder.join(format!("{workload}.ask.toml"));
        std::fs::write(&file, ask)?;
        stage.redan(&[
            "publish",
            &stage.programs.guest(workload, "1.0.0")?.to_string_lossy(),
            "--ask",
            &file.to_string_lossy(),
            "--counter",
            "1",
            "--key",
            &stage.key(&format!("component.{}-1", component.replace('/', "."))),
            "--key",
            &stage.key("release.snapshot-1"),
        ])?;
    }
    stage.publish_set("line-1", &[(SENDER, "1.0.0"), (RECEIVER, "1.0.0")])?;
    let rollout = stage.start_rollout("line-1", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    Ok(stage)
}

fn ceiling(stage: &Stage) -> PathBuf {
    stage.folder.join("devices").join(DEVICE).join("ceiling.toml")
}

/// The lines of a workload's log that hold these words.
fn lines(stage: &Stage, workload: &str, words: &str) -> Result<Vec<String>> {
    let log = stage
        .device(DEVICE)?
        .state
        .join("data")
        .join(workload.replace('/', "/logs/"))
        .with_extension("log");
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains(words));
    Ok(lines.map(str::to_owned).collect())
}

/// How often the receiver heard something.
fn heard(stage: &Stage) -> Result<usize> {
    Ok(lines(stage, RECEIVER, "plant/7/temp {\"celsius\":21.5,")?.len())
}

fn hears_more_than(stage: &Stage, before: usize) -> Result<()> {
    await_that("a message of the other publisher", SOON, || {
        let now = heard(stage)?;
        Ok(if now > before {
            Ok(())
        } else {
            Err(format!("{now}"))
        })
    })
}

#[test]
fn workloads_of_two_publishers_speak_while_both_may_and_lose_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = settle(folder.path())?;
    hears_more_than(&stage, 0)?;

    // The administrator takes the receiver's leave; the sender's is as it was. What it says now waits: one reading a minute is kept, and
    // while that one waits its number does not change.
    std::fs::write(ceiling(&stage), [HEAD_OF_DEVICE, REST].concat())?;
    await_that("an item that waits", SOON, || {
        let kept = lines(&stage, SENDER, "kept as ")?;
        let last: Vec<&str> = kept
            .iter()
            .rev()
            .take(5)
            .filter_map(|line| line.split("kept as ").nth(1))
            .collect();
        let (Some(first), true) = (last.first(), last.len() == 5) else {
            return Ok(Err(kept.join(" ")));
        };
        Ok(if last.iter().all(|line| line == first) {
            Ok(())
        } else {
            Err(last.join(" "))
        })
    })?;
    let before = heard(&stage)?;

    // Nothing is lost when the power goes, and nothing passes while one end may not.
    stage.device_mut(DEVICE)?.kill()?;
    ensure!(heard(&stage)? == before, "it heard what it may not hear");
    std::fs::write(ceiling(&stage), [HEAD_OF_DEVICE, HEARS, REST].concat())?;
    stage.start_device(DEVICE)?;
    hears_more_than(&stage, before)?;

    stage.stop()?;
    // What the platform's own processes wrote down: who is linked with whom perhaps, what is said never.
    for log in [
        folder.path().join("control.log"),
        folder.path().join("devices").join(DEVICE).join("device.log"),
    ] {
        let text = std::fs::read_to_string(&log)?;
        ensure!(
            !text.contains("plant/7") && !text.contains("celsius"),
            "{} holds what a workload said",
            log.display()
        );
    }
    Ok(())
}
