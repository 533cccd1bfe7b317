//! Fleets, their people, and a server in memory.

use bytes::Bytes;
use redan_identity::client::{ClientError, Connection};
use redan_identity::tls::{Accepted, FleetServer, Fleets, Peer, accept, fleet_server};
use redan_identity::{FleetAnchor, FleetCa, Issuer, IssuerKind, KeyFile};
use redan_protocol::{ByteCount, Code, DeviceId, FleetId, OperatorName, SpiffeId, UnixSeconds};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

pub(crate) const DAY: u64 = 86_400;

pub(crate) fn now() -> UnixSeconds {
    UnixSeconds::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// A fleet with everything a handshake needs.
pub(crate) struct Fleet {
    pub(crate) ca: FleetCa,
    pub(crate) anchor: FleetAnchor,
    pub(crate) devices: Issuer,
    pub(crate) operators: Issuer,
    pub(crate) servers: Issuer,
    pub(crate) server: FleetServer,
    pub(crate) server_chain: Vec<CertificateDer<'static>>,
    pub(crate) server_key: KeyFile,
}

/// A fleet founded now.
pub(crate) fn fleet(name: &str) -> Fleet {
    fleet_at(name, now())
}

/// A fleet founded at another time, whose server has just got its certificate.
pub(crate) fn fleet_at(name: &str, founded: UnixSeconds) -> Fleet {
    let id = FleetId::parse(name).unwrap();
    let ca = FleetCa::found(id.clone(), founded).unwrap();
    let anchor = ca.anchor().unwrap();
    let servers = ca.issuer(IssuerKind::Server, founded).unwrap();
    let server_key = KeyFile::generate().unwrap();
    let server_chain = servers
        .issue_for(&SpiffeId::Control(id), &server_key, now())
        .unwrap();
    Fleet {
        server: fleet_server(&anchor, &server_chain, &server_key, now()).unwrap(),
        devices: ca.issuer(IssuerKind::Device, founded).unwrap(),
        operators: ca.issuer(IssuerKind::Operator, founded).unwrap(),
        servers,
        ca,
        anchor,
        server_chain,
        server_key,
    }
}

impl Fleet {
    pub(crate) fn id(&self) -> FleetId {
        self.anchor.fleet().clone()
    }

    pub(crate) fn device(&self, id: &str) -> (KeyFile, Vec<CertificateDer<'static>>) {
        self.device_at(id, now())
    }

    pub(crate) fn device_at(&self, id: &str, when: UnixSeconds) -> (KeyFile, Vec<CertificateDer<'static>>) {
        let key = KeyFile::generate().unwrap();
        let id = SpiffeId::Device(self.id(), DeviceId::parse(id).unwrap());
        let chain = self.devices.issue_for(&id, &key, when).unwrap();
        (key, chain)
    }

    pub(crate) fn operator(&self, name: &str) -> (KeyFile, Vec<CertificateDer<'static>>) {
        let key = KeyFile::generate().unwrap();
        let id = SpiffeId::Operator(self.id(), OperatorName::parse(name).unwrap());
        let chain = self.operators.issue_for(&id, &key, now()).unwrap();
        (key, chain)
    }

    pub(crate) fn control(&self) -> String {
        format!("control.{}", self.anchor.fleet())
    }

    pub(crate) fn enrol(&self) -> String {
        format!("enrol.{}", self.anchor.fleet())
    }
}

/// One process that serves several fleets.
pub(crate) fn serving(fleets: &[&Fleet]) -> Arc<Fleets> {
    let served = Fleets::default();
    for fleet in fleets {
        served.put(&fleet.anchor, &fleet.server);
    }
    Arc::new(served)
}

/// Who was let in, and under which name.
pub(crate) type Seen = Result<(Peer, String), Code>;

/// A server for one connection; it answers one request.
pub(crate) fn server(fleets: &Arc<Fleets>) -> (DuplexStream, JoinHandle<Seen>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let fleets = Arc::clone(fleets);
    let served = tokio::spawn(async move {
        let Accepted {
            mut stream,
            peer,
            host,
            ..
        } = accept(&fleets, far, now).await?;
        let mut request = [0; 4096];
        if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        }
        // The other side may be gone already.
        drop(stream.shutdown().await);
        Ok((peer, host))
    });
    (near, served)
}

/// One request over a connection of its own: what the server saw, what the client got.
pub(crate) async fn ask(
    fleets: &Arc<Fleets>,
    client: Arc<ClientConfig>,
    host: &str,
) -> (Seen, Result<u16, ClientError>) {
    let (near, served) = server(fleets);
    let answer = async {
        let mut connection = Connection::open(near, client, host).await?;
        let answer = connection
            .request("GET", "/", &[], Bytes::new(), ByteCount::kib(1))
            .await?;
        Ok(answer.status)
    };
    let answer = answer.await;
    (served.await.unwrap(), answer)
}
