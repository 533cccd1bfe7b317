//! The fleet's certificate authority changes under running devices: prepare, activate, taint, revoke, with nobody's hands on them. One
//! that was off all the while comes back by a bundle. What the old authority's key makes is believed by nobody any more.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{FLEET, await_that, run};
use redan_kit::traffic::Load;
use redan_kit::{Process, Programs, Stage};
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const RUNNING: [&str; 2] = ["press-1", "press-2"];
const AWAY: &str = "press-3";

fn ceremony(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let ran = run(Command::new(&stage.programs.ceremony).args(arguments))?;
    ensure!(ran.code == Some(0), "{arguments:?}: {ran:?}");
    Ok(ran.stdout)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// One step: requested, signed, assembled, and brought to the server's host.
fn step(stage: &Stage, what: &[&str], online: Option<&Path>) -> Result<()> {
    let public = shown(&stage.fleet().join("public"));
    let scratch = tempfile::tempdir_in(&stage.folder)?;
    let at = |name: &str| shown(&scratch.path().join(name));
    let (request, signature) = (at("request.json"), at("signature.json"));
    let mut make = vec!["ca"];
    make.extend(what);
    make.extend(["--public", &public, "--out", &request]);
    let said = ceremony(stage, &make)?;
    let digest = said.lines().find_map(|line| line.strip_prefix("payload sha256 "));
    let agreed = digest.and_then(|digest| digest.get(..8)).context("the digest")?;
    let key = stage.key("release.root-1");
    let mut sign = vec!["sign", "--public", &public, "--request", &request, "--key", &key];
    sign.extend(["--confirm", agreed, "--out", &signature]);
    ceremony(stage, &sign)?;
    let mut assemble = vec!["assemble", "--public", &public, "--request", &request];
    assemble.extend(["--signature", &signature]);
    ceremony(stage, &assemble)?;
    ceremony(stage, &["verify", "--public", &public])?;
    let mut keys = Command::new(&stage.programs.control);
    keys.args(["fleet", "keys", "--config"])
        .arg(stage.folder.join("control.toml"));
    if let Some(online) = online {
        keys.arg("--online").arg(online);
    }
    let ran = run(keys.arg("--public").arg(&public))?;
    ensure!(ran.code == Some(0), "{what:?}: {ran:?}");
    Ok(())
}

/// What a device says of itself.
fn status(stage: &Stage, id: &str) -> Result<Value> {
    let mut status = Command::new(&stage.programs.device);
    status.args(["status", "--json", "--state"]);
    let ran = run(status.arg(&stage.device(id)?.state))?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(serde_json::from_str(&ran.stdout)?)
}

fn await_status(stage: &Stage, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    await_that(what, SOON, || {
        let status = status(stage, id)?;
        Ok(if wanted(&status) {
            Ok(())
        } else {
            Err(status.to_string())
        })
    })
}

/// Until a device believes just these, by what it would start with after a power cut.
fn await_believed(stage: &Stage, id: &str, wanted: &[(&str, &str)]) -> Result<()> {
    let file = stage.device(id)?.state.join("identity/authorities.json");
    await_that("the device to believe what is listed", SOON, || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let read: Value = serde_json::from_str(&text).unwrap_or_default();
        let listed = read.get("authorities").and_then(Value::as_object).cloned();
        let listed = listed.unwrap_or_default();
        let holds = |(name, state): &(&str, &str)| {
            let stands = listed.get(*name).and_then(|one| one.get("state"));
            stands.and_then(Value::as_str) == Some(*state)
        };
        Ok(if listed.len() == wanted.len() && wanted.iter().all(holds) {
            Ok(())
        } else {
            Err(text)
        })
    })
}

/// How many devices the server says are under an authority.
fn under(stage: &Stage, authority: &str) -> Result<Option<u64>> {
    let fleet = stage.redan(&["status"])?;
    let all = fleet.get("authorities").and_then(Value::as_array).cloned();
    let of = |one: &Value| one.get("authority").and_then(Value::as_str) == Some(authority);
    let found = all.unwrap_or_default().into_iter().find(of);
    Ok(found.and_then(|one| one.get("devices")?.as_u64()))
}

