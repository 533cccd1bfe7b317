//! What does a device's connection cost the server? A whole handshake with a client's certificate, a check-in that says nothing new on a
//! connection that is kept, and a connection that is idle. Ours is the control server over a real database on disk; the references are
//! plain hyper behind tokio-rustls, which says as many bytes, and nginx where it is installed.
//!
//! Each server is a process of its own. The time is what it took of the processor (`/proc/<pid>/task/*/schedstat`), so the client, which does
//! as much work in a handshake, is in no figure.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use redan_benches::{Asking, compare};
use redan_ceremony::custody::Custody;
use redan_ceremony::found::{Founding, found};
use redan_control::config::Config;
use redan_control::register;
use redan_control::server::Server;
use redan_identity::client::Connection;
use redan_identity::{CertificateDer, FleetAnchor, KeyFile, est, pem, tls};
use redan_protocol::report::Report;
use redan_protocol::wire::{
    CHECKIN, CHECKIN_LEN_MAX, CHECKIN_REPLY_LEN, CheckIn, CheckInReply, Nonce, Statement, Versions, padded,
};
use redan_protocol::{ByteCount, Digest, FleetId, PublisherName, Seconds, UnixSeconds};
use redan_publish::Profile;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const FLEET: &str = "plant.example";
/// What the other fleet has, and this one has not.
const ARTIFACT: &[u8] = b"what the other fleet has";
const HOST: &str = "control.plant.example";
/// Devices, each with a connection of its own; and handshakes at once.
const CONNECTIONS: u64 = 8;
/// Idle connections between the first and the second look at a server's memory.
const IDLE: usize = 300;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn now() -> UnixSeconds {
    UnixSeconds::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn config(folder: &Path) -> Config {
    Config {
        state: folder.join("state"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        checkin_interval_seconds: Seconds::new(60),
        renewal_grace_seconds: None,
        connections_max: 10_000,
        handshakes_max: 2000,
        handshakes_per_address_max: 2000,
        fleets: std::collections::BTreeMap::new(),
    }
}

/// What a process of this program does that was started as a server: `serve ours FOLDER`, `serve hyper FOLDER`.
pub(crate) fn serve(which: &str, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        if which == "ours" {
            let server = Server::open(config(folder)).await.unwrap();
            let (_stop, stopped) = tokio::sync::watch::channel(false);
            println!("{address}");
            server.serve(listener, stopped).await.unwrap();
        } else {
            let acceptor = plain_tls(folder);
            println!("{address}");
            plain(&acceptor, &listener).await;
        }
    });
}

/// Mutual TLS as tokio-rustls and webpki do it by themselves, with our key exchanges and no tickets.
fn plain_tls(folder: &Path) -> TlsAcceptor {
    let text = std::fs::read(folder.join("fleet/online/server.pem")).unwrap();
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(&text).unwrap();
    let root = std::fs::read(folder.join("fleet/public/ca.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    TlsAcceptor::from(Arc::new(config))
}

/// Plain hyper with the timeouts that ours has: reads the body, and says as many bytes.
async fn plain(acceptor: &TlsAcceptor, listener: &TcpListener) {
    let said = usize::try_from(CHECKIN_REPLY_LEN.get()).unwrap();
    let said = Bytes::from(vec![b' '; said]);
    loop {
        let (client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let (acceptor, said) = (acceptor.clone(), said.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(client).await else {
                return;
            };
            let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let said = said.clone();
                async move {
                    drop(request.into_body().collect().await);
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(said)))
                }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), answer);
            drop(serving.await);
        });
    }
}

