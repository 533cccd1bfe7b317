//! A fleet with real programs whose publishers, server, operator and device keep their keys in tokens.

use crate::certificate;
use crate::room::{Room, with_tokens};
use anyhow::{Result, ensure};
use redan_identity::key::{KeyProvider, held};
use redan_kit::stage::{FLEET, JOB, SERVICE, await_that, must, run};
use redan_kit::{Programs, Stage};
use redan_token::{Key, Kind, TokenError, Uri};
use serde_json::Value;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
const ENVIRONMENT: &str = "module_environment = [\"SOFTHSM2_CONF\"]\n";

fn ceremony(stage: &Stage, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(&stage.programs.ceremony);
    must(run(command.args(arguments))?, "redan-ceremony").map(drop)
}

/// Puts a certificate for a key in a token in the place of one that the founding made.
fn reissue(stage: &Stage, file: &str, issuer: &str, uri: &str, whose: &[&str]) -> Result<()> {
    let fleet = stage.fleet();
    let (out, public) = (fleet.join(file), fleet.join("public"));
    let issuer = fleet.join("offline").join(issuer);
    std::fs::remove_file(&out)?;
    let (out, public, issuer) = (
        out.to_string_lossy(),
        public.to_string_lossy(),
        issuer.to_string_lossy(),
    );
    let mut arguments = vec![
        "issue",
        "--fleet-dir",
        &public,
        "--issuer",
        &issuer,
        "--key",
        uri,
        "--out",
        &out,
    ];
    arguments.extend(whose);
    ceremony(stage, &arguments)
}

fn key_text(stage: &Stage) -> Result<String> {
    Ok(std::fs::read_to_string(
        stage.device(DEVICE)?.state.join("identity/key.pem"),
    )?)
}

fn key(stage: &Stage) -> Result<Arc<dyn KeyProvider>> {
    Ok(held(&key_text(stage)?)?)
}

#[test]
fn a_fleet_runs_whose_publishers_server_operator_and_device_keep_their_keys_in_tokens() {
    with_tokens(
        "fleet::a_fleet_runs_whose_publishers_server_operator_and_device_keep_their_keys_in_tokens",
        &["publisher", "server", "operator", "device"],
        |room| whole_fleet(room).unwrap(),
    );
}

fn whole_fleet(room: &Room) -> Result<()> {
    let mut stage = Stage::new(Programs::find()?, &room.path("stage"))?;
    let mut found = vec![
        "init",
        "--profile",
        "development",
        "--fleet",
        FLEET,
        "--publisher",
        "acme",
    ];
    let out = stage.fleet();
    let out = out.to_string_lossy();
    found.extend(["--component", SERVICE, "--component", JOB, "--out", &out]);
    let mut brought = Vec::new();
    let roles = [
        "release.policy-1",
        "release.plan-1",
        "release.snapshot-1",
        "component.acme.thermo-1",
        "component.acme.tick-1",
    ];
    let mine = room.path("mine");
    for role in roles {
        let uri = room.text("publisher", role);
        ceremony(
            &stage,
            &["token-key", "--uri", &uri, "--out", &mine.to_string_lossy()],
        )?;
        brought.push(format!("{role}={uri}"));
        stage.keys.insert(role.to_owned(), uri);
    }
    for key in &brought {
        found.extend(["--key", key]);
    }
    ceremony(&stage, &found)?;
    let server = room.text("server", "control");
    reissue(&stage, "online/server.pem", "server-issuer.pem", &server, &[])?;
    let operator = room.text("operator", "admin");
    let whose = ["--operator", "admin"];
    reissue(
        &stage,
        "operators/admin.pem",
        "operator-issuer.pem",
        &operator,
        &whose,
    )?;
    for (file, uri) in [("online/server.pem", &server), ("operators/admin.pem", &operator)] {
        let text = std::fs::read_to_string(stage.fleet().join(file))?;
        ensure!(
            text.starts_with(uri.as_str()) && !text.contains("PRIVATE KEY"),
            "{text}"
        );
    }

    stage.start_control()?;
    let uri = room.text("device", DEVICE);
    stage.prepare_device_with(DEVICE, &["--key", &uri], ENVIRONMENT)?;
    ensure!(
        key_text(&stage)?.trim() == uri,
        "the file holds the key's name and no more"
    );
    stage.start_device(DEVICE)?;
    stage.roll_first_release_out()?;

    // A second `init` says the same; another key is refused.
    let kept = stage.device(DEVICE)?.state.clone();
    stage.device_mut(DEVICE)?.stop()?;
    let mut init = Command::new(&stage.programs.device);
    init.args(["init", "--id", DEVICE, "--key", &uri, "--state"])
        .arg(&kept);
    let again = must(run(&mut init)?, "redan-device init")?.stdout;
    ensure!(again.contains(&key(&stage)?.spki_sha256().to_string()), "{again}");
    let other = room.text("device", "another");
    let mut init = Command::new(&stage.programs.device);
    init.args(["init", "--id", DEVICE, "--key", &other, "--state"])
        .arg(&kept);
    let ran = run(&mut init)?;
    ensure!(ran.stderr.contains("has another key already"), "{ran:?}");
    stage.stop()
}

