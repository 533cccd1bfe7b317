//! Policy and ceiling take something from a workload that runs: at once, without a new version, and give it back the same way.

use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::await_that;
use redan_kit::traffic::get;
use redan_kit::{Programs, Stage};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);

/// Waits for an answer of this status; with its body.
fn answers(address: SocketAddr, status: u16) -> Result<String> {
    await_that(&format!("{status} of the service"), SOON, || {
        let answer = get(address, "/thermo/")?;
        let seen = format!("{} {:?} {}", answer.status, answer.code, answer.body);
        Ok(if answer.status == status {
            Ok(answer.body)
        } else {
            Err(seen)
        })
    })
}

fn readings(body: &str) -> Result<u64> {
    let body: serde_json::Value = serde_json::from_str(body)?;
    body.get("readings")
        .and_then(serde_json::Value::as_u64)
        .context("no readings")
}

fn publish(stage: &Stage, folder: &Path, serial: u32, policy: &str) -> Result<()> {
    let file = folder.join(format!("policy-{serial}.toml"));
    std::fs::write(
        &file,
        policy.replace("serial = 1\n", &format!("serial = {serial}\n")),
    )?;
    stage.publish_policy(&file)?;
    Ok(())
}

#[test]
fn a_policy_that_takes_something_takes_it_from_what_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let service = stage.device("press-1")?.service;
    let before = readings(&answers(service, 200)?)?;
    let views = stage.views()?;

    // The bucket, which the ask requires, is gone: nothing new would be adopted under this policy, and what runs keeps nothing.
    let policy = std::fs::read_to_string(stage.programs.repository.join("policies/fleet/demo.toml"))?;
    let bucket = "[[kv]]\nlabel = \"default\"\nquota = { bytes = \"128KiB\", keys = 50 }\n";
    ensure!(
        policy.contains(bucket),
        "the demonstration policy has another bucket now"
    );
    publish(&stage, folder.path(), 2, &policy.replace(bucket, ""))?;
    answers(service, 404)?;

    // Given back, it has what it had, and its bucket is the one it had.
    publish(&stage, folder.path(), 3, &policy)?;
    let after = readings(&answers(service, 200)?)?;
    ensure!(after > before, "{after} after {before}");

    // The administrator of the device takes it too, without a restart.
    let ceiling = folder.path().join("devices/press-1/ceiling.toml");
    let text = std::fs::read_to_string(&ceiling)?;
    let own = "[[kv]]\nlabel = \"default\"\nquota = { bytes = \"1MiB\" }\n";
    ensure!(
        text.contains(own),
        "the demonstration ceiling has another bucket now"
    );
    std::fs::write(&ceiling, text.replace(own, ""))?;
    answers(service, 404)?;
    // What does not read changes nothing.
    std::fs::write(&ceiling, "kind = ")?;
    std::fs::write(&ceiling, &text)?;
    let last = readings(&answers(service, 200)?)?;
    ensure!(last > after, "{last} after {after}");

    let same = |views: &[redan_kit::DeviceView]| {
        views
            .first()
            .and_then(|view| view.healthy_version("acme/thermo").map(str::to_owned))
    };
    ensure!(
        same(&stage.views()?) == same(&views),
        "no other version was needed for any of it"
    );
    stage.stop()
}