/// A server's process.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Running {
    fn start(which: &str, folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", which])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap();
        Self { child, address }
    }

    /// One process, with a configuration of its own; `None`: it is not installed.
    fn nginx(folder: &Path) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|path| Path::new(path).exists())?;
        // nginx says nowhere which port it was given.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let server = at("fleet/online/server.pem");
        let root = at("fleet/public/ca.pem");
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid {pid}; error_log {log} crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_timeout 3600; keepalive_requests 1000000000;\n\
             client_body_temp_path {temp}; proxy_temp_path {temp}; fastcgi_temp_path {temp}; uwsgi_temp_path {temp}; scgi_temp_path {temp};\n\
             server {{ listen {address} ssl; server_name {HOST};\n\
             ssl_certificate {server}; ssl_certificate_key {server}; ssl_client_certificate {root};\n\
             ssl_verify_client on; ssl_verify_depth 2; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;\n\
             ssl_session_cache off; ssl_session_tickets off; location / {{ return 200 \"{said}\"; }} }} }}\n",
            pid = at("nginx.pid"),
            log = at("nginx.log"),
            temp = at("temp"),
            said = "x".repeat(usize::try_from(CHECKIN_REPLY_LEN.get()).unwrap()),
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(at("nginx.log"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = Self { child, address };
        for _ in 0..200 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Some(running);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// What it has taken of the processor, all its threads.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let took = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(took.sum())
    }

    /// Memory of its own, KiB.
    fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What `work` takes of it.
    fn timed(&self, work: impl FnOnce()) -> Duration {
        let before = self.cpu();
        work();
        self.cpu().saturating_sub(before)
    }
}

/// A fleet with its devices.
struct Fleet {
    folder: TempDir,
    anchor: FleetAnchor,
    devices: Vec<Arc<ClientConfig>>,
}

impl Fleet {
    fn found() -> Self {
        let folder = TempDir::new().unwrap();
        let founding = Founding {
            fleet: FleetId::parse(FLEET).unwrap(),
            profile: Profile::Development,
            publishers: vec![PublisherName::parse("acme").unwrap()],
            components: Vec::new(),
            holders: 1,
            threshold: 1,
            now: now(),
        };
        let at = folder.path().join("fleet");
        found(&founding, &Custody::Plain, &at).unwrap();
        let ca = std::fs::read_to_string(at.join("public/ca.pem")).unwrap();
        let anchor = FleetAnchor::from_pem(FleetId::parse(FLEET).unwrap(), &ca).unwrap();
        std::fs::create_dir_all(folder.path().join("temp")).unwrap();
        Self {
            folder,
            anchor,
            devices: Vec::new(),
        }
    }

    async fn register(&self) {
        let at = self.folder.path().join("fleet");
        register::add(
            &config(self.folder.path()),
            &at.join("online"),
            &at.join("public"),
        )
        .await
        .unwrap();
    }

    /// Admits and enrols the devices, as operators and devices do.
    async fn enrol(&mut self, server: SocketAddr) {
        let admin: PathBuf = self.folder.path().join("fleet/operators/admin.pem");
        let (key, chain) = pem::load_bundle(&admin).unwrap();
        let operator = tls::device_client(&self.anchor, chain, &key, now()).unwrap();
        let mut operator = connect(server, operator).await;
        let limit = ByteCount::mib(1);
        for number in 0..CONNECTIONS {
            let key = KeyFile::generate().unwrap();
            let order = serde_json::json!({"device": format!("press-{number}"), "spki": key.spki_sha256()});
            let admitted = operator
                .request(
                    "POST",
                    "/v1/devices/admit",
                    &JSON,
                    order.to_string().into(),
                    limit,
                )
                .await
                .unwrap();
            assert_eq!(admitted.status, 200);
            let stream = TcpStream::connect(server).await.unwrap();
            let enrol = tls::enrolment_client(&self.anchor, &key, now()).unwrap();
            let mut enrolling = Connection::open(stream, enrol, "enrol.plant.example")
                .await
                .unwrap();
            let kind = [("content-type", est::PKCS10)];
            let request = est::csr(&key).unwrap();
            let answer = enrolling
                .request(
                    "POST",
                    "/.well-known/est/simpleenroll",
                    &kind,
                    request.into(),
                    limit,
                )
                .await
                .unwrap();
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            let chain = est::decode_certs_only(&text).unwrap();
            self.devices
                .push(tls::device_client(&self.anchor, chain, &key, now()).unwrap());
        }
    }
}

async fn connect(server: SocketAddr, config: Arc<ClientConfig>) -> Connection {
    let stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Connection::open(stream, config, HOST).await.unwrap()
}

/// Another fleet of the same server, with an artifact of its own; gives the digest.
async fn neighbour(folder: &Path) -> Digest {
    let founding = Founding {
        fleet: FleetId::parse("other.example").unwrap(),
        profile: Profile::Development,
        publishers: vec![PublisherName::parse("acme").unwrap()],
        components: Vec::new(),
        holders: 1,
        threshold: 1,
        now: now(),
    };
    let at = folder.join("other");
    found(&founding, &Custody::Plain, &at).unwrap();
    register::add(&config(folder), &at.join("online"), &at.join("public"))
        .await
        .unwrap();
    Digest::of(ARTIFACT)
}

/// The neighbour's operator stores its artifact.
async fn stored(server: SocketAddr, folder: &Path) {
    let at = folder.join("other");
    let ca = std::fs::read_to_string(at.join("public/ca.pem")).unwrap();
    let anchor = FleetAnchor::from_pem(FleetId::parse("other.example").unwrap(), &ca).unwrap();
    let (key, chain) = pem::load_bundle(&at.join("operators/admin.pem")).unwrap();
    let config = tls::device_client(&anchor, chain, &key, now()).unwrap();
    let stream = TcpStream::connect(server).await.unwrap();
    let mut operator = Connection::open(stream, config, "control.other.example")
        .await
        .unwrap();
    let path = format!("/v1/artifacts/{}", Digest::of(ARTIFACT));
    let stored = operator
        .request(
            "PUT",
            &path,
            &JSON,
            Bytes::from_static(ARTIFACT),
            ByteCount::kib(16),
        )
        .await
        .unwrap();
    assert_eq!(stored.status, 200);
}

/// So many requests for something that this fleet does not have.
async fn refused(device: &mut Device, digest: Digest, times: u64) -> Duration {
    let path = format!("/artifacts/{digest}");
    let start = Instant::now();
    for _ in 0..times {
        let answer = device
            .connection
            .request("GET", &path, &[], Bytes::new(), ByteCount::kib(16))
            .await
            .unwrap();
        assert_eq!(answer.status, 404);
    }
    start.elapsed()
}

/// Shares of `times`.
fn share(times: u64, nth: u64) -> u64 {
    times / CONNECTIONS + u64::from(nth < times % CONNECTIONS)
}

/// So many handshakes, each to the very end: the server has closed the connection.
async fn handshakes(server: SocketAddr, devices: &[Arc<ClientConfig>], times: u64) {
    let each = devices.iter().zip(0..).map(|(config, nth)| async move {
        for _ in 0..share(times, nth) {
            let stream = TcpStream::connect(server).await.unwrap();
            let name = ServerName::try_from(HOST).unwrap();
            let mut tls = TlsConnector::from(Arc::clone(config))
                .connect(name, stream)
                .await
                .unwrap();
            tls.shutdown().await.unwrap();
            drop(tls.read(&mut [0; 16]).await);
        }
    });
    futures_util::future::join_all(each).await;
}

/// A device that checks in, with nothing new to say.
struct Device {
    connection: Connection,
    number: u64,
    /// What it has done all with.
    settled: Option<Versions>,
}

impl Device {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            number: 0,
            settled: None,
        }
    }

    /// From here on it has done all with what the server has.
    async fn settle(&mut self) {
        self.settled = None;
        let answer = self.check_in().await;
        let reply: CheckInReply = serde_json::from_slice(&answer).unwrap();
        let statement: Statement = serde_json::from_value(reply.statement["signed"].clone()).unwrap();
        self.settled = Some(statement.versions());
    }

    async fn check_in(&mut self) -> Bytes {
        self.number += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.number.to_be_bytes());
        let check_in = CheckIn {
            nonce: Nonce(nonce),
            settled: self.settled,
            report: Report {
                sequence: self.number,
                ..Report::default()
            },
        };
        let body = padded(&check_in, CHECKIN_LEN_MAX).unwrap();
        let answer = self
            .connection
            .request("POST", CHECKIN, &JSON, body.into(), ByteCount::kib(16))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        answer.body
    }
}

async fn check_ins(devices: &mut [Device], times: u64) {
    let each = devices.iter_mut().zip(0..).map(|(device, nth)| async move {
        for _ in 0..share(times, nth) {
            device.check_in().await;
        }
    });
    futures_util::future::join_all(each).await;
}

async fn online(server: SocketAddr, fleet: &Fleet) -> Vec<Device> {
    let mut devices = Vec::new();
    for config in &fleet.devices {
        devices.push(Device::new(connect(server, Arc::clone(config)).await));
    }
    devices
}

/// KiB of a server's own memory for each of many connections that have been used once and wait.
async fn idle(server: &Running, fleet: &Fleet) -> f64 {
    let mut open = Vec::new();
    let mut look = Vec::new();
    for _ in 0..2 {
        for _ in 0..IDLE {
            let mut device = Device::new(connect(server.address, Arc::clone(&fleet.devices[0])).await);
            device.check_in().await;
            open.push(device);
        }
        // Until they wait: ours puts away what it keeps for the next request.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        look.push(server.memory());
    }
    let grown = u32::try_from(look[1].saturating_sub(look[0])).unwrap();
    f64::from(grown) / f64::from(u32::try_from(IDLE).unwrap())
}

pub(crate) fn bench(asking: &mut Asking) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut fleet = Fleet::found();
    runtime.block_on(fleet.register());
    let folder = fleet.folder.path().to_owned();
    let theirs = runtime.block_on(neighbour(&folder));
    let (ours, hyper) = (Running::start("ours", &folder), Running::start("hyper", &folder));
    runtime.block_on(fleet.enrol(ours.address));
    let shake = |server: &Running, times| {
        server.timed(|| runtime.block_on(handshakes(server.address, &fleet.devices, times)))
    };
    compare(
        asking,
        "mutual tls handshake (cpu)",
        &mut |times| shake(&ours, times),
        ("plain hyper", &mut |times| shake(&hyper, times)),
    );
    let nginx = Running::nginx(&folder);
    if let Some(nginx) = &nginx {
        compare(
            asking,
            "mutual tls handshake (cpu), nginx",
            &mut |times| shake(&ours, times),
            ("nginx", &mut |times| shake(nginx, times)),
        );
    } else {
        println!("nginx is not installed (apt-get install nginx-light): not compared");
    }
    let mut to_ours = runtime.block_on(online(ours.address, &fleet));
    let mut to_hyper = runtime.block_on(online(hyper.address, &fleet));
    compare(
        asking,
        "check-in with a signed statement (cpu)",
        &mut |times| ours.timed(|| runtime.block_on(check_ins(&mut to_ours, times))),
        ("plain hyper", &mut |times| {
            hyper.timed(|| runtime.block_on(check_ins(&mut to_hyper, times)))
        }),
    );
    for device in &mut to_ours {
        runtime.block_on(device.settle());
    }
    compare(
        asking,
        "unchanged check-in (cpu)",
        &mut |times| ours.timed(|| runtime.block_on(check_ins(&mut to_ours, times))),
        ("plain hyper", &mut |times| {
            hyper.timed(|| runtime.block_on(check_ins(&mut to_hyper, times)))
        }),
    );
    runtime.block_on(stored(ours.address, &folder));
    let nobodys = Digest::of(b"what nobody has");
    // Both close over the device; they are never asked at once.
    let device = std::cell::RefCell::new(to_ours.remove(0));
    let ask = |digest, times| runtime.block_on(refused(&mut device.borrow_mut(), digest, times));
    compare(
        asking,
        "refusal of what another fleet has",
        &mut |times| ask(theirs, times),
        ("of what nobody has", &mut |times| ask(nobodys, times)),
    );
    if matches!(asking, Asking::Measured(_)) {
        for (name, server) in [
            ("ours", Some(&ours)),
            ("plain hyper", Some(&hyper)),
            ("nginx", nginx.as_ref()),
        ] {
            if let Some(server) = server {
                let each = runtime.block_on(idle(server, &fleet));
                println!("idle connection, memory: {each:.1} KiB ({name})");
            }
        }
    }
}
