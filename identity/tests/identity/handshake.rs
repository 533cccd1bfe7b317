//! Real TLS handshakes in memory: who is let in, who is not, and with which code (attacks.md P02–P15).

use crate::openssl;
use crate::stage::{DAY, Fleet, ask, fleet, fleet_at, now, server, serving};
use redan_identity::client::ClientError;
use redan_identity::tls::{
    Accepted, Floor, HANDSHAKE_WITHIN, Peer, accept, device_client, enrolment_client, fleet_server,
};
use redan_identity::{IdentityError, KeyFile, ProfileFault, pem, profile};
use redan_protocol::{Code, OperatorName, SpiffeId, UnixSeconds};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

const NEVER: UnixSeconds = UnixSeconds::new(0);

#[tokio::test]
async fn a_device_of_the_fleet_is_known_by_its_certificate() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.device("press-7");
    let client = device_client(&fleet.anchor, chain, &key, NEVER).unwrap();
    let (seen, answer) = ask(&serving(&[&fleet]), client, &fleet.control()).await;
    let Ok((Peer::Known(identity), host)) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!(identity.id().to_string(), "spiffe://plant.example/device/press-7");
    assert_eq!(identity.spki(), key.spki_sha256());
    assert_eq!(identity.expires().get() / DAY, now().get() / DAY + 30);
    assert_eq!((host, answer), (fleet.control(), Ok(204)));
}

#[tokio::test]
async fn an_operator_of_the_fleet_is_known_by_name() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.operator("ada");
    let client = device_client(&fleet.anchor, chain, &key, now()).unwrap();
    let (seen, answer) = ask(&serving(&[&fleet]), client, &fleet.control()).await;
    let Ok((Peer::Known(identity), _)) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!(identity.id().to_string(), "spiffe://plant.example/operator/ada");
    assert_eq!(answer, Ok(204));
}

#[tokio::test]
async fn one_server_keeps_two_fleets_apart() {
    let (ours, theirs) = (fleet("plant.example"), fleet("other.example"));
    let both = serving(&[&ours, &theirs]);
    for (fleet, foreign) in [(&ours, &theirs), (&theirs, &ours)] {
        let (key, chain) = fleet.device("press-7");
        let client = device_client(&fleet.anchor, chain.clone(), &key, NEVER).unwrap();
        assert_eq!(ask(&both, client, &fleet.control()).await.1, Ok(204));
        // The name of one fleet, the certificate of the other: refused in the handshake.
        let client = device_client(&foreign.anchor, chain, &key, NEVER).unwrap();
        let (seen, answer) = ask(&both, client, &foreign.control()).await;
        assert_eq!(seen, Err(Code::ForeignCertificate));
        assert_eq!(answer, Err(ClientError::Rejected(Code::ForeignCertificate)));
    }
}

#[tokio::test]
async fn another_ca_that_names_our_fleet_is_refused() {
    let (ours, evil) = (fleet("plant.example"), fleet("plant.example"));
    let (key, chain) = evil.device("press-7");
    let client = device_client(&ours.anchor, chain, &key, NEVER).unwrap();
    let (seen, _) = ask(&serving(&[&ours]), client, &ours.control()).await;
    assert_eq!(seen, Err(Code::ForeignCertificate));
}

#[tokio::test]
async fn an_operators_expired_certificate_is_refused_and_its_owner_told_so() {
    let fleet = fleet_at("plant.example", UnixSeconds::new(now().get() - 100 * DAY));
    let key = KeyFile::generate().unwrap();
    let ada = SpiffeId::Operator(fleet.id(), OperatorName::parse("ada").unwrap());
    let eight_days_ago = UnixSeconds::new(now().get() - 8 * DAY);
    let chain = fleet.operators.issue_for(&ada, &key, eight_days_ago).unwrap();
    let client = device_client(&fleet.anchor, chain, &key, NEVER).unwrap();
    let (seen, answer) = ask(&serving(&[&fleet]), client, &fleet.control()).await;
    assert_eq!(seen, Err(Code::CertificateExpired));
    assert_eq!(answer, Err(ClientError::Rejected(Code::CertificateExpired)));
    assert_eq!(answer.unwrap_err().code(), Code::CertificateExpired);
}

