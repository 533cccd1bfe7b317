//! Real TLS handshakes in memory: who is let in, who is not, and with which code.
#![forbid(unsafe_code)]

use bytes::Bytes;
use redan_identity::client::{ClientError, Connection};
use redan_identity::profile::{Purpose, check};
use redan_identity::tls::{FleetServer, Peer, device_client, enrolment_client, fleet_server, peer, refusal};
use redan_identity::{FleetAnchor, FleetCa, IdentityError, Issuer, IssuerKind, KeyFile, ProfileFault, est};
use redan_protocol::{ByteCount, Code, DeviceId, FleetId, OperatorName, SpiffeId, UnixSeconds};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

fn now() -> UnixSeconds {
    UnixSeconds::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

struct Fleet {
    anchor: FleetAnchor,
    devices: Issuer,
    operators: Issuer,
    server: FleetServer,
}

fn fleet(name: &str) -> Fleet {
    let id = FleetId::parse(name).unwrap();
    let ca = FleetCa::found(id.clone(), now()).unwrap();
    let anchor = ca.anchor().unwrap();
    let servers = ca.issuer(IssuerKind::Server, now()).unwrap();
    let key = KeyFile::generate().unwrap();
    let chain = servers.issue_for(&SpiffeId::Control(id), &key, now()).unwrap();
    Fleet {
        server: fleet_server(&anchor, &chain, &key, now()).unwrap(),
        devices: ca.issuer(IssuerKind::Device, now()).unwrap(),
        operators: ca.issuer(IssuerKind::Operator, now()).unwrap(),
        anchor,
    }
}

fn device(fleet: &Fleet, id: &str) -> (KeyFile, Vec<CertificateDer<'static>>) {
    let key = KeyFile::generate().unwrap();
    let id = SpiffeId::Device(fleet.anchor.fleet().clone(), DeviceId::parse(id).unwrap());
    let chain = fleet.devices.issue_for(&id, &key, now()).unwrap();
    (key, chain)
}

/// Serves one request; says who asked, or the code of the refusal.
async fn serve(
    anchor: FleetAnchor,
    config: Arc<ServerConfig>,
    enrolment: bool,
    stream: tokio::io::DuplexStream,
) -> Result<Peer, Option<Code>> {
    let mut tls = TlsAcceptor::from(config)
        .accept(stream)
        .await
        .map_err(|error| refusal(&error))?;
    let found = peer(&anchor, enrolment, tls.get_ref().1.peer_certificates(), now());
    let mut request = [0; 4096];
    assert!(tls.read(&mut request).await.unwrap() > 0);
    tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    tls.shutdown().await.unwrap();
    found.map_err(|error| Some(error.code()))
}

async fn ask(
    fleet: &Fleet,
    enrolment: bool,
    client: Arc<rustls::ClientConfig>,
) -> (Result<Peer, Option<Code>>, Result<u16, ClientError>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let config = if enrolment {
        &fleet.server.enrol
    } else {
        &fleet.server.control
    };
    let server = tokio::spawn(serve(fleet.anchor.clone(), Arc::clone(config), enrolment, far));
    let name = fleet.anchor.fleet();
    let host = if enrolment {
        format!("enrol.{name}")
    } else {
        format!("control.{name}")
    };
    let answer = async {
        let mut connection = Connection::open(near, client, &host).await?;
        let answer = connection
            .request("GET", "/", &[], Bytes::new(), ByteCount::kib(1))
            .await?;
        Ok(answer.status)
    };
    let answer = answer.await;
    (server.await.unwrap(), answer)
}

#[tokio::test]
async fn a_device_of_the_fleet_is_known_by_its_certificate() {
    let fleet = fleet("plant.example");
    let (key, chain) = device(&fleet, "press-7");
    let client = device_client(&fleet.anchor, chain, &key, UnixSeconds::new(0)).unwrap();
    let (seen, answer) = ask(&fleet, false, client).await;
    let Ok(Peer::Known(identity)) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!(identity.id().to_string(), "spiffe://plant.example/device/press-7");
    assert_eq!(identity.spki(), key.spki_sha256());
    assert_eq!(answer, Ok(204));
}

#[tokio::test]
async fn a_certificate_of_another_fleet_is_refused_in_the_handshake() {
    let (ours, theirs) = (fleet("plant.example"), fleet("other.example"));
    let (key, chain) = device(&theirs, "press-7");
    let client = device_client(&ours.anchor, chain, &key, UnixSeconds::new(0)).unwrap();
    let (seen, answer) = ask(&ours, false, client).await;
    assert_eq!(seen, Err(Some(Code::ForeignCertificate)));
    assert_eq!(answer, Err(ClientError::Connection));
}

#[tokio::test]
async fn another_ca_that_names_our_fleet_is_refused_in_the_handshake() {
    let (ours, evil) = (fleet("plant.example"), fleet("plant.example"));
    let (key, chain) = device(&evil, "press-7");
    let client = device_client(&ours.anchor, chain, &key, UnixSeconds::new(0)).unwrap();
    assert_eq!(
        ask(&ours, false, client).await.0,
        Err(Some(Code::ForeignCertificate))
    );
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused_by_the_device() {
    let (ours, evil) = (fleet("plant.example"), fleet("plant.example"));
    let (key, chain) = device(&ours, "press-7");
    let client = device_client(&ours.anchor, chain, &key, UnixSeconds::new(0)).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(serve(
        evil.anchor.clone(),
        Arc::clone(&evil.server.control),
        false,
        far,
    ));
    let opened = Connection::open(near, client, "control.plant.example").await;
    let refused = opened.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::ForeignServer);
    assert_eq!(server.await.unwrap(), Err(None));
}

#[tokio::test]
async fn a_device_certificate_is_no_server_certificate() {
    let fleet = fleet("plant.example");
    let (key, chain) = device(&fleet, "press-7");
    let error = fleet_server(&fleet.anchor, &chain, &key, now()).unwrap_err();
    assert_eq!(error, IdentityError::Profile(ProfileFault::ExtendedKeyUsage));
}

#[tokio::test]
async fn a_self_signed_key_may_enrol_and_nothing_else() {
    let fleet = fleet("plant.example");
    let key = KeyFile::generate().unwrap();
    let client = enrolment_client(&fleet.anchor, &key, UnixSeconds::new(0)).unwrap();
    let (seen, answer) = ask(&fleet, true, Arc::clone(&client)).await;
    assert_eq!(
        seen,
        Ok(Peer::Enrolling {
            spki: key.spki_sha256()
        })
    );
    assert_eq!(answer, Ok(204));

    // The same certificate on the control name: the verifier there knows members only.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = serve(
        fleet.anchor.clone(),
        Arc::clone(&fleet.server.control),
        false,
        far,
    );
    let server = tokio::spawn(server);
    let mut opened = Connection::open(near, client, "enrol.plant.example").await;
    if let Ok(connection) = &mut opened {
        let answer = connection
            .request("GET", "/", &[], Bytes::new(), ByteCount::kib(1))
            .await;
        assert_eq!(answer.map(|answer| answer.status), Err(ClientError::Connection));
    }
    assert_eq!(server.await.unwrap(), Err(Some(Code::CertificateProfile)));
}

