//! The server as other people's TLS finds it: `openssl s_client` and Python's `ssl`, which insist on the wrong thing (attacks P06, P10–P14).

use crate::raw::Raw;
use crate::renewal::STAMP;
use crate::site::{Site, config};
use redan_control::config::{Exchange, FleetSettings};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// One request over `openssl s_client`; everything it shows, of the handshake and of the answer.
async fn openssl(address: SocketAddr, bundle: Option<&Path>, more: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-msg", "-ign_eof"]);
    if !more.contains(&"-servername") && !more.contains(&"-noservername") {
        command.args(["-servername", "control.plant.example"]);
    }
    if !more.contains(&"-alpn") && !more.contains(&"-no-alpn") {
        command.args(["-alpn", "http/1.1"]);
    }
    command.args(more.iter().filter(|word| **word != "-no-alpn"));
    if let Some(bundle) = bundle {
        // The leaf is the first certificate of the bundle; its issuer has to stand alone.
        let text = std::fs::read_to_string(bundle).unwrap();
        let issuer = text.rfind("-----BEGIN CERTIFICATE-----").unwrap();
        let chain = bundle.with_extension("issuer");
        std::fs::write(&chain, &text[issuer..]).unwrap();
        let paths = [("-cert", bundle), ("-key", bundle), ("-cert_chain", &chain)];
        for (option, path) in paths {
            command.arg(option).arg(path);
        }
    }
    let request = "GET /tuf/release/timestamp.json HTTP/1.1\r\nhost: control.plant.example\r\nconnection: close\r\n\r\n";
    let asked = move || {
        use std::io::Write as _;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may be gone already: what it says shows why.
        drop(stdin.write_all(request.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&all).into_owned()
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

const ANSWERED: &str = "HTTP/1.1 200 OK";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_is_answered_when_it_does_everything_right_and_not_when_it_does_one_thing_wrong() {
    let site = Site::open().await;
    let device = site.enrolled("press-1").await;
    let right = openssl(site.address, Some(&device), &["-tls1_3"]).await;
    assert!(right.contains(ANSWERED), "positive control: {right}");
    // Not one ticket, on a connection that was answered (attack P10).
    assert!(!right.contains("NewSessionTicket"), "{right}");
    let wrong: &[&[&str]] = &[
        &["-tls1_2"],
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-alpn", "spdy/3"],
        &["-no-alpn"],
        &["-servername", "control.other.example"],
        &["-servername", "plant.example"],
        &["-noservername"],
        &["-tls1_3", "-curves", "P-256"],
        &["-tls1_3", "-curves", "P-384"],
        &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"],
        &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"],
    ];
    for more in wrong {
        let seen = openssl(site.address, Some(&device), more).await;
        assert!(!seen.contains("HTTP/1.1"), "{more:?}: {seen}");
    }
    // No certificate of a client.
    let seen = openssl(site.address, None, &["-tls1_3"]).await;
    assert!(!seen.contains("HTTP/1.1"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_wants_hybrid_key_exchange_takes_no_other() {
    let site = Site::open().await;
    let device = site.enrolled("press-1").await;
    let classical = ["-tls1_3", "-curves", "X25519"];
    let seen = openssl(site.address, Some(&device), &classical).await;
    assert!(seen.contains(ANSWERED), "the fleet takes any: {seen}");
    let mut config = config(site.folder.path());
    let settings = FleetSettings {
        key_exchange: Exchange::Hybrid,
        ..FleetSettings::default()
    };
    config.fleets.insert(site.fleet.clone(), settings);
    let site = site.restart_with(config).await;
    let seen = openssl(site.address, Some(&device), &classical).await;
    assert!(!seen.contains("HTTP/1.1"), "{seen}");
    // Our own client, which prefers it.
    assert_eq!(site.connect(&device).await.unwrap().get(STAMP).await.status, 200);
}

/// Opens a TCP connection from an address of its own, says nothing, and keeps it.
async fn half_open(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Until the other end has closed it; how much it said.
async fn said(stream: &mut TcpStream) -> usize {
    let mut read = Vec::new();
    drop(stream.read_to_end(&mut read).await);
    read.len()
}

/// The attacker opens connections from one address and says nothing on them.
#[tokio::test]
async fn a_flood_of_half_open_connections_from_one_address_keeps_nobody_else_out() {
    let site = Site::open().await;
    let device = site.enrolled("press-1").await;
    let mut config = config(site.folder.path());
    config.connections_max = 500;
    config.handshakes_per_address_max = 20;
    let site = site.restart_with(config).await;
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(half_open([127, 0, 0, 2], site.address).await);
    }
    // While all of them are open, an honest device at another address is served.
    let mut honest = site.connect(&device).await.unwrap();
    assert_eq!(honest.get(STAMP).await.status, 200);
    // Those over the limit were closed at once, without a byte, each before it had said anything.
    for over in &mut flood[20..] {
        assert_eq!(said(over).await, 0);
    }
    // And one of the flood's own address that is over the limit is closed in the same way.
    let mut more = half_open([127, 0, 0, 2], site.address).await;
    assert_eq!(said(&mut more).await, 0);
    drop(flood);
    assert_eq!(honest.get(STAMP).await.status, 200);
}

#[tokio::test]
async fn of_half_open_connections_over_the_limit_the_oldest_gives_way() {
    let site = Site::open().await;
    let device = site.enrolled("press-1").await;
    let mut config = config(site.folder.path());
    config.handshakes_max = 3;
    let site = site.restart_with(config).await;
    let mut honest = site.connect(&device).await.unwrap();
    assert_eq!(honest.get(STAMP).await.status, 200);
    let mut open = Vec::new();
    for last in 2..=4 {
        open.push(half_open([127, 0, 0, last], site.address).await);
    }
    open.push(half_open([127, 0, 0, 5], site.address).await);
    assert_eq!(said(&mut open.remove(0)).await, 0, "closed unanswered");
    // Who has shaken hands before goes on; and there is room again when one gives up.
    assert_eq!(honest.get(STAMP).await.status, 200);
    let mut given_up = open.pop().unwrap();
    given_up.write_all(b"noise, no handshake").await.unwrap();
    said(&mut given_up).await;
    assert_eq!(site.connect(&device).await.unwrap().get(STAMP).await.status, 200);
}

/// The attacker has more addresses than the server has places for handshakes, and fills every place anew as soon as it is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_more_addresses_than_the_limit_for_all_keeps_no_device_out() {
    const PLACES: usize = 40;
    let site = Site::open().await;
    let mut devices = Vec::new();
    for number in 0..10 {
        devices.push(site.enrolled(&format!("press-{number}")).await);
    }
    let mut config = config(site.folder.path());
    config.connections_max = 500;
    config.handshakes_max = PLACES;
    let site = site.restart_with(config).await;
    let address = site.address;
    let mut flood = std::collections::VecDeque::new();
    let mut opened = 0_u32;
    let mut wave = async |count: usize| {
        for _ in 0..count {
            let [_, _, high, low] = opened.to_be_bytes();
            flood.push_back(half_open([127, 1, high, low.max(1)], address).await);
            opened += 1;
        }
        // What the server closed is closed here, too, so that the flood costs this process no more than its places.
        while flood.len() > PLACES {
            assert_eq!(said(&mut flood.pop_front().unwrap()).await, 0);
        }
    };
    wave(PLACES * 3).await;
    for device in &devices {
        // All places are taken; half of them once more while each device asks.
        let asked = async { site.connect(device).await.unwrap().get(STAMP).await.status };
        let (status, ()) = tokio::join!(asked, wave(PLACES / 2));
        assert_eq!(status, 200);
    }
    // Who has shaken hands is no longer among those who give way.
    let mut honest = site.connect(&devices[0]).await.unwrap();
    wave(PLACES * 3).await;
    assert_eq!(honest.get(STAMP).await.status, 200);
}

/// The attacker replays what it recorded, or sends early data for a ticket it made up: Python's `ssl` cannot, so the bytes are our own.
#[tokio::test]
async fn early_data_for_a_ticket_that_was_made_up_is_never_read_as_a_request() {
    let site = Site::open().await;
    let device = site.enrolled("press-1").await;
    let before = site.operator().await.get("/v1/audit").await.json();
    // A ClientHello of openssl's with a session of its own making.
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session.pem");
    let early = folder.path().join("early.txt");
    std::fs::write(
        &early,
        "POST /v1/devices/press-1/revoke HTTP/1.1\r\nhost: control.plant.example\r\n\r\n",
    )
    .unwrap();
    let (session, early) = (session.to_str().unwrap(), early.to_str().unwrap());
    let seen = openssl(site.address, Some(&device), &["-tls1_3", "-sess_out", session]).await;
    assert!(seen.contains(ANSWERED), "positive control: {seen}");
    // There is no ticket, so there is no session that openssl would write.
    assert!(!Path::new(session).exists(), "a session that could be resumed");
    let psk = [
        "-tls1_3",
        "-psk",
        "00112233445566778899aabbccddeeff",
        "-early_data",
        early,
    ];
    let seen = openssl(site.address, Some(&device), &psk).await;
    assert!(!seen.contains("Early data was accepted"), "{seen}");
    assert!(!seen.contains("Reused, TLSv1.3"), "{seen}");
    assert_eq!(site.operator().await.get("/v1/audit").await.json(), before);
}

const CONNECTIONS: usize = 1000;

/// Idle connections, of which the device itself may know nothing any more (attack P06).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_a_thousand_open_connections_before_it_returns() {
    let site = Site::with("plant.example", CONNECTIONS + 32).await;
    let bundle = site.enrolled("press-1").await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(Raw::known(&site, &bundle).await);
    }
    // The last of them has its place: an answer shows it.
    let ask = format!("GET {STAMP} HTTP/1.1\r\nhost: control.plant.example\r\n\r\n");
    for raw in &mut open {
        raw.send(&ask).await;
        assert_eq!(raw.status().await, "200");
    }
    let mut operator = site.operator().await;
    let revoked = operator
        .post("/v1/devices/press-1/revoke", &serde_json::json!({}))
        .await;
    assert_eq!(revoked.status, 200);
    let text = operator.get("/metrics").await.body;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("redan_device_connections 0\n"), "{text}");
    for raw in &mut open {
        let rest = raw.rest().await;
        assert!(
            !rest.contains("HTTP/1.1"),
            "not a word more than the answer before"
        );
    }
}
