//! Two addresses of one server, the first of which lies: the second is asked at the next try, and what the liar sent counts for
//! nothing (attack T08).
//!
//! Every liar but the one of another authority holds the server's own TLS key. That is more than a mirror has.

use crate::checkin::{Session, Settled, Unreached};
use crate::clock::{Clock, Proven};
use crate::disk::RealDisk;
use crate::fetch::{Blobs, fetch};
use crate::link::{Link, QUIET_MAX};
use crate::patience::WINDOW;
use crate::refresh::Files;
use crate::revocation::ServerLists;
use redan_identity::tls::{Fleets, accept, device_client, fleet_server};
use redan_identity::{FleetAnchor, FleetCa, IssuerKind, KeyFile};
use redan_protocol::report::Report;
use redan_protocol::wire::{CheckIn, Nonce, Versions, control_host};
use redan_protocol::{ByteCount, Code, DeviceId, Digest, FleetId, SpiffeId, UnixSeconds, Version64};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

/// What the component is.
const BYTES: [u8; 4096] = [7; 4096];

fn digest() -> Digest {
    Digest::of(&BYTES)
}

fn length() -> ByteCount {
    ByteCount::new(4096)
}

/// What an address does with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Does {
    /// What it should.
    Well,
    /// No HTTP.
    Garbage,
    /// Ends the connection instead of an answer.
    HangsUp,
    /// Another status than it has to say.
    Says(&'static str),
    /// All of it, and wrong.
    OtherBytes,
    /// More than was signed or is allowed.
    TooMuch,
    /// The first half, and the end of the connection.
    Half,
    /// A wrong beginning, and the end of the connection.
    Poison,
    /// Nothing at all, for ever.
    Hangs,
    /// A byte now and then.
    Drips,
}

fn fleet(name: &str) -> FleetId {
    FleetId::parse(name).unwrap()
}

fn now() -> UnixSeconds {
    crate::clock::wall()
}

/// A fleet: who serves it at how many addresses.
struct Site {
    ca: FleetCa,
    anchor: FleetAnchor,
    fleets: Arc<Fleets>,
    /// The check-ins that its addresses have heard.
    told: Told,
}

type Told = Arc<Mutex<Vec<CheckIn>>>;

impl Site {
    fn of(name: &str) -> Self {
        let ca = FleetCa::found(fleet(name), now()).unwrap();
        let anchor = ca.anchor().unwrap();
        let key = KeyFile::generate().unwrap();
        let issuer = ca.issuer(IssuerKind::Server, now()).unwrap();
        let chain = issuer
            .issue_for(&SpiffeId::Control(fleet(name)), &key, now())
            .unwrap();
        let fleets = Arc::new(Fleets::default());
        fleets.put(&anchor, &fleet_server(&anchor, &chain, &key, now()).unwrap());
        let told = Told::default();
        Self {
            ca,
            anchor,
            fleets,
            told,
        }
    }

    /// An address of its server, and how many requests or connections it has had.
    async fn address(&self, does: Does) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(AtomicUsize::new(0));
        let (fleets, counted) = (Arc::clone(&self.fleets), Arc::clone(&heard));
        let told = Arc::clone(&self.told);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (fleets, told) = (Arc::clone(&fleets), Arc::clone(&told));
                tokio::spawn(async move {
                    if let Ok(accepted) = accept(&fleets, stream, now).await {
                        drop(serve(accepted.stream, does, &told).await);
                    }
                });
            }
        });
        (address, heard)
    }

    fn link(&self, first: String, more: &[String]) -> Link {
        let id = SpiffeId::Device(self.anchor.fleet().clone(), DeviceId::parse("press-1").unwrap());
        let key = KeyFile::generate().unwrap();
        let issuer = self.ca.issuer(IssuerKind::Device, now()).unwrap();
        let chain = issuer.issue_for(&id, &key, now()).unwrap();
        let config = device_client(&self.anchor, chain, &key, UnixSeconds::default()).unwrap();
        Link::new(first, more, control_host(self.anchor.fleet()), config)
    }
}

