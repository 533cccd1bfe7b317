//! A device without a path to the server enrols from a stick.

use anyhow::{Result, ensure};
use redan_kit::stage::run;
use redan_kit::{Programs, Stage};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

struct Offline {
    stage: Stage,
    folder: tempfile::TempDir,
}

impl Offline {
    fn open() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut stage = Stage::new(Programs::find()?, folder.path())?;
        stage.run_ceremony()?;
        stage.start_control()?;
        Ok(Self { stage, folder })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn device(&self, arguments: &[&str]) -> Result<redan_kit::stage::Ran> {
        run(Command::new(&self.stage.programs.device).args(arguments))
    }

    /// Makes a device's key and writes its request to a file.
    fn init(&self, id: &str) -> Result<PathBuf> {
        let (state, request) = (text(&self.at(id)), self.at(&format!("{id}.request.json")));
        let ran = self.device(&[
            "init",
            "--offline",
            "--id",
            id,
            "--state",
            &state,
            "--out",
            &text(&request),
        ])?;
        ensure!(ran.code == Some(0) && ran.stdout.is_empty(), "{ran:?}");
        Ok(request)
    }

    fn admit(&self, request: &Path, voucher: &Path) -> Result<redan_kit::stage::Ran> {
        let (request, voucher) = (text(request), text(voucher));
        self.stage.redan_raw(&[
            "device",
            "admit",
            "--offline",
            "--request",
            &request,
            "--out",
            &voucher,
        ])
    }

    fn enrol(&self, id: &str, voucher: &Path) -> Result<redan_kit::stage::Ran> {
        let (state, voucher) = (text(&self.at(id)), text(voucher));
        self.device(&["enrol", "--offline", "--state", &state, "--voucher", &voucher])
    }
}

#[test]
fn a_device_enrols_from_a_stick_and_is_a_device_like_any_other_when_it_connects() -> Result<()> {
    let mut offline = Offline::open()?;
    let request = offline.init("press-1")?;
    let voucher = offline.at("voucher.json");
    let ran = offline.admit(&request, &voucher)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    // There is no server any more.
    offline.stage.control()?.stop()?;
    for _ in 0..2 {
        let ran = offline.enrol("press-1", &voucher)?;
        ensure!(ran.code == Some(0), "{ran:?}");
        ensure!(
            ran.stdout
                .contains("enrolled as spiffe://demo.redan.test/device/press-1"),
            "{ran:?}"
        );
    }
    let address = offline.stage.start_control()?;
    let ceiling = offline
        .stage
        .programs
        .repository
        .join("policies/device/demo.toml");
    let ceiling = std::fs::read_to_string(ceiling)?.replace("127.0.0.1:8081", "127.0.0.1:0");
    std::fs::write(offline.at("ceiling.toml"), ceiling)?;
    let config = offline.at("device.toml");
    let state = text(&offline.at("press-1"));
    std::fs::write(
        &config,
        format!("state = '{state}'\nceiling = 'ceiling.toml'\nserver = \"{address}\"\n"),
    )?;
    let mut command = Command::new(&offline.stage.programs.device);
    command.arg("run").arg("--config").arg(&config);
    let mut process =
        redan_kit::Process::start("redan-device press-1", &mut command, &offline.at("device.log"))?;
    process.ready("redan-device: running as ")?;
    redan_kit::stage::await_that("press-1 to check in", SOON, || {
        let shown = offline.stage.redan(&["device", "show", "press-1"])?;
        let seen = shown.pointer("/last_seen").is_some_and(serde_json::Value::is_u64);
        Ok(if seen { Ok(()) } else { Err(shown.to_string()) })
    })?;
    process.stop()?;
    offline.stage.stop()
}

#[test]
fn nothing_is_relaxed_for_a_device_that_enrols_from_a_stick() -> Result<()> {
    let mut offline = Offline::open()?;
    let (request, other) = (offline.init("press-1")?, offline.init("press-2")?);
    let read =
        |path: &Path| -> Result<serde_json::Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let write = |path: &Path, value: &serde_json::Value| std::fs::write(path, value.to_string());
    let voucher = offline.at("voucher.json");

    // The request's signature must prove the very key that is admitted.
    let bent = offline.at("bent.json");
    let mut swapped = read(&request)?;
    swapped["csr"] = read(&other)?["csr"].clone();
    let mut unsigned = read(&request)?;
    unsigned["csr"] = "MIIB".into();
    for wrong in [swapped, unsigned] {
        write(&bent, &wrong)?;
        let ran = offline.admit(&bent, &voucher)?;
        ensure!(
            ran.code == Some(1) && ran.stderr.contains("csr-invalid"),
            "{ran:?}"
        );
    }
    let mut none = read(&request)?;
    none.as_object_mut().map(|fields| fields.remove("csr"));
    write(&bent, &none)?;
    let ran = offline.admit(&bent, &voucher)?;
    ensure!(
        ran.code == Some(2) && ran.stderr.contains("init --offline"),
        "{ran:?}"
    );

    let ran = offline.admit(&request, &voucher)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let theirs = offline.at("theirs.json");
    let ran = offline.admit(&other, &theirs)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let (good, theirs) = (read(&voucher)?, read(&theirs)?);
    let with = |field: &str, value: serde_json::Value| {
        let mut voucher = good.clone();
        voucher[field] = value;
        voucher
    };
    let mut bare = good.clone();
    bare.as_object_mut().map(|fields| fields.remove("chain"));
    for (what, wrong, said) in [
        (
            "another device's certificate",
            with("chain", theirs["chain"].clone()),
            "voucher-invalid",
        ),
        (
            "another device's name",
            with("device", "press-2".into()),
            "voucher-invalid",
        ),
        (
            "another key",
            with("spki", theirs["spki"].clone()),
            "it is for another key",
        ),
        (
            "the root alone",
            with("chain", good["ca"].clone()),
            "certificate-profile",
        ),
        ("no certificate", bare, "admit --offline"),
        (
            "a voucher that has expired",
            with("expires", 1.into()),
            "it has expired",
        ),
    ] {
        write(&bent, &wrong)?;
        let ran = offline.enrol("press-1", &bent)?;
        ensure!(
            ran.code == Some(1) && ran.stderr.contains(said),
            "{what}: {ran:?}"
        );
        ensure!(
            !offline.at("press-1").join("identity/chain.pem").exists(),
            "{what} was kept"
        );
    }
    let ran = offline.enrol("press-1", &voucher)?;
    ensure!(ran.code == Some(0), "positive control: {ran:?}");
    offline.stage.stop()
}
