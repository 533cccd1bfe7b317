//! The fleet's authority changes while its server runs: who is served, by what, and who is cut (decision 0014).

use crate::ceremony::decide;
use crate::release::{publish_policy, upload};
use crate::site::{Answer, Caller, Door, LIMIT, Site, config, now};
use bytes::Bytes;
use redan_ceremony::authority::{Changed, make, read};
use redan_ceremony::change::Change;
use redan_ceremony::crl::{Listing, list};
use redan_ceremony::custody::{Custody, Opening};
use redan_ceremony::error::CeremonyError;
use redan_ceremony::present::RepositoryName;
use redan_control::error::ServerError;
use redan_control::replacement::replace;
use redan_control::server::Reloaded;
use redan_identity::client::{ClientError, Connection};
use redan_identity::crl::{CrlFault, OPERATOR_LISTS, Revocations};
use redan_identity::profile::Purpose;
use redan_identity::{Anchors, CertificateDer, FleetAnchor, Issuer, IssuerKind, KeyFile, est, pem, tls};
use redan_protocol::authority::Step;
use redan_protocol::report::Report;
use redan_protocol::wire::{EST_CACERTS, EST_ENROLL, control_host, enrol_host};
use redan_protocol::{Code, DeviceId, OperatorName, SpiffeId};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A server whose fleet has another authority made, which nobody believes yet.
struct Changing {
    site: Site,
    new: FleetAnchor,
    made: PathBuf,
}

impl Changing {
    async fn open() -> Self {
        let site = Site::open().await;
        let (public, made) = (site.founded().join("public"), site.folder.path().join("made"));
        make(&public, &Custody::Plain, &made, now()).unwrap();
        let new = read(&public, &made.join("ca.pem")).unwrap();
        Self { site, new, made }
    }

    /// Custodians sign, and nobody has told the server yet.
    fn sign(&self, change: Changed) -> String {
        let founded = self.site.founded();
        decide(
            &founded,
            RepositoryName::Release,
            &Change::Authority(change),
            "release.root",
        )
    }

    async fn bring(&self, online: Option<&Path>) -> Result<Vec<String>, ServerError> {
        let public = self.site.founded().join("public");
        let replaced = replace(&config(self.site.folder.path()), online, &public).await?;
        for (_, outcome) in self.site.reloader.reload().await {
            assert_eq!(outcome.unwrap(), Reloaded::Served);
        }
        Ok(replaced.files)
    }

    async fn prepare(&self) {
        self.sign(Changed::Prepare(self.new.clone()));
        self.bring(None).await.unwrap();
    }

    async fn activate(&self) -> Vec<String> {
        self.sign(self.later(Step::Activate));
        self.bring(Some(&self.made.join("online"))).await.unwrap()
    }

    fn later(&self, step: Step) -> Changed {
        let of = match step {
            Step::Activate => self.new.sha256(),
            _ => self.site.anchor.sha256(),
        };
        Changed::Later(step, of.to_string())
    }

    /// The server for whoever believes the new authority alone.
    fn door(&self) -> Door {
        let mut door = self.site.door.clone();
        door.anchor = self.new.clone();
        door
    }

    /// An administrator's certificate of the new authority.
    fn admin_bundle(&self) -> PathBuf {
        let text = std::fs::read_to_string(self.made.join("offline/operator-issuer.pem")).unwrap();
        let (by, chain) = pem::read_bundle(&text).unwrap();
        let issuer = Issuer::load(IssuerKind::Operator, self.new.clone(), by, chain[0].clone());
        let id = SpiffeId::Operator(self.site.fleet.clone(), OperatorName::parse("admin").unwrap());
        let key = KeyFile::generate().unwrap();
        let chain = issuer.issue_for(&id, &key, now()).unwrap();
        self.site.keep("admin", &key, &chain)
    }

    /// An administrator with one.
    async fn admin(&self) -> Caller {
        self.door().connect(&self.admin_bundle()).await.unwrap()
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.site.kept().join("online").join(name)
    }

    /// Where the server keeps its certificate under the old authority.
    fn under_old(&self) -> PathBuf {
        let old = self.site.anchor.sha256().to_string();
        self.kept(&format!("server-{}.pem", &old[..16]))
    }
}

