//! The fleet's certificate profile: what webpki does not check, in one pure function (20-identity).
//!
//! Shown by experiment with rustls-webpki 0.103: it accepts a leaf with no EKU or both, with two URI names or none, with other key
//! usages, an issuer without keyCertSign, RSA-1024 keys. The issuer lints with the same function before it signs, so issuer
//! and verifier cannot drift.

use crate::anchor::FleetAnchor;
use crate::error::{IdentityError, ProfileFault};
use redan_protocol::wire::{control_host, enrol_host};
use redan_protocol::{DeviceId, Digest, FleetId, OperatorName, Seconds, SpiffeId, UnixSeconds};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer as _;

/// What a leaf is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A device or an operator, towards the control server.
    Client,
    /// The control server.
    Server,
}

/// Longest lifetimes, with five minutes of back-dating (attacks.md, certificate profile).
const DEVICE_LIFE: Seconds = Seconds::new(30 * 86_400 + 600);
const OPERATOR_LIFE: Seconds = Seconds::new(7 * 86_400 + 600);
const SERVER_LIFE: Seconds = Seconds::new(90 * 86_400 + 600);
const ISSUER_LIFE: Seconds = Seconds::new(366 * 86_400 + 600);

/// Who a verified chain belongs to. Made only by [`check`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedIdentity {
    id: SpiffeId,
    spki: Digest,
    expires: UnixSeconds,
}

impl VerifiedIdentity {
    /// Who.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// SHA-256 of the DER-encoded `SubjectPublicKeyInfo`: what the server's allow-list names.
    pub fn spki(&self) -> Digest {
        self.spki
    }

    /// Last second of the leaf.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

/// Signature algorithms a chain may use.
const ALGORITHMS: &[&dyn rustls::pki_types::SignatureVerificationAlgorithm] = &[
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
];

/// Verifies a chain (leaf first) up to a fleet's root, then holds it against the profile.
pub fn check(
    anchor: &FleetAnchor,
    chain: &[CertificateDer<'_>],
    purpose: Purpose,
    now: UnixSeconds,
) -> Result<VerifiedIdentity, IdentityError> {
    let [leaf, issuer] = chain else {
        return Err(ProfileFault::ChainLength.into());
    };
    let parsed = parse(leaf)?;
    let parsed_issuer = parse(issuer)?;
    let id = spiffe_id(&parsed)?;
    // Before the path: a foreign trust domain is said to be foreign, whoever signed it.
    if id.fleet() != anchor.fleet() {
        return Err(IdentityError::WrongFleet {
            fleet: anchor.fleet().clone(),
            found: id,
        });
    }
    path(anchor, leaf, issuer, purpose, now, &parsed)?;
    profile(&parsed, &parsed_issuer, &id, purpose)?;
    let spki = Digest::of(parsed.public_key().raw);
    Ok(VerifiedIdentity {
        id,
        spki,
        expires: validity(&parsed).1,
    })
}

/// A device's own leaf, as it comes back from enrolment.
pub fn check_device_leaf(
    anchor: &FleetAnchor,
    chain: &[CertificateDer<'_>],
    now: UnixSeconds,
) -> Result<(FleetId, DeviceId, Digest), IdentityError> {
    let identity = check(anchor, chain, Purpose::Client, now)?;
    match identity.id {
        SpiffeId::Device(fleet, device) => Ok((fleet, device, identity.spki)),
        _ => Err(ProfileFault::Uri.into()),
    }
}

/// SHA-256 of the `SubjectPublicKeyInfo` of a certificate nobody vouches for (enrolment): possession of the key is proven by
/// the handshake, everything else in it is ignored.
pub fn presented_spki(certificate: &CertificateDer<'_>) -> Result<Digest, IdentityError> {
    let parsed = parse(certificate)?;
    key_algorithm(&parsed)?;
    Ok(Digest::of(parsed.public_key().raw))
}

/// The latest not-before of a chain: the true time is at least that (corrections 5).
pub fn latest_not_before(chain: &[CertificateDer<'_>]) -> UnixSeconds {
    chain
        .iter()
        .filter_map(|der| parse(der).ok().map(|c| validity(&c).0))
        .max()
        .unwrap_or_default()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    let malformed = IdentityError::Malformed {
        what: "a certificate",
    };
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(malformed),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (UnixSeconds, UnixSeconds) {
    let seconds = |time: i64| UnixSeconds::new(u64::try_from(time).unwrap_or(0));
    let validity = certificate.validity();
    (
        seconds(validity.not_before.timestamp()),
        seconds(validity.not_after.timestamp()),
    )
}

fn path(
    anchor: &FleetAnchor,
    leaf: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    purpose: Purpose,
    now: UnixSeconds,
    parsed: &X509Certificate<'_>,
) -> Result<(), IdentityError> {
    let entity = webpki::EndEntityCert::try_from(leaf).map_err(|_| IdentityError::Malformed {
        what: "a certificate",
    })?;
    let usage = match purpose {
        Purpose::Client => webpki::KeyUsage::client_auth(),
        Purpose::Server => webpki::KeyUsage::server_auth(),
    };
    let anchors = [anchor.trust_anchor()?];
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.get()));
    let intermediates = [issuer.clone()];
    let verified = entity.verify_for_usage(ALGORITHMS, &anchors, &intermediates, time, usage, None, None);
    match verified {
        Ok(_) => Ok(()),
        Err(
            webpki::Error::CertExpired { .. }
            | webpki::Error::CertNotValidYet { .. }
            | webpki::Error::InvalidCertValidity,
        ) => {
            let (from, to) = validity(parsed);
            Err(IdentityError::NotNow { from, to, now })
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(_)) => Err(ProfileFault::ExtendedKeyUsage.into()),
        Err(webpki::Error::CaUsedAsEndEntity | webpki::Error::EndEntityUsedAsCa) => {
            Err(ProfileFault::BasicConstraints.into())
        }
        Err(_) => Err(IdentityError::Foreign {
            fleet: anchor.fleet().clone(),
        }),
    }
}

/// Exactly one URI name of exact grammar (X509-SVID §2); the common name is never read.
fn spiffe_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, IdentityError> {
    let names = leaf
        .subject_alternative_name()
        .ok()
        .flatten()
        .ok_or(ProfileFault::UriCount)?;
    let uris: Vec<&str> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                Some(*uri)
            } else {
                None
            }
        })
        .collect();
    let [uri] = uris.as_slice() else {
        return Err(ProfileFault::UriCount.into());
    };
    Ok(SpiffeId::parse(uri)?)
}

