//! P16: lists of revoked servers towards a running device. The attacker holds lists of other times and issuers, and, more than any
//! attacker of the table, policy signers who publish whatever they are handed.

use crate::resigned::{published, put};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_identity::client::Connection;
use redan_identity::crl::{RevokedSerial, SERVER_LISTS, serial_of, write_lists};
use redan_identity::{FleetAnchor, Issuer, IssuerKind, pem, tls};
use redan_kit::Stage;
use redan_kit::stage::{FLEET, World, await_that, run};
use redan_protocol::wire::control_host;
use redan_protocol::{ByteCount, Code, Digest, FleetId, Seconds, UnixSeconds};
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, target};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
const DAY: Seconds = Seconds::new(86_400);

fn now() -> Result<UnixSeconds> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(UnixSeconds::new(since.as_secs()))
}

/// What the device says of its connection and of the list it goes by.
fn await_status(stage: &Stage, offline: Option<&str>, list: Option<&str>) -> Result<()> {
    await_that("the device to say so", SOON, || {
        let mut status = Command::new(&stage.programs.device);
        status.args(["status", "--json", "--state"]);
        let ran = run(status.arg(&stage.device(DEVICE)?.state))?;
        let said: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let is = |field: &str, wanted: Option<&str>| said.get(field).map(Value::as_str) == Some(wanted);
        Ok(if is("offline", offline) && is("revoked_servers", list) {
            Ok(())
        } else {
            Err(said.to_string())
        })
    })
    .with_context(|| format!("offline {offline:?}, list {list:?}"))
}

/// Whatever is handed over is published at the path of the lists, with the signatures it needs.
fn publish(stage: &Stage, file: &[u8]) -> Result<()> {
    let database = stage
        .control_state()
        .join("fleets")
        .join(FLEET)
        .join("fleet.sqlite");
    let files = published(&database)?;
    let newest = |role: &str| -> Result<(u64, Value)> {
        let versions = files.iter().filter_map(|(name, bytes)| {
            let version = name.strip_suffix(&format!(".{role}.json"))?.parse::<u64>().ok()?;
            Some((version, bytes))
        });
        let newest = versions.max_by_key(|(version, _)| *version);
        let (version, bytes) = newest.with_context(|| format!("no {role}"))?;
        let mut read: Value = serde_json::from_slice(bytes)?;
        let signed = read.get_mut("signed").context("a signed part")?;
        Ok((version, signed.take()))
    };
    let key = |purpose: &str| -> Result<SigningKey> { Ok(SigningKey::load(stage.key(purpose).as_ref())?) };
    let (version, mut policy) = newest("policy")?;
    let next = version + 1;
    put(&mut policy, "version", json!(next))?;
    let targets = policy.get_mut("targets").context("targets")?;
    put(targets, SERVER_LISTS, target(file, None::<&Value>)?)?;
    let policy = sign(&policy, &[&key("release.policy-1")?])?;
    let (version, mut snapshot) = newest("snapshot")?;
    let after = version + 1;
    put(&mut snapshot, "version", json!(after))?;
    let hashes = json!({"sha256": Digest::of(&policy)});
    let listed = json!({"version": next, "length": policy.len(), "hashes": hashes});
    put(snapshot.get_mut("meta").context("meta")?, "policy.json", listed)?;
    let snapshot = sign(&snapshot, &[&key("release.snapshot-1")?])?;
    let body = json!({"files": {
        format!("{next}.policy.json"): STANDARD.encode(&policy),
        format!("{after}.snapshot.json"): STANDARD.encode(&snapshot),
    }});
    ask(
        stage,
        "PUT",
        &format!("/v1/artifacts/{}", Digest::of(file)),
        file.to_vec(),
    )?;
    ask(stage, "POST", "/v1/release", serde_json::to_vec(&body)?)
}

/// One request of the first operator.
fn ask(stage: &Stage, method: &str, path: &str, body: Vec<u8>) -> Result<()> {
    let (key, chain) = pem::load_bundle(&stage.fleet().join("operators/admin.pem"))?;
    let config = tls::device_client(&anchor(stage)?, chain, &key, now()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(stage.server()?).await?;
        let host = control_host(&FleetId::parse(FLEET)?);
        let mut connection = Connection::open(stream, config, &host).await?;
        let headers = [("content-type", "application/json")];
        let answer = connection
            .request(method, path, &headers, body.into(), ByteCount::mib(1))
            .await?;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 200, "{method} {path}: {said}");
        Ok(())
    })
}

fn anchor(stage: &Stage) -> Result<FleetAnchor> {
    let ca = std::fs::read_to_string(stage.fleet().join("public/ca.pem"))?;
    Ok(FleetAnchor::from_pem(FleetId::parse(FLEET)?, &ca)?)
}

