//! Publishing by several: signers who sign one after another, and publishers who race.

use crate::stolen::{Custodians, redan};
use anyhow::{Context, Result, ensure};
use redan_kit::stage::{JOB, Ran, Release, SERVICE};
use redan_kit::{Programs, Stage};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const THERMO: &str = "component.acme.thermo";

fn refused(ran: &Ran, exit: i32, words: &[&str]) -> Result<()> {
    ensure!(ran.code == Some(exit), "{ran:?}");
    for word in ["try:"].iter().chain(words) {
        ensure!(ran.stderr.contains(word), "{word:?} is missing in {}", ran.stderr);
    }
    Ok(())
}

/// An ask of a version, and what `redan publish` is given for it.
fn version(stage: &Stage, number: &str, counter: &str, more: &str) -> Result<Vec<String>> {
    let ask = stage.folder.join(format!("{number}.ask.toml"));
    let template = std::fs::read_to_string(stage.programs.repository.join("policies/ask/thermo.toml"))?;
    let text = template.replace("version = \"1.0.0\"", &format!("version = \"{number}\""));
    std::fs::write(&ask, format!("{text}{more}"))?;
    let wasm = stage.programs.guest("thermo", "1.0.0")?.display().to_string();
    let words = [
        "publish",
        &wasm,
        "--ask",
        &ask.display().to_string(),
        "--counter",
        counter,
    ];
    Ok(words.map(str::to_owned).to_vec())
}

/// A file of the server's release repository as it is served now.
fn served(stage: &Stage, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    stage
        .redan(&["release", "fetch", &folder.display().to_string()])
        .map(drop)
}

