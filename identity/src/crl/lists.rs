//! The lists of one kind of issuer in one file, as policy signers publish them: each issuer's certificate and its list, in PEM (RFC 7468),
//! so that whoever reads it needs nothing else than the fleet's root, and `openssl` reads it too.

use super::{CrlFault, Revocations};
use crate::anchors::Anchors;
use crate::pem;
use crate::profile::{IssuerKind, VerifiedIdentity};
use redan_protocol::wire::DOCUMENT_LEN_MAX;
use redan_protocol::{ByteCount, UnixSeconds};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use std::sync::{Arc, PoisonError, RwLock};

/// Where the lists of the issuers of servers' certificates are in the release repository.
pub const SERVER_LISTS: &str = "policy/servers.crl";
/// Where those of operators' are.
pub const OPERATOR_LISTS: &str = "policy/operators.crl";
/// Where custodians' lists of device issuers under authorities that are not active are; that of the active one's is the server's.
pub const DEVICE_LISTS: &str = "policy/other-devices.crl";
/// Largest file of lists read, bytes: as any signed document, some 1,000 certificates. Tripped by
/// `a_file_of_lists_over_its_limits_is_not_read`.
pub const LISTS_LEN_MAX: ByteCount = DOCUMENT_LEN_MAX;
/// Most issuers in one file: the present one, the next one, and their like after a change of root. Tripped by
/// `a_file_of_lists_over_its_limits_is_not_read`.
pub const ISSUERS_MAX: usize = 4;

impl Revocations {
    /// Takes a published file: every list in it, or none. Lists by issuers of authorities that are believed no more are passed over;
    /// there must be another one.
    pub fn adopt(
        &mut self,
        anchors: impl Into<Anchors>,
        kind: IssuerKind,
        file: &[u8],
        now: UnixSeconds,
    ) -> Result<(), CrlFault> {
        if u64::try_from(file.len()).map_or(true, |length| length > LISTS_LEN_MAX.get()) {
            return Err(CrlFault::TooLarge);
        }
        let pairs = pairs(file)?;
        if pairs.len() > ISSUERS_MAX {
            return Err(CrlFault::TooLarge);
        }
        let (anchors, mut next, mut any) = (anchors.into(), self.clone(), false);
        for (issuer, list) in pairs {
            if let Some(anchor) = anchors.signer_of(&issuer) {
                next.offer(anchor, kind, &issuer, &list, now)?;
                any = true;
            }
        }
        if !any {
            return Err(CrlFault::OtherIssuer);
        }
        *self = next;
        Ok(())
    }

    /// Everything that is known, to be kept over a restart. Empty: nothing.
    pub fn keep(&self) -> String {
        let lists = self.0.values();
        lists.map(|list| write_lists(&list.issuer, &list.der)).collect()
    }

    /// Leaves out what has run out, in a file that is to be published: a list in it that is not good would refuse all of it.
    pub fn forget_expired(&mut self, now: UnixSeconds) {
        self.0.retain(|_, list| now <= list.until);
    }

    /// Reads what [`Self::keep`] gave. All signatures are checked once more; what has run out since then stays in force.
    pub fn kept(anchors: impl Into<Anchors>, kind: IssuerKind, file: &[u8]) -> Result<Self, CrlFault> {
        let (anchors, mut known) = (anchors.into(), Self::default());
        for (issuer, list) in pairs(file)? {
            if let Some(anchor) = anchors.signer_of(&issuer) {
                known.offer_at(anchor, kind, &issuer, &list, None)?;
            }
        }
        Ok(known)
    }
}

/// One issuer's part of a file.
pub fn write_lists(issuer: &CertificateDer<'_>, list: &[u8]) -> String {
    let mut text = pem::write_chain(std::slice::from_ref(issuer));
    pem::write(&mut text, "X509 CRL", list);
    text
}

/// The issuers and lists of a file, in turn; at least one.
fn pairs(file: &[u8]) -> Result<Vec<(CertificateDer<'static>, Vec<u8>)>, CrlFault> {
    let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(file);
    let mut pairs = Vec::new();
    while let Some(section) = sections.next() {
        let (Ok((SectionKind::Certificate, issuer)), Some(Ok((SectionKind::Crl, list)))) =
            (section, sections.next())
        else {
            return Err(CrlFault::Malformed);
        };
        pairs.push((CertificateDer::from(issuer), list));
    }
    if pairs.is_empty() {
        return Err(CrlFault::Malformed);
    }
    Ok(pairs)
}

/// Lists that handshakes ask while they are replaced by newer ones. All copies are one.
#[derive(Clone, Debug, Default)]
pub struct Lists(Arc<RwLock<Revocations>>);

impl Lists {
    /// From now on these are asked.
    pub fn put(&self, known: Revocations) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What is asked now.
    pub fn get(&self) -> Revocations {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// [`Revocations::name`].
    pub fn name(&self, identity: &VerifiedIdentity) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .name(identity)
    }
}
