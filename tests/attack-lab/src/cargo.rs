//! Builds the test binaries of named tests and runs exactly those tests, one process a binary.

use crate::named::{Binary, REPOSITORY, TestName, packages};
use anyhow::{Context, Result, bail, ensure};
use redan_kit::interrupt;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// Which named tests ran and passed.
pub type Ran = BTreeMap<TestName, bool>;

/// Builds and runs. Every name has an answer; a name the binary does not know is an error.
pub fn run(names: &BTreeSet<TestName>) -> Result<Ran> {
    let mut groups: BTreeMap<&Binary, Vec<&TestName>> = BTreeMap::new();
    for name in names {
        groups.entry(&name.binary).or_default().push(name);
    }
    if groups.is_empty() {
        return Ok(Ran::new());
    }
    let built = build()?;
    let mut ran = Ran::new();
    for (binary, names) in groups {
        interrupt::check()?;
        let (folder, program) = built.get(binary).with_context(|| {
            format!(
                "cargo built no test binary {} of {}",
                binary.target, binary.package
            )
        })?;
        let (status, text) = ran_to_its_end(
            Command::new(program)
                .current_dir(folder)
                .env("CARGO_MANIFEST_DIR", folder)
                .arg("--exact")
                .args(names.iter().map(|name| &name.path)),
        )?;
        let mut failed = false;
        for name in names {
            let passed = passed(&text, &name.path).with_context(|| format!("{name} did not run"))?;
            failed |= !passed;
            ran.insert(name.clone(), passed);
        }
        ensure!(
            status.success() != failed,
            "{} ended with {status}, which its lines do not say: {text}",
            program.display()
        );
        if failed {
            eprintln!("{text}");
        }
    }
    Ok(ran)
}

/// Runs a command and gives what it wrote. Into a file: a test may leave a process behind that keeps a pipe open.
fn ran_to_its_end(command: &mut Command) -> Result<(ExitStatus, String)> {
    let mut output = tempfile::tempfile()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let mut bytes = Vec::new();
    output.seek(SeekFrom::Start(0))?;
    output.read_to_end(&mut bytes)?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// What the runner's own line says of a test: `None` when there is none, or it was not run.
fn passed(output: &str, path: &str) -> Option<bool> {
    let mut words = output.lines().filter_map(|line| {
        let rest = line.strip_prefix("test ")?.strip_prefix(path)?;
        rest.strip_prefix(" - should panic")
            .unwrap_or(rest)
            .strip_prefix(" ... ")
    });
    match words.next()? {
        "ok" => Some(true),
        "FAILED" => Some(false),
        _ => None,
    }
}

/// What cargo says of one thing it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Test binaries with the folders they run in. All of the workspace is built, as `cargo xtask test` builds it: what that has built
/// is not built again, and the hostile programs that tests start, examples of their crates, are there.
fn build() -> Result<BTreeMap<Binary, (PathBuf, PathBuf)>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(REPOSITORY)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .args([
            "test",
            "--workspace",
            "--locked",
            "--quiet",
            "--no-run",
            "--message-format",
            "json-render-diagnostics",
        ]);
    // Set by an outer cargo for its own package; this one must not take them for its own.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
    ] {
        cargo.env_remove(name);
    }
    let me = std::env::current_exe()?;
    if let Some(target) = me.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()) {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let output = cargo.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the named tests do not build");
    }
    let packages: BTreeMap<PathBuf, String> = packages()?
        .into_iter()
        .map(|(name, folder)| (folder, name))
        .collect();
    let mut built = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Message = serde_json::from_str(line).context("cargo's messages")?;
        if let Message {
            manifest_path: Some(manifest),
            target: Some(target),
            profile: Some(Profile { test: true }),
            executable: Some(program),
            ..
        } = message
            && message.reason == "compiler-artifact"
            && let Some((folder, package)) = manifest
                .parent()
                .and_then(|folder| packages.get_key_value(folder))
        {
            // Programs and benches have test binaries too, which no row names.
            let target = match target.kind.as_slice() {
                [kind] if kind == "test" => target.name,
                [kind] if kind == "lib" => kind.clone(),
                _ => continue,
            };
            let package = package.clone();
            let binary = Binary { package, target };
            built.insert(binary, (folder.clone(), program));
        }
    }
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\ntest a::b ... ok\ntest a::bc ... FAILED\ntest d ... ignored, why\n\
                          test e - should panic ... ok\n";

    #[test]
    fn only_the_runners_own_word_of_this_very_test_counts() {
        let cases = [
            ("a::b", Some(true)),
            ("a::bc", Some(false)),
            ("d", None),
            ("e", Some(true)),
            ("b", None),
            ("a", None),
        ];
        for (path, expected) in cases {
            assert_eq!(passed(OUTPUT, path), expected, "{path}");
        }
    }

    #[test]
    fn a_process_left_behind_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut left = Command::new("sh");
        left.args(["-c", "cat \"$0\" & echo done"]).arg(&fifo);
        let (status, text) = ran_to_its_end(&mut left).unwrap();
        // What was left behind waits for somebody to write, and ends.
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        assert!(status.success());
        assert_eq!(text, "done\n");
    }

    #[test]
    fn nothing_named_is_nothing_run() {
        assert_eq!(run(&BTreeSet::new()).unwrap(), Ran::new());
    }
}
