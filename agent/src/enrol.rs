//! Becoming a device: a key of its own, a voucher carried by hand, a certificate from the fleet (20-identity).

use crate::AgentError;
use crate::again::{until_served, wait_named};
use crate::authorities::Believed;
use crate::clock::wall;
use crate::disk::RealDisk;
use crate::held::{DeviceKey, Tokens};
use crate::link::Link;
use crate::lock::StateLock;
use crate::next;
use crate::pair::{Found, Pair};

use crate::patience;
use crate::record::RecordFile;
use crate::store::{Identity, Store, parse_voucher};
use bytes::Bytes;
use redan_identity::client::Response;
use redan_identity::tpm::Address;
use redan_identity::{Anchors, CertificateDer, IdentityError, KeyProvider, TokenUri, est, pem, tls};
use redan_protocol::wire::{AdmissionRequest, EST_ENROLL, Problem, VOUCHER_LEN_MAX, Voucher, enrol_host};
use redan_protocol::{ByteCount, Code, DeviceId, Digest, FleetId, SpiffeId, UnixSeconds};
use redan_trust::{Refresh, TrustRecord, Trusted};
use std::path::Path;
use std::rc::Rc;

/// Largest answer to an enrolment, bytes: a leaf and its issuer in PKCS#7, base64.
pub(crate) const ANSWER_LEN_MAX: ByteCount = ByteCount::kib(64);

/// Makes the device's key, once, and says what an operator must admit. Doing it twice gives the same key. With `key`, it is made in
/// that token or TPM and never leaves it. `offline`: with a certificate request, for a device that cannot enrol over the network.
pub fn init(
    state: &Path,
    device: &DeviceId,
    key: Option<&str>,
    offline: bool,
) -> Result<AdmissionRequest, AgentError> {
    crate::burial::look(state)?;
    let store = Store::create(state)?;
    let _lock = StateLock::take(state)?;
    let key = match key {
        Some(name) if Address::is(name) => {
            store.key_in_tpm(&Address::parse(name).map_err(IdentityError::from)?)?
        }
        Some(uri) => store.key_in_token(&TokenUri::parse(uri).map_err(IdentityError::from)?)?,
        None => store.key()?,
    };
    // After the key, which says whether there is a TPM to seal it.
    store.seal_key()?;
    Ok(AdmissionRequest {
        device: device.clone(),
        spki: key.spki_sha256(),
        csr: offline.then(|| est::csr(&key)).transpose()?,
    })
}

/// Enrols with the control server named in the voucher (or `server`), over mutual TLS with the device's own key.
///
/// Everything is pinned from the voucher before the first byte is sent. Enrolling twice is harmless.
pub fn enrol(state: &Path, voucher: &Path, server: Option<&str>) -> Result<SpiffeId, AgentError> {
    with_chain(state, voucher, |voucher, anchors, key| {
        let link = Link::new(
            server.unwrap_or(&voucher.server).to_owned(),
            &[],
            enrol_host(&voucher.fleet),
            tls::enrolment_client(anchors, key, UnixSeconds::default())?,
        );
        let chain = ask(&link, &est::csr(key)?)?;
        Ok(est::decode_certs_only(&chain)?)
    })
}

/// The same without a path to the server: the certificate comes in the voucher. It is held to what one from the server is held to.
pub fn enrol_offline(state: &Path, voucher: &Path) -> Result<SpiffeId, AgentError> {
    with_chain(state, voucher, |voucher, _, _| {
        let none =
            AgentError::Voucher("it holds no certificate; have it made with `redan device admit --offline`");
        Ok(pem::read_chain(voucher.chain.as_ref().ok_or(none)?)?)
    })
}

/// Enrols with the certificate that `get` gets for this voucher and key.
fn with_chain(
    state: &Path,
    voucher: &Path,
    get: impl FnOnce(&Voucher, &Anchors, &dyn KeyProvider) -> Result<Vec<CertificateDer<'static>>, AgentError>,
) -> Result<SpiffeId, AgentError> {
    crate::burial::look(state)?;
    let failed = |source| AgentError::file("read", voucher, source);
    let length = std::fs::metadata(voucher).map_err(failed)?.len();
    if length > VOUCHER_LEN_MAX.get() {
        return Err(AgentError::Voucher("it is too long"));
    }
    let text = std::fs::read_to_string(voucher).map_err(failed)?;
    let voucher = parse_voucher(&text)?;
    let store = Store::create(state)?;
    let _lock = StateLock::take(state)?;
    next::settle(&RealDisk, &Tokens, &store.at("identity"))?;
    if let Some(own) = store.identity()?
        && own.voucher == voucher
        && found_record(&store)?
    {
        // Its key may be a later one than the voucher's: it was renewed since.
        return Ok(own.id);
    }
    let key = store.key()?;
    store.seal_key()?;
    let now = wall();
    if voucher.spki != key.spki_sha256() {
        return Err(AgentError::Voucher("it is for another key"));
    }
    check_root(&voucher, &voucher.release_root)?;
    check_root(&voucher, &voucher.director_root)?;
    let mut believed = Believed::of_voucher(&voucher.fleet, &voucher.ca)?;
    let authority = believed.anchors.active().sha256();
    if let Some(own) = store.identity()? {
        if own.voucher.fleet != voucher.fleet || own.voucher.device != voucher.device {
            return Err(AgentError::Voucher("this device is enrolled under another name"));
        }
        // The record was durable before the identity: it was lost since. A voucher that lies about is no way back.
        if !found_record(&store)? {
            return Err(AgentError::Lost);
        }
        if active(&own.voucher.fleet, &own.voucher.ca)? == authority && own.authority.is_some() {
            return Ok(own.id);
        }
        if own.believed.listed {
            // What root custodians signed weighs more than what somebody carried here.
            if own.believed.anchors.state(authority).is_none() {
                return Err(AgentError::UnknownAuthority { authority });
            }
            believed = own.believed;
        }
    }
    if now >= voucher.expires {
        return Err(AgentError::Voucher("it has expired"));
    }
    let chain = get(&voucher, &believed.anchors, &key)?;
    adopt(&store, (voucher, &text), believed, key, chain)
}

