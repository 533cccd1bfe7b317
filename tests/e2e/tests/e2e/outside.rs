//! What the fleet's policy says about the device itself, through the signed path: how long it runs on metadata that nobody confirms
//! (`[stale]`), and what it tells (`[report]`). And a component that is more work than a device has.

#![allow(clippy::indexing_slicing, reason = "helpers of tests fail as tests do")]

use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE, await_that, run};
use redan_kit::traffic::{Load, get};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A device looks whether its metadata is stale every quarter of a minute.
const SOON: Duration = Duration::from_mins(2);
/// Reports that are looked at.
const REPORTS: usize = 5;

fn status(stage: &Stage, device: &str) -> Result<Value> {
    let mut status = Command::new(&stage.programs.device);
    status
        .args(["status", "--json", "--state"])
        .arg(&stage.device(device)?.state);
    Ok(serde_json::from_str(&run(&mut status)?.stdout).unwrap_or_default())
}

/// Publishes the demonstration's policy with more in it, and waits until every device has read what came with it.
fn publish(stage: &Stage, serial: u32, more: &str) -> Result<()> {
    let release =
        |device: &str| Ok::<_, anyhow::Error>(status(stage, device)?["release"].as_u64().unwrap_or(0));
    let devices: Vec<&str> = stage.devices.iter().map(|device| device.id.as_str()).collect();
    let before = devices.iter().map(|device| release(device));
    let before: Vec<u64> = before.collect::<Result<_>>()?;
    let policy = std::fs::read_to_string(stage.programs.repository.join("policies/fleet/demo.toml"))?;
    let policy = policy.replace("serial = 1\n", &format!("serial = {serial}\n"));
    let file = stage.folder.join(format!("policy-{serial}.toml"));
    std::fs::write(&file, format!("{policy}\n{more}"))?;
    stage.publish_policy(&file)?;
    for (device, before) in devices.iter().zip(before) {
        await_that(&format!("{device} to read the policy"), SOON, || {
            let now = release(device)?;
            Ok(if now > before {
                Ok(())
            } else {
                Err(format!("release {now}"))
            })
        })?;
    }
    Ok(())
}

/// Waits for an answer of this status and code.
fn answers(stage: &Stage, device: &str, wanted: (u16, Option<&str>)) -> Result<()> {
    let service = stage.device(device)?.service;
    await_that(&format!("{wanted:?} of {device}"), SOON, || {
        let answer = get(service, "/thermo/")?;
        Ok(if (answer.status, answer.code.as_deref()) == wanted {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        })
    })
}

/// The attacker keeps the server from a device, or is the server and shows it nothing.
#[test]
fn a_device_whose_metadata_nobody_confirms_stops_where_policy_says_so_and_goes_on_when_it_is_confirmed()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1", "press-2"])?;
    let (good, stopped) = ((200, None), (503, Some("nothing-to-run-safely")));
    // The fleet lets devices run on, and one device's administrator does not.
    publish(&stage, 2, "[stale]\nmax_age = \"4s\"\nafter = \"keep-running\"\n")?;
    let ceiling = folder.path().join("devices/press-1/ceiling.toml");
    let text = std::fs::read_to_string(&ceiling)?;
    std::fs::write(
        &ceiling,
        format!("{text}\n[stale]\nmax_age = \"4s\"\nafter = \"stop\"\n"),
    )?;
    stage.control()?.stop()?;
    answers(&stage, "press-1", stopped)?;
    assert_eq!(status(&stage, "press-1")?["refusal"], "stale");
    answers(&stage, "press-2", good).context("control")?;
    assert_eq!(status(&stage, "press-2")?["refusal"], Value::Null);
    stage.start_control()?;
    answers(&stage, "press-1", good)?;
    std::fs::write(&ceiling, text)?;
    // The fleet stops everybody.
    publish(&stage, 3, "[stale]\nmax_age = \"4s\"\nafter = \"stop\"\n")?;
    stage.control()?.stop()?;
    for device in ["press-1", "press-2"] {
        answers(&stage, device, stopped)?;
    }
    // A restart is no way around it: the time is in the record.
    stage.device_mut("press-2")?.stop()?;
    stage.start_device("press-2")?;
    answers(&stage, "press-2", stopped)?;
    stage.start_control()?;
    for device in ["press-1", "press-2"] {
        answers(&stage, device, good)?;
        assert_eq!(status(&stage, device)?["set"], "plant-1", "nothing was lost");
    }
    stage.stop()
}

