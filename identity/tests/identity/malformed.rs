//! Clients that shake hands wrongly, record by record, and what the server reads of it before it says no (attacks P09, P11–P13).

use crate::handshake::{bare, pkcs8};
use crate::stage::{Fleet, fleet, now};
use redan_identity::tls::{Accepted, FleetServer, KeyExchange, accept, fleet_server_with};
use redan_identity::{CertificateDer, KeyFile};
use redan_protocol::Code;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::hmac;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConfig, ServerConnection,
    SupportedCipherSuite, Tls13CipherSuite,
};
use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;

/// Bytes of one handshake that a server holds at most (attacks.md P13), and one record more that is under way.
const HELD_MAX: usize = (64 + 17) * 1024;
/// What a client may push into the pipe ahead of the server.
const PIPE: usize = 4096;
const HANDSHAKE: u8 = 22;
const APPLICATION: u8 = 23;
const REQUEST: &[u8] = b"POST /v1/checkin HTTP/1.1\r\nhost: control.plant.example\r\n\r\n";

/// Counts what is read from it.
struct Counted {
    stream: DuplexStream,
    read: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, out);
        self.read.fetch_add(out.filled().len() - before, Ordering::SeqCst);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a server made of one connection: the first bytes of a request, or why there was none.
type Made = Result<Vec<u8>, Code>;

/// A server for one connection, and how many bytes it has read.
struct Served {
    near: DuplexStream,
    made: JoinHandle<Made>,
    read: Arc<AtomicUsize>,
}

impl Served {
    fn by(fleet: &Fleet) -> Self {
        Self::with(fleet, &fleet.server)
    }

    fn with(fleet: &Fleet, server: &FleetServer) -> Self {
        let fleets = redan_identity::tls::Fleets::default();
        fleets.put(&fleet.anchor, server);
        let (near, far) = tokio::io::duplex(PIPE);
        let read = Arc::new(AtomicUsize::new(0));
        let stream = Counted {
            stream: far,
            read: Arc::clone(&read),
        };
        let made = tokio::spawn(async move {
            let Accepted { mut stream, .. } = accept(&fleets, stream, now).await?;
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            request.truncate(length);
            Ok(request)
        });
        Self { near, made, read }
    }

    /// Says all of this, then nothing more; what came of it, and how much of it was read.
    async fn told(self, bytes: &[u8]) -> (Made, usize) {
        let (mut from, mut to) = tokio::io::split(self.near);
        let listening = tokio::spawn(async move {
            // What the server says fills the pipe, else.
            let mut said = Vec::new();
            drop(from.read_to_end(&mut said).await);
        });
        // It may have gone meanwhile: that is what is asked.
        drop(to.write_all(bytes).await);
        drop(to.shutdown().await);
        let made = self.made.await.unwrap();
        drop(to);
        listening.abort();
        (made, self.read.load(Ordering::SeqCst))
    }