/// The authority that issued when a voucher or a join token was made; whichever others it carries are no other fleet.
pub(crate) fn active(fleet: &FleetId, ca: &str) -> Result<Digest, AgentError> {
    Ok(Anchors::carried(fleet, ca)?.active().sha256())
}

/// Keeps what the server answered, if it is what the voucher pins. The voucher comes last: with it the device is enrolled.
pub(crate) fn adopt(
    store: &Store,
    (voucher, text): (Voucher, &str),
    believed: Believed,
    key: DeviceKey,
    chain: Vec<CertificateDer<'static>>,
) -> Result<SpiffeId, AgentError> {
    let identity = Identity::prove(voucher, believed, key, chain)?;
    record(store, &identity)?;
    store.keep("identity/chain.pem", pem::write_chain(&identity.chain).as_bytes())?;
    store.keep("identity/voucher.json", text.as_bytes())?;
    Ok(identity.id)
}

/// The pinned root must be one of this fleet, or no metadata ever could be.
pub(crate) fn check_root(voucher: &Voucher, root: &str) -> Result<(), AgentError> {
    let trusted = Trusted {
        root: root.as_bytes().to_vec(),
        ..Trusted::default()
    };
    Refresh::new(trusted, UnixSeconds::default())
        .map_err(|_| AgentError::Voucher("a root in it is not valid"))?;
    let value: serde_json::Value =
        serde_json::from_str(root).map_err(|_| AgentError::Voucher("a root in it is not valid"))?;
    let fleet = value.pointer("/signed/fleet").and_then(serde_json::Value::as_str);
    if fleet == Some(voucher.fleet.as_str()) {
        return Ok(());
    }
    Err(AgentError::Voucher("a root in it is of another fleet"))
}

pub(crate) fn found_record(store: &Store) -> Result<bool, AgentError> {
    let folder = store.at("trust");
    // Also one that is torn, or older than the device's newest: there was a record.
    let (_, found) = Pair::load(&RealDisk, &folder, |_| None::<u64>)
        .map_err(|source| AgentError::file("read", &folder, source))?;
    Ok(found != Found::Nothing)
}

/// The first trust record. One that is there stays: it knows more than the voucher.
fn record(store: &Store, identity: &Identity) -> Result<(), AgentError> {
    if found_record(store)? {
        return Ok(());
    }
    let folder = store.at("trust");
    let guard = store.guard(&identity.id, &Rc::new(store.seal_key()?))?;
    let (mut file, _) = RecordFile::open(&RealDisk, &folder, &identity.id, guard.as_ref())?;
    let voucher = &identity.voucher;
    let record = TrustRecord::enrolled(
        voucher.fleet.clone(),
        identity.id.clone(),
        voucher.release_root.clone(),
        voucher.director_root.clone(),
    );
    file.begin(&RealDisk, &record).map_err(|error| error.of(&folder))
}

fn ask(link: &Link, csr: &str) -> Result<String, AgentError> {
    reactor()?.block_on(until_served(async || {
        request(link, EST_ENROLL, csr.to_owned()).await
    }))
}

pub(crate) fn reactor() -> Result<tokio::runtime::Runtime, AgentError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::System {
            what: "start the reactor",
            source,
        })
}

/// Asks for a certificate, at enrolment as at every renewal (RFC 7030 §4.2).
pub(crate) async fn request(link: &Link, path: &str, csr: String) -> Result<String, AgentError> {
    let unreachable = |code| AgentError::Server {
        server: link.server(),
        code,
    };
    let mut connection = link.open().await.map_err(unreachable)?;
    let headers = [
        ("content-type", est::PKCS10),
        ("content-transfer-encoding", "base64"),
    ];
    let body = Bytes::from(csr);
    let response = patience::request(&mut connection, "POST", path, &headers, body, ANSWER_LEN_MAX)
        .await
        .map_err(|error| unreachable(error.code()))?;
    answered(&response)
}

/// The body of an answer that is no refusal.
pub(crate) fn answered(response: &Response) -> Result<String, AgentError> {
    if response.status != 200 {
        return Err(refused(response));
    }
    String::from_utf8(response.body.to_vec()).map_err(|_| AgentError::Answer {
        status: response.status,
        code: Code::Unreachable,
        wait: None,
    })
}

/// What the server's refusal says.
pub(crate) fn refused(response: &Response) -> AgentError {
    let code = serde_json::from_slice::<Problem>(&response.body).map(|problem| problem.code);
    AgentError::Answer {
        status: response.status,
        code: code.unwrap_or(Code::Unreachable),
        wait: wait_named(response),
    }
}
