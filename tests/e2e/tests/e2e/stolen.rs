//! All online keys are stolen: custodians replace them, the server takes the new ones over while it runs, devices follow by
//! themselves, and what the thief signs is believed by nobody any more.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{FLEET, SERVICE, await_that, run};
use redan_kit::traffic::{Load, get, version};
use redan_kit::{Process, Programs, Stage};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";

/// A production fleet of three holders, of whom two must sign: each with a medium, and on it their keys under their own passphrase.
pub(crate) struct Custodians {
    ceremony: PathBuf,
    folder: PathBuf,
}

impl Custodians {
    pub(crate) fn found(stage: &Stage) -> Result<Self> {
        let custodians = Self {
            ceremony: stage.programs.ceremony.clone(),
            folder: stage.folder.clone(),
        };
        let mut init = vec![
            "init",
            "--profile",
            "production",
            "--fleet",
            FLEET,
            "--publisher",
            "acme",
        ];
        let out = stage.fleet().display().to_string();
        init.extend(["--component", SERVICE, "--out", &out]);
        let mut words = Vec::new();
        for holder in 1..=3 {
            let path = custodians.passphrase(holder);
            std::fs::create_dir_all(custodians.medium(holder))?;
            std::fs::write(&path, format!("the words of holder number {holder}\n"))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            words.push(path);
        }
        for path in &words {
            init.extend(["--passphrase-file", path]);
        }
        custodians.run(&init)?;
        // Each key to its holder's medium; the fleet's root to the first's.
        for entry in std::fs::read_dir(stage.fleet().join("offline"))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .context("a name")?;
            let holder = name
                .strip_suffix(".key.json")
                .and_then(|name| name.rsplit_once('-'));
            let holder = holder.map_or(Ok(1), |(_, holder)| holder.parse())?;
            std::fs::rename(&path, custodians.medium(holder).join(name))?;
        }
        Ok(custodians)
    }

    fn medium(&self, holder: u32) -> PathBuf {
        self.folder.join(format!("medium-{holder}"))
    }

    pub(crate) fn at(&self, holder: u32, name: &str) -> String {
        self.medium(holder).join(name).display().to_string()
    }

    pub(crate) fn passphrase(&self, holder: u32) -> String {
        self.at(holder, "passphrase")
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let ran = run(Command::new(&self.ceremony).args(arguments))?;
        ensure!(ran.code == Some(0), "{arguments:?}: {ran:?}");
        Ok(ran.stdout)
    }

    /// The options that sign as two holders of a role and one of snapshot.
    pub(crate) fn signing(&self, role: &str) -> Vec<String> {
        let mut options = Vec::new();
        for holder in [1, 2] {
            options.extend([
                "--key".into(),
                self.at(holder, &format!("{role}-{holder}.key.json")),
            ]);
            options.extend(["--passphrase-file".into(), self.passphrase(holder)]);
        }
        options.extend(["--key".into(), self.at(1, "release.snapshot-1.key.json")]);
        options
    }

    /// One request for one repository: signed by one holder after another, each with their own copy of everything, then assembled.
    fn revoke(&self, public: &Path, repository: &str, keys: &[String]) -> Result<()> {
        let shown = public.display().to_string();
        let request = self
            .folder
            .join(format!("{repository}.request.json"))
            .display()
            .to_string();
        let mut make = vec![
            "request",
            "revoke-online",
            "--repository",
            repository,
            "--public",
            &shown,
        ];
        for key in keys {
            make.extend(["--key", key]);
        }
        make.extend(["--out", &request]);
        let said = self.run(&make)?;
        let digest = said.lines().find_map(|line| line.strip_prefix("payload sha256 "));
        let agreed = digest.and_then(|digest| digest.get(..8)).context("the digest")?;
        let mut assemble = vec!["assemble", "--public", &shown, "--request", &request];
        let signatures = [2, 3].map(|holder| self.at(holder, &format!("{repository}.signature.json")));
        for (holder, signature) in [2, 3].into_iter().zip(&signatures) {
            let own = self.medium(holder).join("public");
            if !own.exists() {
                copy(public, &own)?;
            }
            let (own, carried) = (own.display().to_string(), self.at(holder, "request.json"));
            std::fs::copy(&request, &carried)?;
            let inspected = self.run(&["inspect", "--public", &own, "--request", &carried])?;
            ensure!(inspected.contains("keeps the rules"), "{inspected}");
            let key = self.at(holder, &format!("{repository}.root-{holder}.key.json"));
            let mut sign = vec!["sign", "--public", &own, "--request", &carried, "--key", &key];
            let words = self.passphrase(holder);
            sign.extend([
                "--passphrase-file",
                &words,
                "--confirm",
                agreed,
                "--out",
                signature,
            ]);
            self.run(&sign)?;
            // One holder alone is not enough.
            if holder == 2 {
                let mut alone = assemble.clone();
                alone.extend(["--signature", signature]);
                let ran = run(Command::new(&self.ceremony).args(&alone))?;
                ensure!(ran.code == Some(1) && ran.stderr.contains("1 of 2"), "{ran:?}");
            }
        }
        for signature in &signatures {
            assemble.extend(["--signature", signature]);
        }
        self.run(&assemble)?;
        self.run(&["verify", "--public", &shown]).map(drop)
    }

    /// New keys for everything the server holds, in a folder for it; and the roots that name them.
    fn replace_online_keys(&self, public: &Path) -> Result<PathBuf> {
        let online = self.folder.join("new-online");
        let shown = online.display().to_string();
        let (mut release, mut director) = (Vec::new(), Vec::new());
        for (repository, role) in [
            ("release", "timestamp"),
            ("director", "targets"),
            ("director", "snapshot"),
            ("director", "timestamp"),
        ] {
            let purpose = format!("{repository}.{role}");
            self.run(&["key", "--plain-keys", "--purpose", &purpose, "--out", &shown])?;
            let named = format!(
                "{role}={}",
                online.join(format!("{purpose}.public.json")).display()
            );
            let keys = if repository == "release" {
                &mut release
            } else {
                &mut director
            };
            keys.push(named);
        }
        self.revoke(public, "release", &release)?;
        self.revoke(public, "director", &director)?;
        let (root, issuer) = (
            self.at(1, "fleet-ca.key.pem.sealed"),
            online.join("device-issuer.pem"),
        );
        let (public, issuer) = (public.display().to_string(), issuer.display().to_string());
        let mut issue = vec![
            "issue",
            "--device-issuer",
            "--fleet-dir",
            &public,
            "--issuer",
            &root,
        ];
        let words = self.passphrase(1);
        issue.extend(["--passphrase-file", &words, "--out", &issuer]);
        self.run(&issue)?;
        Ok(online)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a name")?);
        if path.is_dir() {
            copy(&path, &target)?;
        } else if path.is_file() {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

pub(crate) fn redan(stage: &Stage, arguments: &[&str], signing: &[String]) -> Result<()> {
    let mut all = arguments.to_vec();
    all.extend(signing.iter().map(String::as_str));
    stage.redan(&all).map(drop)
}

/// Publishes a version of the service and a set of it alone, as two holders of each role.
fn publish(stage: &Stage, custodians: &Custodians, number: &str, counter: &str, set: &str) -> Result<()> {
    let wasm = stage.programs.guest("thermo", number)?.display().to_string();
    let ask = stage.folder.join(format!("{number}.ask.toml"));
    let template = std::fs::read_to_string(stage.programs.repository.join("policies/ask/thermo.toml"))?;
    std::fs::write(
        &ask,
        template.replace("version = \"1.0.0\"", &format!("version = \"{number}\"")),
    )?;
    let ask = ask.display().to_string();
    let component = custodians.signing("component.acme.thermo");
    redan(
        stage,
        &["publish", &wasm, "--ask", &ask, "--counter", counter],
        &component,
    )?;
    let member = format!("{SERVICE}@{number}");
    let plan = custodians.signing("release.plan");
    redan(stage, &["set", "publish", set, "--member", &member], &plan)
}

/// Everything the server has, at one instant.
fn steal(stage: &mut Stage, thief: &Path) -> Result<()> {
    let kept = stage.control_state();
    let control = stage.control()?;
    control.signal(Signal::STOP)?;
    let copied = copy(&kept, thief);
    control.signal(Signal::CONT)?;
    copied
}

/// What the device refuses, as the thief's server shows it to somebody who has seen no log of this fleet before.
fn refusal_by(stage: &Stage, kept: &Path) -> Result<Option<String>> {
    let views = stage.views_with(&["--state-dir", &kept.display().to_string()])?;
    Ok(views.into_iter().find_map(|view| view.refusal))
}

#[test]
fn stolen_online_keys_are_replaced_over_running_devices_with_no_hands_on_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    let custodians = Custodians::found(&stage)?;
    stage.start_control()?;
    stage.add_device(DEVICE)?;
    let policy = stage
        .programs
        .repository
        .join("policies/fleet/demo.toml")
        .display()
        .to_string();
    redan(
        &stage,
        &["policy", "publish", &policy],
        &custodians.signing("release.policy"),
    )?;
    publish(&stage, &custodians, "1.0.0", "1", "plant-1")?;
    let rollout = stage.start_rollout("plant-1", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    let service = stage.device(DEVICE)?.service;
    let load = Load::start(service, "/thermo/");

    let thief = folder.path().join("thief");
    steal(&mut stage, &thief)?;
    let public = stage.fleet().join("public");
    let online = custodians.replace_online_keys(&public)?;
    let mut keys = Command::new(&stage.programs.control);
    keys.args(["fleet", "keys", "--config"])
        .arg(folder.path().join("control.toml"));
    keys.arg("--online").arg(&online).arg("--public").arg(&public);
    let taken = run(&mut keys)?;
    ensure!(
        taken.code == Some(0) && taken.stdout.contains("is served with them now"),
        "{taken:?}"
    );

    // The same process of the server, the same processes of the device: what is new reaches it, signed by the new keys.
    publish(&stage, &custodians, "1.1.0", "2", "plant-2")?;
    let rollout = stage.start_rollout("plant-2", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    ensure!(version(&get(service, "/thermo/")?.body).as_deref() == Some("1.1.0"));

    // The thief answers in the server's place, with its certificate, its database and every key it had.
    let address = stage.server()?;
    let status = stage.control()?.stop()?;
    ensure!(status.success(), "{status}");
    let config = folder.path().join("thief.toml");
    let text = "checkin_interval_seconds = 1\n";
    std::fs::write(
        &config,
        format!("state = '{}'\nlisten = \"{address}\"\n{text}", thief.display()),
    )?;
    let mut serve = Command::new(&stage.programs.control);
    serve.args(["serve", "--config"]).arg(&config);
    let mut server = Process::start("the thief", &mut serve, &folder.path().join("thief.log"))?;
    server.ready("redan-control: listening on ")?;
    // Whoever operated the fleet before sees at once that this log is an older one.
    let noticed = stage.redan_raw(&["device", "list"])?;
    ensure!(
        noticed.code == Some(1) && noticed.stderr.contains("audit-shortened"),
        "{noticed:?}"
    );
    await_that("the device to refuse what the stolen keys signed", SOON, || {
        Ok(match refusal_by(&stage, &thief.join("operator"))? {
            Some(code) if code == "threshold-not-met" => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    server.stop()?;

    // And back: nothing had happened.
    stage.start_control()?;
    stage.await_devices("the device to be content", SOON, |views| {
        views
            .iter()
            .all(|view| view.refusal.is_none() && view.set.as_deref() == Some("plant-2"))
    })?;
    let tally = load.finish();
    ensure!(tally.failed == 0, "{:?}", tally.examples);
    assert_eq!(tally.versions, ["1.0.0", "1.1.0"]);
    stage.stop()
}
