//! Every line of the certificate profile, as pure functions of parsed certificates. No signature is checked here.

use super::CERTIFICATE_LEN_MAX;
use super::kind::{BACKDATED, ISSUER_LIFE, IssuerKind, Purpose, ROOT_LIFE, authority_name, dns_names_of};
use crate::error::{IdentityError, ProfileFault};
use redan_protocol::{FleetId, Seconds, SpiffeId, UnixSeconds};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

/// Holds leaf and issuer against the profile; `root` is the fleet's, already held to its own by [`root`].
pub(crate) fn hold(
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    root: &X509Certificate<'_>,
    id: &SpiffeId,
    purpose: Purpose,
) -> Result<(), IdentityError> {
    let kind = IssuerKind::of(id);
    if kind.purpose() != purpose {
        return Err(ProfileFault::Uri.into());
    }
    issuing(issuer, root, kind, id.fleet()).map_err(IdentityError::Issuer)?;
    entity(leaf, issuer, kind, id).map_err(IdentityError::Profile)
}

/// The fleet's root: self-issued, P-384, no EKU, named by the trust domain.
pub(crate) fn root(certificate: &X509Certificate<'_>, fleet: &FleetId) -> Result<(), ProfileFault> {
    common(certificate, ROOT_LIFE)?;
    p384(certificate.public_key().raw)?;
    authority(certificate, None, fleet)?;
    if certificate
        .extensions()
        .iter()
        .any(|extension| matches!(extension.parsed_extension(), ParsedExtension::ExtendedKeyUsage(_)))
    {
        return Err(ProfileFault::ExtendedKeyUsage);
    }
    if certificate
        .extensions()
        .iter()
        .any(|extension| matches!(extension.parsed_extension(), ParsedExtension::NameConstraints(_)))
    {
        return Err(ProfileFault::NameConstraint);
    }
    if certificate.subject().as_raw() == certificate.issuer().as_raw() {
        Ok(())
    } else {
        Err(ProfileFault::ChainLength)
    }
}

/// An issuer: P-256, path length 0, one EKU, one DNS constraint that names its kind of leaf.
pub(crate) fn issuing(
    certificate: &X509Certificate<'_>,
    root: &X509Certificate<'_>,
    kind: IssuerKind,
    fleet: &FleetId,
) -> Result<(), ProfileFault> {
    common(certificate, ISSUER_LIFE)?;
    p256(certificate.public_key().raw)?;
    authority(certificate, Some(0), fleet)?;
    extended_key_usage(certificate, kind.purpose())?;
    name_constraint(certificate, &kind.subtree(fleet))?;
    identified(certificate, root)?;
    within(certificate, root)
}

fn entity(
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    kind: IssuerKind,
    id: &SpiffeId,
) -> Result<(), ProfileFault> {
    common(leaf, kind.leaf_life())?;
    p256(leaf.public_key().raw)?;
    basic_constraints(leaf, false, None)?;
    key_usage(leaf, &[DIGITAL_SIGNATURE])?;
    extended_key_usage(leaf, kind.purpose())?;
    if leaf.name_constraints().map_or(true, |found| found.is_some()) {
        return Err(ProfileFault::UnknownExtension);
    }
    let wanted = dns_names_of(id).into_iter().map(Name::Dns);
    exact_names(leaf, wanted.chain([Name::Uri(id.to_string())]).collect())?;
    // RFC 5280 §4.2.1.6: without a subject the name is in the extension alone, which must then be understood.
    if leaf.subject().iter().next().is_none() {
        critical(leaf, |parsed| {
            matches!(parsed, ParsedExtension::SubjectAlternativeName(_))
        })?;
    }
    identified(leaf, issuer)?;
    within(leaf, issuer)
}

/// What is the same for all: version, serial number, lifetime, and that every extension is one the profile knows, once.
fn common(certificate: &X509Certificate<'_>, life: Seconds) -> Result<(), ProfileFault> {
    if certificate.version() != X509Version::V3 {
        return Err(ProfileFault::Version);
    }
    // RFC 5280 §4.1.2.2: positive, at most 20 bytes with the zero that keeps it so; 64 bits of them random (CA/B BR §7.1).
    let serial = certificate.raw_serial();
    if !(8..=20).contains(&serial.len()) || serial.first().is_none_or(|first| *first >= 0x80) {
        return Err(ProfileFault::Serial);
    }
    let (from, to) = validity(certificate);
    let longest = life.get().saturating_add(BACKDATED.get());
    if to <= from || to.get().saturating_sub(from.get()) > longest {
        return Err(ProfileFault::Lifetime);
    }
    let mut seen: Vec<_> = Vec::new();
    for extension in certificate.extensions() {
        let known = matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::NameConstraints(_)
        );
        if !known || seen.contains(&&extension.oid) {
            return Err(ProfileFault::UnknownExtension);
        }
        seen.push(&extension.oid);
    }
    Ok(())
}

