//! A fleet's one trust anchor.

use crate::error::IdentityError;
use redan_protocol::{Digest, FleetId};
use rustls::pki_types::{CertificateDer, TrustAnchor};

/// The root certificate of one fleet. Chains of this fleet end here and nowhere else.
#[derive(Clone, Debug)]
pub struct FleetAnchor {
    fleet: FleetId,
    root: CertificateDer<'static>,
}

impl FleetAnchor {
    /// From DER, checked to be usable as an anchor.
    pub fn new(fleet: FleetId, root: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let anchor = Self { fleet, root };
        anchor.trust_anchor()?;
        Ok(anchor)
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

    pub(crate) fn trust_anchor(&self) -> Result<TrustAnchor<'_>, IdentityError> {
        webpki::anchor_from_trusted_cert(&self.root).map_err(|_| IdentityError::Malformed {
            what: "the fleet's root certificate",
        })
    }
}