#[tokio::test]
async fn a_device_whose_certificate_has_expired_is_known_as_one_that_has() {
    let fleet = fleet_at("plant.example", UnixSeconds::new(now().get() - 100 * DAY));
    for (ago, expired) in [(29, false), (31, true), (99, true)] {
        let (key, chain) = fleet.device_at("press-7", UnixSeconds::new(now().get() - ago * DAY));
        let client = device_client(&fleet.anchor, chain, &key, NEVER).unwrap();
        let (seen, answer) = ask(&serving(&[&fleet]), client, &fleet.control()).await;
        assert_eq!(answer, Ok(204));
        match seen.unwrap().0 {
            Peer::Known(device) => assert!(!expired, "{device:?} {ago}"),
            Peer::Expired(device) => {
                assert!(expired, "{device:?} {ago}");
                assert_eq!(device.spki(), key.spki_sha256());
            }
            Peer::Enrolling { .. } => panic!("nobody enrols here"),
        }
    }
}

#[tokio::test]
async fn an_expired_certificate_of_another_fleet_or_ca_is_no_exception() {
    let founded = UnixSeconds::new(now().get() - 100 * DAY);
    let (ours, evil) = (
        fleet_at("plant.example", founded),
        fleet_at("plant.example", founded),
    );
    let other = fleet_at("other.example", founded);
    for (theirs, code) in [
        (&evil, Code::CertificateProfile),
        (&other, Code::ForeignCertificate),
    ] {
        let (key, chain) = theirs.device_at("press-7", UnixSeconds::new(now().get() - 31 * DAY));
        let client = device_client(&ours.anchor, chain, &key, NEVER).unwrap();
        let (seen, _) = ask(&serving(&[&ours]), client, &ours.control()).await;
        assert_eq!(seen, Err(code));
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.device_at("press-7", now().after(redan_protocol::Seconds::new(DAY)));
    let client = device_client(&fleet.anchor, chain, &key, NEVER).unwrap();
    let (seen, _) = ask(&serving(&[&fleet]), client, &fleet.control()).await;
    assert_eq!(seen, Err(Code::CertificateExpired));
}

#[tokio::test]
async fn a_server_certificate_is_no_client_certificate() {
    let fleet = fleet("plant.example");
    let chain = fleet.server_chain.clone();
    let client = device_client(&fleet.anchor, chain, &fleet.server_key, NEVER).unwrap();
    let (seen, answer) = ask(&serving(&[&fleet]), client, &fleet.control()).await;
    assert_eq!(seen, Err(Code::CertificateProfile));
    assert_eq!(answer, Err(ClientError::Rejected(Code::CertificateProfile)));
}

#[tokio::test]
async fn nobody_is_let_in_without_a_certificate() {
    let fleet = fleet("plant.example");
    for host in [fleet.control(), fleet.enrol()] {
        let (seen, answer) = ask(&serving(&[&fleet]), Arc::new(bare(None)), &host).await;
        assert_eq!(seen, Err(Code::CertificateProfile));
        assert_eq!(answer, Err(ClientError::Rejected(Code::CertificateProfile)));
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let fleet = fleet("plant.example");
    let (_, chain) = fleet.device("press-7");
    let thief = KeyFile::generate().unwrap();
    // Our own client does not even try.
    let refused = device_client(&fleet.anchor, chain.clone(), &thief, NEVER).unwrap_err();
    assert_eq!(refused, IdentityError::KeyMismatch);
    // One that does cannot sign the handshake.
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let client = bare(Some((chain, PrivateKeyDer::Pkcs8(other.serialize_der().into()))));
    let (seen, answer) = ask(&serving(&[&fleet]), Arc::new(client), &fleet.control()).await;
    assert_eq!(seen, Err(Code::BadRequest));
    assert_eq!(answer, Err(ClientError::Connection));
}

#[tokio::test]
async fn a_self_signed_key_may_enrol_and_nothing_else() {
    let fleet = fleet("plant.example");
    let key = KeyFile::generate().unwrap();
    let client = enrolment_client(&fleet.anchor, &key, NEVER).unwrap();
    let (seen, answer) = ask(&serving(&[&fleet]), client, &fleet.enrol()).await;
    let spki = key.spki_sha256();
    assert_eq!(seen, Ok((Peer::Enrolling { spki }, fleet.enrol())));
    assert_eq!(answer, Ok(204));

    // The same kind of certificate on the control name, by a client that does not mind.
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let name = "spiffe://plant.example/device/press-7".try_into().unwrap();
    params.subject_alt_names = vec![rcgen::SanType::URI(name)];
    let chain = vec![params.self_signed(&own).unwrap().der().clone()];
    let client = bare(Some((chain, PrivateKeyDer::Pkcs8(own.serialize_der().into()))));
    let (seen, answer) = ask(&serving(&[&fleet]), Arc::new(client), &fleet.control()).await;
    assert_eq!(seen, Err(Code::CertificateProfile));
    assert_eq!(answer, Err(ClientError::Rejected(Code::CertificateProfile)));
}

#[tokio::test]
async fn a_member_on_the_enrolment_name_is_a_key_and_nothing_else() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.operator("ada");
    let mut client = bare(None);
    let own = PrivateKeyDer::Pkcs8(pkcs8(&key).into());
    client.client_auth_cert_resolver = bare(Some((chain, own))).client_auth_cert_resolver;
    let (seen, _) = ask(&serving(&[&fleet]), Arc::new(client), &fleet.enrol()).await;
    let spki = key.spki_sha256();
    assert_eq!(seen, Ok((Peer::Enrolling { spki }, fleet.enrol())));
}

// Names.

#[tokio::test]
async fn a_name_of_nobody_is_not_answered() {
    let ours = fleet("plant.example");
    let both = serving(&[&ours]);
    for host in [
        "control.other.example",
        "plant.example",
        "x.control.plant.example",
    ] {
        let (seen, answer) = ask(&both, Arc::new(bare(None)), host).await;
        assert_eq!(
            (seen, answer),
            (Err(Code::MisdirectedRequest), Err(ClientError::Connection))
        );
    }
    // No name at all: an address is not sent as one (RFC 6066 §3).
    let (seen, _) = ask(&both, Arc::new(bare(None)), "127.0.0.1").await;
    assert_eq!(seen, Err(Code::MisdirectedRequest));
}

#[tokio::test]
async fn a_client_that_names_no_protocol_is_refused() {
    let fleet = fleet("plant.example");
    for (protocols, code) in [
        (vec![], Code::BadRequest),
        (vec![b"http/1.0".to_vec()], Code::BadRequest),
    ] {
        let (key, chain) = fleet.device("press-7");
        let mut client = ClientConfig::clone(&device_client(&fleet.anchor, chain, &key, NEVER).unwrap());
        client.alpn_protocols = protocols;
        let (seen, answer) = ask(&serving(&[&fleet]), Arc::new(client), &fleet.control()).await;
        assert_eq!((seen, answer), (Err(code), Err(ClientError::Connection)));
    }
}

#[tokio::test]
async fn a_fleet_can_change_its_certificate_and_leave_while_the_server_runs() {
    let (ours, theirs) = (fleet("plant.example"), fleet("other.example"));
    let served = serving(&[&ours, &theirs]);
    let (key, chain) = ours.device("press-7");
    let client = device_client(&ours.anchor, chain, &key, NEVER).unwrap();
    let open = async |host: String| {
        let (near, _served) = server(&served);
        let name = ServerName::try_from(host).unwrap();
        let tls = TlsConnector::from(Arc::clone(&client))
            .connect(name, near)
            .await?;
        Ok::<_, std::io::Error>(tls.get_ref().1.peer_certificates().unwrap()[0].clone())
    };
    assert_eq!(open(ours.control()).await.unwrap(), ours.server_chain[0]);
    let fresh = KeyFile::generate().unwrap();
    let chain = ours
        .servers
        .issue_for(&SpiffeId::Control(ours.id()), &fresh, now())
        .unwrap();
    served.put(
        &ours.anchor,
        &fleet_server(&ours.anchor, &chain, &fresh, now()).unwrap(),
    );
    assert_eq!(open(ours.control()).await.unwrap(), chain[0]);
    served.remove(&ours.id());
    assert!(open(ours.control()).await.is_err());
    assert!(served.at(&theirs.control()).is_some());
    assert!(served.at(&ours.enrol()).is_none());
}

// The device judges the server.

async fn judged(ours: &Fleet, served: &Fleet, floor: impl Into<Floor>) -> Result<u16, ClientError> {
    let (key, chain) = ours.device("press-7");
    let client = device_client(&ours.anchor, chain, &key, floor).unwrap();
    ask(&serving(&[served]), client, &ours.control()).await.1
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused_by_the_device() {
    let (ours, evil) = (fleet("plant.example"), fleet("plant.example"));
    let refused = judged(&ours, &evil, NEVER).await.unwrap_err();
    assert_eq!(refused, ClientError::Refused(Code::ForeignCertificate));
    assert_eq!(refused.code(), Code::ForeignServer);
}

#[tokio::test]
async fn a_device_that_plays_the_server_is_refused() {
    let fleet = fleet("plant.example");
    for (key, chain) in [fleet.device("press-7"), fleet.operator("ada")] {
        // Our own server does not start with it.
        let error = fleet_server(&fleet.anchor, &chain, &key, now()).unwrap_err();
        assert_eq!(error, ProfileFault::Uri.into());
        // One that does is refused.
        let mut config = rustls::ServerConfig::clone(&fleet.server.control);
        config.cert_resolver = resolver(&chain, &key);
        let mut playing = crate::stage::fleet("plant.example");
        playing.server.control = Arc::new(config);
        let refused = judged(&fleet, &playing, NEVER).await.unwrap_err();
        assert_eq!(refused.code(), Code::ForeignServer);
    }
}

#[tokio::test]
async fn a_server_certificate_is_judged_at_the_proven_time() {
    // The server's certificate was issued 80 days ago and has 10 days left.
    let long_ago = UnixSeconds::new(now().get() - 80 * DAY);
    let mut fleet = fleet_at("plant.example", long_ago);
    let id = SpiffeId::Control(fleet.id());
    let chain = fleet.servers.issue_for(&id, &fleet.server_key, long_ago).unwrap();
    fleet.server = fleet_server(&fleet.anchor, &chain, &fleet.server_key, now()).unwrap();
    // A device whose clock stands at the epoch, or that has proven any time before the end, takes it.
    for floor in [NEVER, long_ago, now(), UnixSeconds::new(now().get() + 9 * DAY)] {
        assert_eq!(judged(&fleet, &fleet, floor).await, Ok(204));
    }
    // A device that has proven a later time does not; asked at each handshake.
    let late = UnixSeconds::new(now().get() + 11 * DAY);
    let refused = judged(&fleet, &fleet, Floor::moving(move || late))
        .await
        .unwrap_err();
    assert_eq!(refused, ClientError::Refused(Code::CertificateExpired));
}

#[tokio::test]
async fn a_chain_of_this_fleets_server_teaches_the_time_and_no_other_chain_does() {
    let learnt = Arc::new(AtomicU64::new(0));
    let floor = || {
        let learnt = Arc::clone(&learnt);
        Floor::learning(
            || NEVER,
            move |at| {
                learnt.fetch_max(at.get(), Ordering::SeqCst);
            },
        )
    };
    let (ours, evil) = (fleet("plant.example"), fleet("plant.example"));
    judged(&ours, &evil, floor()).await.unwrap_err();
    assert_eq!(learnt.load(Ordering::SeqCst), 0);
    judged(&ours, &ours, floor()).await.unwrap();
    let made = profile::valid_between(&ours.server_chain[0]).unwrap().0;
    assert_eq!(learnt.load(Ordering::SeqCst), made.get());
}

#[tokio::test]
async fn a_client_talks_to_the_name_it_was_made_for() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.device("press-7");
    let client = device_client(&fleet.anchor, chain, &key, NEVER).unwrap();
    let (_, answer) = ask(&serving(&[&fleet]), client, &fleet.enrol()).await;
    assert_eq!(answer.unwrap_err().code(), Code::ForeignServer);
}

// TLS itself.

/// Counts tickets.
#[derive(Debug, Default)]
struct Tickets(AtomicU64);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

#[tokio::test]
async fn no_ticket_is_issued_and_the_key_exchange_is_hybrid() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.device("press-7");
    let tickets = Arc::new(Tickets::default());
    let mut client = ClientConfig::clone(&device_client(&fleet.anchor, chain, &key, NEVER).unwrap());
    let store: Arc<dyn ClientSessionStore> = Arc::clone(&tickets) as _;
    client.resumption = Resumption::store(store);
    client.enable_early_data = true;
    let client = Arc::new(client);
    for _ in 0..2 {
        let (near, served) = server(&serving(&[&fleet]));
        let name = ServerName::try_from(fleet.control()).unwrap();
        let mut tls = TlsConnector::from(Arc::clone(&client))
            .connect(name, near)
            .await
            .unwrap();
        tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // To the very end: a ticket comes after the handshake.
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).await.unwrap();
        let (_, session) = tls.get_ref();
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!session.is_early_data_accepted());
        let group = session.negotiated_key_exchange_group().unwrap();
        assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
        assert!(served.await.unwrap().is_ok());
    }
    assert_eq!(tickets.0.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn openssl_shakes_hands_in_tls_1_3_and_in_nothing_older() {
    let fleet = fleet("plant.example");
    let fleets = serving(&[&fleet]);
    let folder = tempfile::tempdir().unwrap();
    let (key, chain) = fleet.device("press-7");
    let bundle = folder.path().join("press-7.pem");
    redan_identity::key::write_private(&bundle, pem::write_bundle(&key, &chain).as_bytes()).unwrap();
    let issuer = folder.path().join("issuer.pem");
    std::fs::write(&issuer, pem::write_chain(&chain[1..])).unwrap();
    let root = folder.path().join("ca.pem");
    std::fs::write(&root, pem::write_chain(&[fleet.anchor.root().clone()])).unwrap();
    for (version, code) in [
        ("-tls1_3", Ok(())),
        ("-tls1_2", Err(Code::BadRequest)),
        ("-tls1_1", Err(Code::BadRequest)),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fleets = Arc::clone(&fleets);
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Accepted { mut stream, .. } = accept(&fleets, stream, now).await?;
            drop(stream.shutdown().await);
            Ok(())
        });
        let paths = [&bundle, &issuer, &root].map(|path| path.display().to_string());
        let host = fleet.control();
        let output = tokio::task::spawn_blocking(move || {
            let [bundle, issuer, root] = &paths;
            let arguments = [
                "s_client",
                version,
                "-connect",
                &address,
                "-servername",
                &host,
                "-alpn",
                "http/1.1",
                "-cert",
                bundle,
                "-key",
                bundle,
                "-cert_chain",
                issuer,
                "-CAfile",
                root,
                "-verify_return_error",
                "-verify_hostname",
                &host,
                // Else OpenSSL's own security level refuses TLS 1.1 before the server can.
                "-cipher",
                "DEFAULT@SECLEVEL=0",
            ];
            openssl::run(&arguments, b"")
        });
        let output = output.await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(server.await.unwrap(), code, "{version}: {text}");
        if code.is_ok() {
            assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
            assert!(text.contains("TLSv1.3"), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_dropped() {
    let fleet = fleet("plant.example");
    let (_near, far) = tokio::io::duplex(1024);
    let began = tokio::time::Instant::now();
    let answer = accept(&serving(&[&fleet]), far, now).await;
    assert_eq!(answer.map(drop).unwrap_err(), Code::Overloaded);
    assert_eq!(began.elapsed(), HANDSHAKE_WITHIN);
}

#[tokio::test]
async fn noise_is_refused() {
    let fleet = fleet("plant.example");
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff],
        &[0x16, 3, 3, 0, 1, 1],
        &[0; 100],
    ] {
        let (mut near, served) = server(&serving(&[&fleet]));
        near.write_all(noise).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(served.await.unwrap(), Err(Code::BadRequest));
    }
}

// Clients that are not ours.

/// A client that takes any server, with whatever certificate.
pub(crate) fn bare(own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            // Not `with_client_auth_cert`: it would notice a key that is another's.
            let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
            let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

pub(crate) fn pkcs8(key: &KeyFile) -> Vec<u8> {
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::pki_types::pem::PemObject as _;
    let key = PrivatePkcs8KeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
    key.secret_pkcs8_der().to_vec()
}

fn resolver(chain: &[CertificateDer<'static>], key: &KeyFile) -> Arc<rustls::sign::SingleCertAndKey> {
    let key = PrivateKeyDer::Pkcs8(pkcs8(key).into());
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    let certified = Arc::new(rustls::sign::CertifiedKey::new(chain.to_vec(), key));
    Arc::new(rustls::sign::SingleCertAndKey::from(certified))
}

pub(crate) fn any_server() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AnyServer)
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
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
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