/// The next report after the one of this second: when it came, and the significant bits of the count of calls in it.
fn reported(stage: &Stage, after: u64) -> Result<(u64, u64)> {
    await_that("another report", SOON, || {
        let shown = stage.redan(&["device", "show", "press-1"])?;
        let seen = shown["last_seen"].as_u64().context("a time")?;
        let slots = shown["slots"].as_array().context("slots")?;
        let calls = slots.iter().filter(|slot| slot["component"] == SERVICE);
        let calls = calls.map(|slot| slot["calls"].as_u64().unwrap_or(u64::MAX)).max();
        Ok(match calls {
            Some(calls) if seen > after => Ok((seen, calls)),
            _ => Err(shown.to_string()),
        })
    })
}

/// The operator of the platform wants to know how much a plant has to do.
#[test]
fn a_policy_of_states_alone_keeps_every_count_of_calls_on_the_device() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let traffic = Load::start(stage.device("press-1")?.service, "/thermo/");
    let counted = |stage: &Stage| {
        await_that("a count of calls", SOON, || {
            let (_, calls) = reported(stage, 0)?;
            Ok(if calls > 0 { Ok(()) } else { Err("none".to_owned()) })
        })
    };
    counted(&stage).context("control: by default they are told")?;
    publish(&stage, 2, "[report]\nevents = [\"state\"]\n")?;
    // What was under way when the policy came may still be told.
    let (mut seen, _) = reported(&stage, reported(&stage, 0)?.0)?;
    for _ in 0..REPORTS {
        let sent = traffic.sent();
        await_that("more calls", SOON, || {
            Ok(if traffic.sent() > sent {
                Ok(())
            } else {
                Err(sent.to_string())
            })
        })?;
        let (at, calls) = reported(&stage, seen)?;
        assert_eq!(calls, 0, "a count was told at {at}");
        seen = at;
    }
    publish(&stage, 3, "[report]\nevents = [\"state\", \"counters\"]\n")?;
    counted(&stage).context("control: there was something to tell")?;
    let tally = traffic.finish();
    assert_eq!(tally.failed, 0, "{:?}", tally.examples);
    stage.stop()
}

/// A command whose one function keeps very many values alive at once.
fn bomb() -> Result<Vec<u8>> {
    let mut body = String::new();
    for _ in 0..VALUES {
        body.push_str("local.get 0 i32.load local.get 0 i32.mul i32.const 7 i32.div_u local.set 0 ");
    }
    let mut text = String::from("(component (core module $m (memory 1)");
    write!(text, "(func (param i32) (result i32) {body} local.get 0)")?;
    text.push_str(
        "(func (export \"run\") (result i32) i32.const 0))
         (core instance $i (instantiate $m))
         (func $run (result (result)) (canon lift (core func $i \"run\")))
         (instance $e (export \"run\" (func $run)))
         (export \"wasi:cli/run@0.2.0\" (instance $e)))",
    );
    Ok(wat::parse_str(text)?)
}

/// How often that is said.
const VALUES: usize = 400_000;

fn publish_job(stage: &mut Stage, version: &str, counter: u64, wasm: &Path) -> Result<String> {
    stage.publish_file(
        Release {
            component: JOB,
            version,
            counter,
        },
        wasm,
    )?;
    let set = format!("plant-{version}");
    stage.publish_set(&set, &[(SERVICE, "1.0.0"), (JOB, version)])?;
    stage.start_rollout(&set, &["all=1000permille"])
}

/// The attacker may sign a component.
#[test]
fn a_compile_bomb_that_is_signed_and_rolled_out_is_refused_with_its_code_and_nothing_else_notices()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let agent = crate::canary::memory::processes(stage.device_mut("press-1")?.process()?.id())?;
    let traffic = Load::start(stage.device("press-1")?.service, "/thermo/");
    let wasm = stage.folder.join("bomb.wasm");
    std::fs::write(&wasm, bomb()?)?;
    let rollout = publish_job(&mut stage, "1.1.0", 2, &wasm)?;
    let views = stage.await_devices("a refusal", Duration::from_mins(10), |views| {
        views
            .iter()
            .any(|view| view.refusal.is_some() || view.rollback.is_some())
    })?;
    let view = views.first().context("a device")?;
    let why = view.refusal.as_deref().or(view.rollback.as_deref());
    assert_eq!(why, Some("compile-budget"), "{view:?}");
    assert_eq!(view.set.as_deref(), Some("plant-1"));
    let after = crate::canary::memory::processes(stage.device_mut("press-1")?.process()?.id())?;
    for kind in ["agent", "broker", "executor"] {
        ensure!(
            agent.get(kind) == after.get(kind),
            "{kind}: {agent:?}, now {after:?}"
        );
    }
    let tally = traffic.finish();
    assert_eq!(tally.failed, 0, "{:?}", tally.examples);
    assert_eq!(tally.versions, ["1.0.0"]);
    // Control: the same way, with a component that is no bomb.
    stage.redan(&["rollout", "abort", &rollout]).ok();
    let good = stage.programs.guest("tick", "1.0.0")?;
    let rollout = publish_job(&mut stage, "1.2.0", 3, &good)?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    stage.stop()
}
