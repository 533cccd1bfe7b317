//! The only TLS set-up of the platform: 1.3, aws-lc-rs, both sides authenticated, no resumption (20-identity).
//!
//! [`fleet_server`] makes a fleet's two faces, [`Fleets`] chooses among the fleets of a process by the name a client asks for, and
//! [`accept`] is the whole way from a connected stream to a [`Peer`]. [`device_client`] and [`enrolment_client`] are the other side.

mod accept;
mod present;
mod verify;

pub use accept::{Accepted, Face, Fleets, HANDSHAKE_WITHIN, accept};
pub use present::ServerChain;
pub use tokio_rustls::server::TlsStream;
pub use verify::{Floor, refusal, rejection};

use crate::anchors::Anchors;
use crate::error::{IdentityError, ProfileFault};
use crate::key::{ForCertificates, KeyProvider, for_tls};
use crate::profile::{Presented, VerifiedIdentity, presented_spki};
use rcgen::{CertificateParams, DistinguishedName, IsCa};
use redan_protocol::wire::{ALPN, control_host, enrol_host};
use redan_protocol::{Digest, UnixSeconds};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs as crypto;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};
use std::sync::{Arc, LazyLock};
use verify::{Anybody, Members, OurServer};

/// Who opened a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Somebody with a certificate of the fleet.
    Known(VerifiedIdentity),
    /// A device of the fleet whose certificate has expired: whoever serves it lets it renew, and nothing else.
    Expired(VerifiedIdentity),
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
    /// Who judges on `control.<fleet>`.
    members: Arc<Members>,
}

/// Which key exchanges a fleet's server takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyExchange {
    /// X25519MLKEM768, SECP256R1MLKEM768, and X25519 for tools that know no hybrid yet.
    #[default]
    Any,
    /// The two hybrid ones: what is recorded today stays secret from a quantum computer of tomorrow.
    Hybrid,
}

/// Sets a fleet's server up, with any key exchange of the profile.
pub fn fleet_server(
    anchors: impl Into<Anchors>,
    chain: &[CertificateDer<'static>],
    key: &dyn KeyProvider,
    now: UnixSeconds,
) -> Result<FleetServer, IdentityError> {
    fleet_server_with(KeyExchange::Any, anchors, chain, key, now)
}

/// Sets a fleet's server up with one certificate.
pub fn fleet_server_with(
    exchange: KeyExchange,
    anchors: impl Into<Anchors>,
    chain: &[CertificateDer<'static>],
    key: &dyn KeyProvider,
    now: UnixSeconds,
) -> Result<FleetServer, IdentityError> {
    let only = ServerChain {
        chain: chain.to_vec(),
        key: key.share(),
    };
    fleet_server_of(exchange, anchors, &[only], now)
}

/// Sets a fleet's server up with a certificate under each of several authorities: a client is presented one it can verify. The first is
/// for whoever believes several. Each is held against the profile first, so a server never starts with a certificate its own devices
/// would refuse.
pub fn fleet_server_of(
    exchange: KeyExchange,
    anchors: impl Into<Anchors>,
    chains: &[ServerChain],
    now: UnixSeconds,
) -> Result<FleetServer, IdentityError> {
    let anchors = anchors.into();
    let resolver = Arc::new(present::ByAuthority::new(&anchors, chains, now)?);
    let members = Arc::new(Members::new(anchors));
    let judge = Arc::clone(&members);
    let control = server(exchange, judge, Arc::clone(&resolver))?;
    let enrol = server(exchange, Arc::new(Anybody), resolver)?;
    Ok(FleetServer {
        control,
        enrol,
        members,
    })
}

fn server(
    exchange: KeyExchange,
    verifier: Arc<dyn ClientCertVerifier>,
    presents: Arc<present::ByAuthority>,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider_for(exchange))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| IdentityError::Crypto {
            doing: "setting the server's TLS up",
        })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(presents);
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    // No resumption: rustls does not ask the client's verifier again when a session is resumed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Who opened this connection. The verifier has run: this reads what it has verified.
pub fn peer(
    anchors: &Anchors,
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
    anchors.check_client(chain, now).map(Peer::from)
}

impl From<Presented> for Peer {
    fn from(presented: Presented) -> Self {
        match presented {
            Presented::Valid(identity) => Self::Known(identity),
            Presented::Expired(identity) => Self::Expired(identity),
        }
    }
}

/// A device's or an operator's side. `floor`: lower bound of the true time; the server's chain is judged at the later of it and
/// its own not-before, so a clock that lags refuses no server (corrections 5).
pub fn device_client(
    anchors: impl Into<Anchors>,
    chain: Vec<CertificateDer<'static>>,
    key: &dyn KeyProvider,
    floor: impl Into<Floor>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let anchors = anchors.into();
    let host = control_host(anchors.fleet());
    client(anchors, host, chain, key, floor.into())
}

/// A device's side before it has a certificate: a self-signed one of its key, on the enrolment name.
pub fn enrolment_client(
    anchors: impl Into<Anchors>,
    key: &dyn KeyProvider,
    floor: impl Into<Floor>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    let own = params.self_signed(&ForCertificates::new(key)?);
    let own = own.map_err(|_| IdentityError::Crypto {
        doing: "signing a certificate",
    })?;
    let chain = vec![own.der().clone()];
    let anchors = anchors.into();
    let host = enrol_host(anchors.fleet());
    client(anchors, host, chain, key, floor.into())
}

fn client(
    anchors: Anchors,
    host: String,
    chain: Vec<CertificateDer<'static>>,
    key: &dyn KeyProvider,
    floor: Floor,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let certified = for_tls(key, chain)?;
    let verifier = OurServer::new(anchors, host, floor);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| IdentityError::Crypto {
            doing: "setting the client's TLS up",
        })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Algorithms by name (attacks.md, TLS profile), so that a default which grows, or a feature another crate turns on, adds nothing here.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            crypto::cipher_suite::TLS13_AES_256_GCM_SHA384,
            crypto::cipher_suite::TLS13_AES_128_GCM_SHA256,
            crypto::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            crypto::kx_group::X25519MLKEM768,
            crypto::kx_group::SECP256R1MLKEM768,
            // For operators' own tools that know no hybrid yet.
            crypto::kx_group::X25519,
        ],
        ..crypto::default_provider()
    })
});

/// The same with the hybrid key exchanges alone.
static HYBRID: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            crypto::kx_group::X25519MLKEM768,
            crypto::kx_group::SECP256R1MLKEM768,
        ],
        ..CryptoProvider::clone(&PROVIDER)
    })
});

fn provider_for(exchange: KeyExchange) -> Arc<CryptoProvider> {
    match exchange {
        KeyExchange::Any => provider(),
        KeyExchange::Hybrid => Arc::clone(&HYBRID),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}