    /// A whole handshake of a client and a request after it, every flight of the client changed on its way. Gives also every byte
    /// the client sent, and the client.
    async fn shaken(mut self, client: ClientConfig, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Shaken {
        let name = ServerName::try_from("control.plant.example").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        client.set_buffer_limit(None);
        if let Some(mut early) = client.early_data() {
            early.write_all(REQUEST).unwrap();
        }
        let (mut sent, mut asked) = (Vec::new(), false);
        let mut refused = None;
        loop {
            if !client.is_handshaking() && !asked {
                client.writer().write_all(REQUEST).unwrap();
                asked = true;
            }
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            let flight = change(flight);
            sent.extend_from_slice(&flight);
            if !flight.is_empty() && self.near.write_all(&flight).await.is_err() {
                break;
            }
            if refused.is_some() || self.made.is_finished() {
                break;
            }
            let mut heard = vec![0; 16 * 1024];
            match self.near.read(&mut heard).await {
                Ok(0) | Err(_) => break,
                Ok(length) => drop(client.read_tls(&mut &heard[..length]).unwrap()),
            }
            refused = client.process_new_packets().err();
        }
        Shaken {
            made: self.made.await.unwrap(),
            read: self.read.load(Ordering::SeqCst),
            sent,
            client,
        }
    }
}

struct Shaken {
    made: Made,
    read: usize,
    sent: Vec<u8>,
    client: ClientConnection,
}

/// A client of ours in all but what it takes: any server.
fn client(fleet: &Fleet, provider: CryptoProvider) -> ClientConfig {
    let (key, chain) = fleet.device("press-1");
    presenting(&key, chain, provider)
}

fn presenting(key: &KeyFile, chain: Vec<CertificateDer<'static>>, provider: CryptoProvider) -> ClientConfig {
    let key = PrivateKeyDer::Pkcs8(pkcs8(key).into());
    let like = bare(None);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(crate::handshake::any_server())
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = like.alpn_protocols;
    config
}

/// The records of a flight: type and content.
fn records(mut flight: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = flight {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, rest[..length].to_vec()));
        flight = &rest[length..];
    }
    records
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3], &length[..], content].concat()
}

/// A handshake message (RFC 8446 §4).
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// The `ClientHello` of a client that would be let in.
fn hello(fleet: &Fleet) -> Vec<u8> {
    hello_of(fleet, default_provider())
}

fn hello_of(fleet: &Fleet, provider: CryptoProvider) -> Vec<u8> {
    let name = ServerName::try_from("control.plant.example").unwrap();
    let config = Arc::new(client(fleet, provider));
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut flight = Vec::new();
    client.write_tls(&mut flight).unwrap();
    let (_, hello) = records(&flight).remove(0);
    hello
}

#[tokio::test]
async fn a_handshake_in_fragments_of_any_size_is_the_same_handshake() {
    let fleet = fleet("plant.example");
    for size in [1, 7, 100, 1200, 16_384] {
        let split = move |flight: Vec<u8>| {
            let mut split = Vec::new();
            for (kind, content) in records(&flight) {
                // Only what is not encrypted yet can be cut by whoever is on the line.
                let size = if kind == HANDSHAKE {
                    size
                } else {
                    content.len().max(1)
                };
                for part in content.chunks(size) {
                    split.extend(record(kind, part));
                }
            }
            split
        };
        let shaken = Served::by(&fleet)
            .shaken(client(&fleet, default_provider()), split)
            .await;
        assert_eq!(shaken.made.as_deref(), Ok(REQUEST), "{size}");
    }
}

/// Holds: a line to the server, and no key at all.
#[tokio::test]
async fn a_handshake_that_begins_wrongly_is_refused_before_much_of_it_is_read() {
    let fleet = fleet("plant.example");
    let hello = hello(&fleet);
    let body = &hello[4..];
    let changed = |at: usize, to: u8| {
        let mut changed = hello.clone();
        changed[at] = to;
        changed
    };
    let endless = [&[1, 0xff, 0xff, 0xff][..], &vec![0; 1 << 20]].concat();
    let chopped: Vec<u8> = endless
        .chunks(16_384)
        .flat_map(|part| record(HANDSHAKE, part))
        .collect();
    let drops: Vec<u8> = std::iter::repeat_n(record(HANDSHAKE, &[]), 100_000)
        .flatten()
        .collect();
    let warnings: Vec<u8> = std::iter::repeat_n(record(21, &[1, 90]), 100_000)
        .flatten()
        .collect();
    let ciphers: Vec<u8> = std::iter::repeat_n(record(20, &[1]), 100_000).flatten().collect();
    for (what, bytes) in [
        ("a Finished first", record(HANDSHAKE, &message(20, &[0; 32]))),
        (
            "a Certificate first",
            record(HANDSHAKE, &message(11, &[0, 0, 0, 0])),
        ),
        ("a ServerHello", record(HANDSHAKE, &message(2, body))),
        ("application data first", record(APPLICATION, REQUEST)),
        ("nothing but HTTP", REQUEST.to_vec()),
        ("an alert", record(21, &[2, 40])),
        ("another type of record", record(99, &hello)),
        (
            "bytes after the extensions",
            record(HANDSHAKE, &message(1, &[body, &[0]].concat())),
        ),
        (
            "a byte less than it says",
            record(HANDSHAKE, &message(1, &body[..body.len() - 1])),
        ),
        (
            "a byte more in the record",
            record(HANDSHAKE, &[&hello[..], &[0]].concat()),
        ),
        ("a version of its own", record(HANDSHAKE, &changed(4, 9))),
        ("a session id of 255 bytes", record(HANDSHAKE, &changed(38, 255))),
        (
            "two hellos",
            [record(HANDSHAKE, &hello), record(HANDSHAKE, &hello)].concat(),
        ),
        (
            "a record of 64 KiB",
            [&[HANDSHAKE, 3, 1, 0xff, 0xff][..], &vec![0; 70_000]].concat(),
        ),
        ("a message of 16 MiB", chopped),
        ("records without content", drops),
        ("warnings without end", warnings),
        ("changes of cipher without end", ciphers),
    ] {
        let (made, read) = Served::by(&fleet).told(&bytes).await;
        assert_eq!(made, Err(Code::BadRequest), "{what}");
        assert!(read <= HELD_MAX, "{what}: {read} bytes were read");
    }
}

