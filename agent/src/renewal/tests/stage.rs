//! A device's folder, and a server that speaks real TLS and loses, refuses or mistakes what it is told to.

use super::super::*;
use crate::clock::Clock;
use crate::store::Store;
use redan_identity::tls::{Fleets, Peer, accept, fleet_server};
use redan_identity::{FleetAnchor, FleetCa, Issuer, IssuerKind, KeyFile, pem};
use redan_protocol::wire::{Problem, Voucher, VoucherSchema, control_host};
use redan_protocol::{DeviceId, FleetId, SpiffeId};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

pub(super) const DAY: u64 = 86_400;

/// When everything of these tests happens: rustls asks the real clock.
pub(super) fn now() -> UnixSeconds {
    static NOW: LazyLock<UnixSeconds> = LazyLock::new(crate::clock::wall);
    *NOW
}

/// What the server does with a request that would else be answered well.
#[derive(Clone, Debug)]
pub(super) enum Does {
    /// The work, and the answer is lost.
    LosesTheAnswer,
    /// Nothing but a refusal.
    Refuses(Code),
    /// Issues for this key, whatever was asked.
    IssuesFor(KeyFile),
    /// Issues for another device.
    IssuesAs(&'static str),
}

/// A fleet, a server that speaks real TLS, and a device's folder.
pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
    pub(super) anchor: FleetAnchor,
    pub(super) servers: Issuer,
    pub(super) devices: Arc<Mutex<Issuer>>,
    pub(super) fleets: Arc<Fleets>,
    pub(super) address: String,
    pub(super) does: Arc<Mutex<VecDeque<Does>>>,
    /// Who asked for what; for a certificate, also for which key.
    pub(super) heard: Arc<Mutex<Vec<(Digest, String)>>>,
}

pub(super) fn fleet() -> FleetId {
    FleetId::parse("plant.example").unwrap()
}

pub(super) fn device(name: &str) -> SpiffeId {
    SpiffeId::Device(fleet(), DeviceId::parse(name).unwrap())
}

pub(super) fn days_ago(days: u64) -> UnixSeconds {
    UnixSeconds::new(now().get() - days * DAY)
}