/// One request, its body included, and what is answered to it.
async fn serve(mut stream: Stream, does: Does, told: &Told) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    if let Some(length) = field("content-length: ") {
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await?;
        if !body.is_empty() {
            assert_eq!(body.len(), 2048);
            let check_in = serde_json::from_slice(&body).unwrap();
            told.lock().unwrap().push(check_in);
        }
    }
    let (status, whole) = if head.starts_with("POST") {
        ("200 OK", br#"{"statement":{},"interval":60}"#.to_vec())
    } else {
        let from = field("range: bytes=").map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
        let status = if from == 0 {
            "200 OK"
        } else {
            "206 Partial Content"
        };
        (status, BYTES[from..].to_vec())
    };
    let said = |status: &str, length: usize| format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
    let wrong = vec![b'8'; whole.len()];
    let half = whole.len() / 2;
    let answer = match does {
        Does::Well => [said(status, whole.len()).into_bytes(), whole].concat(),
        Does::Garbage => b"what you asked for is not here\r\n\r\n".to_vec(),
        Does::HangsUp => return stream.shutdown().await,
        Does::Says(status) => said(status, 0).into_bytes(),
        Does::OtherBytes => [said(status, wrong.len()).into_bytes(), wrong].concat(),
        Does::TooMuch => {
            let much = vec![b'8'; 64 * 1024];
            [said(status, much.len()).into_bytes(), much].concat()
        }
        Does::Half => [said(status, whole.len()).as_bytes(), &whole[..half]].concat(),
        Does::Poison => [said(status, whole.len()).as_bytes(), &wrong[..half]].concat(),
        Does::Hangs => {
            let never: std::io::Result<()> = std::future::pending().await;
            return never;
        }
        Does::Drips => {
            stream.write_all(said(status, whole.len()).as_bytes()).await?;
            for byte in whole {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_secs(15)).await;
            }
            return Ok(());
        }
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

/// The liars: most hold the server's key; one address where nobody is, and one of another authority with our names.
async fn liars(site: &Site, stranger: &Site) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for does in [
        Does::Garbage,
        Does::HangsUp,
        Does::Says("404 Not Found"),
        Does::Says("503 Service Unavailable"),
        Does::Says("301 Moved Permanently"),
        Does::OtherBytes,
        Does::TooMuch,
        Does::Half,
        Does::Poison,
        Does::Hangs,
        Does::Drips,
    ] {
        all.push((format!("{does:?}"), site.address(does).await.0));
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    all.push(("nobody".to_owned(), gone.local_addr().unwrap().to_string()));
    drop(gone);
    all.push((
        "another authority".to_owned(),
        stranger.address(Does::Well).await.0,
    ));
    all
}

/// As long as it takes, by a clock that jumps as soon as everybody waits for it and for nothing else.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            // Loopback and cryptography are given their real time first.
            () = real_time() => {
                tokio::time::pause();
                tokio::time::advance(WINDOW / 4).await;
                tokio::time::resume();
            }
        }
    }
}

async fn real_time() {
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(150)))
        .await
        .unwrap();
}

fn blobs() -> (tempfile::TempDir, Blobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(folder.path().to_owned());
    (folder, blobs)
}