fn profile(
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    id: &SpiffeId,
    purpose: Purpose,
) -> Result<(), ProfileFault> {
    let life = match (id, purpose) {
        (SpiffeId::Device(..), Purpose::Client) => DEVICE_LIFE,
        (SpiffeId::Operator(..), Purpose::Client) => OPERATOR_LIFE,
        (SpiffeId::Control(_), Purpose::Server) => SERVER_LIFE,
        _ => return Err(ProfileFault::Uri),
    };
    one(leaf, purpose, false, life)?;
    one(issuer, purpose, true, ISSUER_LIFE)?;
    dns_names(leaf, id)
}

fn one(
    certificate: &X509Certificate<'_>,
    purpose: Purpose,
    authority: bool,
    life: Seconds,
) -> Result<(), ProfileFault> {
    if certificate.version() != x509_parser::x509::X509Version::V3 {
        return Err(ProfileFault::Version);
    }
    let constraints = certificate.basic_constraints().ok().flatten();
    match (authority, constraints.map(|constraints| constraints.value)) {
        (false, Some(constraints)) if !constraints.ca => {}
        (true, Some(constraints)) if constraints.ca && constraints.path_len_constraint == Some(0) => {}
        _ => return Err(ProfileFault::BasicConstraints),
    }
    let usage = certificate
        .key_usage()
        .ok()
        .flatten()
        .ok_or(ProfileFault::KeyUsage)?
        .value
        .flags;
    // Bits of RFC 5280 §4.2.1.3, as x509-parser numbers them: 0 digitalSignature, 5 keyCertSign, 6 cRLSign.
    let wanted: &[u16] = if authority {
        &[1 << 5 | 1 << 6, 1 << 5]
    } else {
        &[1]
    };
    if !wanted.contains(&usage) {
        return Err(ProfileFault::KeyUsage);
    }
    let extended = certificate
        .extended_key_usage()
        .ok()
        .flatten()
        .ok_or(ProfileFault::ExtendedKeyUsage)?
        .value;
    let others = extended.any
        || extended.code_signing
        || extended.email_protection
        || extended.time_stamping
        || extended.ocsp_signing
        || !extended.other.is_empty();
    let exact = match purpose {
        Purpose::Client => extended.client_auth && !extended.server_auth,
        Purpose::Server => extended.server_auth && !extended.client_auth,
    };
    if others || !exact {
        return Err(ProfileFault::ExtendedKeyUsage);
    }
    key_algorithm(certificate)?;
    let (from, to) = validity(certificate);
    if to <= from || to.get().saturating_sub(from.get()) > life.get() {
        return Err(ProfileFault::Lifetime);
    }
    // RFC 5280 §4.1.2.2; a leading zero byte only keeps the number positive.
    if !(8..=20).contains(&certificate.raw_serial().len()) {
        return Err(ProfileFault::Serial);
    }
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::SubjectKeyIdentifier(_)
            | ParsedExtension::AuthorityKeyIdentifier(_) => {}
            ParsedExtension::SubjectAlternativeName(_) if !authority => {}
            ParsedExtension::NameConstraints(_) if authority => {}
            _ => return Err(ProfileFault::UnknownExtension),
        }
    }
    Ok(())
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> Result<(), ProfileFault> {
    let algorithm = &certificate.public_key().algorithm;
    let curve = algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) {
        return Ok(());
    }
    Err(ProfileFault::KeyAlgorithm)
}

/// The DNS names that go with a SPIFFE ID.
pub(crate) fn dns_names_of(id: &SpiffeId) -> Vec<String> {
    match id {
        SpiffeId::Device(fleet, device) => vec![device_host(fleet, device)],
        SpiffeId::Control(fleet) => vec![control_host(fleet), enrol_host(fleet)],
        SpiffeId::Operator(fleet, name) => vec![operator_host(fleet, name)],
    }
}

fn device_host(fleet: &FleetId, device: &DeviceId) -> String {
    format!("{device}.device.{fleet}")
}

fn operator_host(fleet: &FleetId, name: &OperatorName) -> String {
    format!("{name}.operator.{fleet}")
}

fn dns_names(leaf: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), ProfileFault> {
    let names = leaf
        .subject_alternative_name()
        .ok()
        .flatten()
        .ok_or(ProfileFault::DnsNames)?;
    let mut found = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => found.push((*name).to_owned()),
            GeneralName::URI(_) => {}
            _ => return Err(ProfileFault::OtherNames),
        }
    }
    let mut wanted = dns_names_of(id);
    found.sort();
    wanted.sort();
    if found == wanted {
        Ok(())
    } else {
        Err(ProfileFault::DnsNames)
    }
}
