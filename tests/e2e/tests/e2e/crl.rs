//! The list of revoked devices, from the server that makes it to whoever judges devices without that server: real programs.

use anyhow::{Context, Result, ensure};
use redan_identity::crl::{CrlFault, Revocations};
use redan_identity::profile::{Purpose, check};
use redan_identity::{FleetAnchor, IssuerKind, pem};
use redan_kit::stage::FLEET;
use redan_kit::{Programs, Stage};
use redan_protocol::{Digest, FleetId, UnixSeconds};
use serde_json::Value;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> Result<UnixSeconds> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(UnixSeconds::new(since.as_secs()))
}

/// The file with this digest, wherever the server keeps it.
fn stored(folder: &Path, digest: &str) -> Result<Option<Vec<u8>>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = stored(&entry.path(), digest)? {
                return Ok(Some(found));
            }
        } else {
            let bytes = std::fs::read(entry.path())?;
            if Digest::of(&bytes).to_string() == digest {
                return Ok(Some(bytes));
            }
        }
    }
    Ok(None)
}

/// Publishes the next list; gives what the program said, and the list.
fn publish(stage: &Stage) -> Result<(Value, Vec<u8>)> {
    let (policy, snapshot) = (stage.key("release.policy-1"), stage.key("release.snapshot-1"));
    let said = stage.redan(&["crl", "publish", "--key", &policy, "--key", &snapshot])?;
    let digest = said.get("sha256").and_then(Value::as_str).context("a digest")?;
    let folder = stage.control_state().join("fleets").join(FLEET).join("artifacts");
    let list = stored(&folder, digest)?.context("the list is not in the store")?;
    Ok((said, list))
}

#[test]
fn a_published_list_names_revoked_devices_to_whoever_asks_no_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    stage.start_control()?;
    for id in ["press-1", "press-2"] {
        stage.prepare_device(id)?;
    }
    let ca = std::fs::read_to_string(stage.fleet().join("public/ca.pem"))?;
    let anchor = FleetAnchor::from_pem(FleetId::parse(FLEET)?, &ca)?;
    let issuer = std::fs::read_to_string(stage.fleet().join("online/device-issuer.pem"))?;
    let issuer = pem::read_chain(&issuer)?.remove(0);
    let mut known = Revocations::default();
    let judge = |known: &Revocations, id: &str| -> Result<Result<(), CrlFault>> {
        let chain = std::fs::read_to_string(stage.device(id)?.state.join("identity/chain.pem"))?;
        let chain = pem::read_chain(&chain)?;
        check(&anchor, &chain, Purpose::Client, now()?)?;
        Ok(known.check(&anchor, &chain, Purpose::Client, now()?).map(drop))
    };
    let (said, list) = publish(&stage)?;
    assert_eq!(said.get("crl"), Some(&"policy/devices.crl".into()));
    assert_eq!(said.get("number"), Some(&1.into()));
    known.offer(&anchor, IssuerKind::Device, &issuer, &list, now()?)?;
    assert_eq!(judge(&known, "press-1")?, Ok(()));

    stage.redan(&["device", "revoke", "press-1"])?;
    let (said, next) = publish(&stage)?;
    assert_eq!(said.get("number"), Some(&2.into()));
    assert_eq!(said.get("revoked"), Some(&1.into()));
    known.offer(&anchor, IssuerKind::Device, &issuer, &next, now()?)?;
    assert_eq!(judge(&known, "press-1")?, Err(CrlFault::Revoked));
    assert_eq!(judge(&known, "press-2")?, Ok(()));
    let older = known.offer(&anchor, IssuerKind::Device, &issuer, &list, now()?);
    assert_eq!(older, Err(CrlFault::Older { offered: 1, known: 2 }));
    // Nobody publishes it without the policy signers' key.
    let plan = stage.key("release.plan-1");
    let snapshot = stage.key("release.snapshot-1");
    let ran = stage.redan_raw(&["crl", "publish", "--key", &plan, "--key", &snapshot])?;
    ensure!(ran.code == Some(1), "{ran:?}");
    stage.stop()
}