/// List `number` by an offline issuer of this fleet, on which the server is or is not.
fn list(
    stage: &Stage,
    (kind, name): (IssuerKind, &str),
    (number, revoked): (u64, bool),
    (made, life): (UnixSeconds, Seconds),
) -> Result<Vec<u8>> {
    let file = stage.fleet().join(format!("offline/{name}-issuer.pem"));
    let (key, chain) = pem::load_bundle(&file)?;
    let certificate = chain.into_iter().next().context("an issuer")?;
    let issuer = Issuer::load(kind, anchor(stage)?, key, certificate);
    let (_, server) = pem::load_bundle(&stage.fleet().join("online/server.pem"))?;
    let serial = serial_of(server.first().context("a leaf")?)?;
    let entry = RevokedSerial { serial, at: made };
    let revoked: BTreeSet<RevokedSerial> = revoked.then_some(entry).into_iter().collect();
    let list = issuer.crl(number, &revoked, made, life)?;
    Ok(write_lists(issuer.certificate(), &list).into_bytes())
}

/// Custodians make the next list and policy signers publish it, with the real programs.
fn by_the_book(stage: &Stage, more: &[&str], out: &str) -> Result<()> {
    let at = |name: &str| stage.fleet().join(name).display().to_string();
    let out = stage.folder.join(out).display().to_string();
    let (public, issuer) = (at("public"), at("offline/server-issuer.pem"));
    let mut make = Command::new(&stage.programs.ceremony);
    make.args([
        "crl",
        "--of",
        "servers",
        "--fleet-dir",
        &public,
        "--issuer",
        &issuer,
    ]);
    make.args(more).args(["--out", &out]);
    let ran = run(&mut make)?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let (policy, snapshot) = (stage.key("release.policy-1"), stage.key("release.snapshot-1"));
    stage.redan(&[
        "crl",
        "publish",
        "--servers",
        &out,
        "--key",
        &policy,
        "--key",
        &snapshot,
    ])?;
    Ok(())
}

/// A device that has list 1 is offered what is no better list, and goes on; then list 2 takes the server's certificate back, and it
/// goes on with no server until that has another certificate, also over a restart.
pub fn lists_of_servers(stage: &mut Stage) -> Result<()> {
    stage.run_ceremony()?;
    stage.start_control()?;
    stage.add_device(DEVICE)?;
    await_status(stage, None, None)?;
    by_the_book(stage, &["--first"], "servers-1.crl")?;
    let kept = stage.device(DEVICE)?.state.join("revoked/a");
    await_that("the list to be kept", SOON, || {
        Ok(if kept.exists() { Ok(()) } else { Err(String::new()) })
    })?;
    let (servers, now) = ((IssuerKind::Server, "server"), now()?);
    let operators = (IssuerKind::Operator, "operator");
    let past = UnixSeconds::new(now.get().saturating_sub(3600));
    for (what, file, code) in [
        (
            "expired",
            list(stage, servers, (2, true), (past, Seconds::new(60)))?,
            Code::RevocationListExpired,
        ),
        (
            "an older number",
            list(stage, servers, (0, true), (now, DAY))?,
            Code::RevocationListRollback,
        ),
        (
            "another issuer",
            list(stage, operators, (2, true), (now, DAY))?,
            Code::RevocationListInvalid,
        ),
        ("10 MB", vec![b'\n'; 10_000_000], Code::RevocationListInvalid),
        (
            "the same number",
            list(stage, servers, (1, true), (now, DAY))?,
            Code::RevocationListRollback,
        ),
        (
            "malformed",
            b"-----BEGIN X509 CRL-----".to_vec(),
            Code::RevocationListInvalid,
        ),
    ] {
        publish(stage, &file).context(what)?;
        await_status(stage, None, Some(code.name())).context(what)?;
    }
    let first = stage.folder.join("servers-1.crl").display().to_string();
    let server = stage.fleet().join("online/server.pem").display().to_string();
    by_the_book(
        stage,
        &["--previous", &first, "--revoked", &server],
        "servers-2.crl",
    )?;
    let refused = Code::ServerRevoked.name();
    await_status(stage, Some(refused), None)?;
    stage.device_mut(DEVICE)?.stop()?;
    stage.start_device(DEVICE)?;
    await_status(stage, Some(refused), None).context("restarted")?;
    // What runs goes on with the certificate that was taken back would be another device's mistake: the next one is believed.
    stage.jump(World::Real)?;
    await_status(stage, None, None).context("positive control: another certificate")
}
