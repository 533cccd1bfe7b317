//! The path from publisher to running workload, swap under load, and rollback.

use anyhow::{Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE};
use redan_kit::traffic::{Load, get, version};
use redan_kit::{DeviceView, Programs, Stage};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICES: [&str; 2] = ["press-1", "press-2"];

fn on_set(views: &[DeviceView], set: &str) -> bool {
    views.len() == DEVICES.len() && views.iter().all(|view| view.set.as_deref() == Some(set))
}

#[test]
fn a_signed_component_reaches_its_devices_is_swapped_under_load_and_rolled_back_when_sick() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&DEVICES)?;
    for device in &stage.devices {
        let answer = get(device.service, "/thermo/")?;
        ensure!(answer.status == 200, "{} answered {answer:?}", device.id);
        assert_eq!(version(&answer.body).as_deref(), Some("1.0.0"));
    }

    // 1.1.0, canary first, under load.
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    let load: Vec<Load> = stage
        .devices
        .iter()
        .map(|d| Load::start(d.service, "/thermo/"))
        .collect();
    let rollout = stage.start_rollout("plant-2", &["canary=press-1", "all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    stage.await_devices("everyone to commit plant-2", SOON, |views| {
        on_set(views, "plant-2")
    })?;
    for load in load {
        let tally = load.finish();
        assert_eq!(tally.failed, 0, "{:?}", tally.examples);
        assert_eq!(tally.versions, ["1.0.0", "1.1.0"]);
    }

    // 1.2.0 says it is unhealthy.
    stage.publish(Release {
        component: SERVICE,
        version: "1.2.0",
        counter: 3,
    })?;
    stage.publish_set("plant-3", &[(SERVICE, "1.2.0"), (JOB, "1.0.0")])?;
    let rollout = stage.start_rollout("plant-3", &["canary=press-1", "all=1000permille"])?;
    stage.await_rollout(&rollout, &["halted"], SOON)?;
    let views = stage.await_devices("the canary back on plant-2", SOON, |views| {
        on_set(views, "plant-2") && views.iter().any(|view| view.rollback.is_some())
    })?;
    let canary = views.iter().find(|view| view.device == "press-1");
    assert_eq!(
        canary.and_then(|view| view.rollback.as_deref()),
        Some("unhealthy")
    );
    let other = views.iter().find(|view| view.device == "press-2");
    assert_eq!(other.and_then(|view| view.rollback.as_deref()), None);
    for device in &stage.devices {
        assert_eq!(
            version(&get(device.service, "/thermo/")?.body).as_deref(),
            Some("1.1.0")
        );
    }
    let audit = stage.redan(&["audit", "verify"])?;
    ensure!(
        audit != serde_json::Value::Null,
        "the audit chain was verified without a word"
    );
    stage.stop()
}
