//! A service of WASI 0.3 on the whole path: refused by name where the device's owner did not switch it on, served where they did, by an
//! executor that is confined like any other.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{SERVICE, await_that};
use redan_kit::traffic::get;
use redan_kit::{Programs, Stage};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(3);

const ASK: &str = r#"
schema = "redan.policy/1"
kind = "ask"
[subject]
name = "acme/thermo"
version = "3.0.0"
world = "wasi:http/service@0.3"
[[trigger.http]]
route = "/thermo/..."
methods = ["GET"]
required = true
[health]
interval = "1s"
timeout = "10s"
fail_after = 2
probation = "2s"
"#;

#[test]
fn a_service_of_wasi_0_3_runs_where_the_devices_owner_switched_it_on_and_nowhere_else() -> Result<()> {
    let programs = Programs::find()?;
    let wasm = programs.guest("tasks", "1.0.0")?;
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(programs, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    stage.add_device("press-1")?;
    let read = |name: &str| std::fs::read_to_string(stage.programs.repository.join("policies").join(name));
    let policy = folder.path().join("fleet.toml");
    let admitted = "worlds = [\"wasi:http/service@0.3\", ";
    std::fs::write(&policy, read("fleet/demo.toml")?.replace("worlds = [", admitted))?;
    stage.publish_policy(&policy)?;

    // What `publish` takes needs its world and its interfaces in order; the guest may ask for outgoing requests and is given none.
    let ask = folder.path().join("ask.toml");
    let http = "[[net.http]]\nid = \"any\"\nallow = [\"https://nowhere.invalid\"]\nmethods = [\"GET\"]\n";
    std::fs::write(&ask, format!("{ASK}{http}"))?;
    let (wasm, ask) = (wasm.display().to_string(), ask.display().to_string());
    let keys = [
        stage.key("component.acme.thermo-1"),
        stage.key("release.snapshot-1"),
    ];
    let words = ["publish", &wasm, "--ask", &ask, "--counter", "3"];
    stage.redan(&[&words[..], &["--key", &keys[0], "--key", &keys[1]]].concat())?;
    stage.publish_set("plant-3", &[(SERVICE, "3.0.0")])?;
    let wave = ["--wave", "all=1000permille", "--soak", "1s", "--deadline", "10m"];
    stage.redan(&[&["rollout", "start", "--set", "plant-3"][..], &wave].concat())?;
    stage.await_devices("the device to refuse it", SOON, |views| {
        views
            .iter()
            .any(|view| view.refusal.as_deref() == Some("wasi-switched-off"))
    })?;

    let ceiling = folder.path().join("devices/press-1/ceiling.toml");
    let text = std::fs::read_to_string(&ceiling)?;
    std::fs::write(&ceiling, format!("{text}\n[runtime]\nwasi_0_3 = true\n"))?;
    stage.device_mut("press-1")?.stop()?;
    stage.start_device("press-1")?;
    let address = stage.device("press-1")?.service;
    let body = await_that("the service to answer", SOON, || {
        let answer = get(address, "/thermo/");
        Ok(match answer {
            Ok(answer) if answer.status == 404 && answer.code.is_none() => Ok(answer.body),
            other => Err(format!("{other:?}")),
        })
    })?;
    // The guest's own 404: it knows no such path.
    ensure!(body.is_empty(), "{body}");
    stage.stop().context("ending it")
}
