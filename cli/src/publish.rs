//! Publishing: a component with its ask, a fleet policy, a release set. The straight path begins here.

use crate::access::{Access, now, read_text};
use crate::error::CliError;
use crate::sign::{Keys, Signing, publish_target, upload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_identity::IssuerKind;
use redan_identity::crl::Revocations;
use redan_policy::{parse_ask, parse_fleet};
use redan_protocol::{ComponentName, DeviceId, Digest, Permille, ReleaseCounter, Seconds, SetId};
use redan_publish::component::{Interfaces, check};
use redan_publish::metadata::target;
use redan_trust::custom::{ASK_LEN_MAX, ComponentRecord, ReleaseCustom};
use redan_trust::decommission::{Decommission, DecommissionSchema};
use redan_trust::release_set::{Member, ReleaseSet, Ring, SetSchema};
use redan_trust::{POLICY_PATH, decommission_path, plan_path};
use serde_json::{Value, json};
use std::path::Path;

/// Lifetimes of the signing roles (10-trust).
const COMPONENT_LIFE: Seconds = Seconds::new(180 * 86_400);
const PLAN_LIFE: Seconds = Seconds::new(90 * 86_400);
const POLICY_LIFE: Seconds = Seconds::new(365 * 86_400);

/// Reads a component and its ask and holds one against the other.
pub fn check_files(
    wasm: &Path,
    ask: &Path,
) -> Result<(Vec<u8>, String, redan_policy::Ask, Interfaces), CliError> {
    let text = read_text(ask)?;
    let parsed = parse_ask(&ask.display().to_string(), &text)?;
    if text.len() > ASK_LEN_MAX {
        return Err(CliError::Usage {
            what: format!(
                "{} has {} bytes; an ask has at most {ASK_LEN_MAX}",
                ask.display(),
                text.len()
            ),
            remedy: "shorten the ask: it travels with every direction",
        });
    }
    let bytes = std::fs::read(wasm).map_err(|error| CliError::file(wasm, &error))?;
    let found = check(&bytes, &parsed)?;
    Ok((bytes, text, parsed, found))
}

/// Signs and uploads a component.
pub async fn component(
    access: &Access,
    wasm: &Path,
    ask: &Path,
    counter: ReleaseCounter,
    hardware: Vec<String>,
    signing: &Signing,
) -> Result<Value, CliError> {
    let (bytes, text, parsed, _) = check_files(wasm, ask)?;
    let keys = signing.keys.open()?;
    let mut server = access.connect().await?;
    let member = Member {
        component: parsed.name().clone(),
        version: parsed.version().clone(),
        counter,
        digest: Digest::of(&bytes),
    };
    let record = ComponentRecord {
        fleet: server.fleet.clone(),
        component: member.component.clone(),
        counter,
        version: member.version.clone(),
        hardware,
        world: parsed.world(),
        ask: text,
        requires: Vec::new(),
        conflicts: Vec::new(),
        state_schema: 1,
        signed_at: Some(now()),
        sbom: None,
        provenance: None,
        rebuild: None,
    };
    let entry = target(&bytes, Some(&ReleaseCustom { record }))?;
    upload(&mut server, bytes).await?;
    let path = member.target_path();
    let published = publish_target(
        &mut server,
        &member.component.role(),
        COMPONENT_LIFE,
        (&path, entry),
        &keys,
        signing.draft.as_deref(),
    )
    .await?;
    let mut said = json!({"component": member.component, "version": member.version, "counter": counter, "sha256": member.digest});
    signing.say(&mut said, published);
    Ok(said)
}

/// Signs and uploads the fleet policy.
pub async fn policy(access: &Access, file: &Path, signing: &Signing) -> Result<Value, CliError> {
    let text = read_text(file)?;
    let parsed = parse_fleet(&file.display().to_string(), &text)?;
    let keys = signing.keys.open()?;
    let mut server = access.connect().await?;
    let bytes = text.into_bytes();
    let digest = Digest::of(&bytes);
    let entry = target(&bytes, Some(&json!({"serial": parsed.serial()})))?;
    upload(&mut server, bytes).await?;
    let draft = signing.draft.as_deref();
    let target = (POLICY_PATH, entry);
    let published = publish_target(&mut server, "policy", POLICY_LIFE, target, &keys, draft).await?;
    let mut said = json!({"policy": POLICY_PATH, "serial": parsed.serial(), "sha256": digest});
    signing.say(&mut said, published);
    Ok(said)
}

/// Signs the order that ends a device, and revokes it. In this order: a device that is refused first learns from the order why.
pub async fn decommission(access: &Access, id: &DeviceId, keys: &Keys) -> Result<Value, CliError> {
    let keys = keys.open()?;
    let mut server = access.connect().await?;
    let shown: Value = server.call("GET", &format!("/v1/devices/{id}"), "").await?;
    let known = shown.get("keys").cloned().unwrap_or_default();
    let order = Decommission {
        schema: DecommissionSchema::V1,
        fleet: server.fleet.clone(),
        device: id.clone(),
        keys: serde_json::from_value(known).map_err(|_| CliError::Answer("a device's keys"))?,
    };
    let bytes = serde_json::to_vec(&order).map_err(|_| CliError::Answer("a device's keys"))?;
    let none: Option<&Value> = None;
    let entry = target(&bytes, none)?;
    let digest = Digest::of(&bytes);
    upload(&mut server, bytes).await?;
    let path = decommission_path(id);
    publish_target(&mut server, "policy", POLICY_LIFE, (&path, entry), &keys, None).await?;
    let _: Value = server
        .post(&format!("/v1/devices/{id}/revoke"), &json!({}))
        .await?;
    Ok(json!({"device": id, "order": path, "sha256": digest, "keys": order.keys, "revoked": true}))
}

/// Publishes a list that custodians made of their servers' or operators' certificates, when whoever goes by the one that is there takes
/// it.
pub async fn offline_crl(
    access: &Access,
    (kind, path): (IssuerKind, &'static str),
    file: &Path,
    keys: &Keys,
) -> Result<Value, CliError> {
    let keys = keys.open()?;
    let anchors = access.anchors()?;
    let bytes = read_text(file)?.into_bytes();
    let mut server = access.connect().await?;
    let mut release = server.release().await?;
    let mut known = Revocations::default();
    if let Some(there) = server.target(&mut release, path).await? {
        let there = server.artifact(&there).await?;
        // One that nobody takes is no reason not to publish a good one.
        known = Revocations::kept(&anchors, kind, &there).unwrap_or_default();
    }
    known.adopt(&anchors, kind, &bytes, now())?;
    let none: Option<&Value> = None;
    let entry = target(&bytes, none)?;
    let digest = Digest::of(&bytes);
    upload(&mut server, bytes).await?;
    publish_target(&mut server, "policy", POLICY_LIFE, (path, entry), &keys, None).await?;
    Ok(json!({"crl": path, "sha256": digest}))
}

/// Where the list of revoked devices is in the release repository.
pub const CRL_PATH: &str = "policy/devices.crl";

/// Has the server make the next revocation list, holds it against what a verifier holds it against, and publishes it.
pub async fn crl(access: &Access, keys: &Keys) -> Result<Value, CliError> {
    let keys = keys.open()?;
    let anchors = access.anchors()?;
    let mut server = access.connect().await?;
    let made: Value = server.post("/v1/crl", &json!({})).await?;
    let unread = || CliError::Answer("a revocation list");
    let text = |field: &str| made.get(field).and_then(Value::as_str).ok_or_else(unread);
    let list = STANDARD.decode(text("crl")?).map_err(|_| unread())?;
    let issuer = redan_identity::pem::read_chain(text("issuer")?)?;
    let issuer = issuer.first().ok_or_else(unread)?;
    Revocations::default().offer(anchors.active(), IssuerKind::Device, issuer, &list, now())?;
    let none: Option<&Value> = None;
    let entry = target(&list, none)?;
    let digest = Digest::of(&list);
    upload(&mut server, list).await?;
    publish_target(&mut server, "policy", POLICY_LIFE, (CRL_PATH, entry), &keys, None).await?;
    Ok(
        json!({"crl": CRL_PATH, "number": made.get("number"), "revoked": made.get("revoked"), "sha256": digest}),
    )
}

/// `component@version`
pub fn parse_member(text: &str) -> Result<(ComponentName, semver::Version), String> {
    let (component, version) = text
        .split_once('@')
        .ok_or("a member is written publisher/workload@version")?;
    let component = ComponentName::parse(component).map_err(|error| error.to_string())?;
    let version = version
        .parse()
        .map_err(|_| format!("{version} is not a version such as 1.0.0"))?;
    Ok((component, version))
}

/// `share:opens-after`, for example `100:0s` or `1000:1h`.
pub fn parse_ring(text: &str) -> Result<Ring, String> {
    let form = "a ring is written permille:opens-after, for example 100:0s or 1000:12h";
    let (share, opens) = text.split_once(':').ok_or(form)?;
    let share = share.parse().ok().and_then(Permille::new).ok_or(form)?;
    let opens_after = Seconds::new(redan_policy::units::duration(opens).ok_or(form)?.get() / 1000);
    Ok(Ring {
        share,
        opens_after,
        soak: Seconds::new(0),
    })
}

/// Signs and uploads a release set of published components.
pub async fn set(
    access: &Access,
    id: SetId,
    members: &[(ComponentName, semver::Version)],
    rings: Vec<Ring>,
    rollback_sets: Vec<SetId>,
    signing: &Signing,
) -> Result<Value, CliError> {
    let keys = signing.keys.open()?;
    let mut server = access.connect().await?;
    let release = server.release().await?;
    let mut found = Vec::new();
    for (component, version) in members {
        let (_, bytes) = server.role(&release, &component.role()).await?;
        found.push(member(&bytes, component, version)?);
    }
    let all = Ring {
        share: Permille::ALL,
        opens_after: Seconds::new(0),
        soak: Seconds::new(0),
    };
    let document = ReleaseSet {
        schema: SetSchema::V1,
        fleet: server.fleet.clone(),
        id: id.clone(),
        members: found,
        replaces: None,
        rollback_sets,
        rings: if rings.is_empty() { vec![all] } else { rings },
    };
    let bytes = serde_json::to_vec_pretty(&document).map_err(|_| CliError::Answer("a release set"))?;
    let entry = target(&bytes, None::<&Value>)?;
    let digest = Digest::of(&bytes);
    upload(&mut server, bytes).await?;
    let path = plan_path(&id);
    let draft = signing.draft.as_deref();
    let published = publish_target(&mut server, "plan", PLAN_LIFE, (&path, entry), &keys, draft).await?;
    let mut said = json!({"set": id, "sha256": digest, "members": document.members});
    signing.say(&mut said, published);
    Ok(said)
}

/// The newest release of a component with a version.
fn member(role: &[u8], component: &ComponentName, version: &semver::Version) -> Result<Member, CliError> {
    let claimed = redan_trust::Claimed::<redan_trust::metadata::Targets>::parse(role);
    let targets = claimed
        .map_err(|_| CliError::Answer("a targets role"))?
        .into_peeked();
    let records = targets.targets.values().filter_map(|entry| {
        let custom: ReleaseCustom = serde_json::from_value(entry.custom.clone()?).ok()?;
        Some((custom.record.counter, custom.record.version, entry.sha256()?))
    });
    let newest = records
        .filter(|(_, found, _)| found == version)
        .max_by_key(|(counter, _, _)| *counter);
    let (counter, version, digest) = newest.ok_or_else(|| CliError::Usage {
        what: format!("{component} {version} is not published"),
        remedy: "publish it first: redan publish",
    })?;
    Ok(Member {
        component: component.clone(),
        version,
        counter,
        digest,
    })
}
