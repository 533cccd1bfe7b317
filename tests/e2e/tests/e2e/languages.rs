//! Components of other languages on the whole path: signed, rolled out, compiled on the device within its compiler's limits, served.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::SERVICE;
use redan_kit::traffic::get;
use redan_kit::{DeviceView, Programs, Stage};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Eighteen megabytes take a device of one slow core a minute to compile.
const SOON: Duration = Duration::from_mins(5);

/// The built guest; `None`, said aloud, where no toolchain made it.
fn built(programs: &Programs, name: &str) -> Result<Option<PathBuf>> {
    let path = programs.guests.join(name);
    if path.exists() {
        return Ok(Some(path));
    }
    ensure!(
        std::env::var_os("REDAN_SERVICES").is_none(),
        "{} is not built; run `cargo xtask build`",
        path.display()
    );
    eprintln!("left out: {name} is not built (it needs its language's own toolchain)");
    Ok(None)
}

/// The demonstration's documents with room for an engine.
fn document(stage: &Stage, file: &str, changes: &[(&str, &str)], to: &Path) -> Result<()> {
    let text = std::fs::read_to_string(stage.programs.repository.join("policies").join(file))?;
    let replaced = changes.iter().try_fold(text, |text, (from, to)| {
        ensure!(text.contains(from), "{file} has no {from}");
        Ok(text.replace(from, to))
    })?;
    std::fs::write(to, replaced).context("writing a document")
}

fn on_set(views: &[DeviceView], set: &str) -> bool {
    views.iter().any(|view| view.set.as_deref() == Some(set))
}

fn release(stage: &Stage, folder: &Path, wasm: &Path, version: &str, counter: &str) -> Result<()> {
    let ask = folder.join(format!("ask-{version}.toml"));
    let named = format!("version = \"{version}\"");
    document(stage, "ask/greet.toml", &[("version = \"1.0.0\"", &named)], &ask)?;
    let (wasm, ask) = (wasm.display().to_string(), ask.display().to_string());
    let keys = [
        stage.key("component.acme.thermo-1"),
        stage.key("release.snapshot-1"),
    ];
    let words = ["publish", &wasm, "--ask", &ask, "--counter", counter];
    stage.redan(&[&words[..], &["--key", &keys[0], "--key", &keys[1]]].concat())?;
    let set = format!("plant-{counter}");
    stage.publish_set(&set, &[(SERVICE, version)])?;
    // A minute, as elsewhere, is too short for a compiler on a busy machine: the rollout would halt, and the device stay where it is.
    let wave = ["--wave", "all=1000permille", "--soak", "1s", "--deadline", "10m"];
    let started = stage.redan(&[&["rollout", "start", "--set", &set][..], &wave].concat())?;
    let rollout = started.get("id").context("a rollout has an id")?;
    let rollout = rollout
        .as_str()
        .map_or_else(|| rollout.to_string(), str::to_owned);
    stage.await_devices("the device to commit it", SOON, |views| on_set(views, &set))?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    Ok(())
}

#[test]
fn javascript_and_python_are_signed_rolled_out_and_served_like_any_other() -> Result<()> {
    let programs = Programs::find()?;
    let (javascript, python) = (
        built(&programs, "greet-js-1.0.0.wasm")?,
        built(&programs, "greet-py-1.0.0.wasm")?,
    );
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(programs, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    stage.add_device("press-1")?;
    let policy = folder.path().join("fleet.toml");
    document(
        &stage,
        "fleet/demo.toml",
        &[("memory_total = \"16MiB\"", "memory_total = \"64MiB\"")],
        &policy,
    )?;
    stage.publish_policy(&policy)?;
    let guests = [
        (
            javascript,
            "1.0.0",
            "1",
            "{\"language\":\"JavaScript\",\"hello\":\"Ada\"}\n",
        ),
        (
            python,
            "2.0.0",
            "2",
            "{\"language\": \"Python\", \"hello\": \"Ada\"}\n",
        ),
    ];
    for (wasm, version, counter, expected) in guests {
        let Some(wasm) = wasm else { continue };
        release(&stage, folder.path(), &wasm, version, counter)?;
        let answer = get(stage.device("press-1")?.service, "/thermo/Ada")?;
        ensure!(
            answer.status == 200 && answer.body == expected,
            "{version}: {answer:?}"
        );
    }
    stage.stop()
}