/// What is done to the encrypted records of a flight.
type Change = fn(Vec<(u8, Vec<u8>)>) -> Vec<(u8, Vec<u8>)>;

/// Holds: a device's key, and a TLS of its own making that gets one step of the handshake wrong.
#[tokio::test]
async fn a_handshake_that_ends_wrongly_is_refused_with_nothing_of_it_read_as_a_request() {
    let fleet = fleet("plant.example");
    let shaken = Served::by(&fleet)
        .shaken(client(&fleet, default_provider()), |flight| flight)
        .await;
    assert_eq!(shaken.made.as_deref(), Ok(REQUEST), "positive control");
    // A wrong proof of the whole handshake, encrypted as it should be.
    let shaken = Served::by(&fleet)
        .shaken(client(&fleet, forging()), |flight| flight)
        .await;
    assert_eq!(shaken.made, Err(Code::BadRequest), "a bad Finished");
    // What is encrypted, changed on the line; out of order; twice; without its last record; with one of our own among it.
    let changes: [(&str, Change); 6] = [
        ("a bit of the first", |mut records| {
            records[0].1[0] ^= 1;
            records
        }),
        ("a bit of the last", |mut records| {
            let last = records.last_mut().unwrap();
            *last.1.last_mut().unwrap() ^= 1;
            records
        }),
        ("the first twice", |mut records| {
            records.insert(0, records[0].clone());
            records
        }),
        ("the last first", |mut records| {
            records.rotate_right(1);
            records
        }),
        ("one cut short", |mut records| {
            let last = records.last_mut().unwrap();
            last.1.pop();
            records
        }),
        ("one in the clear", |mut records| {
            records.insert(0, (HANDSHAKE, message(20, &[0; 48])));
            records
        }),
    ];
    for (what, change) in changes {
        let bent = |flight: Vec<u8>| {
            let (clear, secret): (Vec<_>, Vec<_>) = records(&flight)
                .into_iter()
                .partition(|(kind, _)| *kind != APPLICATION);
            let secret = if secret.is_empty() { secret } else { change(secret) };
            let all = clear.into_iter().chain(secret);
            all.flat_map(|(kind, content)| record(kind, &content)).collect()
        };
        let shaken = Served::by(&fleet)
            .shaken(client(&fleet, default_provider()), bent)
            .await;
        assert!(
            shaken.made.is_err() || shaken.made.as_deref() == Ok(&[][..]),
            "{what}: {:?}",
            shaken.made
        );
        assert!(shaken.read <= HELD_MAX, "{what}: {} bytes were read", shaken.read);
    }
}