/// How many devices an operator sees under an authority; `None`: it is not listed.
async fn under(admin: &mut Caller, authority: &FleetAnchor) -> Option<(String, u64)> {
    let fleet = admin.get("/v1/fleet").await.json();
    let of = |one: &&Value| one["authority"] == authority.sha256().to_string();
    let one = fleet["authorities"].as_array().unwrap().iter().find(of)?.clone();
    Some((
        one["state"].as_str().unwrap().to_owned(),
        one["devices"].as_u64().unwrap(),
    ))
}

/// How whoever has this key and certificate is answered, if it believes the new authority.
async fn refused(door: &Door, bundle: &Path) -> ClientError {
    let mut caller = match door.connect(bundle).await {
        Ok(caller) => caller,
        Err(error) => return error,
    };
    let asked = caller.ask_with("GET", "/.well-known/est/cacerts", &[], "").await;
    asked.map(drop).unwrap_err()
}

#[tokio::test]
async fn each_step_is_taken_over_while_the_server_runs_and_the_last_cuts_what_the_old_one_opened() {
    let changing = Changing::open().await;
    let (site, old) = (&changing.site, changing.site.anchor.clone());
    let bundle = site.enrolled("press-1").await;
    let mut open = site.connect(&bundle).await.unwrap();
    changing.prepare().await;
    let taken = changing.activate().await;
    let named = changing.under_old();
    let place = format!("online/{}", named.file_name().unwrap().to_str().unwrap());
    assert!(taken.contains(&place), "{taken:?}");
    // The connection of before goes on, and so does whoever has not heard of the change; who enrols now is of the new one.
    open.check_in(Report::default()).await;
    site.connect(&bundle)
        .await
        .unwrap()
        .check_in(Report::default())
        .await;
    let mut admin = changing.admin().await;
    assert_eq!(under(&mut admin, &old).await, Some(("old".into(), 1)));
    let key = KeyFile::generate().unwrap();
    let voucher = site.admit("press-2", &key).await;
    assert_eq!(voucher.ca, pem::write_chain(&[changing.new.root().clone()]));
    changing.sign(changing.later(Step::Taint));
    changing.bring(None).await.unwrap();
    assert_eq!(under(&mut admin, &old).await, Some(("tainted".into(), 1)));
    let shown = admin.get("/v1/devices/press-1").await.json();
    assert_eq!(shown["authority"], old.sha256().to_string());
    assert_eq!(shown["authority_state"], "tainted");
    let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    let digits = old.sha256().to_string();
    for line in [
        format!("redan_devices_by_authority{{authority=\"{digits}\",state=\"tainted\"}} 1"),
        format!(
            "redan_seconds_left{{of=\"certificate.ca-tainted-{}\"}}",
            &digits[..8]
        ),
        "redan_seconds_left{of=\"certificate.ca\"}".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    open.check_in(Report::default()).await;
    assert!(named.exists());

    changing.sign(changing.later(Step::Revoke));
    changing.bring(None).await.unwrap();
    let cut = open.ask_with("GET", "/.well-known/est/cacerts", &[], "").await;
    assert_eq!(cut.map(drop), Err(ClientError::Connection));
    assert!(!named.exists(), "the key of its certificate went with it");
    assert_eq!(under(&mut admin, &old).await, None);
    // Nobody who believes the old one alone is shown anything it could believe.
    let foreign = refused(&site.door, &bundle).await;
    assert_eq!(foreign.code(), Code::ForeignServer);
}

/// Every device's voucher has ended.
const ENDED: &str =
    "UPDATE documents SET body = json_set(body, '$.voucher_expires', 1) WHERE kind = 'device'";
/// Every device was last seen long ago.
const LONG_AWAY: &str = "UPDATE documents SET body = json_set(body, '$.last_seen', 1) WHERE kind = 'device'";

/// A key asks by the enrolment name.
async fn enrols(door: &Door, key: &KeyFile) -> Answer {
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(key).unwrap();
    let mut caller = door.enrolling(key).await;
    let asked = caller.ask_with("POST", "/.well-known/est/simpleenroll", &headers, request);
    asked.await.unwrap()
}

#[tokio::test]
async fn a_device_whose_voucher_has_ended_too_is_let_in_as_long_as_it_could_have_renewed() {
    let mut changing = Changing::open().await;
    let bundle = changing.site.enrolled("press-1").await;
    let (key, _) = pem::load_bundle(&bundle).unwrap();
    let mut device = changing.site.connect(&bundle).await.unwrap();
    device.check_in(Report::default()).await;
    changing.prepare().await;
    changing.activate().await;
    changing.site = changing.site.restart_after(ENDED).await;
    // Its certificate is good: it renews, and enrols no more.
    let refused = enrols(&changing.door(), &key).await.refusal();
    assert_eq!(refused, (403, Code::VoucherInvalid));
    for step in [Step::Taint, Step::Revoke] {
        changing.sign(changing.later(step));
        changing.bring(None).await.unwrap();
    }
    assert_eq!(enrols(&changing.door(), &key).await.status, 200);
    // Somebody who is not admitted is not let in by a change, nor is a device that was away for longer than it may be.
    let stranger = KeyFile::generate().unwrap();
    let refused = enrols(&changing.door(), &stranger).await.refusal();
    assert_eq!(refused, (403, Code::NotAdmitted));
    changing.site = changing.site.restart_after(LONG_AWAY).await;
    let refused = enrols(&changing.door(), &key).await.refusal();
    assert_eq!(refused, (403, Code::VoucherInvalid));
    // Until somebody says that it is the device it was.
    let spki = serde_json::json!({"device": "press-1", "spki": key.spki_sha256()});
    let mut admin = changing.admin().await;
    admin.post("/v1/devices/admit", &spki).await.json();
    assert_eq!(enrols(&changing.door(), &key).await.status, 200);
}

#[tokio::test]
async fn a_stolen_old_issuer_makes_no_device_after_revoke_and_the_key_itself_is_let_in_again() {
    let changing = Changing::open().await;
    let site = &changing.site;
    let bundle = site.enrolled("press-1").await;
    let text = std::fs::read_to_string(site.founded().join("online/device-issuer.pem")).unwrap();
    let (by, chain) = pem::read_bundle(&text).unwrap();
    let thief = Issuer::load(IssuerKind::Device, site.anchor.clone(), by, chain[0].clone());
    changing.prepare().await;
    changing.activate().await;
    for step in [Step::Taint, Step::Revoke] {
        changing.sign(changing.later(step));
        changing.bring(None).await.unwrap();
    }
    // Even for a key that is admitted: the certificate the device had, and one that the thief makes for that key.
    let (key, _) = pem::load_bundle(&bundle).unwrap();
    let id = SpiffeId::Device(site.fleet.clone(), DeviceId::parse("press-1").unwrap());
    let forged = thief.issue_for(&id, &key, now()).unwrap();
    let forged = site.keep("forged", &key, &forged);
    for under_old in [&bundle, &forged] {
        let refused = refused(&changing.door(), under_old).await;
        assert_eq!(refused, ClientError::Rejected(Code::AuthorityRevoked));
    }
    // What the device does then: its key alone speaks, and gets a certificate of the new one.
    let answer = enrols(&changing.door(), &key).await;
    assert_eq!(answer.status, 200);
    let chain = est::decode_certs_only(std::str::from_utf8(&answer.body).unwrap()).unwrap();
    let anew = site.keep("anew", &key, &chain);
    let mut caller = changing.door().connect(&anew).await.unwrap();
    caller.check_in(Report::default()).await;
}

#[tokio::test]
async fn certificates_that_the_active_authority_did_not_sign_are_not_taken_and_change_nothing() {
    let changing = Changing::open().await;
    changing.prepare().await;
    let old = changing.site.anchor.sha256();
    let before = std::fs::read(changing.kept("server.pem")).unwrap();
    changing.sign(changing.later(Step::Activate));
    // Neither, or only one of the two.
    let part = changing.site.folder.path().join("part");
    for names in [&[][..], &["server.pem"], &["device-issuer.pem"]] {
        std::fs::create_dir_all(&part).unwrap();
        for name in names {
            std::fs::copy(changing.made.join("online").join(name), part.join(name)).unwrap();
        }
        let refused = changing.bring(Some(&part)).await.unwrap_err();
        assert!(
            matches!(&refused, ServerError::Inactive { authority, .. } if *authority == old),
            "{names:?}: {refused}"
        );
        assert_eq!(refused.code(), Code::AuthorityInactive);
        std::fs::remove_dir_all(&part).unwrap();
    }
    assert_eq!(std::fs::read(changing.kept("server.pem")).unwrap(), before);
    assert!(!changing.under_old().exists());
    // It serves as before, and starts again as before.
    changing.site.operator().await.get("/v1/fleet").await.json();
    let site = changing.site.restart().await;
    site.operator().await.get("/v1/fleet").await.json();
}

#[tokio::test]
async fn a_root_that_changes_the_authorities_is_not_taken_over_the_network() {
    let changing = Changing::open().await;
    let name = changing.sign(Changed::Prepare(changing.new.clone()));
    let bytes = std::fs::read(changing.site.founded().join("public/release").join(&name)).unwrap();
    let mut admin = changing.site.operator().await;
    let answer = admin
        .post("/v1/release", &upload(&[(&name, bytes.clone())]))
        .await;
    assert_eq!(answer.refusal(), (400, Code::AuthorityOnHost));
    assert_eq!(admin.get(&format!("/v1/release/{name}")).await.status, 404);
    // Brought to the host it is served, and sent once more it changes nothing.
    changing.bring(None).await.unwrap();
    let served = admin.get(&format!("/v1/release/{name}")).await;
    assert_eq!((served.status, served.body.to_vec()), (200, bytes));
}

#[tokio::test]
async fn a_change_outlives_restarts_at_every_step() {
    let mut changing = Changing::open().await;
    let bundle = changing.site.enrolled("press-1").await;
    changing.prepare().await;
    changing.activate().await;
    for step in [None, Some(Step::Taint)] {
        if let Some(step) = step {
            changing.sign(changing.later(step));
            changing.bring(None).await.unwrap();
        }
        changing.site = changing.site.restart().await;
        let mut device = changing.site.connect(&bundle).await.unwrap();
        device.check_in(Report::default()).await;
        changing.admin().await.get("/v1/fleet").await.json();
    }
    changing.sign(changing.later(Step::Revoke));
    changing.bring(None).await.unwrap();
    // What a power cut kept from being removed goes at the next start.
    std::fs::copy(changing.kept("server.pem"), changing.under_old()).unwrap();
    changing.site = changing.site.restart().await;
    assert!(!changing.under_old().exists());
    let refused = refused(&changing.door(), &bundle).await;
    assert_eq!(refused, ClientError::Rejected(Code::AuthorityRevoked));
}

/// What whoever has this voucher believes.
fn carried(site: &Site, ca: &str) -> Anchors {
    Anchors::carried(&site.fleet, ca).unwrap()
}

/// Enrols by what a voucher or token carries, over a connection that believes that alone.
async fn enrols_under(site: &Site, anchors: &Anchors, key: &KeyFile) -> Vec<CertificateDer<'static>> {
    let config = tls::enrolment_client(anchors, key, now()).unwrap();
    let stream = TcpStream::connect(site.address).await.unwrap();
    let mut connection = Connection::open(stream, config, &enrol_host(&site.fleet))
        .await
        .unwrap();
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(key).unwrap();
    let answer = connection
        .request("POST", EST_ENROLL, &headers, request.into(), LIMIT)
        .await
        .unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, 200, "{text}");
    est::decode_certs_only(&text).unwrap()
}