#[test]
fn validity_is_judged_at_the_given_time() {
    let fleet = fleet("plant.example");
    let (_, chain) = device(&fleet, "press-7");
    let late = UnixSeconds::new(now().get() + 31 * 86_400);
    let error = check(&fleet.anchor, &chain, Purpose::Client, late).unwrap_err();
    assert_eq!(error.code(), Code::CertificateExpired);
    let early = UnixSeconds::new(now().get() - 3600);
    let error = check(&fleet.anchor, &chain, Purpose::Client, early).unwrap_err();
    assert_eq!(error.code(), Code::CertificateExpired);
}

#[test]
fn an_issuer_issues_only_its_own_kind() {
    let fleet = fleet("plant.example");
    let id = SpiffeId::Operator(fleet.anchor.fleet().clone(), OperatorName::parse("ada").unwrap());
    let key = KeyFile::generate().unwrap();
    let refused = IdentityError::WrongFleet {
        fleet: fleet.anchor.fleet().clone(),
        found: id.clone(),
    };
    assert_eq!(fleet.devices.issue_for(&id, &key, now()).unwrap_err(), refused);
    assert!(fleet.operators.issue_for(&id, &key, now()).is_ok());
}

#[test]
fn a_request_proves_its_key_and_openssl_reads_what_we_write() {
    let fleet = fleet("plant.example");
    let key = KeyFile::generate().unwrap();
    let body = est::csr(&key).unwrap();
    assert_eq!(est::decode_csr(&body).unwrap(), key.spki());
    // One bit of the signature, near the end.
    let mut broken = body.clone();
    let at = broken.len() - 8;
    let other = if broken.as_bytes()[at] == b'A' { "B" } else { "A" };
    broken.replace_range(at..=at, other);
    assert_eq!(est::decode_csr(&broken), Err(IdentityError::Csr));

    let (_, chain) = device(&fleet, "press-7");
    let pkcs7 = est::encode_certs_only(&chain).unwrap();
    assert_eq!(est::decode_certs_only(&pkcs7).unwrap(), chain);
    let pem = format!(
        "-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n",
        pkcs7.replace("\r\n", "\n")
    );
    let printed = openssl(&["pkcs7", "-print_certs", "-noout"], &pem);
    assert!(printed.contains("plant.example device issuer"), "{printed}");
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        body.replace("\r\n", "\n")
    );
    let printed = openssl(&["req", "-verify", "-noout", "-text"], &pem);
    assert!(printed.contains("prime256v1"), "{printed}");
}

fn openssl(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