/// Holds: a device's key, and certificates without end that nobody asked for.
#[tokio::test]
async fn a_chain_of_a_mebibyte_or_of_a_hundred_certificates_is_refused_before_64_kib_of_it_are_read() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.device("press-1");
    let (_, filler) = fleet.operator("ada");
    let longer = |count: usize| {
        let more = std::iter::repeat_n(filler[1].clone(), count);
        chain.iter().cloned().chain(more).collect::<Vec<_>>()
    };
    let million = (1 << 20) / filler[1].len() + 1;
    for (count, wanted) in [
        (0, Ok(REQUEST)),
        (1, Err(Code::CertificateProfile)),
        (98, Err(Code::CertificateProfile)),
        (million, Err(Code::BadRequest)),
    ] {
        let client = presenting(&key, longer(count), default_provider());
        let shaken = Served::by(&fleet).shaken(client, |flight| flight).await;
        assert_eq!(
            shaken.made.as_deref().map_err(|code| *code),
            wanted,
            "{count} more"
        );
        assert!(
            shaken.read <= HELD_MAX,
            "{count} more: {} bytes were read",
            shaken.read
        );
    }
}

/// Holds: everything that a device has ever sent, to the byte.
#[tokio::test]
async fn a_recorded_connection_sent_again_to_the_byte_is_no_connection() {
    let fleet = fleet("plant.example");
    let shaken = Served::by(&fleet)
        .shaken(client(&fleet, default_provider()), |flight| flight)
        .await;
    assert_eq!(shaken.made.as_deref(), Ok(REQUEST), "positive control");
    for _ in 0..2 {
        let (made, _) = Served::by(&fleet).told(&shaken.sent).await;
        assert_eq!(made, Err(Code::BadRequest));
    }
}