/// How a device is answered that believes these.
async fn asks(site: &Site, anchors: &Anchors, key: &KeyFile, chain: &[CertificateDer<'static>]) -> u16 {
    let config = tls::device_client(anchors, chain.to_vec(), key, now()).unwrap();
    let stream = TcpStream::connect(site.address).await.unwrap();
    let mut connection = Connection::open(stream, config, &control_host(&site.fleet))
        .await
        .unwrap();
    let asked = connection
        .request("GET", EST_CACERTS, &[], Bytes::new(), LIMIT)
        .await;
    asked.unwrap().status
}

#[tokio::test]
async fn a_device_that_enrols_while_the_authority_changes_is_at_home_after_the_change() {
    let changing = Changing::open().await;
    let (site, new) = (&changing.site, &changing.new);
    changing.prepare().await;
    let (early, late) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
    let vouchers = [
        site.admit("press-1", &early).await,
        site.admit("press-2", &late).await,
    ];
    let request = serde_json::json!({"uses": 1, "expires_in_seconds": 3600});
    let token = site.operator().await.post("/v1/tokens", &request).await.json();
    let both = pem::write_chain(&[site.anchor.root().clone(), new.root().clone()]);
    for ca in [&vouchers[0].ca, &vouchers[1].ca, token["ca"].as_str().unwrap()] {
        assert_eq!(*ca, both, "the active one first");
    }
    let anchors = carried(site, &both);
    let chain = enrols_under(site, &anchors, &early).await;
    assert_eq!(asks(site, &anchors, &early, &chain).await, 200);
    changing.activate().await;
    // What it was given then is enough, without a check-in in between; and so is a voucher of then.
    assert_eq!(asks(site, &anchors, &early, &chain).await, 200);
    for step in [Step::Taint, Step::Revoke] {
        changing.sign(changing.later(step));
        changing.bring(None).await.unwrap();
    }
    let chain = enrols_under(site, &anchors, &late).await;
    assert_eq!(anchors.above(&chain).unwrap().sha256(), new.sha256());
    assert_eq!(asks(site, &anchors, &late, &chain).await, 200);
    // One from before the preparation has no server to believe any more.
    let alone = Anchors::from(&site.anchor);
    let config = tls::enrolment_client(&alone, &late, now()).unwrap();
    let stream = TcpStream::connect(site.address).await.unwrap();
    let refused = Connection::open(stream, config, &enrol_host(&site.fleet)).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::ForeignServer);
}

