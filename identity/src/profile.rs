//! Who a certificate chain belongs to: webpki's path, then the fleet's own profile (20-identity).
//!
//! Shown by experiment with rustls-webpki 0.103, and kept as tests (`tests/identity/webpki.rs`): it accepts a leaf with no EKU or
//! both, with two URI names or none, with other key usages, an issuer without keyCertSign, URI names with a query or upper case.
//! So a chain must also follow `rules`, which know exactly one form of every field. The issuer runs the same rules over a draft
//! before it signs, so issuer and verifier cannot drift.

mod kind;
pub(crate) mod rules;

pub(crate) use kind::{BACKDATED, ISSUER_LIFE, ROOT_LIFE, authority_name, dns_names_of};
pub use kind::{IssuerKind, Purpose};

use crate::anchor::FleetAnchor;
use crate::error::{IdentityError, ProfileFault};
use redan_protocol::{DeviceId, Digest, FleetId, SpiffeId, UnixSeconds};
use rules::{parse, validity};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// Largest certificate, bytes. Ours are under 1 KiB; a chain of two stays below the 16 KiB of attacks.md P09. Tripped by
/// `a_certificate_over_the_limit_is_not_parsed`.
pub const CERTIFICATE_LEN_MAX: usize = 8 * 1024;

/// Who a verified chain belongs to. Made only by [`check`].
///
/// ```
/// fn read<T: PartialEq + Clone>() {}
/// read::<redan_identity::VerifiedIdentity>();
/// ```
///
/// ```compile_fail,E0277
/// fn made<T: Default>() {}
/// made::<redan_identity::VerifiedIdentity>();
/// ```
///
/// ```compile_fail,E0451
/// fn renamed(of: redan_identity::VerifiedIdentity, id: redan_protocol::SpiffeId) -> redan_identity::VerifiedIdentity {
///     redan_identity::VerifiedIdentity { id, ..of }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedIdentity {
    id: SpiffeId,
    spki: Digest,
    expires: UnixSeconds,
    authority: Digest,
    issuer: Digest,
    serial: Vec<u8>,
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

    /// The authority the chain ends in: SHA-256 of its certificate.
    pub fn authority(&self) -> Digest {
        self.authority
    }

    /// SHA-256 of the issuer's `SubjectPublicKeyInfo`, as revocation lists are told apart.
    pub(crate) fn issuer(&self) -> Digest {
        self.issuer
    }

    /// The leaf's serial number, as in the certificate.
    pub(crate) fn serial(&self) -> &[u8] {
        &self.serial
    }
}

/// Signature algorithms a chain may use.
const ALGORITHMS: &[&dyn rustls::pki_types::SignatureVerificationAlgorithm] = &[
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
];

/// Verifies a chain (leaf first) up to a fleet's root, then holds it against the profile.
///
/// Pure but for the signatures: the time is an argument, there is no network, and the work is bounded by the length of the chain,
/// which is two.
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
    let id = presented_id(&parsed)?;
    // Before the path: a foreign trust domain is said to be foreign, whoever signed it.
    if id.fleet() != anchor.fleet() {
        return Err(IdentityError::WrongFleet {
            fleet: anchor.fleet().clone(),
            found: id,
        });
    }
    let path = path(anchor, leaf, issuer, purpose, now);
    if let Err(error) = &path {
        // Nobody of this fleet signed it: there is nothing more to say about it.
        if is_foreign(error) {
            return Err(IdentityError::Foreign {
                fleet: anchor.fleet().clone(),
            });
        }
    }
    let root = parse(anchor.root())?;
    rules::hold(&parsed, &parsed_issuer, &root, &id, purpose)?;
    path.map_err(|error| fault(&error, anchor, [&parsed, &parsed_issuer], now))?;
    Ok(VerifiedIdentity {
        id,
        spki: Digest::of(parsed.public_key().raw),
        expires: validity(&parsed).1,
        authority: anchor.sha256(),
        issuer: Digest::of(parsed_issuer.public_key().raw),
        serial: parsed.raw_serial().to_vec(),
    })
}

/// Who a client is, even if its certificate has expired.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Presented {
    /// A certificate that is valid now.
    Valid(VerifiedIdentity),
    /// A device's certificate that was valid to its last second and is so no longer.
    Expired(VerifiedIdentity),
}