/// Holds: a client that was given a ticket for early data, by a server with our certificate that does what ours never does; and the
/// record of what that client then sent.
#[tokio::test]
async fn recorded_early_data_is_not_read_as_a_request_neither_at_first_nor_again() {
    let fleet = fleet("plant.example");
    let mut config = client(&fleet, default_provider());
    config.enable_early_data = true;
    let mut generous = ServerConfig::clone(&fleet.server.control);
    generous.send_tls13_tickets = 1;
    generous.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    generous.max_early_data_size = 4096;
    let generous = Arc::new(generous);
    let secret = |shaken: &Shaken| {
        let records = records(&shaken.sent).into_iter();
        records.filter(|(kind, _)| *kind == APPLICATION).count()
    };
    let without = secret(&Served::by(&fleet).shaken(config.clone(), |flight| flight).await);
    ticket_from(&generous, &config);
    // The client has a ticket now, and sends a request with its first flight.
    let shaken = Served::by(&fleet).shaken(config.clone(), |flight| flight).await;
    assert!(!shaken.client.is_early_data_accepted());
    assert_eq!(shaken.client.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(
        shaken.made.as_deref(),
        Ok(REQUEST),
        "asked again after the handshake, once"
    );
    assert_eq!(secret(&shaken), without + 1, "there was early data");
    // Sent again to the byte: whole, and no more than the first flight with its early data.
    for _ in 0..2 {
        let (made, _) = Served::by(&fleet).told(&shaken.sent).await;
        assert_eq!(made, Err(Code::BadRequest));
    }
    let first: Vec<u8> = records(&shaken.sent)
        .iter()
        .take(3)
        .flat_map(|(kind, content)| record(*kind, content))
        .collect();
    let (made, _) = Served::by(&fleet).told(&first).await;
    assert_eq!(made, Err(Code::BadRequest));
}

/// A whole handshake in memory with a server that gives tickets, so that the client keeps one.
fn ticket_from(server: &Arc<ServerConfig>, client: &ClientConfig) {
    let name = ServerName::try_from("control.plant.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    for _ in 0..6 {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        let mut flight = &flight[..];
        while !flight.is_empty() {
            server.read_tls(&mut flight).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut flight = &flight[..];
        while !flight.is_empty() {
            client.read_tls(&mut flight).unwrap();
            client.process_new_packets().unwrap();
        }
        drop(server.reader().read(&mut [0; 16]));
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
}

/// A client that would rather not pay for the hybrid group, and a fleet that wants it.
#[tokio::test]
async fn a_client_that_guesses_a_classical_group_is_asked_for_a_hybrid_one_and_gives_it_or_goes() {
    let fleet = fleet("plant.example");
    let hybrid = fleet_server_with(
        KeyExchange::Hybrid,
        &fleet.anchor,
        &fleet.server_chain,
        &fleet.server_key,
        now(),
    )
    .unwrap();
    let offering = |kx_groups| CryptoProvider {
        kx_groups,
        ..default_provider()
    };
    let both = offering(vec![kx_group::X25519, kx_group::X25519MLKEM768]);
    let shaken = Served::with(&fleet, &hybrid)
        .shaken(client(&fleet, both.clone()), |flight| flight)
        .await;
    assert_eq!(shaken.made.as_deref(), Ok(REQUEST));
    let kind = shaken.client.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
    let group = shaken.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    // Where the fleet takes any, the first guess is as good.
    let shaken = Served::by(&fleet)
        .shaken(client(&fleet, both), |flight| flight)
        .await;
    assert_eq!(shaken.client.handshake_kind(), Some(HandshakeKind::Full));
    for classical in [
        vec![kx_group::X25519],
        vec![kx_group::SECP256R1, kx_group::SECP384R1],
    ] {
        let config = client(&fleet, offering(classical));
        let shaken = Served::with(&fleet, &hybrid)
            .shaken(config, |flight| flight)
            .await;
        assert_eq!(shaken.made, Err(Code::BadRequest));
    }
    // Asked for the hybrid group, it says the same as before once more.
    let hello = hello_of(&fleet, offering(vec![kx_group::X25519, kx_group::X25519MLKEM768]));
    let twice = [record(HANDSHAKE, &hello), record(HANDSHAKE, &hello)].concat();
    let (made, _) = Served::with(&fleet, &hybrid).told(&twice).await;
    assert_eq!(made, Err(Code::BadRequest));
}

/// A provider whose proof of the handshake (RFC 8446 §4.4.4) is wrong in one bit.
fn forging() -> CryptoProvider {
    static FORGED: std::sync::LazyLock<Tls13CipherSuite> = std::sync::LazyLock::new(|| {
        let honest = suite();
        Tls13CipherSuite {
            common: rustls::crypto::CipherSuiteCommon {
                suite: CipherSuite::TLS13_AES_256_GCM_SHA384,
                hash_provider: honest.common.hash_provider,
                confidentiality_limit: honest.common.confidentiality_limit,
            },
            hkdf_provider: &Forging,
            aead_alg: honest.aead_alg,
            quic: None,
        }
    });
    CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(&FORGED)],
        ..default_provider()
    }
}

fn honest() -> &'static dyn Hkdf {
    suite().hkdf_provider
}

fn suite() -> &'static Tls13CipherSuite {
    cipher_suite::TLS13_AES_256_GCM_SHA384.tls13().unwrap()
}

/// Wrong in what it signs itself; right in what it checks the server's with, which comes first.
struct Forging;

impl Hkdf for Forging {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        honest().extract_from_zero_ikm(salt)
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        honest().extract_from_secret(salt, secret)
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        honest().expander_for_okm(okm)
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> hmac::Tag {
        static PROOFS: AtomicUsize = AtomicUsize::new(0);
        let tag = honest().hmac_sign(key, message);
        if PROOFS.fetch_add(1, Ordering::SeqCst) == 0 {
            return tag;
        }
        let mut wrong = tag.as_ref().to_vec();
        wrong[0] ^= 1;
        hmac::Tag::new(&wrong)
    }
}