/// Custodians make the next list of an issuer, in which this certificate is taken back.
fn listed(
    changing: &Changing,
    of: IssuerKind,
    issuer: PathBuf,
    (revoked, previous): (&Path, Option<&Path>),
    out: &str,
) -> Result<PathBuf, CeremonyError> {
    let listing = Listing {
        of,
        public: changing.site.founded().join("public"),
        issuer,
        previous: previous.map(Path::to_owned),
        revoked: vec![revoked.to_owned()],
        now: now(),
    };
    let out = changing.site.folder.path().join(out);
    list(&listing, &Opening::new(&[])?, &out)?;
    Ok(out)
}

#[tokio::test]
async fn custodians_list_certificates_of_authorities_that_are_prepared_or_tainted() {
    let changing = Changing::open().await;
    let (site, founded) = (&changing.site, changing.site.founded());
    let (one, other) = (site.enrolled("press-1").await, site.enrolled("press-2").await);
    changing.prepare().await;
    let listed_now = || {
        let roots = [site.anchor.root().clone(), changing.new.root().clone()];
        carried(site, &pem::write_chain(&roots))
    };
    let chain_of = |bundle: &Path| pem::read_chain(&std::fs::read_to_string(bundle).unwrap()).unwrap();
    // A server's certificate under the prepared one, and one under the active one: one file, each by its issuer.
    let (next, present) = (
        changing.made.join("online/server.pem"),
        founded.join("online/server.pem"),
    );
    let issuer = changing.made.join("offline/server-issuer.pem");
    let first = listed(
        &changing,
        IssuerKind::Server,
        issuer,
        (&next, None),
        "servers-1.crl",
    )
    .unwrap();
    let mut known = Revocations::default();
    let read = |file: &Path| std::fs::read(file).unwrap();
    known
        .adopt(listed_now(), IssuerKind::Server, &read(&first), now())
        .unwrap();
    let judged = |known: &Revocations, bundle: &Path| {
        let chain = chain_of(bundle);
        let identity = listed_now().check(&chain, Purpose::Server, now()).unwrap();
        known.name(&identity)
    };
    assert!(judged(&known, &next) && !judged(&known, &present));
    let issuer = founded.join("offline/server-issuer.pem");
    let taken = (present.as_path(), Some(first.as_path()));
    let second = listed(&changing, IssuerKind::Server, issuer, taken, "servers-2.crl").unwrap();
    known
        .adopt(listed_now(), IssuerKind::Server, &read(&second), now())
        .unwrap();
    assert!(judged(&known, &next) && judged(&known, &present));
    // The server goes by a list of operators under the prepared one, from their first request on.
    let admin = changing.admin_bundle();
    let issuer = changing.made.join("offline/operator-issuer.pem");
    let operators = listed(
        &changing,
        IssuerKind::Operator,
        issuer,
        (&admin, None),
        "operators.crl",
    )
    .unwrap();
    publish_policy(site, 2, &[(OPERATOR_LISTS, &read(&operators))]).await;
    // While it is active, the server makes the list of a device issuer, and nobody else.
    let device_issuer = || founded.join("online/device-issuer.pem");
    let early = listed(
        &changing,
        IssuerKind::Device,
        device_issuer(),
        (&one, None),
        "devices.crl",
    );
    assert!(matches!(early, Err(CeremonyError::ServersList)));
    changing.activate().await;
    let mut caller = changing.door().connect(&admin).await.unwrap();
    assert_eq!(
        caller.get("/v1/fleet").await.refusal(),
        (403, Code::CertificateRevoked)
    );
    changing.sign(changing.later(Step::Taint));
    changing.bring(None).await.unwrap();
    let file = listed(
        &changing,
        IssuerKind::Device,
        device_issuer(),
        (&one, None),
        "devices.crl",
    )
    .unwrap();
    let mut known = Revocations::default();
    known
        .adopt(listed_now(), IssuerKind::Device, &read(&file), now())
        .unwrap();
    let fault = |bundle: &Path| {
        known
            .check(&site.anchor, &chain_of(bundle), Purpose::Client, now())
            .map(drop)
    };
    assert_eq!(fault(&one), Err(CrlFault::Revoked));
    assert_eq!(fault(&other), Ok(()));
}

