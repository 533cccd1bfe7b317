//! One root of a fleet, which chains end in.

use crate::error::IdentityError;
use crate::profile::rules;
use redan_protocol::{Digest, FleetId};
use rustls::DistinguishedName;
use rustls::pki_types::CertificateDer;

/// The root certificate of one authority of a fleet. A fleet has one, and several while it changes: [`crate::Anchors`].
#[derive(Clone, Debug)]
pub struct FleetAnchor {
    fleet: FleetId,
    root: CertificateDer<'static>,
}

impl FleetAnchor {
    /// From DER, held against the profile of a root: it names this fleet and is signed by its own key, so that one fleet's root
    /// put where another's belongs is noticed at once.
    pub fn new(fleet: FleetId, root: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let parsed = rules::parse(&root)?;
        rules::root(&parsed, &fleet).map_err(IdentityError::Root)?;
        rules::signed_by_root(&parsed, &parsed).map_err(IdentityError::Root)?;
        webpki::anchor_from_trusted_cert(&root).map_err(|_| IdentityError::Malformed {
            what: "the fleet's root certificate",
        })?;
        drop(parsed);
        Ok(Self { fleet, root })
    }

    /// From PEM with exactly one certificate.
    pub fn from_pem(fleet: FleetId, pem: &str) -> Result<Self, IdentityError> {
        match <[_; 1]>::try_from(crate::pem::read_chain(pem)?) {
            Ok([root]) => Self::new(fleet, root),
            Err(_) => Err(IdentityError::Malformed {
                what: "one root certificate",
            }),
        }
    }

    /// The fleet.
    pub fn fleet(&self) -> &FleetId {
        &self.fleet
    }

    /// The certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// SHA-256 of the certificate, DER: pinned in the TUF root as `ca_sha256`.
    pub fn sha256(&self) -> Digest {
        Digest::of(&self.root)
    }

    /// SHA-256 of its key.
    pub(crate) fn spki_sha256(&self) -> Result<Digest, IdentityError> {
        Ok(Digest::of(rules::parse(&self.root)?.public_key().raw))
    }

    /// Its subject.
    pub(crate) fn subject(&self) -> Option<DistinguishedName> {
        let parsed = rules::parse(&self.root).ok()?;
        Some(DistinguishedName::from(parsed.subject().as_raw().to_vec()))
    }
}
