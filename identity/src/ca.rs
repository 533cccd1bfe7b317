//! A fleet's certificate authorities: the offline root, and one issuer for each kind of leaf.

use crate::anchor::FleetAnchor;
use crate::error::IdentityError;
use crate::key::{ForCertificates, KeyFile, KeyProvider};
use crate::profile::rules::{self, hold, issuing, p256, parse, validity};
use crate::profile::{BACKDATED, ISSUER_LIFE, ROOT_LIFE};
use crate::profile::{IssuerKind, Purpose, check};
use crate::profile::{authority_name, dns_names_of};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer as Signer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use redan_protocol::{Digest, FleetId, Seconds, SpiffeId, UnixSeconds};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Digits of its key's hash in a root's name.
const ROOT_NAME_DIGITS: usize = 16;

/// The fleet's root: P-384, offline.
pub struct FleetCa {
    anchor: FleetAnchor,
    key: KeyPair,
}

impl std::fmt::Debug for FleetCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FleetCa({})", self.anchor.fleet())
    }
}

impl FleetCa {
    /// Founds a fleet's root.
    pub fn found(fleet: FleetId, now: UnixSeconds) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384);
        let key = key.map_err(|_| IdentityError::Crypto {
            doing: "making a key",
        })?;
        let window = Window::starting(now, ROOT_LIFE);
        // A name of its own: clients name whom they believe by subject (RFC 8446 §4.2.4), also while the fleet has two.
        let own = Digest::of(&rcgen::PublicKeyData::subject_public_key_info(&key)).to_string();
        let name = format!("root {}", own.get(..ROOT_NAME_DIGITS).unwrap_or_default());
        let mut params = authority(&fleet, &name, window)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).map_err(signing)?.der().clone();
        let anchor = FleetAnchor::new(fleet, root)?;
        Ok(Self { anchor, key })
    }

    /// A root founded before, from its custodians' medium: to certify the next year's issuers.
    pub fn load(anchor: FleetAnchor, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem_and_sign_algo(key_pem, &rcgen::PKCS_ECDSA_P384_SHA384);
        let key = key.map_err(|_| IdentityError::Malformed {
            what: "a P-384 private key in PEM (PKCS#8)",
        })?;
        let root = parse(anchor.root())?;
        if root.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(IdentityError::KeyMismatch);
        }
        Ok(Self { anchor, key })
    }

    /// The anchor every device and server pins.
    pub fn anchor(&self) -> Result<FleetAnchor, IdentityError> {
        Ok(self.anchor.clone())
    }

    /// The root's private key, PEM. For the custodians' medium and nowhere else.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Makes and certifies an issuer.
    pub fn issuer(&self, kind: IssuerKind, now: UnixSeconds) -> Result<Issuer, IdentityError> {
        let (fleet, key) = (self.anchor.fleet(), KeyFile::generate()?);
        let root = parse(self.anchor.root())?;
        let window = Window::starting(now, ISSUER_LIFE).inside(validity(&root));
        let mut params = authority(fleet, kind.name(), window)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.extended_key_usages = vec![usage(kind.purpose())];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(kind.subtree(fleet))],
            excluded_subtrees: Vec::new(),
        });
        let by = Signer::from_ca_cert_der(self.anchor.root(), &self.key).map_err(signing)?;
        let certificate = params
            .signed_by(&ForCertificates::new(&key)?, &by)
            .map_err(signing)?;
        Issuer::load(kind, self.anchor.clone(), key, certificate.der().clone()).proven(now)
    }
}

/// An issuer: P-256, path length 0, one EKU, one DNS constraint.
pub struct Issuer {
    kind: IssuerKind,
    anchor: FleetAnchor,
    certificate: CertificateDer<'static>,
    key: KeyFile,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issuer({:?} of {})", self.kind, self.anchor.fleet())
    }
}

impl Issuer {
    /// Takes an issuer's key and certificate as they are. What they sign is checked each time; [`Issuer::proven`] checks the issuer
    /// itself, once, at start.
    pub fn load(
        kind: IssuerKind,
        anchor: FleetAnchor,
        key: KeyFile,
        certificate: CertificateDer<'static>,
    ) -> Self {
        Self {
            kind,
            anchor,
            certificate,
            key,
        }
    }