impl Stage {
    pub(super) async fn open() -> Self {
        let ca = FleetCa::found(fleet(), days_ago(200)).unwrap();
        let anchor = ca.anchor().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stage = Self {
            folder: tempfile::tempdir().unwrap(),
            servers: ca.issuer(IssuerKind::Server, days_ago(200)).unwrap(),
            devices: Arc::new(Mutex::new(ca.issuer(IssuerKind::Device, days_ago(200)).unwrap())),
            fleets: Arc::default(),
            address: listener.local_addr().unwrap().to_string(),
            does: Arc::default(),
            heard: Arc::default(),
            anchor,
        };
        stage.serve_since(days_ago(1));
        let store = Store::create(stage.folder.path()).unwrap();
        let key = store.key().unwrap();
        let chain = stage
            .devices
            .lock()
            .unwrap()
            .issue_for(&device("press-1"), &key, days_ago(15))
            .unwrap();
        store
            .keep("identity/chain.pem", pem::write_chain(&chain).as_bytes())
            .unwrap();
        let voucher = Voucher {
            schema: VoucherSchema::V1,
            fleet: fleet(),
            device: DeviceId::parse("press-1").unwrap(),
            spki: key.spki_sha256(),
            ca: pem::write_chain(&[stage.anchor.root().clone()]),
            release_root: String::new(),
            director_root: String::new(),
            server: stage.address.clone(),
            expires: now(),
            chain: None,
        };
        let voucher = serde_json::to_vec(&voucher).unwrap();
        store.keep("identity/voucher.json", &voucher).unwrap();
        let (fleets, devices) = (Arc::clone(&stage.fleets), Arc::clone(&stage.devices));
        let (does, heard) = (Arc::clone(&stage.does), Arc::clone(&stage.heard));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(accepted) = accept(&fleets, stream, now).await else {
                    continue;
                };
                let said = match &accepted.peer {
                    Peer::Known(who) => who.spki(),
                    Peer::Enrolling { spki } => *spki,
                    Peer::Expired(_) => continue,
                };
                let mut stream = accepted.stream;
                while let Some((path, body)) = read(&mut stream).await {
                    let does = does.lock().unwrap().pop_front();
                    let about = match path.as_str() {
                        EST_REENROLL | EST_ENROLL => Digest::of(&est::decode_csr(&body).unwrap()).to_string(),
                        _ => path.clone(),
                    };
                    heard.lock().unwrap().push((said, about));
                    let answer = answer(&devices.lock().unwrap(), &path, &body, does.as_ref());
                    if matches!(does, Some(Does::LosesTheAnswer)) {
                        break;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        stage
    }

    /// Presents a server certificate that was issued then.
    pub(super) fn serve_since(&self, issued: UnixSeconds) {
        let key = KeyFile::generate().unwrap();
        let chain = self
            .servers
            .issue_for(&SpiffeId::Control(fleet()), &key, issued)
            .unwrap();
        let server = fleet_server(&self.anchor, &chain, &key, issued).unwrap();
        self.fleets.put(&self.anchor, &server);
    }

    pub(super) fn store(&self) -> Store {
        Store::create(self.folder.path()).unwrap()
    }

    pub(super) fn own(&self) -> Identity {
        self.store().identity().unwrap().unwrap()
    }

    pub(super) fn identity_folder(&self) -> PathBuf {
        self.store().at("identity")
    }

    /// As the agent has it after a start.
    pub(super) fn start(&self) -> (Link, Proven, Identity) {
        let proven = Proven::new(Clock::start());
        let next = next::settle(&RealDisk, &Tokens, &self.identity_folder()).unwrap();
        let own = self.own();
        let speaks = match next {
            Next::Whole(key, chain) => own.with(key, chain).unwrap(),
            _ => own.clone(),
        };
        let speaks = speaks.speaks(&proven).unwrap();
        let link = Link::new(self.address.clone(), &[], control_host(&fleet()), speaks);
        (link, proven, own)
    }

    /// One try to renew, after a start; gives the link as it is then.
    pub(super) async fn renew(&self) -> (Link, Outcome) {
        let (link, proven, own) = self.start();
        let outcome = renew(&link, &self.identity_folder(), &own, &proven).await;
        (link, outcome)
    }

    /// What happens to the next request.
    pub(super) fn will(&self, does: Does) {
        self.does.lock().unwrap().push_back(does);
    }

    /// A next key with its certificate, which has not spoken yet.
    pub(super) fn prepare_whole(&self, key: &KeyFile) {
        let folder = self.identity_folder();
        key.save(&folder.join("next/key.pem")).unwrap();
        let devices = self.devices.lock().unwrap();
        let chain = devices.issue_for(&device("press-1"), key, now()).unwrap();
        next::keep_chain(&RealDisk, &folder, &chain).unwrap();
    }

    pub(super) fn heard(&self) -> Vec<(Digest, String)> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    pub(super) fn next(&self) -> Next {
        next::settle(&RealDisk, &Tokens, &self.identity_folder()).unwrap()
    }
}

/// One request: path and body; `None` at the end.
pub(super) async fn read(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    let path = head.split(' ').nth(1).unwrap().to_owned();
    Some((path, String::from_utf8(body).unwrap()))
}

pub(super) fn answer(devices: &Issuer, path: &str, body: &str, does: Option<&Does>) -> String {
    let (status, text) = match (path, does) {
        (_, Some(Does::Refuses(code))) => {
            let problem = Problem {
                kind: String::new(),
                title: String::new(),
                status: 403,
                code: *code,
                detail: None,
                remedy: String::new(),
            };
            (403, serde_json::to_string(&problem).unwrap())
        }
        (EST_REENROLL | EST_ENROLL, does) => {
            let asked = est::decode_csr(body).unwrap();
            let spki = if let Some(Does::IssuesFor(key)) = does {
                key.spki()
            } else {
                asked
            };
            let name = if let Some(Does::IssuesAs(name)) = does {
                name
            } else {
                "press-1"
            };
            let chain = devices.issue(&device(name), &spki, now()).unwrap();
            (200, est::encode_certs_only(&chain).unwrap())
        }
        _ => (200, String::new()),
    };
    format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
}

/// Who the server sees on a new connection of a link.
pub(super) async fn speaks(stage: &Stage, link: &Link) -> Digest {
    stage.heard();
    let mut connection = link.open().await.unwrap();
    let asked = connection
        .request("GET", "/who", &[], Bytes::new(), ANSWER_LEN_MAX)
        .await;
    assert_eq!(asked.unwrap().status, 200);
    stage.heard()[0].0
}