fn authority(
    certificate: &X509Certificate<'_>,
    path_length: Option<u32>,
    fleet: &FleetId,
) -> Result<(), ProfileFault> {
    basic_constraints(certificate, true, path_length)?;
    key_usage(certificate, &[KEY_CERT_SIGN, CRL_SIGN])?;
    exact_names(certificate, vec![Name::Uri(authority_name(fleet))])
}

/// Whether it is an authority, and with which path length: exactly as wanted.
fn basic_constraints(
    certificate: &X509Certificate<'_>,
    authority: bool,
    path_length: Option<u32>,
) -> Result<(), ProfileFault> {
    let extension = certificate.basic_constraints().ok().flatten();
    let found = extension.ok_or(ProfileFault::BasicConstraints)?.value;
    if found.ca != authority || found.path_len_constraint != path_length {
        return Err(ProfileFault::BasicConstraints);
    }
    critical(certificate, |parsed| {
        matches!(parsed, ParsedExtension::BasicConstraints(_))
    })
}

/// Bits of RFC 5280 §4.2.1.3, counted as x509-parser does.
const DIGITAL_SIGNATURE: u16 = 1;
const KEY_CERT_SIGN: u16 = 1 << 5;
const CRL_SIGN: u16 = 1 << 6;

fn key_usage(certificate: &X509Certificate<'_>, wanted: &[u16]) -> Result<(), ProfileFault> {
    let extension = certificate.key_usage().ok().flatten();
    let found = extension.ok_or(ProfileFault::KeyUsage)?.value.flags;
    if found != wanted.iter().fold(0, |all, bit| all | bit) {
        return Err(ProfileFault::KeyUsage);
    }
    critical(certificate, |parsed| {
        matches!(parsed, ParsedExtension::KeyUsage(_))
    })
}

/// Exactly one. SPIFFE wants both on a leaf; one is on purpose, so that a client is never a server.
fn extended_key_usage(certificate: &X509Certificate<'_>, purpose: Purpose) -> Result<(), ProfileFault> {
    let extension = certificate.extended_key_usage().ok().flatten();
    let found = extension.ok_or(ProfileFault::ExtendedKeyUsage)?.value;
    let others = found.any
        || found.code_signing
        || found.email_protection
        || found.time_stamping
        || found.ocsp_signing
        || !found.other.is_empty();
    let exact = match purpose {
        Purpose::Client => found.client_auth && !found.server_auth,
        Purpose::Server => found.server_auth && !found.client_auth,
    };
    if others || !exact {
        return Err(ProfileFault::ExtendedKeyUsage);
    }
    Ok(())
}

/// Exactly one permitted DNS subtree. Never a URI constraint: webpki refuses every SPIFFE leaf below one.
fn name_constraint(certificate: &X509Certificate<'_>, subtree: &str) -> Result<(), ProfileFault> {
    let extension = certificate.name_constraints().ok().flatten();
    let found = extension.ok_or(ProfileFault::NameConstraint)?.value;
    let permitted = found.permitted_subtrees.as_deref().unwrap_or_default();
    let one = matches!(permitted, [only] if only.base == GeneralName::DNSName(subtree));
    if !one || found.excluded_subtrees.is_some() {
        return Err(ProfileFault::NameConstraint);
    }
    critical(certificate, |parsed| {
        matches!(parsed, ParsedExtension::NameConstraints(_))
    })
}

#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
enum Name {
    Dns(String),
    Uri(String),
}

/// The names of a certificate; `None` when it has none, or the extension twice.
pub(super) fn names<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [GeneralName<'a>]> {
    let extension = certificate.subject_alternative_name().ok().flatten()?;
    Some(&extension.value.general_names)
}

