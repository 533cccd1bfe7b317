//! Certificates made without the crate under test: right in every line until a test bends one.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber, SigningKey as _,
    SubjectPublicKeyInfo,
};
use redan_identity::profile::{IssuerKind, Purpose, VerifiedIdentity, check};
use redan_identity::{FleetAnchor, IdentityError};
use redan_protocol::{FleetId, UnixSeconds};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_cert::TbsCertificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_parser::prelude::FromDer as _;

pub(crate) const FLEET: &str = "plant.example";
/// 2026-01-01T00:00:00Z.
pub(crate) const NOW: u64 = 1_767_225_600;

pub(crate) fn fleet() -> FleetId {
    FleetId::parse(FLEET).unwrap()
}

pub(crate) fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

pub(crate) fn p256() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// A fleet's certificates before they are signed.
pub(crate) struct Forge {
    pub(crate) kind: IssuerKind,
    pub(crate) root: CertificateParams,
    pub(crate) issuer: CertificateParams,
    pub(crate) leaf: CertificateParams,
    pub(crate) root_key: KeyPair,
    pub(crate) issuer_key: KeyPair,
    pub(crate) leaf_key: KeyPair,
    /// DER of a leaf key rcgen cannot make.
    pub(crate) leaf_spki: Option<Vec<u8>>,
}

impl Forge {
    pub(crate) fn new(kind: IssuerKind) -> Self {
        let usage = match kind {
            IssuerKind::Server => ExtendedKeyUsagePurpose::ServerAuth,
            IssuerKind::Device | IssuerKind::Operator => ExtendedKeyUsagePurpose::ClientAuth,
        };
        let subtree = match kind {
            IssuerKind::Device => format!("device.{FLEET}"),
            IssuerKind::Server => FLEET.to_owned(),
            IssuerKind::Operator => format!("operator.{FLEET}"),
        };
        let mut root = authority("root", 3650);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut issuer = authority("issuer", 365);
        issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        issuer.extended_key_usages = vec![usage.clone()];
        issuer.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(subtree)],
            excluded_subtrees: vec![],
        });
        let mut leaf = params(match kind {
            IssuerKind::Device => 30,
            IssuerKind::Server => 90,
            IssuerKind::Operator => 7,
        });
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.subject_alt_names = match kind {
            IssuerKind::Device => vec![
                uri(&format!("spiffe://{FLEET}/device/press-7")),
                dns(&format!("press-7.device.{FLEET}")),
            ],
            IssuerKind::Server => vec![
                uri(&format!("spiffe://{FLEET}/control")),
                dns(&format!("control.{FLEET}")),
                dns(&format!("enrol.{FLEET}")),
            ],
            IssuerKind::Operator => vec![
                uri(&format!("spiffe://{FLEET}/operator/ada")),
                dns(&format!("ada.operator.{FLEET}")),
            ],
        };
        Self {
            kind,
            root,
            issuer,
            leaf,
            root_key: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
            issuer_key: p256(),
            leaf_key: p256(),
            leaf_spki: None,
        }
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.kind.purpose()
    }

    /// Signs everything.
    pub(crate) fn signed(&self) -> Forged {
        let root = self.root.self_signed(&self.root_key).unwrap().der().clone();
        let by_root = Issuer::from_params(&self.root, &self.root_key);
        let issuer = self.issuer.signed_by(&self.issuer_key, &by_root).unwrap();
        let by_issuer = Issuer::from_params(&self.issuer, &self.issuer_key);
        let leaf = self.leaf.signed_by(&self.leaf_key, &by_issuer).unwrap();
        let mut leaf = leaf.der().clone();
        if let Some(spki) = &self.leaf_spki {
            leaf = resigned(&leaf, &self.issuer_key, |tbs| {
                tbs.subject_public_key_info = x509_cert::spki::SubjectPublicKeyInfo::from_der(spki).unwrap();
            });
        }
        Forged {
            root,
            chain: vec![leaf, issuer.der().clone()],
            purpose: self.purpose(),
        }
    }
}