fn newest(folder: &Path, role: &str) -> Result<Value> {
    let mut found = (0, None);
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let number = name
            .strip_suffix(&format!(".{role}.json"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number.filter(|number| *number > found.0) {
            found = (number, Some(path));
        }
    }
    let path = found.1.with_context(|| format!("no {role}"))?;
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

struct Two {
    stage: Stage,
    custodians: Custodians,
}

impl Two {
    /// A holder's key of a role, and what opens it.
    fn signer(&self, role: &str, holder: u32) -> [String; 4] {
        let key = self.custodians.at(holder, &format!("{role}-{holder}.key.json"));
        [
            "--key".into(),
            key,
            "--passphrase-file".into(),
            self.custodians.passphrase(holder),
        ]
    }

    fn signed(&self, words: &[&str], signer: &[String], more: &[&str]) -> Result<Ran> {
        let mut all = words.to_vec();
        all.extend(signer.iter().map(String::as_str));
        all.extend(more);
        self.stage.redan_raw(&all)
    }

    fn at(&self, name: &str) -> String {
        self.stage.folder.join(name).display().to_string()
    }
}

#[test]
fn ci_alone_publishes_nothing_and_the_second_signer_sees_what_they_sign() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    let custodians = Custodians::found(&stage)?;
    stage.start_control()?;
    let two = Two { stage, custodians };
    let snapshot = two.signer("release.snapshot", 1);
    let first = version(&two.stage, "1.0.0", "1", "")?;
    let first: Vec<&str> = first.iter().map(String::as_str).collect();
    redan(&two.stage, &first, &two.custodians.signing(THERMO))?;

    let (begun, ready) = (two.at("begun.json"), two.at("ready.json"));
    two.ci_begins(&snapshot, &begun)?;
    let digest = two.second_signer_sees(&begun)?;
    two.second_signer_signs(&digest, &begun, &ready)?;

    // Meanwhile somebody publishes in another role: the snapshot is made over both.
    let member = format!("{SERVICE}@1.0.0");
    let plan = two.custodians.signing("release.plan");
    redan(
        &two.stage,
        &["set", "publish", "plant-1", "--member", &member],
        &plan,
    )?;
    let uploaded = two.signed(&["draft", "upload", &ready], &snapshot, &[])?;
    ensure!(uploaded.code == Some(0), "{uploaded:?}");
    let now = folder.path().join("now");
    served(&two.stage, &now)?;
    let targets = newest(&now, THERMO)?.to_string();
    ensure!(
        targets.contains("1.0.0") && targets.contains("1.1.0"),
        "{targets}"
    );
    ensure!(newest(&now, "plan")?.to_string().contains("plans/plant-1"));
    // Once published, it is no draft of the next version any more.
    let again = two.signed(&["draft", "upload", &ready], &snapshot, &[])?;
    refused(&again, 1, &["version 3", "conflict"])?;
    two.documents_are_drafted_too(&snapshot)
}

impl Two {
    /// CI holds one key of the component and the snapshot's, and is not enough.
    fn ci_begins(&self, snapshot: &[String], begun: &str) -> Result<()> {
        let ci = self.signer(THERMO, 1);
        let next = version(&self.stage, "1.1.0", "2", "# wants no more\n")?;
        let words: Vec<&str> = next.iter().map(String::as_str).collect();
        let alone = [ci.as_slice(), snapshot].concat();
        refused(
            &self.signed(&words, &alone, &[])?,
            1,
            &["may sign component.acme.thermo", "threshold-not-met", "--draft"],
        )?;
        let said = self.signed(&words, &ci, &["--draft", begun])?;
        ensure!(
            said.code == Some(0) && said.stdout.contains("begun.json"),
            "{said:?}"
        );
        refused(
            &self.signed(&["draft", "upload", begun], snapshot, &[])?,
            1,
            &["1 of 2 holders", "threshold-not-met"],
        )?;
        // A counter that does not grow is not even begun; nor is one signer counted twice.
        let elsewhere = self.at("elsewhere.json");
        let back = version(&self.stage, "1.2.0", "1", "")?;
        let back: Vec<&str> = back.iter().map(String::as_str).collect();
        refused(
            &self.signed(&back, &ci, &["--draft", &elsewhere])?,
            1,
            &["release counter 1 is not above 1", "counter-not-growing"],
        )?;
        let twice = [ci.as_slice(), &ci].concat();
        refused(
            &self.signed(&words, &twice, &["--draft", &elsewhere])?,
            1,
            &["has signed it already", "conflict"],
        )
    }

    /// On another day and another machine. Gives the digest of what they read.
    fn second_signer_sees(&self, begun: &str) -> Result<String> {
        let seen = self.stage.redan(&["draft", "inspect", begun])?;
        let change = seen.pointer("/changes/0").context("a change")?;
        for (field, wanted) in [
            ("component", "acme/thermo"),
            ("component_version", "1.1.0"),
            ("last_version", "1.0.0"),
        ] {
            let found = change.get(field).and_then(Value::as_str);
            ensure!(found == Some(wanted), "{field}: {seen}");
        }
        let counter = change.get("counter").map(ToString::to_string);
        ensure!(counter.is_some_and(|counter| counter.contains('2')), "{seen}");
        let difference = change.get("ask_difference").context("a difference")?.to_string();
        for line in ["+ # wants no more", "- version"] {
            ensure!(difference.contains(line), "{line}: {difference}");
        }
        ensure!(seen.get("signatures_missing") == Some(&Value::from(1)), "{seen}");
        let changes = seen.get("changes").and_then(Value::as_array).map(Vec::len);
        ensure!(changes == Some(1), "{seen}");
        let digest = seen.get("payload_sha256").and_then(Value::as_str);
        Ok(digest.context("a digest")?.to_owned())
    }

    fn second_signer_signs(&self, digest: &str, begun: &str, ready: &str) -> Result<()> {
        let second = self.signer(THERMO, 2);
        let sign = |confirm: &str, signer: &[String]| {
            let more = ["--confirm", confirm, "--out", ready];
            self.signed(&["draft", "sign", begun], signer, &more)
        };
        for confirm in ["00000000", digest.get(..7).context("7 characters")?] {
            refused(&sign(confirm, &second)?, 1, &["does not begin", "not-authorised"])?;
        }
        let ci = self.signer(THERMO, 1);
        refused(&sign(digest, &ci)?, 1, &["has signed it already"])?;
        let planner = self.signer("release.plan", 2);
        refused(&sign(digest, &planner)?, 1, &["threshold-not-met"])?;
        // Swapped on its way: the same signature over something else.
        let evil = self.at("evil.json");
        std::fs::write(&evil, std::fs::read_to_string(begun)?.replace("1.1.0", "1.1.1"))?;
        let seen = self.stage.redan_raw(&["draft", "inspect", &evil])?;
        refused(&seen, 1, &["is not over it", "metadata-invalid"])?;
        let signed = sign(digest, &second)?;
        ensure!(signed.code == Some(0), "{signed:?}");
        refused(&sign(digest, &self.signer(THERMO, 3))?, 3, &["exists"])
    }

    /// A set, and a policy, as drafts: the second signer reads the document itself.
    fn documents_are_drafted_too(&self, snapshot: &[String]) -> Result<()> {
        let member = format!("{SERVICE}@1.1.0");
        let policy = self
            .stage
            .programs
            .repository
            .join("policies/fleet/demo.toml")
            .display()
            .to_string();
        for (role, words, line) in [
            (
                "release.plan",
                vec!["set", "publish", "plant-2", "--member", &member],
                "1.1.0",
            ),
            ("release.policy", vec!["policy", "publish", &policy], "schema"),
        ] {
            let (one, both) = (self.at(&format!("{role}.one")), self.at(&format!("{role}.both")));
            let begun = self.signed(&words, &self.signer(role, 1), &["--draft", &one])?;
            ensure!(begun.code == Some(0), "{begun:?}");
            let seen = self.stage.redan(&["draft", "inspect", &one])?;
            ensure!(
                seen.pointer("/changes/0/difference")
                    .is_some_and(|lines| lines.to_string().contains(line)),
                "{seen}"
            );
            let digest = seen
                .get("payload_sha256")
                .and_then(Value::as_str)
                .context("a digest")?;
            let more = ["--confirm", &digest[..8], "--out", &both];
            let signed = self.signed(&["draft", "sign", &one], &self.signer(role, 2), &more)?;
            ensure!(signed.code == Some(0), "{signed:?}");
            let uploaded = self.signed(&["draft", "upload", &both], snapshot, &[])?;
            ensure!(uploaded.code == Some(0), "{uploaded:?}");
        }
        Ok(())
    }
}

#[test]
fn publishers_who_race_lose_nothing_and_overwrite_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    let release = |component, version, counter| Release {
        component,
        version,
        counter,
    };
    stage.publish(release(SERVICE, "1.0.0", 1))?;
    stage.publish(release(JOB, "1.0.0", 1))?;
    let member = format!("{JOB}@1.0.0");
    let (plan, policy, snapshot) = (
        stage.key("release.plan-1"),
        stage.key("release.policy-1"),
        stage.key("release.snapshot-1"),
    );
    let document = stage
        .programs
        .repository
        .join("policies/fleet/demo.toml")
        .display()
        .to_string();
    // All at once: four in one role, one in another.
    let sets = ["one", "two", "three", "four"];
    let mut commands: Vec<Vec<&str>> = sets
        .iter()
        .map(|set| {
            vec![
                "set", "publish", set, "--member", &member, "--key", &plan, "--key", &snapshot,
            ]
        })
        .collect();
    commands.push(vec![
        "policy", "publish", &document, "--key", &policy, "--key", &snapshot,
    ]);
    let mut running = Vec::new();
    for words in &commands {
        let mut command = Command::new(&stage.programs.redan);
        command.args(stage.access()?).args(words);
        running.push(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    }
    for child in running {
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let now = folder.path().join("now");
    served(&stage, &now)?;
    let listed = newest(&now, "plan")?;
    for set in sets {
        ensure!(
            listed
                .pointer(&format!("/signed/targets/plans~1{set}.json"))
                .is_some(),
            "{set} was lost: {listed}"
        );
    }
    let versions = listed.pointer("/signed/version");
    ensure!(
        versions == Some(&Value::from(5)),
        "one version each, and the first: {versions:?}"
    );
    ensure!(newest(&now, "policy")?.to_string().contains("policy/"));
    stage.stop()
}