#[tokio::test]
async fn an_artifact_that_one_address_withholds_or_forges_comes_from_the_other_at_the_next_try() {
    let (site, stranger) = (Site::of("plant.example"), Site::of("plant.example"));
    for (liar, address) in liars(&site, &stranger).await {
        let (honest, asked) = site.address(Does::Well).await;
        let link = site.link(address, &[honest]);
        let (_folder, blobs) = blobs();
        let first = soon(fetch(link.clone(), blobs.clone(), digest(), length())).await;
        assert!(first.is_err(), "{liar}");
        assert_eq!(blobs.verified(digest(), length()).unwrap(), None, "{liar}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{liar}: not within one try");
        let second = soon(fetch(link.clone(), blobs.clone(), digest(), length())).await;
        assert_eq!(second, Ok(()), "{liar}");
        let kept = blobs.verified(digest(), length()).unwrap();
        assert_eq!(kept.as_deref(), Some(&BYTES[..]), "{liar}");
    }
    // Positive control: an honest first address is the only one that is asked.
    let (first, _) = site.address(Does::Well).await;
    let (second, asked) = site.address(Does::Well).await;
    let (_folder, blobs) = blobs();
    let link = site.link(first, &[second]);
    assert_eq!(fetch(link, blobs, digest(), length()).await, Ok(()));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

fn session(link: &Link) -> Session {
    let ceiling = include_str!("../../policies/device/demo.toml");
    let folder = std::path::PathBuf::new();
    let proven = Proven::new(Clock::start());
    let anchor = Site::of("plant.example").anchor;
    let revoked = ServerLists::open(&RealDisk, &folder, &(&anchor).into(), &proven).unwrap();
    Session {
        link: link.clone(),
        id: SpiffeId::Device(fleet("plant.example"), DeviceId::parse("press-1").unwrap()),
        keys: vec![],
        nonce: Nonce([7; 16]),
        report: Report::default(),
        record: None,
        settled: None,
        plan_known: redan_protocol::Seconds::default(),
        now: UnixSeconds::default(),
        proven,
        revoked: std::rc::Rc::new(std::cell::RefCell::new(revoked)),
        ceiling: redan_policy::parse_device("ceiling", ceiling).unwrap(),
        release: Files(folder.clone()),
        director: Files(folder),
        events: tokio::sync::mpsc::unbounded_channel().0,
    }
}

#[tokio::test]
async fn a_check_in_that_one_address_does_not_answer_well_goes_to_the_other_at_the_next_try() {
    let (site, stranger) = (Site::of("plant.example"), Site::of("plant.example"));
    for (liar, address) in liars(&site, &stranger).await {
        let (honest, asked) = site.address(Does::Well).await;
        let link = site.link(address, &[honest]);
        let first = soon(Box::pin(session(&link).run())).await.map(drop);
        assert!(first.is_err(), "{liar}");
        if liar == "another authority" {
            let code = first.map_err(|unreached: Unreached| unreached.code());
            assert_eq!(code, Err(Code::ForeignServer));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{liar}: not within one try");
        let second = soon(Box::pin(session(&link).run())).await.map(drop);
        assert!(
            second.is_ok(),
            "{liar}: {:?}",
            second.map_err(|error| error.code())
        );
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{liar}");
    }
}

/// Whoever is told so may confirm it without a signature.
#[tokio::test]
async fn a_device_says_what_it_has_settled_on_only_while_the_files_of_that_are_good() {
    let site = Site::of("plant.example");
    let link = site.link(site.address(Does::Well).await.0, &[]);
    let [release, director] = [3, 4].map(Version64::new);
    // Of the time nothing is proven here, so it is the beginning of all time.
    for until in [u64::MAX, 0].map(UnixSeconds::new) {
        let mut session = session(&link);
        session.settled = Some(Settled {
            versions: (release, director),
            until,
        });
        assert!(Box::pin(session.run()).await.is_ok());
    }
    assert!(Box::pin(session(&link).run()).await.is_ok());
    let told = site.told.lock().unwrap();
    let settled: Vec<_> = told.iter().map(|check_in| check_in.settled).collect();
    assert_eq!(settled, [Some(Versions { release, director }), None, None]);
}

/// It repeats, well formed and with the server's own TLS key, that there is nothing new, and nobody could tell.
#[tokio::test]
async fn an_address_that_never_has_news_is_left_after_a_bounded_number_of_answers() {
    let site = Site::of("plant.example");
    let (frozen, heard) = site.address(Does::Well).await;
    let (other, asked) = site.address(Does::Well).await;
    let link = site.link(frozen, &[other]);
    for _ in 0..QUIET_MAX {
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        assert!(Box::pin(session(&link).run()).await.is_ok());
    }
    assert!(Box::pin(session(&link).run()).await.is_ok());
    assert_eq!(heard.load(Ordering::SeqCst), usize::try_from(QUIET_MAX).unwrap());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn two_tries_that_fail_at_once_do_not_lead_back_to_the_liar() {
    let site = Site::of("plant.example");
    let link = site.link("liar:1".to_owned(), &["honest:1".to_owned(), "liar:1".to_owned()]);
    let (first, second) = (link.turn(), link.clone().turn());
    link.pass(first);
    link.pass(second);
    assert_eq!(link.server(), "honest:1");
    link.pass(link.turn());
    assert_eq!(link.server(), "liar:1", "named twice, and asked once in a round");
}