/// Signed certificates.
pub(crate) struct Forged {
    pub(crate) root: CertificateDer<'static>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) purpose: Purpose,
}

impl Forged {
    pub(crate) fn check(&self) -> Result<VerifiedIdentity, IdentityError> {
        self.check_at(NOW)
    }

    pub(crate) fn check_at(&self, now: u64) -> Result<VerifiedIdentity, IdentityError> {
        let anchor = FleetAnchor::new(fleet(), self.root.clone()).unwrap();
        check(&anchor, &self.chain, self.purpose, UnixSeconds::new(now))
    }
}

fn params(days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = at(NOW - 300);
    params.not_after = at(NOW) + Duration::days(days);
    params.serial_number = Some(SerialNumber::from([0x55; 16].to_vec()));
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: &str, days: i64) -> CertificateParams {
    let mut params = params(days);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{FLEET}"))];
    params
}

/// Changes what rcgen would not write, and signs again.
pub(crate) fn resigned(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    edit: impl FnOnce(&mut TbsCertificate),
) -> CertificateDer<'static> {
    resigned_bytes(certificate, key, |bytes| {
        let mut tbs = TbsCertificate::from_der(bytes).unwrap();
        edit(&mut tbs);
        *bytes = tbs.to_der().unwrap();
    })
}

/// The same for what no library would write: the bytes that are signed, as they are.
pub(crate) fn resigned_bytes(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    edit: impl FnOnce(&mut Vec<u8>),
) -> CertificateDer<'static> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).unwrap();
    let mut tbs = parsed.tbs_certificate.as_ref().to_vec();
    edit(&mut tbs);
    let mut signature = vec![0];
    signature.extend(key.sign(&tbs).unwrap());
    // ecdsa-with-SHA256 or, for a root, ecdsa-with-SHA384 (RFC 5758 §3.2).
    let last = if key.is_compatible(&rcgen::PKCS_ECDSA_P384_SHA384) {
        3
    } else {
        2
    };
    tbs.extend([0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, last]);
    tbs.extend(tlv(3, &signature));
    tlv(0x30, &tbs).into()
}

/// DER: tag, length, value.
pub(crate) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut out = vec![tag];
    if length < 128 {
        out.push(u8::try_from(length).unwrap());
    } else {
        let bytes: Vec<u8> = length
            .to_be_bytes()
            .into_iter()
            .skip_while(|byte| *byte == 0)
            .collect();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap());
        out.extend(bytes);
    }
    out.extend(value);
    out
}

/// A chain of which one line was bent.
pub(crate) fn bent(kind: IssuerKind, bend: impl FnOnce(&mut Forge)) -> Forged {
    let mut forge = Forge::new(kind);
    bend(&mut forge);
    forge.signed()
}

/// A chain whose leaf was signed again after an edit.
pub(crate) fn leaf_edited(kind: IssuerKind, edit: impl FnOnce(&mut TbsCertificate)) -> Forged {
    let forge = Forge::new(kind);
    let mut forged = forge.signed();
    forged.chain[0] = resigned(&forged.chain[0], &forge.issuer_key, edit);
    forged
}

/// A chain whose issuer was signed again after an edit.
pub(crate) fn issuer_edited(kind: IssuerKind, edit: impl FnOnce(&mut TbsCertificate)) -> Forged {
    let forge = Forge::new(kind);
    let mut forged = forge.signed();
    forged.chain[1] = resigned(&forged.chain[1], &forge.root_key, edit);
    forged
}

/// The same for the root.
pub(crate) fn root_edited(edit: impl FnOnce(&mut TbsCertificate)) -> CertificateDer<'static> {
    let forge = Forge::new(IssuerKind::Device);
    resigned(&forge.signed().root, &forge.root_key, edit)
}

/// Reads a key any library made.
pub(crate) fn spki_of(pem: &str) -> Vec<u8> {
    SubjectPublicKeyInfo::from_pem(pem).map_or_else(
        |_| {
            let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            block.contents
        },
        |key| rcgen::PublicKeyData::subject_public_key_info(&key),
    )
}
