//! `tuf-client` against a simulated repository: some hundred small cases over real HTTP, a fresh process for each command. Where the
//! specification says what must happen, python-tuf's own client is asked the same: a case that it answers differently is wrong, or
//! says why ours is stricter.
//!
//! Cases are in `simulator/cases_*.py`, in one Python process; one alone: `python run.py PROGRAM EMPTY_FOLDER PART_OF_ITS_NAME`.

use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

#[test]
fn every_case_of_the_simulated_repository_ends_as_the_specification_says() {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let python = redan_kit::python::tuf(build).unwrap().unwrap();
    let folder = TempDir::new().unwrap();
    let ran = Command::new(python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/simulator/run.py"))
        .arg(env!("CARGO_BIN_EXE_tuf-client"))
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    assert!(
        ran.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}
