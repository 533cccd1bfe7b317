//! Thefts that are about sockets and certificates, against real `redan-control` and `redan-device`.

use super::evil::{Answers, EvilServer};
use crate::guinea::Guinea;
use crate::resigned;
use anyhow::{Context, Result, ensure};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer as Signer, KeyPair, KeyUsagePurpose,
    SanType,
};
use redan_identity::ca::Issuer;
use redan_identity::client::Connection;
use redan_identity::profile::IssuerKind;
use redan_identity::{FleetAnchor, KeyFile, KeyProvider, pem, tls};
use redan_kit::Stage;
use redan_kit::stage::{FLEET, SERVICE, await_that, run};
use redan_protocol::report::Report;
use redan_protocol::wire::{
    CHECKIN, CheckIn, CheckInReply, Nonce, Problem, Statement, StatementKind, control_host,
};
use redan_protocol::{
    ByteCount, DeviceId, Digest, DirectionSequence, FleetId, Seconds, SetId, SpiffeId, UnixSeconds, Version64,
};
use redan_publish::metadata::{envelope, sign, timestamp};
use redan_publish::{Directed, DirectorExpiry, DirectorFiles, DirectorKeys, SigningKey, director};
use redan_trust::custom::{ComponentRecord, Direction, DirectorCustom};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Plays one row and says what was seen, line by line as the table has it.
pub type Live = fn(&Stage) -> Result<Vec<String>>;

/// The rows that have one.
pub const PLAYED: &[(&str, Live)] = &[
    ("K14", device_issuer),
    ("K15", server_key),
    ("K17", every_online_key),
];

/// For a device or a server to say what it thinks.
const WITHIN: Duration = Duration::from_mins(1);
/// Longest answer looked at, bytes.
const ANSWER_LEN_MAX: ByteCount = ByteCount::mib(8);
/// The set every stage publishes first.
const SET: &str = "plant-1";
/// A version no honest director has come to.
pub(crate) const FAR: u64 = 1_000_000;

fn fleet() -> Result<FleetId> {
    Ok(FleetId::parse(FLEET)?)
}

pub(crate) fn now() -> UnixSeconds {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds::new(since.map_or(0, |since| since.as_secs()))
}

fn anchor(stage: &Stage) -> Result<FleetAnchor> {
    let text = std::fs::read_to_string(stage.fleet().join("public/ca.pem"))?;
    Ok(FleetAnchor::from_pem(fleet()?, &text)?)
}

pub(crate) fn online(stage: &Stage, name: &str) -> PathBuf {
    stage.fleet().join("online").join(name)
}

/// The thief certifies keys of his own: for a device nobody admitted, for one that was admitted, and for a server.
///
/// Positive control: the admitted device's own key is answered.
fn device_issuer(stage: &Stage) -> Result<Vec<String>> {
    let mut guinea = Guinea::enrol(stage, "attacked-k14")?;
    let (key, chain) = pem::load_bundle(&online(stage, "device-issuer.pem"))?;
    let certificate = chain.first().context("the issuer's certificate")?.clone();
    let issuer = Issuer::load(IssuerKind::Device, anchor(stage)?, key, certificate);
    let own = guinea.state().join("identity");
    let honest_key = KeyFile::from_pem(&std::fs::read_to_string(own.join("key.pem"))?)?;
    let honest_chain = pem::read_chain(&std::fs::read_to_string(own.join("chain.pem"))?)?;
    let honest = asks(stage, honest_chain, &honest_key)?;
    ensure!(honest == ["200"], "positive control: {honest:?}");

    let mut seen = Vec::new();
    for (whose, name) in [
        ("a device that nobody admitted", "ghost-1"),
        ("an admitted device", guinea.id()),
    ] {
        let key = KeyFile::generate()?;
        let id = SpiffeId::Device(fleet()?, DeviceId::parse(name)?);
        let chain = issuer.issue_for(&id, &key, now())?;
        let answers = asks(stage, chain, &key)?.join(", ");
        seen.push(format!(
            "checks in and reads as {whose}, with a key of his own: {answers}"
        ));
    }
    let (chain, key) = server_of_the_device_issuer(&issuer)?;
    let evil = EvilServer::start(chain, key, Box::new(|_, _| None))?;
    guinea.start(evil.address)?;
    let code = await_offline(stage, &guinea)?;
    guinea.stop()?;
    ensure!(evil.reports().is_empty(), "the device told the thief something");
    seen.push(format!("poses as the server to a device: {code}"));
    Ok(seen)
}

