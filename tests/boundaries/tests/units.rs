//! The systemd units: judged by systemd itself, as strict as they say they are, and free of words it does not know.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and speak as tests do"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Each unit, and the exposure it may have, in tenths: 0 is safe, 100 is not (systemd-analyze(1), `security`).
const UNITS: &[(&str, &str)] = &[
    ("device/systemd/redan-device.service", "20"),
    ("control/systemd/redan-control.service", "15"),
];

fn unit(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Runs `systemd-analyze`; `None` where there is none and nobody insists (continuous integration does).
fn analyze(arguments: &[&str], file: &Path) -> Option<Output> {
    let ran = Command::new("systemd-analyze").args(arguments).arg(file).output();
    match ran {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("REDAN_SERVICES").is_none() => {
            println!("left out: systemd-analyze does not run here ({error})");
            None
        }
        Err(error) => panic!("systemd-analyze does not run: {error}"),
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn no_unit_is_more_exposed_than_it_may_be() {
    for (path, most) in UNITS {
        let arguments = ["security", "--offline=true", "--no-pager", "--threshold", most];
        if let Some(output) = analyze(&arguments, &unit(path).canonicalize().unwrap()) {
            assert!(output.status.success(), "{path}: {}", text(&output));
        }
    }
}

#[test]
fn a_unit_without_its_restrictions_is_found_more_exposed() {
    let folder = tempfile::tempdir().unwrap();
    for (path, most) in UNITS {
        let whole = std::fs::read_to_string(unit(path)).unwrap();
        let weak: String = whole
            .lines()
            .filter(|line| !line.starts_with("SystemCallFilter"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let file = folder.path().join(Path::new(path).file_name().unwrap());
        std::fs::write(&file, weak).unwrap();
        let arguments = ["security", "--offline=true", "--no-pager", "--threshold", most];
        if let Some(output) = analyze(&arguments, &file) {
            assert!(!output.status.success(), "{path}: {}", text(&output));
        }
    }
}

#[test]
fn systemd_knows_every_word_of_each_unit() {
    let folder = tempfile::tempdir().unwrap();
    for (path, _) in UNITS {
        let whole = std::fs::read_to_string(unit(path)).unwrap();
        // The program itself is not installed where this is checked.
        let lines = whole.lines().map(|line| match line.split_once("=/usr/bin/") {
            Some((key, _)) => format!("{key}=/bin/true\n"),
            None => format!("{line}\n"),
        });
        let file = folder.path().join(Path::new(path).file_name().unwrap());
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        if let Some(output) = analyze(&["verify", "--man=no", "--recursive-errors=no"], &file) {
            let said = text(&output);
            let about = file.file_name().unwrap().to_str().unwrap();
            let ours: Vec<&str> = said.lines().filter(|line| line.contains(about)).collect();
            assert!(ours.is_empty(), "{path}: {ours:?}");
        }
    }
}
