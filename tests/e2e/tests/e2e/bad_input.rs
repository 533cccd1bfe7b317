//! What people get wrong: each a clear error that says what happened, why, and what to do.

use anyhow::Result;
use redan_kit::stage::{Ran, run};
use redan_kit::{Programs, Stage};
use std::path::Path;
use std::process::Command;

/// Exit codes of every program (style §5).
const REFUSED: i32 = 1;
const USAGE: i32 = 2;
const ENVIRONMENT: i32 = 3;

#[track_caller]
fn refuses(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    for word in ["error:", "try:"].iter().chain(words) {
        assert!(
            ran.stderr.contains(word),
            "{word:?} is missing in: {}",
            ran.stderr
        );
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

fn founded(folder: &Path) -> Result<Stage> {
    let stage = Stage::new(Programs::find()?, folder)?;
    stage.run_ceremony()?;
    Ok(stage)
}

fn serve(stage: &Stage, config: &Path) -> Result<Ran> {
    run(Command::new(&stage.programs.control)
        .args(["serve", "--config"])
        .arg(config))
}

#[test]
fn an_unknown_key_in_a_configuration_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stage = founded(folder.path())?;
    let config = folder.path().join("control.toml");
    std::fs::write(&config, "state = 'x'\nlisten = '127.0.0.1:0'\nport = 1\n")?;
    refuses(&serve(&stage, &config)?, USAGE, &["port", "control.toml"]);

    let config = folder.path().join("device.toml");
    std::fs::write(&config, "state = 'x'\nceiling = 'y'\ncolour = 'red'\n")?;
    let ran = run(Command::new(&stage.programs.device)
        .arg("run")
        .arg("--config")
        .arg(&config))?;
    refuses(&ran, USAGE, &["colour", "device.toml"]);
    Ok(())
}

#[test]
fn a_missing_configuration_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stage = founded(folder.path())?;
    let nowhere = folder.path().join("nowhere.toml");
    refuses(&serve(&stage, &nowhere)?, USAGE, &["nowhere.toml"]);
    let ran = run(Command::new(&stage.programs.device)
        .arg("run")
        .arg("--config")
        .arg(&nowhere))?;
    refuses(&ran, USAGE, &["nowhere.toml"]);
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = founded(folder.path())?;
    let address = stage.start_control()?;
    let taken = folder.path().join("second.toml");
    let kept = folder.path().join("second");
    std::fs::write(
        &taken,
        format!("state = '{}'\nlisten = '{address}'\n", kept.display()),
    )?;
    refuses(&serve(&stage, &taken)?, ENVIRONMENT, &[&address.to_string()]);
    stage.stop()
}

#[test]
fn a_missing_online_key_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = founded(folder.path())?;
    std::fs::remove_dir_all(stage.fleet().join("online"))?;
    let error = stage.start_control().map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("error:") && error.contains("online") && error.contains("try:"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_core_module_is_refused_before_anything_is_signed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = founded(folder.path())?;
    stage.start_control()?;
    let module = folder.path().join("core.wasm");
    std::fs::write(&module, b"\0asm\x01\0\0\0")?;
    let ask = stage.programs.repository.join("policies/ask/thermo.toml");
    let ran = stage.redan_raw(&[
        "check",
        &module.to_string_lossy(),
        "--ask",
        &ask.to_string_lossy(),
    ])?;
    refuses(&ran, REFUSED, &["core-module"]);
    stage.stop()
}

#[test]
fn a_component_that_imports_what_it_did_not_ask_for_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = founded(folder.path())?;
    stage.start_control()?;
    let ask = stage.programs.repository.join("policies/ask/thermo.toml");
    let text = std::fs::read_to_string(&ask)?;
    // The same ask without its key-value bucket.
    let (before, after) = text.split_once("[[kv]]").unwrap_or((&text, ""));
    let rest = after
        .split_once("\n[")
        .map_or(String::new(), |(_, rest)| format!("\n[{rest}"));
    let narrow = folder.path().join("narrow.toml");
    std::fs::write(&narrow, format!("{before}{rest}"))?;
    let wasm = stage.programs.guest("thermo", "1.0.0")?;
    let ran = stage.redan_raw(&[
        "check",
        &wasm.to_string_lossy(),
        "--ask",
        &narrow.to_string_lossy(),
    ])?;
    refuses(&ran, REFUSED, &["undeclared-import"]);
    stage.stop()
}

#[test]
fn a_voucher_of_another_key_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = founded(folder.path())?;
    stage.start_control()?;
    stage.prepare_device("press-1")?;
    let other = folder.path().join("other");
    let mut init = Command::new(&stage.programs.device);
    init.args(["init", "--id", "press-1", "--state"]).arg(&other);
    assert_eq!(run(&mut init)?.code, Some(0));
    let mut enrol = Command::new(&stage.programs.device);
    enrol.arg("enrol").arg("--state").arg(&other);
    enrol
        .arg("--voucher")
        .arg(folder.path().join("devices/press-1/voucher.json"));
    refuses(&run(&mut enrol)?, REFUSED, &["voucher-invalid"]);
    stage.stop()
}
