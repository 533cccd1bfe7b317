//! Revocation lists (RFC 5280 §5) for whoever judges certificates offline: made by an issuer for its own leaves, carried as a target
//! of the release repository, and read here so that a bad list never takes the place of a good one (attacks.md P16).
//!
//! The control server does not read its own: it asks its own list of keys for every request. What devices read of the servers' issuer,
//! and the server of the operators', is in `lists`.

mod lists;

pub use lists::{DEVICE_LISTS, ISSUERS_MAX, LISTS_LEN_MAX, Lists, OPERATOR_LISTS, SERVER_LISTS, write_lists};

use crate::anchor::FleetAnchor;
use crate::ca::Issuer;
use crate::error::IdentityError;
use crate::key::ForCertificates;
use crate::profile::rules::{self, issuing, p256_point, parse};
use crate::profile::{IssuerKind, Purpose, VerifiedIdentity, check};
use der::{Decode as _, Encode as _};
use rcgen::{
    CertificateRevocationListParams, Issuer as Signer, KeyIdMethod, RevokedCertParams, SerialNumber,
};
use redan_protocol::{ByteCount, Code, Digest, Seconds, UnixSeconds};
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, BTreeSet};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

/// Largest list read, bytes: some 25,000 certificates. Tripped by `a_list_one_byte_over_the_limit_is_not_parsed`.
pub const CRL_LEN_MAX: ByteCount = ByteCount::mib(1);
/// Longest life of a device issuer's list, whose key is online: that of the leaves it is about, so that nobody lives on one that is
/// older. Tripped by `a_list_that_breaks_a_line_is_refused`.
pub const CRL_LIFE_MAX: Seconds = Seconds::new(31 * 86_400);
/// Longest life of a list by an issuer whose key is offline: a ceremony makes it, as often as the server's leaf. Tripped by
/// `a_list_by_an_offline_issuer_lives_as_long_as_a_servers_leaf_and_no_longer`.
pub const CRL_LIFE_OFFLINE_MAX: Seconds = Seconds::new(92 * 86_400);
/// ecdsa-with-SHA256 (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// Why a list is not taken, or a certificate not believed for want of one. The list from before stays.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CrlFault {
    /// Longer than the limit.
    #[error("the revocation list is longer than {CRL_LEN_MAX} bytes")]
    TooLarge,
    /// Not a list, or with something after it.
    #[error("the revocation list does not parse")]
    Malformed,
    /// A line of RFC 5280 §5 or of ours.
    #[error("the revocation list breaks a rule: {0}")]
    Line(&'static str),
    /// Another issuer's, or nobody's.
    #[error("the revocation list is not signed by this issuer")]
    OtherIssuer,
    /// Its time has passed.
    #[error("the revocation list was good until {until}, it is {now} or later")]
    Expired {
        /// Last second.
        until: UnixSeconds,
        /// Lower bound of the true time.
        now: UnixSeconds,
    },
    /// A list with a higher number was taken before, or another one with this number.
    #[error("the revocation list has number {offered}, and number {known} is known")]
    Older {
        /// Its number.
        offered: u64,
        /// The number of the one that is kept.
        known: u64,
    },
    /// Nobody ever gave a good list for this issuer.
    #[error("there is no revocation list of this certificate's issuer")]
    Missing,
    /// The list names the certificate.
    #[error("the certificate is on its issuer's revocation list")]
    Revoked,
    /// The certificate itself, or the issuer.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl CrlFault {
    /// Which rule said no.
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLarge | Self::Malformed | Self::Line(_) | Self::OtherIssuer => {
                Code::RevocationListInvalid
            }
            Self::Expired { .. } => Code::RevocationListExpired,
            Self::Older { .. } => Code::RevocationListRollback,
            // Which line of the issuer's own certificate is wrong does not matter to whoever goes by its lists.
            Self::Identity(IdentityError::Issuer(_)) => Code::RevocationListInvalid,
            Self::Missing => Code::RevocationListMissing,
            Self::Revoked => Code::CertificateRevoked,
            Self::Identity(error) => error.code(),
        }
    }
}

/// A certificate that its issuer takes back.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct RevokedSerial {
    /// Serial number, as in the certificate.
    pub serial: Vec<u8>,
    /// When.
    pub at: UnixSeconds,
}

