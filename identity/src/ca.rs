//! A fleet's certificate authorities: the offline root, and one issuer for each kind of leaf.

use crate::anchor::FleetAnchor;
use crate::error::IdentityError;
use crate::key::KeyFile;
use crate::profile::{Purpose, check, dns_names_of};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer as Signer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use redan_protocol::{FleetId, SpiffeId, UnixSeconds};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// Lifetimes (20-identity); back-dated five minutes for clocks that lag.
const ROOT_LIFE: Duration = Duration::days(3650);
const ISSUER_LIFE: Duration = Duration::days(365);
const BACKDATED: Duration = Duration::minutes(5);

/// The fleet's root: P-384, offline.
pub struct FleetCa {
    fleet: FleetId,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What an issuer may issue: leaves of one kind, nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IssuerKind {
    /// Devices.
    Device,
    /// The control server.
    Server,
    /// Operators.
    Operator,
}

impl IssuerKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Device => "device issuer",
            Self::Server => "server issuer",
            Self::Operator => "operator issuer",
        }
    }

    const fn purpose(self) -> Purpose {
        match self {
            Self::Device | Self::Operator => Purpose::Client,
            Self::Server => Purpose::Server,
        }
    }

    const fn leaf_life(self) -> Duration {
        match self {
            Self::Device => Duration::days(30),
            Self::Server => Duration::days(90),
            Self::Operator => Duration::days(7),
        }
    }

    fn issues(self, id: &SpiffeId) -> bool {
        matches!(
            (self, id),
            (Self::Device, SpiffeId::Device(..))
                | (Self::Server, SpiffeId::Control(_))
                | (Self::Operator, SpiffeId::Operator(..))
        )
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

impl FleetCa {
    /// Founds a fleet's root.
    pub fn found(fleet: FleetId, now: UnixSeconds) -> Result<Self, IdentityError> {
        let key = KeyFile::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
        let mut params = authority(&format!("{fleet} root"), now, ROOT_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key.into_pair()).map_err(signing)?;
        Ok(Self { fleet, issuer })
    }

    /// The anchor every device and server pins.
    pub fn anchor(&self) -> Result<FleetAnchor, IdentityError> {
        FleetAnchor::new(self.fleet.clone(), self.issuer.der().clone())
    }

    /// The root's private key, PEM. For the custodians' medium and nowhere else.
    pub fn key_pem(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Makes and certifies an issuer.
    pub fn issuer(&self, kind: IssuerKind, now: UnixSeconds) -> Result<Issuer, IdentityError> {
        let key = KeyFile::generate()?;
        let mut params = authority(&format!("{} {}", self.fleet, kind.name()), now, ISSUER_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.extended_key_usages = vec![usage(kind.purpose())];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(self.fleet.to_string())],
            excluded_subtrees: Vec::new(),
        });
        let certificate = params
            .signed_by(key.pair(), &self.issuer)
            .map_err(signing)?
            .der()
            .clone();
        Ok(Issuer {
            kind,
            anchor: self.anchor()?,
            certificate,
            key,
        })
    }
}

impl Issuer {
    /// Loads an issuer from its key and certificate.
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

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its key.
    pub fn key(&self) -> &KeyFile {
        &self.key
    }

    /// Issues a leaf for a public key: everything but the key comes from the profile. The leaf is held against the profile
    /// before it is handed out.
    pub fn issue(
        &self,
        id: &SpiffeId,
        spki: &[u8],
        now: UnixSeconds,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        if !self.kind.issues(id) || id.fleet() != self.anchor.fleet() {
            return Err(IdentityError::WrongFleet {
                fleet: self.anchor.fleet().clone(),
                found: id.clone(),
            });
        }
        let public = SubjectPublicKeyInfo::from_der(spki).map_err(|_| IdentityError::Csr)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        lifetime(&mut params, now, self.kind.leaf_life())?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage(self.kind.purpose())];
        params.use_authority_key_identifier_extension = true;
        let malformed = || IdentityError::Crypto {
            doing: "writing names",
        };
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(|_| malformed())?)];
        for name in dns_names_of(id) {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.try_into().map_err(|_| malformed())?));
        }
        let issuer = Signer::from_ca_cert_der(&self.certificate, self.key.pair()).map_err(signing)?;
        let leaf = params.signed_by(&public, &issuer).map_err(signing)?.der().clone();
        let chain = vec![leaf, self.certificate.clone()];
        check(&self.anchor, &chain, self.kind.purpose(), now)?;
        Ok(chain)
    }

    /// Issues a leaf for a key at hand.
    pub fn issue_for(
        &self,
        id: &SpiffeId,
        key: &KeyFile,
        now: UnixSeconds,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        self.issue(id, &key.spki(), now)
    }
}

fn usage(purpose: Purpose) -> ExtendedKeyUsagePurpose {
    match purpose {
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

fn authority(name: &str, now: UnixSeconds, life: Duration) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    lifetime(&mut params, now, life)?;
    Ok(params)
}

fn lifetime(params: &mut CertificateParams, now: UnixSeconds, life: Duration) -> Result<(), IdentityError> {
    let seconds = i64::try_from(now.get()).unwrap_or(i64::MAX);
    let now = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IdentityError::Crypto {
        doing: "reading the time",
    })?;
    params.not_before = now.checked_sub(BACKDATED).unwrap_or(now);
    params.not_after = now.checked_add(life).unwrap_or(now);
    params.serial_number = Some(serial()?);
    Ok(())
}

/// 128 random bits, positive (RFC 5280 §4.1.2.2).
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
