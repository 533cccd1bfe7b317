//! Enrolment by join token, with the programs people use: one file for many devices, and nobody admits their keys by hand.

use anyhow::{Context as _, Result, ensure};
use redan_kit::{Programs, Stage};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a device says when it enrols with a token.
fn enrol(stage: &Stage, home: &Path, token: &Path, more: &[&str]) -> Result<Output> {
    let mut enrol = Command::new(&Programs::find()?.device);
    enrol
        .arg("enrol")
        .arg("--state")
        .arg(home)
        .arg("--token")
        .arg(token);
    enrol.args(["--server", &stage.server()?.to_string()]).args(more);
    Ok(enrol.output()?)
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn token(stage: &Stage, folder: &Path, uses: &str) -> Result<PathBuf> {
    let out = folder.join(format!("token-{uses}.json"));
    let written = out.to_string_lossy().into_owned();
    stage.redan(&[
        "token",
        "create",
        "--uses",
        uses,
        "--expires",
        "1h",
        "--prefix",
        "press-",
        "--out",
        &written,
    ])?;
    Ok(out)
}

#[test]
fn one_token_enrols_many_devices_each_once_and_keeps_no_secret_on_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    let file = token(&stage, folder.path(), "2")?;
    let home = |name: &str| folder.path().join("joined").join(name);
    std::fs::create_dir_all(folder.path().join("joined"))?;

    let first = enrol(&stage, &home("a"), &file, &["--id", "press-7"])?;
    assert_eq!(
        said(&first),
        "redan-device: enrolled as spiffe://demo.redan.test/device/press-7\n"
    );
    // Twice is harmless, also when the answer was lost before anything of it was kept.
    let again = enrol(&stage, &home("a"), &file, &["--id", "press-7"])?;
    assert_eq!(said(&again), said(&first));
    std::fs::remove_file(home("a").join("identity/voucher.json"))?;
    std::fs::remove_file(home("a").join("identity/chain.pem"))?;
    let lost = enrol(&stage, &home("a"), &file, &["--id", "press-7"])?;
    assert_eq!(said(&lost), said(&first));
    // Without a name: one image, many devices.
    let second = enrol(&stage, &home("b"), &file, &[])?;
    ensure!(
        said(&second).starts_with("redan-device: enrolled as spiffe://demo.redan.test/device/press-"),
        "{}",
        said(&second)
    );
    let third = enrol(&stage, &home("c"), &file, &[])?;
    ensure!(third.status.code() == Some(1), "{}", said(&third));
    ensure!(
        said(&third).contains("because: token-used-up\n"),
        "{}",
        said(&third)
    );

    let listed = stage.redan(&["token", "list"])?;
    assert_eq!(
        (&listed[0]["used"], &listed[0]["ended"]),
        (&json!(2), &json!("token-used-up"))
    );
    let devices = stage.redan(&["device", "list"])?;
    assert_eq!(devices.as_array().map(Vec::len), Some(2));
    let kept: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let secret = kept["secret"]
        .as_str()
        .context("a token has a secret")?
        .to_owned();
    let voucher = std::fs::read_to_string(home("a").join("identity/voucher.json"))?;
    ensure!(!voucher.contains(&secret), "the secret stays in the token's file");
    Ok(())
}

#[test]
fn a_token_that_was_changed_on_the_way_lets_nobody_in_and_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    let file = token(&stage, folder.path(), "5")?;
    let whole: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    for (field, value, code) in [
        ("secret", json!("00".repeat(32)), "token-invalid"),
        ("token", json!("00".repeat(16)), "token-invalid"),
        ("expires", json!(1), "token-invalid"),
        ("schema", json!("redan.token/2"), "token-invalid"),
        ("release_root", json!("{}"), "token-invalid"),
        ("director_root", whole["release_root"].clone(), ""),
        ("prefix", json!("oven-"), "name-refused"),
    ] {
        let mut changed = whole.clone();
        changed[field] = value;
        let path = folder.path().join(format!("{field}.json"));
        std::fs::write(&path, changed.to_string())?;
        let output = enrol(&stage, &folder.path().join(field), &path, &[])?;
        if code.is_empty() {
            // A root of this fleet, if not the director's: that shows when metadata is fetched.
            ensure!(output.status.success(), "{field}: {}", said(&output));
        } else {
            ensure!(output.status.code() == Some(1), "{field}: {}", said(&output));
            let because = format!("because: {code}\n");
            ensure!(said(&output).contains(&because), "{field}: {}", said(&output));
        }
    }
    Ok(())
}