/// A way to a server that holds what the client says after the server's first word, until it is told to let it go.
async fn held(to: SocketAddr) -> (SocketAddr, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let (holds, holding) = oneshot::channel();
    let (go, going) = oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        let (mut said, mut answered) = ([0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                read = client.read(&mut said) => server.write_all(&said[..read.unwrap()]).await.unwrap(),
                read = server.read(&mut answered) => {
                    holds.send(()).unwrap();
                    going.await.unwrap();
                    client.write_all(&answered[..read.unwrap()]).await.unwrap();
                    break;
                }
            }
        }
        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
    });
    (here, holding, go)
}

/// Holds: the key of the tainted authority, and a handshake that had begun when it was revoked: it is judged by what was believed then.
#[tokio::test]
async fn a_handshake_that_was_under_way_when_its_authority_was_revoked_opens_nothing() {
    let changing = Changing::open().await;
    let site = &changing.site;
    let bundle = site.enrolled("press-1").await;
    let (key, chain) = pem::load_bundle(&bundle).unwrap();
    changing.prepare().await;
    changing.activate().await;
    changing.sign(changing.later(Step::Taint));
    changing.bring(None).await.unwrap();
    let both = [site.anchor.root().clone(), changing.new.root().clone()];
    let anchors = carried(site, &pem::write_chain(&both));
    assert_eq!(asks(site, &anchors, &key, &chain).await, 200, "positive control");
    // Signed, and nobody has told the server yet.
    changing.sign(changing.later(Step::Revoke));
    let (way, holding, go) = held(site.address).await;
    let host = control_host(&site.fleet);
    let asking = tokio::spawn(async move {
        let config = tls::device_client(&anchors, chain, &key, now()).unwrap();
        let stream = TcpStream::connect(way).await.unwrap();
        let mut connection = Connection::open(stream, config, &host).await?;
        let asked = connection
            .request("GET", EST_CACERTS, &[], Bytes::new(), LIMIT)
            .await?;
        Ok::<u16, ClientError>(asked.status)
    });
    holding.await.unwrap();
    changing.bring(None).await.unwrap();
    go.send(()).unwrap();
    assert_eq!(asking.await.unwrap(), Err(ClientError::Connection));
}
