//! A disk that fills up at every place of an update (attack D04): what runs goes on, what cannot be kept is refused with its code, and
//! the same update passes once there is room.

use crate::again::the_agent_dies;
use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE, await_that, must, run};
use redan_kit::traffic::{get, version};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
/// Room left for each update, KiB: none, a record, a piece of the artifact, all of it, some of its native code, nearly all.
const ROOMS: &[u32] = &[0, 8, 40, 120, 320, 520, 760];
/// What each update's component is longer by, so that it is no smaller than several of these rooms.
const PADDING: usize = 300 * 1024;

#[test]
fn a_disk_that_is_full_at_any_place_of_an_update_stops_the_update_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut stage) = on_a_small_disk(folder.path())? else {
        return Ok(());
    };
    let mut refused = 0;
    for (step, room) in (1_u64..).zip(ROOMS) {
        let version = format!("1.{step}.0");
        let wasm = padded(&stage, step)?;
        stage.publish_file(
            Release {
                component: SERVICE,
                version: &version,
                counter: step + 1,
            },
            &wasm,
        )?;
        let set = format!("plant-{}", step + 1);
        stage.publish_set(&set, &[(SERVICE, &version), (JOB, "1.0.0")])?;
        fill(&mut stage, Some(*room))?;
        let rollout = stage.start_rollout(&set, &["all=1000permille"])?;
        let views = stage.await_devices("an adoption, or a refusal", SOON, |views| {
            views
                .iter()
                .any(|view| view.refusal.is_some() || view.set.as_deref() == Some(&set))
        })?;
        // Its own counter the workload cannot keep either; it is there, and says so.
        answers(&stage, &[200, 500]).with_context(|| format!("with {room} KiB left"))?;
        let refusal = views.first().and_then(|view| view.refusal.clone());
        if let Some(code) = &refusal {
            ensure!(code == "disk-full", "with {room} KiB left: {code}");
            refused += 1;
        }
        fill(&mut stage, None)?;
        if refusal.is_some() {
            stage.redan(&["rollout", "abort", &rollout]).ok();
            let again = stage.start_rollout(&set, &["all=1000permille"])?;
            stage.await_rollout(&again, &["complete"], SOON)?;
        } else {
            stage.await_rollout(&rollout, &["complete"], SOON)?;
        }
        answers(&stage, &[200])?;
    }
    ensure!(refused >= 3, "the disk was full {refused} times");
    stage.stop()
}

/// A fleet with one device that goes on from a copy of its state, on a disk of its own that nobody else sees; `None`: only root can.
fn on_a_small_disk(folder: &Path) -> Result<Option<Stage>> {
    if !rustix::process::geteuid().is_root() {
        ensure!(
            std::env::var_os("REDAN_SERVICES").is_none(),
            "only root can give a device a small disk"
        );
        eprintln!("left out: a small disk (only root can mount one)");
        return Ok(None);
    }
    let mut stage = Stage::new(Programs::find()?, folder)?;
    stage.play_first_release(&[DEVICE])?;
    stage.device_mut(DEVICE)?.stop()?;
    let home = stage.device(DEVICE)?.state.clone();
    let copy = folder.join("copy");
    must(run(Command::new("cp").arg("-a").arg(&home).arg(&copy))?, "cp")?;
    let script =
        "mount -t tmpfs -o size=8m,mode=0700 none \"$1\" && cp -a \"$2/.\" \"$1\" && shift 2 && exec \"$@\"";
    let mut device = Command::new("unshare");
    device
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&home)
        .arg(&copy);
    device.arg(&stage.programs.device);
    stage.start_device_by(DEVICE, device)?;
    Ok(Some(stage))
}

/// A command that sees the device's own disk.
fn inside(stage: &mut Stage) -> Result<Command> {
    let process = stage.device_mut(DEVICE)?.process()?.id();
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--mount=/proc/{process}/ns/mnt"));
    Ok(inside)
}

fn status(stage: &mut Stage) -> Result<Value> {
    let program = stage.programs.device.clone();
    let home = stage.device(DEVICE)?.state.clone();
    let mut status = inside(stage)?;
    status
        .arg(program)
        .args(["status", "--json", "--state"])
        .arg(home);
    Ok(serde_json::from_str(&run(&mut status)?.stdout).unwrap_or_default())
}