/// [`check`] for clients, with one exception: a device whose certificate has expired, and is right in every other line, is known as
/// one that has expired. It can do one thing, renew (attacks.md P05), so that short certificates and long offline periods do not fight.
///
/// The chain is judged at the leaf's last second. That its issuer may have expired since changes nothing about who it certified.
pub fn check_client(
    anchor: &FleetAnchor,
    chain: &[CertificateDer<'_>],
    now: UnixSeconds,
) -> Result<Presented, IdentityError> {
    let refused = match check(anchor, chain, Purpose::Client, now) {
        Ok(identity) => return Ok(Presented::Valid(identity)),
        Err(refused) => refused,
    };
    let last = match (&refused, chain.first()) {
        (IdentityError::NotNow { .. }, Some(leaf)) => valid_between(leaf)?.1,
        _ => return Err(refused),
    };
    if now <= last {
        return Err(refused);
    }
    match check(anchor, chain, Purpose::Client, last) {
        Ok(identity) if matches!(identity.id, SpiffeId::Device(..)) => Ok(Presented::Expired(identity)),
        _ => Err(refused),
    }
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

/// Who a device's own chain says it is, when no authority that verifies it is left: for a device that reads its own disk, and for
/// nobody else. It must get another one before anybody believes it.
pub fn read_own_leaf(leaf: &CertificateDer<'_>) -> Result<(FleetId, DeviceId, Digest), IdentityError> {
    let parsed = parse(leaf)?;
    match presented_id(&parsed)? {
        SpiffeId::Device(fleet, device) => Ok((fleet, device, Digest::of(parsed.public_key().raw))),
        _ => Err(ProfileFault::Uri.into()),
    }
}

/// SHA-256 of the `SubjectPublicKeyInfo` of a certificate nobody vouches for (enrolment): possession of the key is proven by
/// the handshake, everything else in it is ignored.
pub fn presented_spki(certificate: &CertificateDer<'_>) -> Result<Digest, IdentityError> {
    let parsed = parse(certificate)?;
    rules::p256(parsed.public_key().raw)?;
    Ok(Digest::of(parsed.public_key().raw))
}

/// First and last second of a certificate that was verified elsewhere: when to renew it, what to show people.
pub fn valid_between(certificate: &CertificateDer<'_>) -> Result<(UnixSeconds, UnixSeconds), IdentityError> {
    Ok(validity(&parse(certificate)?))
}

/// The latest not-before of a chain: the true time is at least that (corrections 5).
pub fn latest_not_before(chain: &[CertificateDer<'_>]) -> UnixSeconds {
    chain
        .iter()
        .filter_map(|der| parse(der).ok().map(|parsed| validity(&parsed).0))
        .max()
        .unwrap_or_default()
}

fn path(
    anchor: &FleetAnchor,
    leaf: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    purpose: Purpose,
    now: UnixSeconds,
) -> Result<(), webpki::Error> {
    let entity = webpki::EndEntityCert::try_from(leaf)?;
    let usage = match purpose {
        Purpose::Client => webpki::KeyUsage::client_auth(),
        Purpose::Server => webpki::KeyUsage::server_auth(),
    };
    let anchors = [webpki::anchor_from_trusted_cert(anchor.root())?];
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.get()));
    let intermediates = [issuer.clone()];
    entity
        .verify_for_usage(ALGORITHMS, &anchors, &intermediates, time, usage, None, None)
        .map(drop)
}

fn is_foreign(error: &webpki::Error) -> bool {
    matches!(
        error,
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey
    )
}

fn fault(
    error: &webpki::Error,
    anchor: &FleetAnchor,
    chain: [&X509Certificate<'_>; 2],
    now: UnixSeconds,
) -> IdentityError {
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            let outside = chain
                .map(validity)
                .into_iter()
                .find(|(from, to)| now < *from || now > *to);
            let (from, to) = outside.unwrap_or_default();
            IdentityError::NotNow { from, to, now }
        }
        // The rules let it pass and webpki did not: whatever it is, this fleet's issuers never made it.
        _ => IdentityError::Foreign {
            fleet: anchor.fleet().clone(),
        },
    }
}

/// Whom a leaf *says* it is: exactly one URI name of exact grammar (X509-SVID §2); the common name is never read.
///
/// Good for one thing: choosing the fleet whose root must verify the chain.
fn presented_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, IdentityError> {
    let uris: Vec<&str> = rules::names(leaf)
        .unwrap_or_default()
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
