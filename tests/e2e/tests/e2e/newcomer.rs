//! Somebody who has `redan` and an empty folder.

use anyhow::{Context, Result, ensure};
use redan_kit::Programs;
use redan_kit::stage::{must, run};
use std::path::Path;
use std::process::Command;

fn new(programs: &Programs, language: &str, folder: &Path) -> Result<()> {
    let mut new = Command::new(&programs.redan);
    new.args(["new", language]).arg(folder);
    must(run(&mut new)?, "redan new")?;
    Ok(())
}

#[test]
fn what_new_writes_in_rust_builds_outside_of_the_repository_and_fits_its_ask() -> Result<()> {
    let programs = Programs::find()?;
    let folder = tempfile::tempdir()?;
    let made = folder.path().join("my-thermo");
    new(&programs, "rust", &made)?;
    // With what the examples were built with: nothing is downloaded.
    let repository = &programs.repository;
    std::fs::copy(
        repository.join("guest-examples/Cargo.lock"),
        made.join("Cargo.lock"),
    )?;
    let target = programs
        .guests
        .parent()
        .context("the target folder")?
        .join("guest-build");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .current_dir(&made)
        .args([
            "build",
            "--quiet",
            "--offline",
            "--release",
            "--target",
            "wasm32-wasip2",
        ])
        .env("CARGO_TARGET_DIR", &target);
    // Set for this package by the cargo that runs the tests.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
        build.env_remove(name);
    }
    must(run(&mut build)?, "cargo build")?;
    let wasm = target.join("wasm32-wasip2/release/my_thermo.wasm");
    let mut check = Command::new(&programs.redan);
    let ask = repository.join("policies/ask/thermo.toml");
    check.arg("check").arg(&wasm).arg("--ask").arg(&ask);
    must(run(&mut check)?, "redan check")?;
    Ok(())
}

#[test]
fn what_new_writes_in_other_languages_is_what_the_examples_are_built_from() -> Result<()> {
    let programs = Programs::find()?;
    let folder = tempfile::tempdir()?;
    let examples = programs.repository.join("guest-examples");
    for (language, files) in [
        (
            "javascript",
            ["js/app.js", "js/build.mjs", "js/package-lock.json"].as_slice(),
        ),
        ("python", &["python/app.py", "python/requirements.txt"]),
    ] {
        let made = folder.path().join(language);
        new(&programs, language, &made)?;
        for file in files {
            let name = Path::new(file).file_name().context("a file")?;
            ensure!(
                std::fs::read(made.join(name))? == std::fs::read(examples.join(file))?,
                "{file}"
            );
        }
        ensure!(made.join("wit/world.wit").exists() && made.join("wit/deps/http.wit").exists());
    }
    Ok(())
}
