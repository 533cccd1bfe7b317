//! Key ceremonies after the founding, with the programs people use.

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{Ran, run};
use redan_kit::{Programs, Stage};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const PASSPHRASE: &str = "correct horse battery staple";

fn ceremony(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let ran = run(Command::new(&stage.programs.ceremony).args(arguments))?;
    ensure!(ran.code == Some(0), "{arguments:?}: {ran:?}");
    Ok(ran.stdout)
}

/// The smallest component that exports what a service must: an empty instance under the interface's name.
fn component(interface: &str) -> Result<Vec<u8>> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // One instance, of no exports.
    bytes.extend([5, 3, 1, 1, 0]);
    let length = u8::try_from(interface.len())?;
    // One export: its name, instance 0, no type.
    let mut export = vec![1, 0, length];
    export.extend(interface.as_bytes());
    export.extend([5, 0, 0]);
    bytes.extend([11, u8::try_from(export.len())?]);
    bytes.extend(export);
    Ok(bytes)
}

/// The publisher makes a key, and the custodians delegate the component to it. Gives the key's file.
fn delegate(stage: &Stage, at: &impl Fn(&str) -> String, words: &str) -> Result<String> {
    let public = stage.fleet().join("public").display().to_string();
    let (request, signature) = (at("request.json"), at("signature.json"));
    let (key, half) = (
        at("component.acme.pump-1.key.json"),
        at("component.acme.pump-1.public.json"),
    );
    let purpose = "component.acme.pump-1";
    ceremony(
        stage,
        &[
            "key",
            "--purpose",
            purpose,
            "--passphrase-file",
            words,
            "--out",
            &at(""),
        ],
    )?;
    let made = ceremony(
        stage,
        &[
            "request",
            "delegate",
            "--public",
            &public,
            "--component",
            "acme/pump",
            "--key",
            &half,
            "--threshold",
            "1",
            "--out",
            &request,
        ],
    )?;
    let digest = made.lines().find_map(|line| line.strip_prefix("payload sha256 "));
    let typed = digest.and_then(|digest| digest.get(..8)).context("the digest")?;
    let holder = stage.key("release.targets-1");
    ceremony(
        stage,
        &[
            "sign",
            "--public",
            &public,
            "--request",
            &request,
            "--key",
            &holder,
            "--confirm",
            typed,
            "--out",
            &signature,
        ],
    )?;
    ceremony(
        stage,
        &[
            "assemble",
            "--public",
            &public,
            "--request",
            &request,
            "--signature",
            &signature,
        ],
    )?;
    Ok(key)
}

#[test]
fn a_component_delegated_after_the_founding_is_published_with_a_key_under_a_passphrase() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let words = at("words");
    std::fs::write(&words, PASSPHRASE)?;
    std::fs::set_permissions(&words, std::fs::Permissions::from_mode(0o600))?;

    let key = delegate(&stage, &at, &words)?;
    let release = stage.fleet().join("public/release").display().to_string();
    let snapshot = stage.key("release.snapshot-1");
    let upload = ["release", "upload", &release, "--key", &snapshot];
    let taken = stage.redan(&upload)?.to_string();
    ensure!(
        taken.contains("2.targets.json") && taken.contains("2.snapshot.json"),
        "{taken}"
    );
    refused(&stage.redan_raw(&upload)?, 2, "the server has everything")?;

    let (wasm, ask) = (at("pump.wasm"), at("pump.toml"));
    let template = std::fs::read_to_string(stage.programs.repository.join("policies/ask/thermo.toml"))?;
    std::fs::write(&ask, template.replace("acme/thermo", "acme/pump"))?;
    std::fs::write(&wasm, component("wasi:http/incoming-handler@0.2.0")?)?;
    let publish = |more: &[&str]| {
        let mut arguments = vec!["publish", &wasm, "--ask", &ask, "--counter", "1"];
        arguments.extend(["--key", &key, "--key", &snapshot]);
        arguments.extend(more);
        stage.redan_raw(&arguments)
    };
    refused(&publish(&[])?, 1, "wrapped with a passphrase")?;
    let published = publish(&["--passphrase-file", &words])?;
    ensure!(
        published.code == Some(0) && published.stdout.contains("acme/pump"),
        "{published:?}"
    );

    // Back to the custodians: what publishers signed meanwhile, and never over a file that says something else.
    let public = stage.fleet().join("public").display().to_string();
    stage.redan(&["release", "fetch", &release])?;
    let verified = ceremony(&stage, &["verify", "--public", &public])?;
    ensure!(verified.contains("component.acme.pump.json 1"), "{verified}");
    std::fs::write(stage.fleet().join("public/release/3.snapshot.json"), "{}")?;
    refused(
        &stage.redan_raw(&["release", "fetch", &release])?,
        3,
        "differs from the server's",
    )?;
    Ok(())
}

fn refused(ran: &Ran, code: i32, words: &str) -> Result<()> {
    ensure!(ran.code == Some(code) && ran.stderr.contains(words), "{ran:?}");
    ensure!(ran.stderr.contains("try:"), "{ran:?}");
    Ok(())
}
