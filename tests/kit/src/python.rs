//! Another implementation of TUF to hold ours against: `python-tuf`, at fixed versions, in a virtual environment of its own.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is installed. An interpreter is kept for each list, so that another list never finds the old one.
const PACKAGES: [&str; 2] = ["tuf==7.0.1", "securesystemslib[crypto]==1.6.0"];

/// An interpreter with `python-tuf`, installed once into the build folder. `None`: this machine has no `python3` with `venv`.
pub fn tuf(build: &Path) -> Result<Option<PathBuf>> {
    if !there() {
        return Ok(None);
    }
    std::fs::create_dir_all(build)?;
    let venv = build.join(format!(
        "python-{}",
        PACKAGES.join("-").replace(['=', '[', ']'], "-")
    ));
    // Tests and benches may ask at once; the lock goes with the file.
    let lock = File::create(venv.with_extension("lock"))?;
    lock.lock()?;
    let python = venv.join("bin/python");
    let done = venv.join("done");
    if !done.exists() {
        match std::fs::remove_dir_all(&venv) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(PACKAGES))
        .context("python-tuf comes from the Python package index: is it reachable?")?;
        std::fs::write(done, "")?;
    }
    Ok(Some(python))
}

fn there() -> bool {
    let ran = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