fn await_under(stage: &Stage, id: &str, authority: &str) -> Result<()> {
    await_that("the server to see the device under the authority", SOON, || {
        let seen = stage.redan(&["device", "show", id])?;
        let named = seen.get("authority").and_then(Value::as_str);
        Ok(if named == Some(authority) {
            Ok(())
        } else {
            Err(seen.to_string())
        })
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let ran = run(Command::new("cp").arg("-a").arg("-T").arg(from).arg(to))?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(())
}

fn apply(stage: &Stage, id: &str, bundle: &Path) -> Result<redan_kit::stage::Ran> {
    let mut command = Command::new(&stage.programs.device);
    command.arg("apply").arg(bundle).arg("--state");
    run(command.arg(&stage.device(id)?.state))
}

/// The thief answers in the server's place with everything the server had before the change.
fn thief_serves(stage: &mut Stage, kept: &Path) -> Result<()> {
    let address = stage.server()?;
    ensure!(stage.control()?.stop()?.success());
    let config = stage.folder.join("thief.toml");
    let text = format!(
        "state = '{}'\nlisten = \"{address}\"\ncheckin_interval_seconds = 1\n",
        kept.display()
    );
    std::fs::write(&config, text)?;
    let mut serve = Command::new(&stage.programs.control);
    serve.args(["serve", "--config"]).arg(&config);
    let mut thief = Process::start("the thief", &mut serve, &stage.folder.join("thief.log"))?;
    thief.ready("redan-control: listening on ")?;
    for id in RUNNING {
        await_status(stage, id, "the forged server to be refused", |status| {
            status.get("offline").and_then(Value::as_str) == Some("foreign-server")
        })?;
    }
    thief.stop()?;
    stage.start_control()?;
    Ok(())
}

/// The third knows the old authority alone.
fn comes_back(stage: &mut Stage, new: &str) -> Result<()> {
    // It serves what it has, and says whom it does not believe.
    stage.start_device(AWAY)?;
    await_status(stage, AWAY, "the new server to be foreign to it", |status| {
        status.get("offline").and_then(Value::as_str) == Some("foreign-server")
    })?;
    let log = std::fs::read_to_string(stage.folder.join("devices/press-3/device.log"))?;
    ensure!(log.contains("redan bundle --authorities"), "{log}");
    let stick = stage.folder.join("stick");
    stage.redan(&["bundle", "--authorities", "--out", &shown(&stick)])?;
    // A root that somebody changed on the way is not walked.
    let forged = stage.folder.join("forged");
    copy(&stick, &forged)?;
    let root = forged.join("release/2.root.json");
    let text = std::fs::read_to_string(&root)?;
    std::fs::write(&root, text.replace("prepared", "tainted"))?;
    let ran = apply(stage, AWAY, &forged)?;
    ensure!(
        ran.code == Some(1) && ran.stderr.contains("threshold-not-met"),
        "{ran:?}"
    );
    let ran = apply(stage, AWAY, &stick)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    // From here on by itself: a certificate for the key it has, then its fleet.
    await_believed(stage, AWAY, &[(new, "active")])?;
    await_under(stage, AWAY, new)?;
    Ok(())
}

/// A voucher of an authority that nobody lists, though all else in it is right, takes no device that knows better.
fn forged_voucher(stage: &mut Stage) -> Result<()> {
    stage.device_mut(AWAY)?.stop()?;
    let (public, made) = (stage.fleet().join("public"), stage.folder.join("stranger"));
    ceremony(
        stage,
        &[
            "ca",
            "make",
            "--fleet-dir",
            &shown(&public),
            "--out",
            &shown(&made),
        ],
    )?;
    let text = std::fs::read_to_string(stage.folder.join("devices").join(AWAY).join("voucher.json"))?;
    let mut voucher: Value = serde_json::from_str(&text)?;
    let fields = voucher.as_object_mut().context("a voucher")?;
    fields.insert("ca".into(), std::fs::read_to_string(made.join("ca.pem"))?.into());
    let forged = stage.folder.join("forged.voucher.json");
    std::fs::write(&forged, voucher.to_string())?;
    let mut enrol = Command::new(&stage.programs.device);
    enrol.arg("enrol").arg("--voucher").arg(&forged).arg("--state");
    let ran = run(enrol.arg(&stage.device(AWAY)?.state))?;
    ensure!(
        ran.code == Some(1) && ran.stderr.contains("does not list"),
        "{ran:?}"
    );
    ensure!(
        ran.stderr.contains("authority-revoked") && ran.stderr.contains("redan bundle --authorities"),
        "{ran:?}"
    );
    stage.start_device(AWAY)
}

/// Everything the server has, at one instant.
fn steal(stage: &mut Stage) -> Result<PathBuf> {
    let (from, kept) = (stage.control_state(), stage.folder.join("thief"));
    let control = stage.control()?;
    control.signal(Signal::STOP)?;
    let copied = copy(&from, &kept);
    control.signal(Signal::CONT)?;
    copied.map(|()| kept)
}

#[test]
fn a_fleet_changes_its_authority_under_running_devices_and_one_that_was_off_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    let all = [RUNNING.as_slice(), &[AWAY]].concat();
    stage.play_first_release(&all)?;
    stage.device_mut(AWAY)?.stop()?;
    let loads: Vec<Load> = RUNNING
        .iter()
        .map(|id| Ok(Load::start(stage.device(id)?.service, "/thermo/")))
        .collect::<Result<_>>()?;
    let kept = steal(&mut stage)?;
    let (public, made) = (stage.fleet().join("public"), folder.path().join("new"));
    let described: Value = serde_json::from_slice(&std::fs::read(public.join("fleet.json"))?)?;
    let old = described
        .get("ca_sha256")
        .and_then(Value::as_str)
        .context("the CA")?;
    let out = shown(&made);
    let said = ceremony(
        &stage,
        &["ca", "make", "--fleet-dir", &shown(&public), "--out", &out],
    )?;
    let new = said
        .strip_prefix("Made authority ")
        .and_then(|said| said.get(..64));
    let new = new.context("the new authority")?;

    step(&stage, &["prepare", "--ca", &shown(&made.join("ca.pem"))], None)?;
    for id in RUNNING {
        await_believed(&stage, id, &[(old, "active"), (new, "prepared")])?;
    }
    step(
        &stage,
        &["activate", "--authority", new],
        Some(&made.join("online")),
    )?;
    for id in RUNNING {
        await_believed(&stage, id, &[(old, "old"), (new, "active")])?;
        await_under(&stage, id, old)?;
    }
    // What a device holds is replaced when custodians say so, and not before half of its life.
    step(&stage, &["taint", "--authority", old], None)?;
    for id in RUNNING {
        await_under(&stage, id, new)?;
        await_status(&stage, id, "the renewal to be over", |status| {
            status.pointer("/certificate/renewal") == Some(&Value::Null)
                && status.pointer("/certificate/authority").and_then(Value::as_str) == Some("active")
        })?;
    }
    // The one that is away is all that is left; the operator revokes without it, with a certificate of the new authority.
    ensure!(under(&stage, old)? == Some(1) && under(&stage, new)? == Some(2));
    let admin = stage.fleet().join("operators/admin.pem");
    std::fs::remove_file(&admin)?;
    let issuer = shown(&made.join("offline/operator-issuer.pem"));
    let mut issue = vec!["issue", "--operator", "admin", "--issuer", &issuer];
    let (public, admin) = (shown(&public), shown(&admin));
    issue.extend(["--fleet-dir", &public, "--out", &admin]);
    ceremony(&stage, &issue)?;
    step(&stage, &["revoke", "--authority", old], None)?;
    for id in RUNNING {
        await_believed(&stage, id, &[(new, "active")])?;
        await_status(&stage, id, "the device to be heard", |status| {
            status.get("offline") == Some(&Value::Null)
        })?;
    }
    ensure!(under(&stage, old)?.is_none());
    // Of the old one nothing is left with the server, but a file in its founding's folder that nobody believes.
    let online = stage.control_state().join("fleets").join(FLEET).join("online");
    let left = std::fs::read_dir(&online)?.map(|entry| Ok(entry?.file_name()));
    let left: Vec<_> = left.collect::<Result<_>>()?;
    let under_old = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("server-");
    ensure!(!left.iter().any(under_old), "{left:?}");

    thief_serves(&mut stage, &kept)?;
    for id in RUNNING {
        await_status(&stage, id, "the device to be back", |status| {
            status.get("offline") == Some(&Value::Null)
        })?;
    }
    for load in loads {
        let tally = load.finish();
        ensure!(tally.failed == 0, "{:?}", tally.examples);
        assert_eq!(tally.versions, ["1.0.0"]);
    }

    comes_back(&mut stage, new)?;
    ensure!(under(&stage, new)? == Some(3));
    let rollout = stage.start_rollout("plant-1", &["again=press-3"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    forged_voucher(&mut stage)?;
    stage.stop()
}