    /// Holds the issuer against the profile of its kind, its key and the time, so that a server does not start with one that could
    /// never issue.
    pub fn proven(self, now: UnixSeconds) -> Result<Self, IdentityError> {
        let (issuer, root) = (parse(&self.certificate)?, parse(self.anchor.root())?);
        issuing(&issuer, &root, self.kind, self.anchor.fleet()).map_err(IdentityError::Issuer)?;
        rules::signed_by_root(&issuer, &root).map_err(|_| IdentityError::Foreign {
            fleet: self.anchor.fleet().clone(),
        })?;
        let (from, to) = validity(&issuer);
        if now < from || now > to {
            return Err(IdentityError::NotNow { from, to, now });
        }
        if issuer.public_key().raw != self.key.spki() {
            return Err(IdentityError::KeyMismatch);
        }
        drop((issuer, root));
        Ok(self)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its key.
    pub fn key(&self) -> &KeyFile {
        &self.key
    }

    /// Issues a leaf for a public key: everything but the key comes from the profile.
    ///
    /// A draft under a throw-away key is held against the profile first, so the issuer's key never signs what a verifier would
    /// refuse; then the leaf itself is checked as any peer would.
    pub fn issue(
        &self,
        id: &SpiffeId,
        spki: &[u8],
        now: UnixSeconds,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        if self.kind != IssuerKind::of(id) || id.fleet() != self.anchor.fleet() {
            return Err(IdentityError::WrongFleet {
                fleet: self.anchor.fleet().clone(),
                found: id.clone(),
            });
        }
        p256(spki).map_err(|_| IdentityError::Csr)?;
        let (issuer, root) = (parse(&self.certificate)?, parse(self.anchor.root())?);
        // Nobody certifies an authority's key, nor its own (attacks.md P17).
        if [&issuer, &root].iter().any(|by| by.public_key().raw == spki) {
            return Err(IdentityError::Csr);
        }
        let window = Window::starting(now, self.kind.leaf_life()).inside(validity(&issuer));
        let params = leaf(id, window)?;
        let throw_away = KeyFile::generate()?;
        let draft = self.sign(&params, spki, &throw_away)?;
        hold(&parse(draft.der())?, &issuer, &root, id, self.kind.purpose())?;
        let signed = self.sign(&params, spki, &self.key)?;
        let chain = vec![signed.der().clone(), self.certificate.clone()];
        check(&self.anchor, &chain, self.kind.purpose(), now)?;
        Ok(chain)
    }

    /// Issues a leaf for a key at hand.
    pub fn issue_for(
        &self,
        id: &SpiffeId,
        key: &dyn KeyProvider,
        now: UnixSeconds,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        self.issue(id, &key.spki(), now)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        spki: &[u8],
        key: &dyn KeyProvider,
    ) -> Result<Certificate, IdentityError> {
        let public = SubjectPublicKeyInfo::from_der(spki).map_err(|_| IdentityError::Csr)?;
        let by = Signer::from_ca_cert_der(&self.certificate, ForCertificates::new(key)?).map_err(signing)?;
        params.signed_by(&public, &by).map_err(signing)
    }
}

/// From when to when, seconds.
#[derive(Clone, Copy)]
struct Window(UnixSeconds, UnixSeconds);

impl Window {
    fn starting(now: UnixSeconds, life: Seconds) -> Self {
        let from = now.get().saturating_sub(BACKDATED.get());
        Self(UnixSeconds::new(from), now.after(life))
    }

    /// Nobody outlives who signs them.
    fn inside(self, (from, to): (UnixSeconds, UnixSeconds)) -> Self {
        Self(self.0.max(from), self.1.min(to))
    }
}

fn leaf(id: &SpiffeId, window: Window) -> Result<CertificateParams, IdentityError> {
    let mut params = named(window, &id.to_string(), &dns_names_of(id))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage(IssuerKind::of(id).purpose())];
    Ok(params)
}

fn authority(fleet: &FleetId, name: &str, window: Window) -> Result<CertificateParams, IdentityError> {
    let mut params = named(window, &authority_name(fleet), &[])?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{fleet} {name}"));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(window: Window, uri: &str, hosts: &[String]) -> Result<CertificateParams, IdentityError> {
    let failed = |_| IdentityError::Crypto {
        doing: "writing names",
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(failed)?)];
    for host in hosts {
        let host = host.as_str().try_into().map_err(failed)?;
        params.subject_alt_names.push(SanType::DnsName(host));
    }
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(window.0)?;
    params.not_after = date(window.1)?;
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn usage(purpose: Purpose) -> ExtendedKeyUsagePurpose {
    match purpose {
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

pub(crate) fn date(time: UnixSeconds) -> Result<OffsetDateTime, IdentityError> {
    let seconds = i64::try_from(time.get()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IdentityError::Crypto {
        doing: "reading the time",
    })
}

/// 128 bits, positive, random but for the first two (RFC 5280 §4.1.2.2).
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IdentityError::Crypto {
        doing: "drawing a serial number",
    })?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn signing(_: rcgen::Error) -> IdentityError {
    IdentityError::Crypto {
        doing: "signing a certificate",
    }
}
