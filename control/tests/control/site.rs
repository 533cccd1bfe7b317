//! A fleet, its server in this process, and people and devices who call it.

use bytes::Bytes;
use redan_ceremony::custody::Custody;
use redan_ceremony::found::{Founding, found};
use redan_control::config::Config;
use redan_control::error::ServerError;
use redan_control::register;
use redan_control::server::{Reloader, Server};
use redan_identity::client::{ClientError, Connection};
use redan_identity::{CertificateDer, FleetAnchor, Issuer, IssuerKind, KeyFile, est, pem, tls};
use redan_protocol::report::Report;
use redan_protocol::wire::{
    CheckIn, CheckInReply, Nonce, Problem, Versions, Voucher, control_host, enrol_host,
};
use redan_protocol::{
    ByteCount, Code, ComponentName, FleetId, OperatorName, PublisherName, Role, Seconds, SpiffeId,
    UnixSeconds,
};
use redan_publish::Profile;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const LIMIT: ByteCount = ByteCount::mib(8);

pub(crate) fn now() -> UnixSeconds {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds::new(now.unwrap().as_secs())
}

/// Founds a fleet in a folder, as a custodian does.
pub(crate) fn ceremony(name: &str, out: &Path) {
    ceremony_at(name, out, now());
}

/// The same at another time.
pub(crate) fn ceremony_at(name: &str, out: &Path, now: UnixSeconds) {
    found(&founding(name, now), &Custody::Plain, out).unwrap();
}

fn founding(name: &str, now: UnixSeconds) -> Founding {
    Founding {
        fleet: FleetId::parse(name).unwrap(),
        profile: Profile::Development,
        publishers: vec![PublisherName::parse("acme").unwrap()],
        components: vec![ComponentName::parse("acme/thermo").unwrap()],
        holders: 1,
        threshold: 1,
        now,
    }
}

/// The same with three holders of each role, of whom two must sign.
pub(crate) fn ceremony_of_three(name: &str, out: &Path) {
    let founding = Founding {
        holders: 3,
        threshold: 2,
        ..founding(name, now())
    };
    found(&founding, &Custody::Plain, out).unwrap();
}

/// One fleet of a server, as its callers know it.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) fleet: FleetId,
    pub(crate) anchor: FleetAnchor,
    pub(crate) address: SocketAddr,
    founded: PathBuf,
    kept: PathBuf,
}

/// A server with one fleet, or with more of which this is the first.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) door: Door,
    pub(crate) reloader: Reloader,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), ServerError>>,
}

impl std::ops::Deref for Site {
    type Target = Door;
    fn deref(&self) -> &Door {
        &self.door
    }
}

/// Somebody with a connection.
pub(crate) struct Caller {
    connection: Connection,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, 200, "{text}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and code of a refusal.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, Code) {
        let text = String::from_utf8_lossy(&self.body);
        let problem: Problem =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}: {text}", self.status));
        assert_eq!(problem.status, self.status);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        (self.status, problem.code)
    }
}

impl Caller {
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let headers = [("content-type", "application/json")];
        self.ask_with(method, path, &headers, body).await.unwrap()
    }

    pub(crate) async fn ask_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, ClientError> {
        let answer = self
            .connection
            .request(method, path, headers, body.into(), LIMIT)
            .await?;
        Ok(Answer {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
        })
    }

    pub(crate) fn binding(&self) -> &redan_identity::join::Binding {
        self.connection.binding()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, body.to_string()).await
    }

    /// Checks in with a report, which gets the next number as a device's does, unless it has one.
    pub(crate) async fn check_in(&mut self, report: Report) -> CheckInReply {
        self.check_in_settled(None, report).await
    }

    /// The same of a device that has settled on versions, or on none.
    pub(crate) async fn check_in_settled(
        &mut self,
        settled: Option<Versions>,
        mut report: Report,
    ) -> CheckInReply {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        if report.sequence == 0 {
            report.sequence = NUMBER.fetch_add(1, Ordering::SeqCst);
        }
        let nonce = Nonce([7; 16]);
        let check_in = CheckIn {
            nonce,
            settled,
            report,
        };
        let body = serde_json::to_vec(&check_in).unwrap();
        let answer = self.ask("POST", "/v1/checkin", body).await;
        serde_json::from_value(answer.json()).unwrap()
    }
}