/// Checks in, reads metadata and an artifact; the different answers.
fn asks(stage: &Stage, chain: Vec<CertificateDer<'static>>, key: &dyn KeyProvider) -> Result<Vec<String>> {
    let artifact = Digest::of(&std::fs::read(stage.programs.guest("thermo", "1.0.0")?)?);
    let check_in = CheckIn {
        nonce: Nonce([1; 16]),
        settled: None,
        report: Report::default(),
    };
    let check_in = serde_json::to_vec(&check_in)?;
    let config = tls::device_client(&anchor(stage)?, chain, key, now())?;
    let server = stage.server()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut answers = BTreeSet::new();
    for (method, path, body) in [
        ("POST", CHECKIN.to_owned(), check_in),
        ("GET", "/tuf/release/timestamp.json".into(), Vec::new()),
        ("GET", format!("/artifacts/{artifact}"), Vec::new()),
    ] {
        let config = Arc::clone(&config);
        answers.insert(runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(server).await?;
            let mut connection = Connection::open(stream, config, &control_host(&fleet()?)).await?;
            let headers = [("content-type", "application/json")];
            let answer = connection.request(method, &path, &headers, body.into(), ANSWER_LEN_MAX);
            let answer = answer.await?;
            if answer.status == 200 {
                return Ok("200".to_owned());
            }
            let problem: Problem = serde_json::from_slice(&answer.body)?;
            anyhow::Ok(problem.code.name().to_owned())
        })?);
    }
    Ok(answers.into_iter().collect())
}

/// A server certificate that is right in everything but its issuer.
fn server_of_the_device_issuer(
    issuer: &Issuer,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let host = control_host(&fleet()?);
    let mut leaf = CertificateParams::new(Vec::new())?;
    leaf.distinguished_name.push(DnType::CommonName, host.as_str());
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.subject_alt_names = vec![
        SanType::URI(SpiffeId::Control(fleet()?).to_string().as_str().try_into()?),
        SanType::DnsName(host.as_str().try_into()?),
    ];
    let stolen = KeyPair::from_pem(&issuer.key().to_pem())?;
    let by = Signer::from_ca_cert_der(issuer.certificate(), stolen)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let leaf = leaf.signed_by(&key, &by)?;
    let chain = vec![leaf.der().clone(), issuer.certificate().clone()];
    Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

/// Waits until a device says at its own socket why it does not reach its server.
fn await_offline(stage: &Stage, guinea: &Guinea) -> Result<String> {
    await_that("the device to say why it is offline", WITHIN, || {
        let mut status = Command::new(&stage.programs.device);
        status.args(["status", "--state"]).arg(guinea.state());
        let ran = run(&mut status)?;
        let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let code = status.get("offline").and_then(Value::as_str);
        Ok(code.map(str::to_owned).ok_or(ran.stdout))
    })
}

/// The server's certificate and key, as stolen.
pub(crate) fn stolen_server(stage: &Stage) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let path = online(stage, "server.pem");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&path)?.collect();
    Ok((chain?, PrivateKeyDer::from_pem_file(&path)?))
}

/// A device that runs the first set, by the honest server: the positive control of what the evil one does next.
fn settled(stage: &Stage, id: &str) -> Result<Guinea> {
    let mut guinea = Guinea::enrol(stage, id)?;
    guinea.start(stage.server()?)?;
    let rollout = stage.start_rollout(SET, &[&format!("control={}", guinea.id())])?;
    guinea.await_set(SET, WITHIN).context("positive control")?;
    stage.await_rollout(&rollout, &["complete"], WITHIN)?;
    guinea.stop()?;
    Ok(guinea)
}

