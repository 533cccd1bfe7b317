//! P03: the attacker owns another fleet's CA and shows its certificates to this fleet's server.

use anyhow::{Context, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use redan_kit::Stage;
use redan_kit::stage::FLEET;
use redan_protocol::Code;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the server's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A leaf of another fleet, and a leaf of that fleet's CA which names a device of ours: both are refused before a byte of
/// HTTP is answered. Positive control: the stage's own devices have enrolled and checked in over the same listener.
pub fn certificate_of_another_fleet(stage: &Stage) -> Result<String> {
    ensure!(
        !stage.views()?.is_empty(),
        "positive control: no honest device has checked in"
    );
    let server = stage.server()?;
    let log = stage.folder.join("control.log");
    for claimed in [
        "spiffe://other.redan.test/device/press-1",
        &format!("spiffe://{FLEET}/device/press-1"),
    ] {
        let before = std::fs::read_to_string(&log).unwrap_or_default().len();
        let (chain, key) = foreign_leaf(claimed)?;
        if let Some(answer) = ask(server, chain, key)? {
            bail!("a foreign certificate for {claimed} was answered: {answer}");
        }
        // The handshake only says "no"; which rule said it is in the server's own log.
        redan_kit::stage::await_that("the server's log to name the rule", ANSWER_WITHIN, || {
            let text = std::fs::read_to_string(&log)?;
            let new = text.get(before..).unwrap_or_default();
            Ok(if new.contains(Code::ForeignCertificate.name()) {
                Ok(())
            } else {
                Err(new.to_owned())
            })
        })?;
    }
    Ok(Code::ForeignCertificate.name().to_owned())
}

/// A chain of the attacker's own making, correct in everything but whose it is.
fn foreign_leaf(uri: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?)?;

    let mut issuer = CertificateParams::new(Vec::new())?;
    issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    issuer.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let issuer_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let issuer = CertifiedIssuer::signed_by(issuer, issuer_key, &root)?;

    let mut leaf = CertificateParams::new(Vec::new())?;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let host = uri.trim_start_matches("spiffe://").replace("/device/press-1", "");
    leaf.subject_alt_names = vec![
        SanType::URI(uri.try_into()?),
        SanType::DnsName(format!("press-1.device.{host}").as_str().try_into()?),
    ];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let leaf = leaf.signed_by(&key, &issuer)?;
    let chain = vec![leaf.der().clone(), issuer.der().clone()];
    Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

/// Sends one request; `None` when the server ended the connection without an answer.
fn ask(
    server: SocketAddr,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Option<String>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = redan_protocol::wire::control_host(&redan_protocol::FleetId::parse(FLEET)?);
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name.clone())?)?;
    let socket = TcpStream::connect(server).context("cannot reach the server")?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut stream = StreamOwned::new(connection, socket);
    let request =
        format!("GET /tuf/director/timestamp.json HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let read = sent.and_then(|()| stream.read_to_end(&mut answer));
    match read {
        _ if !answer.is_empty() => Ok(Some(String::from_utf8_lossy(&answer).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("the server neither answered nor refused")
        }
        _ => Ok(None),
    }
}

/// The attacker does not care who the server is.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