/// A server's configuration over a folder.
pub(crate) fn config(folder: &Path) -> Config {
    Config {
        state: folder.join("state"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        checkin_interval_seconds: Seconds::new(3),
        renewal_grace_seconds: None,
        connections_max: 64,
        handshakes_max: 2000,
        handshakes_per_address_max: 200,
        fleets: BTreeMap::new(),
    }
}

async fn statement(kept: &Path, sql: &'static str) -> u64 {
    let options = SqliteConnectOptions::new().filename(kept.join("fleet.sqlite"));
    let mut connection = options.connect().await.unwrap();
    let done = sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    done.rows_affected()
}

impl Site {
    pub(crate) async fn open() -> Self {
        Self::of("plant.example").await
    }

    pub(crate) async fn of(name: &str) -> Self {
        Self::with(name, 64).await
    }

    /// With room for so many connections.
    pub(crate) async fn with(name: &str, connections_max: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let founded = folder.path().join("fleet");
        ceremony(name, &founded);
        let config = config(folder.path());
        register::add(&config, &founded.join("online"), &founded.join("public"))
            .await
            .unwrap();
        let config = Config {
            connections_max,
            ..config
        };
        Self::serve(folder, FleetId::parse(name).unwrap(), config).await
    }

    /// A server with two fleets, and the second one's door.
    pub(crate) async fn two(configured: impl FnOnce(&mut Config)) -> (Self, Door) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        for (name, place) in [("plant.example", "fleet"), ("other.example", "second")] {
            let founded = folder.path().join(place);
            ceremony(name, &founded);
            register::add(&config, &founded.join("online"), &founded.join("public"))
                .await
                .unwrap();
        }
        configured(&mut config);
        let second = folder.path().join("second");
        let site = Self::serve(folder, FleetId::parse("plant.example").unwrap(), config).await;
        let other = FleetId::parse("other.example").unwrap();
        let door = Door::new(site.folder.path(), &second, other, site.address);
        (site, door)
    }

    async fn serve(folder: TempDir, fleet: FleetId, config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::open(config).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let reloader = server.reloader();
        let running = tokio::spawn(server.serve(listener, stopped));
        let door = Door::new(folder.path(), &folder.path().join("fleet"), fleet, address);
        Self {
            folder,
            door,
            reloader,
            stop,
            running,
        }
    }

    /// Stops in order, and starts again on what was kept.
    pub(crate) async fn restart(self) -> Self {
        let config = config(self.folder.path());
        self.restart_with(config).await
    }

    /// The same with another configuration.
    pub(crate) async fn restart_with(self, config: Config) -> Self {
        self.stop.send(true).unwrap();
        self.running.await.unwrap().unwrap();
        Self::serve(self.folder, self.door.fleet, config).await
    }

    /// The same with a change of the database in between, behind the server's back.
    pub(crate) async fn restart_after(self, sql: &'static str) -> Self {
        self.stop.send(true).unwrap();
        self.running.await.unwrap().unwrap();
        statement(&self.door.kept, sql).await;
        let config = config(self.folder.path());
        Self::serve(self.folder, self.door.fleet, config).await
    }

    /// Changes the database of the running server behind its back; gives how many rows that changed.
    pub(crate) async fn statement(&self, sql: &'static str) -> u64 {
        statement(&self.kept(), sql).await
    }

    /// Starts on what a site that stopped has kept.
    pub(crate) async fn again(folder: TempDir, fleet: FleetId) -> Self {
        let config = config(folder.path());
        Self::serve(folder, fleet, config).await
    }

    /// Tells it to stop, and gives what to wait for.
    pub(crate) fn stopping(self) -> (TempDir, JoinHandle<Result<(), ServerError>>) {
        self.stop.send(true).unwrap();
        (self.folder, self.running)
    }
}

