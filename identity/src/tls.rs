//! The only TLS set-up of the platform: 1.3, aws-lc-rs, both sides authenticated, no resumption (20-identity).

use crate::anchor::FleetAnchor;
use crate::error::{IdentityError, ProfileFault};
use crate::key::KeyFile;
use crate::profile::{Purpose, VerifiedIdentity, check, latest_not_before, presented_spki};
use rcgen::{CertificateParams, DistinguishedName, IsCa};
use redan_protocol::wire::{ALPN, control_host, enrol_host};
use redan_protocol::{Code, Digest, SpiffeId, UnixSeconds};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName as Hint, OtherError,
    ServerConfig, SignatureScheme,
};
use std::sync::Arc;

/// Signature algorithms of handshakes and chains (attacks.md, TLS profile).
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
];

/// Who opened a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Somebody with a certificate of the fleet.
    Known(VerifiedIdentity),
    /// Somebody who has proven possession of a key and nothing else; only on the enrolment name.
    Enrolling {
        /// SHA-256 of the key's `SubjectPublicKeyInfo`.
        spki: Digest,
    },
}

/// The server's two faces for one fleet.
#[derive(Clone, Debug)]
pub struct FleetServer {
    /// For `control.<fleet>`.
    pub control: Arc<ServerConfig>,
    /// For `enrol.<fleet>`.
    pub enrol: Arc<ServerConfig>,
}

/// Sets a fleet's server up. The chain is held against the profile first, so a server never starts with a certificate its own
/// devices would refuse.
pub fn fleet_server(
    anchor: &FleetAnchor,
    chain: &[CertificateDer<'static>],
    key: &KeyFile,
    now: UnixSeconds,
) -> Result<FleetServer, IdentityError> {
    let identity = check(anchor, chain, Purpose::Server, now)?;
    if identity.spki() != key.spki_sha256() {
        return Err(IdentityError::Malformed {
            what: "the server's key (it is not the certificate's)",
        });
    }
    let control = server(Arc::new(Members(anchor.clone())), chain, key)?;
    let enrol = server(Arc::new(Anybody), chain, key)?;
    Ok(FleetServer { control, enrol })
}

fn server(
    verifier: Arc<dyn ClientCertVerifier>,
    chain: &[CertificateDer<'static>],
    key: &KeyFile,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let failed = |_| IdentityError::Crypto {
        doing: "setting the server's TLS up",
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key.rustls())
        .map_err(failed)?;
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    // No resumption: rustls does not ask the client's verifier again when a session is resumed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Who opened this connection. The verifier has run: this reads what it has verified.
pub fn peer(
    anchor: &FleetAnchor,
    enrolment: bool,
    chain: Option<&[CertificateDer<'_>]>,
    now: UnixSeconds,
) -> Result<Peer, IdentityError> {
    let chain = chain.unwrap_or_default();
    if enrolment {
        let leaf = chain.first().ok_or(ProfileFault::ChainLength)?;
        return Ok(Peer::Enrolling {
            spki: presented_spki(leaf)?,
        });
    }
    check(anchor, chain, Purpose::Client, now).map(Peer::Known)
}

/// A device's or an operator's side. `floor`: lower bound of the true time; the server's chain is judged at the later of it and
/// its own not-before, so a clock that lags refuses no server (corrections 5).
pub fn device_client(
    anchor: &FleetAnchor,
    chain: Vec<CertificateDer<'static>>,
    key: &KeyFile,
    floor: UnixSeconds,
) -> Result<Arc<ClientConfig>, IdentityError> {
    client(anchor, control_host(anchor.fleet()), chain, key, floor)
}

/// A device's side before it has a certificate: a self-signed one of its key, on the enrolment name.
pub fn enrolment_client(
    anchor: &FleetAnchor,
    key: &KeyFile,
    floor: UnixSeconds,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let failed = |_| IdentityError::Crypto {
        doing: "signing a certificate",
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    let own = params.self_signed(key.pair()).map_err(failed)?.der().clone();
    client(anchor, enrol_host(anchor.fleet()), vec![own], key, floor)
}

fn client(
    anchor: &FleetAnchor,
    host: String,
    chain: Vec<CertificateDer<'static>>,
    key: &KeyFile,
    floor: UnixSeconds,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let failed = |_| IdentityError::Crypto {
        doing: "setting the client's TLS up",
    };
    let verifier = OurServer {
        anchor: anchor.clone(),
        host,
        floor,
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key.rustls())
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The code behind a handshake that one of our verifiers refused; `None` when TLS itself failed.
pub fn refusal(error: &std::io::Error) -> Option<Code> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match inner {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref::<IdentityError>().map(IdentityError::code)
        }
        rustls::Error::NoCertificatesPresented => Some(Code::CertificateProfile),
        _ => None,
    }
}

fn refuse(error: IdentityError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn chain<'a>(leaf: &CertificateDer<'a>, others: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let mut chain = vec![leaf.clone()];
    chain.extend_from_slice(others);
    chain
}

fn seconds(now: UnixTime) -> UnixSeconds {
    UnixSeconds::new(now.as_secs())
}

fn tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

fn tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if !SCHEMES.contains(&signature.scheme) {
        return Err(rustls::PeerIncompatible::NoSignatureSchemesInCommon.into());
    }
    let algorithms = provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
}

/// Devices and operators of one fleet.
#[derive(Debug)]
struct Members(FleetAnchor);

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[Hint] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        check(&self.0, &chain(leaf, others), Purpose::Client, seconds(now)).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// Whoever holds a P-256 key: enrolment.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[Hint] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        presented_spki(leaf).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// This fleet's control server and nobody else.
#[derive(Debug)]
struct OurServer {
    anchor: FleetAnchor,
    host: String,
    floor: UnixSeconds,
}

impl ServerCertVerifier for OurServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = chain(leaf, others);
        let now = self.floor.max(latest_not_before(&chain));
        let identity = check(&self.anchor, &chain, Purpose::Server, now).map_err(refuse)?;
        let control = SpiffeId::Control(self.anchor.fleet().clone());
        if *identity.id() != control || name.to_str() != self.host {
            return Err(refuse(ProfileFault::Uri.into()));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}
