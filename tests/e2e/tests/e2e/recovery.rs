//! A device whose own memory of what it trusted is gone, another device's, or an old copy.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{JOB, Ran, Release, SERVICE, await_that, run};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICES: [&str; 2] = ["press-1", "press-2"];

fn device(stage: &Stage, id: &str, arguments: &[&str]) -> Result<Ran> {
    let mut command = Command::new(&stage.programs.device);
    let (first, rest) = arguments.split_first().context("a command")?;
    command
        .arg(first)
        .arg("--state")
        .arg(&stage.device(id)?.state)
        .args(rest);
    run(&mut command)
}

fn status(stage: &Stage, id: &str) -> Result<Value> {
    let ran = device(stage, id, &["status", "--json"])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(serde_json::from_str(&ran.stdout)?)
}

fn await_status(stage: &Stage, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    await_that(what, SOON, || {
        let status = status(stage, id)?;
        Ok(if wanted(&status) {
            Ok(status)
        } else {
            Err(status.to_string())
        })
    })
}

fn is(status: &Value, name: &str, value: &str) -> bool {
    status.get(name).and_then(Value::as_str) == Some(value)
}

fn refused(ran: &Ran, exit: i32, word: &str) -> Result<()> {
    ensure!(
        ran.code == Some(exit) && ran.stderr.contains(word),
        "{word}: {ran:?}"
    );
    ensure!(ran.stderr.contains("try:"), "{ran:?}");
    Ok(())
}

fn ceremony(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let public = stage.fleet().join("public");
    let mut command = Command::new(&stage.programs.ceremony);
    command.args(arguments).arg("--public").arg(public);
    let ran = run(&mut command)?;
    ensure!(ran.code == Some(0), "{arguments:?}: {ran:?}");
    Ok(ran.stdout)
}

fn trust(stage: &Stage, id: &str) -> Result<PathBuf> {
    Ok(stage.device(id)?.state.join("trust"))
}

fn take(stage: &Stage, id: &str, file: &str) -> Result<Ran> {
    device(stage, id, &["recover", "--with", file])
}

/// The holders of the release root answer a device's request; gives the answer's file.
fn answered(stage: &Stage, request: &str, sequence: &str) -> Result<String> {
    let at = |name: &str| stage.folder.join(name).display().to_string();
    let (asked, wanted, signature) = (at("asked.json"), at("wanted.json"), at("signature.json"));
    std::fs::write(&asked, request)?;
    for file in [&wanted, &signature] {
        drop(std::fs::remove_file(file));
    }
    let said = ceremony(
        stage,
        &[
            "request",
            "recover",
            "--device-request",
            &asked,
            "--sequence",
            sequence,
            "--out",
            &wanted,
        ],
    )?;
    let digest = said.lines().find_map(|line| line.strip_prefix("payload sha256 "));
    let typed = digest.and_then(|digest| digest.get(..8)).context("the digest")?;
    let holder = stage.key("release.root-1");
    ceremony(
        stage,
        &[
            "sign",
            "--request",
            &wanted,
            "--key",
            &holder,
            "--confirm",
            typed,
            "--out",
            &signature,
        ],
    )?;
    let said = ceremony(
        stage,
        &["assemble", "--request", &wanted, "--signature", &signature],
    )?;
    let path = said.strip_prefix("Wrote ").and_then(|rest| rest.split_once(". "));
    Ok(path.context("where it was written")?.0.to_owned())
}

fn next_release(stage: &Stage) -> Result<()> {
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let ran = run(Command::new("cp").arg("-a").arg("-T").arg(from).arg(to))?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(())
}