impl Door {
    pub(crate) fn new(folder: &Path, founded: &Path, fleet: FleetId, address: SocketAddr) -> Self {
        let ca = std::fs::read_to_string(founded.join("public/ca.pem")).unwrap();
        Self {
            anchor: FleetAnchor::from_pem(fleet.clone(), &ca).unwrap(),
            address,
            founded: founded.to_owned(),
            kept: folder.join("state/fleets").join(fleet.as_str()),
            fleet,
        }
    }

    pub(crate) fn founded(&self) -> PathBuf {
        self.founded.clone()
    }

    pub(crate) fn kept(&self) -> PathBuf {
        self.kept.clone()
    }

    /// Custodians make a certificate for an operator; gives key and certificate as a file.
    pub(crate) fn certified(&self, name: &str, at: UnixSeconds) -> PathBuf {
        let text = std::fs::read_to_string(self.founded.join("offline/operator-issuer.pem")).unwrap();
        let (by, chain) = pem::read_bundle(&text).unwrap();
        let issuer = Issuer::load(IssuerKind::Operator, self.anchor.clone(), by, chain[0].clone());
        let id = SpiffeId::Operator(self.fleet.clone(), OperatorName::parse(name).unwrap());
        let key = KeyFile::generate().unwrap();
        let chain = issuer.issue_for(&id, &key, at).unwrap();
        self.keep(name, &key, &chain)
    }

    pub(crate) fn keep(&self, name: &str, key: &KeyFile, chain: &[CertificateDer<'static>]) -> PathBuf {
        let bundle = self.founded.join(format!("{name}-{}.pem", key.spki_sha256()));
        redan_identity::key::write_private(&bundle, pem::write_bundle(key, chain).as_bytes()).unwrap();
        bundle
    }

    /// An operator with a role; gives key and certificate as a file.
    pub(crate) async fn appointed(&self, name: &str, role: Role) -> PathBuf {
        let request = json!({"name": name, "role": role});
        self.operator().await.post("/v1/operators", &request).await.json();
        self.certified(name, now())
    }

    /// Opens a connection with somebody's key and certificate.
    pub(crate) async fn connect(&self, bundle: &Path) -> Result<Caller, ClientError> {
        let (key, chain) = pem::load_bundle(bundle).unwrap();
        let config = tls::device_client(&self.anchor, chain, &key, now()).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connection = Connection::open(stream, config, &control_host(&self.fleet)).await?;
        Ok(Caller { connection })
    }

    pub(crate) async fn operator(&self) -> Caller {
        self.connect(&self.founded().join("operators/admin.pem"))
            .await
            .unwrap()
    }

    /// Admits a key under a name.
    pub(crate) async fn admit(&self, id: &str, key: &KeyFile) -> Voucher {
        let request = json!({"device": id, "spki": key.spki_sha256()});
        let answer = self.operator().await.post("/v1/devices/admit", &request).await;
        serde_json::from_value(answer.json()).unwrap()
    }

    /// A connection on the enrolment name.
    pub(crate) async fn enrolling(&self, key: &KeyFile) -> Caller {
        let config = tls::enrolment_client(&self.anchor, key, now()).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connection = Connection::open(stream, config, &enrol_host(&self.fleet))
            .await
            .unwrap();
        Caller { connection }
    }

    /// Admits and enrols a device; gives its key and certificate as a file.
    pub(crate) async fn enrolled(&self, id: &str) -> PathBuf {
        let key = KeyFile::generate().unwrap();
        self.admit(id, &key).await;
        let mut caller = self.enrolling(&key).await;
        let headers = [("content-type", est::PKCS10)];
        let request = est::csr(&key).unwrap();
        let answer = caller
            .ask_with("POST", "/.well-known/est/simpleenroll", &headers, request)
            .await
            .unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status, 200, "{text}");
        let chain = est::decode_certs_only(&text).unwrap();
        self.keep(id, &key, &chain)
    }

    /// An enrolled device with a connection.
    pub(crate) async fn device(&self, id: &str) -> Caller {
        let bundle = self.enrolled(id).await;
        self.connect(&bundle).await.unwrap()
    }
}