impl Issuer {
    /// Makes the list of this issuer's revoked leaves. `number` only grows (RFC 5280 §5.2.3).
    pub fn crl(
        &self,
        number: u64,
        revoked: &BTreeSet<RevokedSerial>,
        now: UnixSeconds,
        life: Seconds,
    ) -> Result<Vec<u8>, IdentityError> {
        let failed = |_| IdentityError::Crypto {
            doing: "signing a revocation list",
        };
        let date = crate::ca::date;
        let mut revoked_certs = Vec::new();
        for RevokedSerial { serial, at } in revoked {
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from(serial.clone()),
                revocation_time: date(*at)?,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let params = CertificateRevocationListParams {
            this_update: date(now)?,
            next_update: date(now.after(life))?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let by = Signer::from_ca_cert_der(self.certificate(), ForCertificates::new(self.key())?)
            .map_err(failed)?;
        Ok(params.signed_by(&by).map_err(failed)?.der().to_vec())
    }
}

/// Serial number of a certificate, as its bytes are.
pub fn serial_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, IdentityError> {
    Ok(parse(certificate)?.raw_serial().to_vec())
}

/// One good list.
#[derive(Clone, Debug)]
struct List {
    number: u64,
    /// Of the part that is signed: an ECDSA signature has a second valid spelling (s and n−s), which makes no other list.
    signed: Digest,
    until: UnixSeconds,
    revoked: BTreeMap<Vec<u8>, UnixSeconds>,
    issuer: CertificateDer<'static>,
    der: Vec<u8>,
}

/// The last good list of each issuer, by the hash of the issuer's key.
#[derive(Clone, Debug, Default)]
pub struct Revocations(BTreeMap<Digest, List>);

impl Revocations {
    /// Takes a list of an issuer of this fleet, or says why not; then what was known stays. `now`: a lower bound of the true time. The
    /// issuer's key may be online, so the list's own time moves no clock.
    pub fn offer(
        &mut self,
        anchor: &FleetAnchor,
        kind: IssuerKind,
        issuer: &CertificateDer<'_>,
        list: &[u8],
        now: UnixSeconds,
    ) -> Result<(), CrlFault> {
        self.offer_at(anchor, kind, issuer, list, Some(now))
    }

    /// [`Self::offer`]; without a time for a list that was good when it was kept.
    fn offer_at(
        &mut self,
        anchor: &FleetAnchor,
        kind: IssuerKind,
        issuer: &CertificateDer<'_>,
        list: &[u8],
        now: Option<UnixSeconds>,
    ) -> Result<(), CrlFault> {
        let (by, root) = (parse(issuer)?, parse(anchor.root())?);
        issuing(&by, &root, kind, anchor.fleet()).map_err(IdentityError::Issuer)?;
        rules::signed_by_root(&by, &root).map_err(|_| CrlFault::OtherIssuer)?;
        let read = read(&by, list, life_max(kind), issuer)?;
        if let Some(now) = now.filter(|now| *now > read.until) {
            let until = read.until;
            return Err(CrlFault::Expired { until, now });
        }
        let key = Digest::of(by.public_key().raw);
        if let Some(known) = self.0.get(&key)
            && (read.number < known.number || (read.number == known.number && read.signed != known.signed))
        {
            return Err(CrlFault::Older {
                offered: read.number,
                known: known.number,
            });
        }
        self.0.insert(key, read);
        Ok(())
    }

    /// Number and entries of an issuer's list, to make the next one from. `None`: there is none.
    pub fn of(
        &self,
        issuer: &CertificateDer<'_>,
    ) -> Result<Option<(u64, BTreeSet<RevokedSerial>)>, IdentityError> {
        let key = Digest::of(parse(issuer)?.public_key().raw);
        Ok(self.0.get(&key).map(|list| {
            let entries = list.revoked.iter().map(|(serial, at)| RevokedSerial {
                serial: serial.clone(),
                at: *at,
            });
            (list.number, entries.collect())
        }))
    }

    /// What to raise an alarm for: an issuer whose newest list has run out. It is gone by until there is a newer one.
    pub fn alarm(&self, now: UnixSeconds) -> Option<CrlFault> {
        let old = self.0.values().find(|list| now > list.until)?;
        Some(CrlFault::Expired {
            until: old.until,
            now,
        })
    }

    /// [`check`] for whoever cannot ask the server: the certificate must not be on its issuer's last good list, and there must be one.
    pub fn check(
        &self,
        anchor: &FleetAnchor,
        chain: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixSeconds,
    ) -> Result<VerifiedIdentity, CrlFault> {
        let identity = check(anchor, chain, purpose, now)?;
        if !self.0.contains_key(&identity.issuer()) {
            return Err(CrlFault::Missing);
        }
        if self.name(&identity) {
            return Err(CrlFault::Revoked);
        }
        Ok(identity)
    }

    /// Whether its issuer's last good list names a certificate that was verified. Without a list nothing is named.
    pub fn name(&self, identity: &VerifiedIdentity) -> bool {
        let list = self.0.get(&identity.issuer());
        list.is_some_and(|list| list.revoked.contains_key(identity.serial()))
    }
}

/// How long a list of this kind of issuer may live.
pub const fn life_max(kind: IssuerKind) -> Seconds {
    match kind {
        IssuerKind::Device => CRL_LIFE_MAX,
        IssuerKind::Server | IssuerKind::Operator => CRL_LIFE_OFFLINE_MAX,
    }
}

/// Reads one list strictly: version 2, one form of each field, this issuer's signature (RFC 5280 §5.1, §5.2).
fn read(
    issuer: &x509_parser::certificate::X509Certificate<'_>,
    bytes: &[u8],
    life_max: Seconds,
    certificate: &CertificateDer<'_>,
) -> Result<List, CrlFault> {
    if u64::try_from(bytes.len()).map_or(true, |length| length > CRL_LEN_MAX.get()) {
        return Err(CrlFault::TooLarge);
    }
    // Written in its one way, else one list could have two hashes. The parser below is lenient about what encloses the signed part.
    let strict = x509_cert::crl::CertificateList::from_der(bytes).map_err(|_| CrlFault::Malformed)?;
    // Bits that are not used may have any value, and their number may be any; a signature has none.
    let same = strict.to_der().is_ok_and(|der| der == bytes) && strict.signature.unused_bits() == 0;
    let Ok(([], list)) = CertificateRevocationList::from_der(bytes) else {
        return Err(CrlFault::Malformed);
    };
    if !same {
        return Err(CrlFault::Malformed);
    }
    let tbs = &list.tbs_cert_list;
    if tbs.issuer.as_raw() != issuer.subject().as_raw() {
        return Err(CrlFault::OtherIssuer);
    }
    let algorithms = [&tbs.signature, &list.signature_algorithm];
    if algorithms.iter().any(|algorithm| {
        algorithm.algorithm.to_id_string() != ECDSA_WITH_SHA256 || algorithm.parameters.is_some()
    }) {
        return Err(CrlFault::Line("its signature algorithm"));
    }
    let point = p256_point(issuer.public_key().raw).map_err(|_| CrlFault::OtherIssuer)?;
    aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point)
        .verify(tbs.as_ref(), &list.signature_value.data)
        .map_err(|_| CrlFault::OtherIssuer)?;
    if tbs.version != Some(X509Version::V2) {
        return Err(CrlFault::Line("its version"));
    }
    // No extension changes what the list means (§5.2.5: which certificates it is about), so none but these two is known.
    let known = |parsed: &ParsedExtension<'_>| {
        matches!(
            parsed,
            ParsedExtension::AuthorityKeyIdentifier(_) | ParsedExtension::CRLNumber(_)
        )
    };
    let extensions = tbs.extensions();
    if extensions.len() != 2
        || !extensions
            .iter()
            .all(|extension| known(extension.parsed_extension()))
    {
        return Err(CrlFault::Line("its extensions"));
    }
    let number = list.crl_number().map(ToString::to_string);
    let number = number.and_then(|number| number.parse().ok());
    let number: u64 = number.ok_or(CrlFault::Line("its number"))?;
    let seconds = |time: i64| UnixSeconds::new(u64::try_from(time).unwrap_or(0));
    let from = seconds(tbs.this_update.timestamp());
    let until = tbs.next_update.ok_or(CrlFault::Line("its next update"))?;
    let until = seconds(until.timestamp());
    if until <= from || until.get().saturating_sub(from.get()) > life_max.get() {
        return Err(CrlFault::Line("its lifetime"));
    }
    let mut revoked = BTreeMap::new();
    for entry in &tbs.revoked_certificates {
        // "Removed from the list" (§5.3.1) would be read as revoked; no issuer of ours writes it.
        if !entry.extensions().is_empty() {
            return Err(CrlFault::Line("an entry's extensions"));
        }
        let at = seconds(entry.revocation_date.timestamp());
        if revoked.insert(entry.raw_serial().to_vec(), at).is_some() {
            return Err(CrlFault::Line("an entry twice"));
        }
    }
    Ok(List {
        number,
        signed: Digest::of(tbs.as_ref()),
        until,
        revoked,
        issuer: certificate.clone().into_owned(),
        der: bytes.to_vec(),
    })
}