#[test]
fn a_device_that_lost_its_trust_record_runs_on_adopts_nothing_and_comes_back_by_signature() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&DEVICES)?;
    next_release(&stage)?;
    // Positive control of what follows: a device that is whole has nothing to recover.
    refused(
        &device(&stage, "press-1", &["recover", "--request"])?,
        1,
        "recovery-not-needed",
    )?;

    // One device loses both copies, the other one gets those of a third party: the first one's.
    for id in DEVICES {
        stage.device_mut(id)?.stop()?;
    }
    for side in ["a", "b"] {
        let other = trust(&stage, "press-1")?.join(side);
        if other.exists() {
            std::fs::copy(&other, trust(&stage, "press-2")?.join(side))?;
        }
        std::fs::write(other, b"torn")?;
    }
    for id in DEVICES {
        stage.start_device(id)?;
        stage.await_version(id, "1.0.0", SOON)?;
        await_status(&stage, id, "the loss to be said", |status| {
            is(status, "refusal", "state-lost") && is(status, "set", "plant-1")
        })?;
    }

    // They are directed to the next release, say why not, and run on.
    let rollout = stage.start_rollout("plant-2", &["all=1000permille"])?;
    stage.await_devices("both to say why they do not follow", SOON, |views| {
        views.len() == DEVICES.len()
            && views
                .iter()
                .all(|view| view.refusal.as_deref() == Some("state-lost"))
    })?;
    for id in DEVICES {
        stage.await_version(id, "1.0.0", SOON)?;
    }

    // Without a request nothing is taken; asking twice asks the same.
    let nothing = folder.path().join("nothing.json").display().to_string();
    std::fs::write(&nothing, "{}")?;
    refused(&take(&stage, "press-1", &nothing)?, 1, "recovery-unasked")?;
    let mut requests = Vec::new();
    for id in DEVICES {
        let asked = device(&stage, id, &["recover", "--request"])?;
        ensure!(asked.code == Some(0), "{asked:?}");
        assert_eq!(
            device(&stage, id, &["recover", "--request"])?.stdout,
            asked.stdout
        );
        requests.push(asked.stdout);
    }
    refused(&take(&stage, "press-1", &nothing)?, 1, "metadata-invalid")?;
    let answers = [
        answered(&stage, &requests[0], "1")?,
        answered(&stage, &requests[1], "1")?,
    ];
    refused(&take(&stage, "press-1", &answers[1])?, 1, "wrong-device")?;
    let edited = std::fs::read_to_string(&answers[0])?.replace("\"sequence\":1", "\"sequence\":0");
    std::fs::write(&nothing, edited)?;
    refused(&take(&stage, "press-1", &nothing)?, 1, "threshold-not-met")?;

    // The right one: the running agent takes the record up by itself and follows.
    for (id, answer) in DEVICES.iter().zip(&answers) {
        let taken = take(&stage, id, answer)?;
        ensure!(taken.code == Some(0), "{taken:?}");
        await_status(&stage, id, "the next release", |status| {
            is(status, "set", "plant-2")
        })?;
        stage.await_version(id, "1.1.0", SOON)?;
        refused(&take(&stage, id, answer)?, 1, "recovery-not-needed")?;
    }
    stage.await_devices("both on the next release", SOON, |views| {
        views.iter().all(|view| view.set.as_deref() == Some("plant-2"))
    })?;
    ensure!(!rollout.is_empty());

    another_day(&mut stage, &requests[0], &answers[0])?;
    stage.stop()
}

/// The same device loses its record once more.
fn another_day(stage: &mut Stage, request: &str, answer: &str) -> Result<()> {
    // The same answer another day is a replay: there is no request any more.
    stage.device_mut("press-1")?.stop()?;
    for side in ["a", "b"] {
        drop(std::fs::remove_file(trust(stage, "press-1")?.join(side)));
    }
    refused(&take(stage, "press-1", answer)?, 1, "recovery-unasked")?;
    let asked = device(stage, "press-1", &["recover", "--request"])?;
    assert_ne!(asked.stdout, request);
    refused(&take(stage, "press-1", answer)?, 1, "recovery-unasked")?;
    // Nor is the voucher that still lies there a way back.
    let voucher = stage.folder.join("devices/press-1/voucher.json");
    let enrol = device(
        stage,
        "press-1",
        &["enrol", "--voucher", &voucher.to_string_lossy()],
    )?;
    refused(&enrol, 1, "state-lost")?;

    // What its journal knows holds, however little was signed.
    let answer = answered(stage, &asked.stdout, "0")?;
    let taken = take(stage, "press-1", &answer)?;
    ensure!(taken.code == Some(0), "{taken:?}");
    let record: Value = serde_json::from_slice(&std::fs::read(trust(stage, "press-1")?.join("a"))?)?;
    let number = |pointer| record.pointer(pointer).and_then(Value::as_u64);
    assert_eq!(number("/record/committed/acme~1thermo"), Some(2));
    assert_eq!(number("/record/committed/acme~1tick"), Some(1));
    assert!(number("/record/sequence") >= Some(2), "{record}");
    stage.start_device("press-1")?;
    stage.await_version("press-1", "1.1.0", SOON)?;
    await_status(stage, "press-1", "to be as before", |status| {
        is(status, "set", "plant-2") && status.get("refusal") == Some(&Value::Null)
    })?;
    Ok(())
}

#[test]
fn an_old_copy_of_a_state_folder_adopts_nothing_until_the_fleet_says_what_is_current() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&DEVICES[..1])?;
    stage.device_mut("press-1")?.stop()?;
    let own = stage.device("press-1")?.state.clone();
    let old = folder.path().join("old");
    copy(&own, &old)?;
    stage.start_device("press-1")?;
    next_release(&stage)?;
    let rollout = stage.start_rollout("plant-2", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    stage.device_mut("press-1")?.stop()?;
    std::fs::remove_dir_all(&own)?;
    copy(&old, &own)?;

    // Nobody is there to say what is current: it runs what the copy had committed, and adopts nothing.
    stage.control()?.stop()?;
    stage.start_device("press-1")?;
    stage.await_version("press-1", "1.0.0", SOON)?;
    await_status(&stage, "press-1", "a check-in that failed", |status| {
        is(status, "offline", "unreachable") && is(status, "set", "plant-1")
    })?;
    // A fresh statement brings it to what is current, without anybody's help.
    stage.start_control()?;
    await_status(&stage, "press-1", "the current release", |status| {
        is(status, "set", "plant-2")
    })?;
    stage.await_version("press-1", "1.1.0", SOON)?;
    stage.stop()
}
