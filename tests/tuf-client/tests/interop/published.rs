//! What the product's own tools publish, read by another implementation.

use redan_kit::stage::{JOB, Release, SERVICE};
use redan_kit::{Programs, Stage};
use std::path::Path;
use std::process::Command;

#[test]
fn another_implementation_believes_everything_that_was_published() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(Programs::find().unwrap(), folder.path()).unwrap();
    stage.run_ceremony().unwrap();
    stage.start_control().unwrap();
    let policy = stage.programs.repository.join("policies/fleet/demo.toml");
    stage.publish_policy(&policy).unwrap();
    for (component, version, counter) in [(SERVICE, "1.0.0", 1), (JOB, "1.0.0", 1), (SERVICE, "1.1.0", 2)] {
        let release = Release {
            component,
            version,
            counter,
        };
        stage.publish(release).unwrap();
    }
    stage
        .publish_set("plant-1", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])
        .unwrap();
    let served = stage.fleet().join("public/release");
    let words = served.display().to_string();
    stage.redan(&["release", "fetch", &words]).unwrap();
    stage.stop().unwrap();

    let python = redan_kit::python::tuf(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/published.py");
    let mut command = Command::new(python.unwrap().unwrap());
    let read = |command: &mut Command| command.output().unwrap();
    let ran = read(command.arg(script).arg(&served));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let paths = String::from_utf8(ran.stdout).unwrap();
    for path in [
        "components/acme/thermo/1.0.0/",
        "components/acme/thermo/1.1.0/",
        "components/acme/tick/1.0.0/",
        "plans/plant-1.json",
        "policy/",
    ] {
        assert!(
            paths.lines().any(|line| line.starts_with(path)),
            "{path}: {paths}"
        );
    }
    // One signature changed: it is believed no more.
    let newest = std::fs::read_dir(&served)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let plan = newest
        .filter(|path| path.to_str().unwrap().ends_with(".plan.json"))
        .max()
        .unwrap();
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replace("plant-1", "plant-2")).unwrap();
    assert!(!read(&mut command).status.success());
}