/// Somebody fills the disk while an update is on trial: the device goes back and remembers it, and its end reaches it too.
#[test]
fn a_device_goes_back_remembers_it_and_ends_on_a_disk_without_a_byte_left() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut stage) = on_a_small_disk(folder.path())? else {
        return Ok(());
    };
    // Its probation outlasts the test.
    let ask = stage.folder.join("long.ask.toml");
    let template = std::fs::read_to_string(stage.programs.repository.join("policies/ask/thermo.toml"))?;
    let text = template
        .replace("version = \"1.0.0\"", "version = \"1.1.0\"")
        .replace("probation = \"2s\"", "probation = \"10m\"");
    std::fs::write(&ask, text)?;
    let wasm = stage.programs.guest("thermo", "1.1.0")?;
    let (component, snapshot) = (
        stage.key("component.acme.thermo-1"),
        stage.key("release.snapshot-1"),
    );
    let (wasm, ask) = (wasm.display().to_string(), ask.display().to_string());
    stage.redan(&[
        "publish",
        &wasm,
        "--ask",
        &ask,
        "--counter",
        "2",
        "--key",
        &component,
        "--key",
        &snapshot,
    ])?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    stage.start_rollout("plant-2", &["all=1000permille"])?;
    // Each death of its agent is an attempt of the trial, which has three (`max_restarts`), and is to be remembered.
    let mut deaths = 0;
    loop {
        let over = await_that("a trial, or the end of it", SOON, || {
            let seen = status(&mut stage)?;
            let given_up = seen["rollback"] != Value::Null;
            Ok(if given_up || seen["phase"] == "trial" {
                Ok(given_up)
            } else {
                Err(seen.to_string())
            })
        })?;
        if over {
            break;
        }
        fill(&mut stage, Some(0))?;
        deaths += 1;
        ensure!(deaths < 8, "the update is tried for ever");
        the_agent_dies(&mut stage)?;
    }
    ensure!(deaths >= 2, "one death is no proof: {deaths}");
    let seen = status(&mut stage)?;
    ensure!(seen["set"] == "plant-1", "{seen}");
    answers(&stage, &[200, 500])?;

    // Its end, which it finds in metadata that it has no room for.
    let home = stage.device(DEVICE)?.state.clone();
    let mut looks = inside(&mut stage)?
        .args([
            "sh",
            "-c",
            "read end; ls \"$1\"; cat \"$1/decommissioned.json\"",
            "sh",
        ])
        .arg(&home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    fill(&mut stage, Some(0))?;
    let (policy, snapshot) = (stage.key("release.policy-1"), stage.key("release.snapshot-1"));
    stage.redan(&[
        "device",
        "decommission",
        DEVICE,
        "--key",
        &policy,
        "--key",
        &snapshot,
    ])?;
    let ended = stage.device_mut(DEVICE)?.process()?.wait(SOON)?;
    assert_eq!(
        ended.code(),
        Some(1),
        "{}",
        stage.device_mut(DEVICE)?.process()?.tail()
    );
    drop(looks.stdin.take());
    let left = looks.wait_with_output()?;
    let left = String::from_utf8(left.stdout)?;
    let (names, tombstone) = left.split_once('{').context("a tombstone")?;
    assert_eq!(
        names.split_whitespace().collect::<Vec<_>>(),
        ["decommissioned.json", "lock"]
    );
    ensure!(tombstone.contains("/device/press-1"), "{tombstone}");
    stage.device_mut(DEVICE)?.kill()?;
    stage.stop()
}

/// The second version of the service, as bytes of its own: a custom section, which is no code, makes it longer.
fn padded(stage: &Stage, step: u64) -> Result<std::path::PathBuf> {
    let mut wasm = std::fs::read(stage.programs.guest("thermo", "1.1.0")?)?;
    let mut content = vec![4];
    content.extend(b"room");
    content.extend(step.to_le_bytes().iter().cycle().take(PADDING));
    wasm.push(0);
    let mut length = content.len();
    // LEB128 (WebAssembly core §5.2.2).
    while length >= 128 {
        wasm.push(u8::try_from(length % 128)? | 128);
        length /= 128;
    }
    wasm.push(u8::try_from(length)?);
    wasm.extend(content);
    let path = stage.folder.join(format!("padded-{step}.wasm"));
    std::fs::write(&path, wasm)?;
    Ok(path)
}

/// Leaves so many KiB of the device's disk, or all of it.
fn fill(stage: &mut Stage, room: Option<u32>) -> Result<()> {
    let home = stage.device(DEVICE)?.state.clone();
    let script = "rm -f \"$1/fill\" && if [ \"$2\" != all ]; then free=$(df --output=avail -k \"$1\" | tail -1) && \
                  head -c $(( (free - $2) * 1024 )) /dev/zero >\"$1/fill\"; fi";
    let mut inside = inside(stage)?;
    inside.args(["sh", "-c", script, "sh"]).arg(Path::new(&home));
    inside.arg(room.map_or_else(|| "all".to_owned(), |room| room.to_string()));
    must(run(&mut inside)?, "filling the disk")?;
    Ok(())
}

fn answers(stage: &Stage, wanted: &[u16]) -> Result<()> {
    let service = stage.device(DEVICE)?.service;
    await_that("the service to answer", SOON, || {
        Ok(match get(service, "/thermo/") {
            Ok(answer) if wanted.contains(&answer.status) && version(&answer.body).is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
}