/// The thief answers with metadata that he signed himself: what he is told, and what the device makes of it.
fn server_key(stage: &Stage) -> Result<Vec<String>> {
    let mut guinea = settled(stage, "attacked-k15")?;
    let (chain, key) = stolen_server(stage)?;
    let own = SigningKey::generate("thief")?;
    let file = sign(
        &timestamp(FAR, now().after(Seconds::new(3600)), (FAR, b"{}"))?,
        &[&own],
    )?;
    let id = SpiffeId::Device(fleet()?, DeviceId::parse(guinea.id())?);
    let evil = EvilServer::start(
        chain,
        key,
        Box::new(move |path, check_in| {
            if let Some(check_in) = check_in {
                return reply(&id, check_in.nonce, (FAR, FAR), &own).ok();
            }
            path.ends_with("/timestamp.json").then(|| file.clone())
        }),
    )?;
    guinea.start(evil.address)?;
    let refused = await_report(&evil, "a refusal", |report| report.refusal)?;
    let kept = await_report(&evil, "what is kept", healthy)?;
    guinea.stop()?;
    Ok(vec![
        format!("serves metadata that he signed himself: {}", refused.name()),
        format!("reads the check-in: {kept}"),
    ])
}

/// What a check-in tells: the set, and every workload with its version and health.
fn healthy(report: &Report) -> Option<String> {
    let set = report.set.as_ref()?;
    let mut workloads = Vec::new();
    for slot in &report.slots {
        let [major, minor, patch] = slot.version;
        workloads.push(format!(
            "{} {major}.{minor}.{patch} {:?}",
            slot.component, slot.health
        ));
    }
    let all = workloads.len() == 2 && workloads.iter().all(|workload| workload.ends_with("Healthy"));
    workloads.sort();
    all.then(|| format!("{set}, {}", workloads.join(", ").to_lowercase()))
}

fn await_report<T>(evil: &EvilServer, what: &str, look: impl Fn(&Report) -> Option<T>) -> Result<T> {
    await_that(what, WITHIN, || {
        let reports = evil.reports();
        Ok(reports
            .iter()
            .find_map(&look)
            .ok_or_else(|| format!("{:?}", reports.first())))
    })
}

pub(crate) fn reply(
    device: &SpiffeId,
    nonce: Nonce,
    versions: (u64, u64),
    key: &SigningKey,
) -> Result<Vec<u8>> {
    let statement = Statement {
        kind: StatementKind::TimeStatement,
        device: device.clone(),
        nonce,
        time: now(),
        release: Version64::new(versions.0),
        director: Version64::new(versions.1),
    };
    let statement = envelope(&serde_json::to_value(statement)?, &[key])?;
    let interval = Seconds::new(1);
    Ok(serde_json::to_vec(&CheckInReply { statement, interval })?)
}

/// The thief has a server of his own with every online key. He forges what release signers sign (T02), directs a device to code
/// that nobody released, and to a signed set that no operator chose.
fn every_online_key(stage: &Stage) -> Result<Vec<String>> {
    let refused = resigned::metadata_signed_with_the_servers_own_keys(stage)?;
    let mut seen = vec![format!(
        "serves a snapshot and a root that he signed himself: {refused}"
    )];
    stage.publish_set("unchosen", &[(SERVICE, "1.0.0")])?;
    let mut guinea = settled(stage, "attacked-k17")?;
    let honest = Honest::read(stage)?;
    let (record, length, digest) = honest.component()?;

    let code = b"the attacker's code".to_vec();
    let lie = (record.clone(), u64::try_from(code.len())?, Digest::of(&code));
    let evil = honest.directs(stage, guinea.id(), SET, lie, 1)?;
    guinea.start(evil.address)?;
    let refused = await_report(&evil, "a refusal", |report| report.refusal)?;
    let kept = await_report(&evil, "what is kept", healthy)?;
    guinea.stop()?;
    drop(evil);
    ensure!(kept.starts_with(SET), "the device runs {kept}");
    seen.push(format!(
        "directs a device to code that nobody released: {}",
        refused.name()
    ));

    let evil = honest.directs(stage, guinea.id(), "unchosen", (record, length, digest), 2)?;
    guinea.start(evil.address)?;
    let unchosen = SetId::parse("unchosen")?;
    await_report(&evil, "the set to be adopted", |report| {
        (report.set.as_ref() == Some(&unchosen)).then_some(())
    })?;
    guinea.stop()?;
    seen.push("directs a device to a signed set that no operator chose: **adopts it**".into());
    Ok(seen)
}

/// What the honest server holds, as stolen.
struct Honest {
    release: BTreeMap<String, Vec<u8>>,
    artifacts: PathBuf,
}

impl Honest {
    fn read(stage: &Stage) -> Result<Self> {
        let folder = stage.control_state().join("fleets").join(FLEET);
        Ok(Self {
            release: resigned::published(&folder.join("fleet.sqlite"))?,
            artifacts: folder.join("artifacts"),
        })
    }