#[test]
fn a_device_renews_with_a_new_key_in_its_token_and_the_old_one_is_destroyed() {
    with_tokens(
        "fleet::a_device_renews_with_a_new_key_in_its_token_and_the_old_one_is_destroyed",
        &["device"],
        |room| renewal(room).unwrap(),
    );
}

fn renewal(room: &Room) -> Result<()> {
    let mut stage = Stage::new(Programs::find()?, &room.path("stage"))?;
    stage.run_ceremony()?;
    stage.start_control()?;
    let first = room.uri("device", DEVICE);
    stage.prepare_device_with(DEVICE, &["--key", &first.to_string()], ENVIRONMENT)?;
    let old = key(&stage)?.spki_sha256();
    // More than half of its life is over.
    certificate::ending_in(&stage, DEVICE, &key(&stage)?.spki(), 120)?;
    stage.start_device(DEVICE)?;
    let identity = stage.device(DEVICE)?.state.join("identity");
    await_that("another key, and the end of the old one", SOON, || {
        let (text, left) = (key_text(&stage)?, identity.join("replaced").exists());
        let next = identity.join("next/key.pem").exists();
        let over = text.trim() != first.to_string() && !left && !next;
        Ok(if over {
            Ok(())
        } else {
            Err(format!("{text} {left} {next}"))
        })
    })?;
    let second = Uri::parse(key_text(&stage)?.trim())?;
    ensure!(second.object().starts_with("press-1~"), "{second}");
    // It is there, and cannot be taken out; its predecessor is gone.
    let new = key(&stage)?.spki_sha256();
    assert_ne!(new, old);
    let gone = TokenError::NoKey {
        token: "device".into(),
        what: "private key",
        object: DEVICE.into(),
    };
    assert_eq!(Key::open(&first, Kind::P256, None).unwrap_err(), gone);
    let seen = stage.redan(&["device", "show", DEVICE])?;
    assert_eq!(
        seen.get("spki").and_then(Value::as_str),
        Some(new.to_string().as_str())
    );
    assert_eq!(seen.get("clone_alarm"), Some(&Value::Null));

    // After a restart it is the same device; with its token pulled out it says so, and makes no other key.
    stage.device_mut(DEVICE)?.stop()?;
    stage.start_device(DEVICE)?;
    stage.device_mut(DEVICE)?.stop()?;
    std::fs::rename(room.path("tokens"), room.path("pulled-out"))?;
    std::fs::create_dir(room.path("tokens"))?;
    let mut start = Command::new(&stage.programs.device);
    let config = room.path("stage/devices").join(DEVICE).join("device.toml");
    let ran = run(start.arg("run").arg("--config").arg(config))?;
    ensure!(
        ran.stderr.contains("there is no token device") && ran.stderr.contains("token-missing"),
        "{ran:?}"
    );
    assert_eq!(key_text(&stage)?.trim(), second.to_string());
    stage.stop()
}
