//! Which certificate the server presents while the fleet's authority changes: one that the client says it can verify.

use crate::anchors::Anchors;
use crate::error::IdentityError;
use crate::key::{KeyProvider, for_tls};
use crate::profile::Purpose;
use redan_protocol::{AuthorityState, UnixSeconds};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// One of the server's certificates.
#[derive(Clone, Debug)]
pub struct ServerChain {
    /// Leaf and issuer.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: Arc<dyn KeyProvider>,
}

/// Chooses by the subjects that the client names in `certificate_authorities` (RFC 8446 §4.2.4): the first certificate under one of
/// them. A client that names none was made before authorities could change, and believes the oldest there is.
#[derive(Debug)]
pub(super) struct ByAuthority {
    /// With the subject of its authority.
    chains: Vec<(Vec<u8>, Arc<CertifiedKey>)>,
    unnamed: usize,
}

impl ByAuthority {
    pub(super) fn new(
        anchors: &Anchors,
        given: &[ServerChain],
        now: UnixSeconds,
    ) -> Result<Self, IdentityError> {
        let mut chains = Vec::new();
        let mut unnamed = 0;
        for (at, one) in given.iter().enumerate() {
            let identity = anchors.check(&one.chain, Purpose::Server, now)?;
            if anchors.state(identity.authority()) == Some(AuthorityState::Old) {
                unnamed = at;
            }
            let subject = anchors.above(&one.chain).and_then(crate::FleetAnchor::subject);
            let subject = subject
                .map(|subject| subject.as_ref().to_vec())
                .unwrap_or_default();
            chains.push((subject, for_tls(one.key.as_ref(), one.chain.clone())?));
        }
        Ok(Self { chains, unnamed })
    }
}

impl ResolvesServerCert for ByAuthority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.certificate_authorities();
        let known = |subject: &[u8]| named.into_iter().flatten().any(|name| name.as_ref() == subject);
        let (_, key) = match named {
            None => self.chains.get(self.unnamed),
            // Whoever believes none of them is to refuse one; there is no other to present.
            Some(_) => self
                .chains
                .iter()
                .find(|(subject, _)| known(subject))
                .or(self.chains.first()),
        }?;
        Some(Arc::clone(key))
    }
}