    /// The targets of the newest file of a role.
    fn targets(&self, role: &str) -> Result<BTreeMap<String, Value>> {
        let newest = self.release.iter().filter_map(|(name, bytes)| {
            let version = name.strip_suffix(&format!(".{role}.json"))?.parse::<u64>().ok()?;
            Some((version, bytes))
        });
        let (_, bytes) = newest
            .max_by_key(|(version, _)| *version)
            .context("no such role")?;
        let file: Value = serde_json::from_slice(bytes)?;
        let targets = file.pointer("/signed/targets").context("targets")?;
        Ok(serde_json::from_value(targets.clone())?)
    }

    fn component(&self) -> Result<(ComponentRecord, u64, Digest)> {
        let targets = self.targets("component.acme.thermo")?;
        let (_, entry) = targets.first_key_value().context("a release")?;
        let record = entry.pointer("/custom/match").context("a record")?;
        Ok((
            serde_json::from_value(record.clone())?,
            entry.get("length").and_then(Value::as_u64).context("a length")?,
            digest(entry)?,
        ))
    }

    /// An evil server that directs a device to these bytes as that set.
    fn directs(
        &self,
        stage: &Stage,
        device: &str,
        set: &str,
        (record, length, sha256): (ComponentRecord, u64, Digest),
        step: u64,
    ) -> Result<EvilServer> {
        let device = SpiffeId::Device(fleet()?, DeviceId::parse(device)?);
        let plans = self.targets("plan")?;
        let plan = plans.get(&format!("plans/{set}.json")).context("no such set")?;
        let says = Direction {
            device: device.clone(),
            sequence: DirectionSequence::new(FAR + step),
            set: SetId::parse(set)?,
            set_digest: digest(plan)?,
            not_before: UnixSeconds::new(0),
            deadline: UnixSeconds::new(0),
            retry_budget: 3,
            unblocked: Vec::new(),
        };
        let path = format!("components/{}/{}/{sha256}.wasm", record.component, record.version);
        let target = Directed {
            path,
            length,
            sha256,
            custom: DirectorCustom {
                record,
                direction: says,
            },
        };
        let load = |role: &str| SigningKey::load(&online(stage, &format!("director.{role}.key.json")));
        let (targets, snapshot, timestamp) = (load("targets")?, load("snapshot")?, load("timestamp")?);
        let keys = DirectorKeys {
            targets: &targets,
            snapshot: &snapshot,
            timestamp: &timestamp,
        };
        let later = now().after(Seconds::new(3600));
        let expiry = DirectorExpiry {
            targets: later,
            timestamp: later,
        };
        let files = director(&device, FAR + step, &[target], expiry, keys)?;
        let versions = (version(self.release.get("timestamp.json"))?, files.version);
        let (chain, key) = stolen_server(stage)?;
        EvilServer::start(chain, key, self.answers(device, files, versions, timestamp))
    }

    fn answers(
        &self,
        device: SpiffeId,
        files: DirectorFiles,
        versions: (u64, u64),
        key: SigningKey,
    ) -> Answers {
        let (release, artifacts) = (self.release.clone(), self.artifacts.clone());
        Box::new(move |path, check_in| {
            if let Some(check_in) = check_in {
                return reply(&device, check_in.nonce, versions, &key).ok();
            }
            if let Some(name) = path.strip_prefix("/tuf/release/") {
                return release.get(name).cloned();
            }
            if let Some(digest) = path.strip_prefix("/artifacts/") {
                return std::fs::read(artifacts.join(digest)).ok();
            }
            match path.strip_prefix("/tuf/director/")? {
                "timestamp.json" => Some(files.timestamp.clone()),
                name if name.ends_with(".snapshot.json") => Some(files.snapshot.clone()),
                name if name.ends_with(".targets.json") => Some(files.targets.clone()),
                _ => None,
            }
        })
    }
}

fn digest(entry: &Value) -> Result<Digest> {
    let text = entry.pointer("/hashes/sha256").and_then(Value::as_str);
    Ok(Digest::parse(text.context("a digest")?)?)
}

pub(crate) fn version(file: Option<&Vec<u8>>) -> Result<u64> {
    let file: Value = serde_json::from_slice(file.context("no such file")?)?;
    let version = file.pointer("/signed/version").and_then(Value::as_u64);
    version.context("a version")
}