fn exact_names(certificate: &X509Certificate<'_>, mut wanted: Vec<Name>) -> Result<(), ProfileFault> {
    let mut found = Vec::new();
    for name in names(certificate).unwrap_or_default() {
        found.push(match name {
            GeneralName::DNSName(name) => Name::Dns((*name).to_owned()),
            GeneralName::URI(name) => Name::Uri((*name).to_owned()),
            _ => return Err(ProfileFault::OtherNames),
        });
    }
    let uris = |names: &[Name]| -> Vec<Name> {
        let uris = names.iter().filter(|name| matches!(name, Name::Uri(_)));
        uris.cloned().collect()
    };
    if uris(&found).len() != 1 {
        return Err(ProfileFault::UriCount);
    }
    if uris(&found) != uris(&wanted) {
        return Err(ProfileFault::Uri);
    }
    found.sort();
    wanted.sort();
    if found == wanted {
        Ok(())
    } else {
        Err(ProfileFault::DnsNames)
    }
}

/// Key identifiers (RFC 5280 §4.2.1.1): both, by key alone, and the authority's is its own.
fn identified(certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> Result<(), ProfileFault> {
    let of = |certificate: &X509Certificate<'_>| {
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    };
    let authority =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id)
                    if id.authority_cert_issuer.is_none() && id.authority_cert_serial.is_none() =>
                {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            });
    if of(certificate).is_some() && authority.is_some() && authority == of(by) {
        Ok(())
    } else {
        Err(ProfileFault::KeyIdentifiers)
    }
}

/// Nobody outlives who signed them.
fn within(certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> Result<(), ProfileFault> {
    let (inner, outer) = (validity(certificate), validity(by));
    if outer.0 <= inner.0 && inner.1 <= outer.1 {
        Ok(())
    } else {
        Err(ProfileFault::Lifetime)
    }
}

/// Whether the fleet's root, P-384, signed this certificate. For one that stands alone; chains go through webpki.
pub(crate) fn signed_by_root(
    certificate: &X509Certificate<'_>,
    root: &X509Certificate<'_>,
) -> Result<(), ProfileFault> {
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ECDSA_P384_SHA384_ASN1,
        &root.public_key().subject_public_key.data,
    );
    key.verify(
        certificate.tbs_certificate.as_ref(),
        &certificate.signature_value.data,
    )
    .map_err(|_| ProfileFault::Signature)
}

fn critical(
    certificate: &X509Certificate<'_>,
    which: impl Fn(&ParsedExtension<'_>) -> bool,
) -> Result<(), ProfileFault> {
    let marked = |extension: &X509Extension<'_>| which(extension.parsed_extension()) && extension.critical;
    if certificate.extensions().iter().any(marked) {
        Ok(())
    } else {
        Err(ProfileFault::NotCritical)
    }
}

/// `SubjectPublicKeyInfo` of P-256 up to the first byte of an uncompressed point (RFC 5480 §2.2). One encoding of a key, and one
/// only: the allow-list knows keys by the hash of these bytes.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// The same for P-384.
const P384: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
];

/// Whether these bytes are a P-256 key, written in its one way.
pub(crate) fn p256(spki: &[u8]) -> Result<(), ProfileFault> {
    exact_key(spki, P256, 64)
}

fn p384(spki: &[u8]) -> Result<(), ProfileFault> {
    exact_key(spki, P384, 96)
}

fn exact_key(spki: &[u8], prefix: &[u8], coordinates: usize) -> Result<(), ProfileFault> {
    match spki.strip_prefix(prefix) {
        Some(point) if point.len() == coordinates => Ok(()),
        _ => Err(ProfileFault::KeyAlgorithm),
    }
}

/// The point of a P-256 key, with its leading 4 (SEC 1 §2.3.3).
pub(crate) fn p256_point(spki: &[u8]) -> Result<&[u8], ProfileFault> {
    p256(spki)?;
    spki.get(P256.len().saturating_sub(1)..)
        .ok_or(ProfileFault::KeyAlgorithm)
}

/// Parses one certificate of bounded length, with nothing after it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    let malformed = IdentityError::Malformed {
        what: "a certificate",
    };
    if der.len() > CERTIFICATE_LEN_MAX {
        return Err(malformed);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(malformed),
    }
}

/// First and last second.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (UnixSeconds, UnixSeconds) {
    let seconds = |time: i64| UnixSeconds::new(u64::try_from(time).unwrap_or(0));
    let validity = certificate.validity();
    (
        seconds(validity.not_before.timestamp()),
        seconds(validity.not_after.timestamp()),
    )
}
