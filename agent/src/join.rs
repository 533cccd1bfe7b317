//! Becoming a device by join token: nobody admits its key by hand; it proves to know the token's secret, which it never sends.

use crate::AgentError;
use crate::again::until_served;
use crate::authorities::Believed;
use crate::clock::wall;
use crate::disk::RealDisk;
use crate::enrol::{active, adopt, answered, check_root, found_record, reactor};
use crate::held::Tokens;
use crate::link::Link;
use crate::lock::StateLock;
use crate::next;
use crate::patience;
use crate::store::Store;
use bytes::Bytes;
use redan_identity::join::Asked;
use redan_identity::{KeyProvider as _, est, tls};
use redan_protocol::join::{Claim, JoinToken};
use redan_protocol::wire::{EST_ENROLL, VOUCHER_LEN_MAX, Voucher, VoucherSchema, enrol_host};
use redan_protocol::{DeviceId, SpiffeId, UnixSeconds};
use std::path::Path;

/// Enrols with the control server named in the token (or `server`). `id`: the name to ask for; else the token's prefix and digits of the
/// key's hash, so that one image serves many devices.
///
/// Everything is pinned from the token before the first byte is sent, and kept as a voucher of this very key; the secret is not kept.
/// Enrolling twice is harmless: the same key asks for the same name.
pub fn join(
    state: &Path,
    token: &Path,
    id: Option<&DeviceId>,
    server: Option<&str>,
) -> Result<SpiffeId, AgentError> {
    let token = read(token)?;
    let store = Store::create(state)?;
    let _lock = StateLock::take(state)?;
    next::settle(&RealDisk, &Tokens, &store.at("identity"))?;
    if let Some(own) = store.identity()? {
        let fleet = &own.voucher.fleet;
        let same = *fleet == token.fleet && active(fleet, &own.voucher.ca)? == active(fleet, &token.ca)?;
        if !same || id.is_some_and(|id| *id != own.voucher.device) {
            return Err(AgentError::Token("this device is enrolled under another name"));
        }
        if found_record(&store)? {
            return Ok(own.id);
        }
    }
    let key = store.key()?;
    store.seal_key()?;
    if wall() >= token.expires {
        return Err(AgentError::Token("it has expired"));
    }
    let device = match id {
        Some(id) => id.clone(),
        None => token
            .prefix
            .name_for(key.spki_sha256())
            .map_err(|_| AgentError::Token("its prefix begins no device id"))?,
    };
    let voucher = Voucher {
        schema: VoucherSchema::V1,
        fleet: token.fleet.clone(),
        device,
        spki: key.spki_sha256(),
        ca: token.ca.clone(),
        release_root: token.release_root.clone(),
        director_root: token.director_root.clone(),
        server: token.server.clone(),
        expires: token.expires,
        chain: None,
    };
    check_root(&voucher, &voucher.release_root).map_err(of_token)?;
    check_root(&voucher, &voucher.director_root).map_err(of_token)?;
    let believed = Believed::of_voucher(&voucher.fleet, &voucher.ca)?;
    let link = Link::new(
        server.unwrap_or(&voucher.server).to_owned(),
        &[],
        enrol_host(&voucher.fleet),
        tls::enrolment_client(&believed.anchors, &key, UnixSeconds::default())?,
    );
    let csr = est::csr(&key)?;
    let chain = reactor()?.block_on(until_served(async || {
        ask(&link, &token, &voucher.device, &csr).await
    }))?;
    let text = serde_json::to_string(&voucher).map_err(|_| AgentError::Token("it does not write back"))?;
    let chain = est::decode_certs_only(&chain)?;
    adopt(&store, (voucher, &text), believed, key, chain).map_err(of_token)
}

fn read(path: &Path) -> Result<JoinToken, AgentError> {
    let failed = |source| AgentError::file("read", path, source);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > VOUCHER_LEN_MAX.get() {
        return Err(AgentError::Token("it is too long"));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    serde_json::from_str(&text).map_err(|_| AgentError::Token("it is not a redan.token/1 document"))
}

/// What is wrong with what the token pins is the token's fault.
fn of_token(error: AgentError) -> AgentError {
    match error {
        AgentError::Voucher(what) => AgentError::Token(what),
        other => other,
    }
}

/// The proof is made on the connection it is sent over, and is worth nothing on another.
async fn ask(link: &Link, token: &JoinToken, device: &DeviceId, csr: &str) -> Result<String, AgentError> {
    let unreachable = |code| AgentError::Server {
        server: link.server(),
        code,
    };
    let mut connection = link.open().await.map_err(unreachable)?;
    let asked = Asked {
        fleet: &token.fleet,
        token: &token.token,
        device,
        csr,
    };
    let claim = Claim {
        token: token.token.clone(),
        device: device.clone(),
        proof: asked.prove(&token.secret, connection.binding()),
    };
    let claim = claim.to_string();
    let headers = [
        ("content-type", est::PKCS10),
        ("content-transfer-encoding", "base64"),
        ("authorization", claim.as_str()),
    ];
    let body = Bytes::from(csr.to_owned());
    let limit = crate::enrol::ANSWER_LEN_MAX;
    let response = patience::request(&mut connection, "POST", EST_ENROLL, &headers, body, limit)
        .await
        .map_err(|error| unreachable(error.code()))?;
    answered(&response)
}
