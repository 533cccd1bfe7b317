//! What a server that holds every key of the connection can do to a device with its answers alone (attacks T03, T04, T13).

use crate::fetch::{Blobs, transfer};
use crate::link::Standing;
use crate::patience::{WINDOW, patience};
use crate::refresh::{Which, get};
use redan_identity::client::{Connection, STEP_WITHIN};
use redan_identity::tls::{Fleets, accept, device_client, fleet_server};
use redan_identity::{FleetCa, IssuerKind, KeyFile};
use redan_protocol::{ByteCount, Code, DeviceId, Digest, FleetId, SpiffeId, UnixSeconds};
use redan_trust::Answer;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// For a file of metadata.
const LIMIT: ByteCount = ByteCount::kib(16);
/// The evil server's patience: where it ends an answer that should have been given up long before.
const ENDLESS: usize = 8 * 1024 * 1024;
/// What may be on its way when an answer is given up: buffers of the pipe, of TLS and of HTTP.
const UNDER_WAY: usize = 1024 * 1024;

type Stream = tokio_rustls::server::TlsStream<DuplexStream>;

fn now() -> UnixSeconds {
    UnixSeconds::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// A connection to a server that plays `script` once it has read the head of one request.
async fn open<F>(
    script: impl FnOnce(Stream, String) -> F + Send + 'static,
) -> (Connection, JoinHandle<F::Output>)
where
    F: Future<Output: Send> + Send + 'static,
{
    let fleet = FleetId::parse("plant.example").unwrap();
    let ca = FleetCa::found(fleet.clone(), now()).unwrap();
    let anchor = ca.anchor().unwrap();
    let issued = |kind, id: &SpiffeId| {
        let key = KeyFile::generate().unwrap();
        let chain = ca
            .issuer(kind, now())
            .unwrap()
            .issue_for(id, &key, now())
            .unwrap();
        (key, chain)
    };
    let (key, chain) = issued(IssuerKind::Server, &SpiffeId::Control(fleet.clone()));
    let fleets = Fleets::default();
    fleets.put(&anchor, &fleet_server(&anchor, &chain, &key, now()).unwrap());
    let id = SpiffeId::Device(fleet, DeviceId::parse("press-1").unwrap());
    let (key, chain) = issued(IssuerKind::Device, &id);
    let client = device_client(&anchor, chain, &key, UnixSeconds::default()).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(async move {
        let mut stream = accept(&fleets, far, now).await.unwrap().stream;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        script(stream, String::from_utf8(head).unwrap()).await
    });
    let connection = Connection::open(near, client, "control.plant.example")
        .await
        .unwrap();
    (connection, server)
}

/// What the TUF workflow is told after an answer of these bytes and the end of the connection.
async fn answered(bytes: &'static [u8]) -> Answer {
    let (mut connection, _server) = open(async move |mut stream: Stream, _| {
        stream.write_all(bytes).await.unwrap();
        drop(stream.shutdown().await);
    })
    .await;
    get(&mut connection, Which::Release, "2.root.json", LIMIT).await
}

#[tokio::test]
async fn nothing_but_404_is_absence() {
    let file = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(file, Answer::Bytes(b"{}".to_vec()), "positive control");
    let absent = answered(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(absent, Answer::Absent);
    for failed in [
        &b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved Permanently\r\nlocation: /nowhere\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        // A part, a part of the head, a reset, and something else.
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno",
        b"HTTP/1.1 404 Not Fou",
        b"",
        b"2.root.json is not here\r\n\r\n",
    ] {
        assert_eq!(
            answered(failed).await,
            Answer::Failed,
            "{}",
            String::from_utf8_lossy(failed)
        );
    }
}

/// Sends the head and then bytes until nobody takes them; says how many.
async fn endless(mut stream: Stream, head: &str, chunked: bool) -> usize {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    while sent < ENDLESS {
        let data = if chunked {
            b"400\r\n"
                .iter()
                .chain(&[b' '; 1024])
                .chain(b"\r\n")
                .copied()
                .collect()
        } else {
            vec![b' '; 1024]
        };
        if stream.write_all(&data).await.is_err() {
            break;
        }
        sent += 1024;
    }
    sent
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_at_its_limit() {
    for (head, chunked) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", true),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n",
            false,
        ),
        // No length at all: the answer ends with the connection, and the connection does not end.
        ("HTTP/1.1 200 OK\r\n\r\n", false),
    ] {
        let (mut connection, server) =
            open(async move |stream, _| endless(stream, head, chunked).await).await;
        let answer = get(&mut connection, Which::Release, "timestamp.json", LIMIT).await;
        assert_eq!(answer, Answer::Failed);
        drop(connection);
        let sent = server.await.unwrap();
        assert!(sent < UNDER_WAY, "{sent} bytes were taken of {head}");

        let (_folder, blobs) = blobs();
        let (mut connection, server) =
            open(async move |stream, _| endless(stream, head, chunked).await).await;
        let mut partial = blobs.resume(digest(), length()).unwrap();
        let refused = transfer(
            (&mut connection, &mut Standing::default()),
            &mut partial,
            digest(),
        )
        .await;
        assert_eq!(refused, Err(Code::LengthMismatch));
        assert_eq!(partial.offset(), 0, "nothing of it is kept");
        drop(connection);
        let sent = server.await.unwrap();
        assert!(sent < UNDER_WAY, "{sent} bytes were taken of {head}");
    }
}

const BYTES: [u8; 4096] = [7; 4096];

fn digest() -> Digest {
    Digest::of(&BYTES)
}

fn length() -> ByteCount {
    ByteCount::new(4096)
}

fn blobs() -> (tempfile::TempDir, Blobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(folder.path().to_owned());
    (folder, blobs)
}

/// One byte at a time, each just before anybody loses patience with the next one; `quick` of them come at once.
async fn drip(mut stream: Stream, quick: usize) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BYTES.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&BYTES[..quick]).await.unwrap();
    for byte in &BYTES[quick..] {
        tokio::time::sleep(STEP_WITHIN.saturating_sub(Duration::from_secs(1))).await;
        if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_file_that_drips_is_given_up_below_the_floor() {
    for quick in [0, BYTES.len() * 99 / 100] {
        let (mut connection, _server) = open(async move |stream, _| drip(stream, quick).await).await;
        tokio::time::pause();
        let began = Instant::now();
        let answer = get(&mut connection, Which::Release, "timestamp.json", LIMIT).await;
        assert_eq!(answer, Answer::Failed);
        assert!(began.elapsed() <= patience(LIMIT) + Duration::from_secs(1));
        tokio::time::resume();
    }
}

#[tokio::test]
async fn an_artifact_that_drips_is_given_up_and_goes_on_elsewhere() {
    for quick in [0, BYTES.len() * 99 / 100] {
        let (_folder, blobs) = blobs();
        let (mut connection, _server) = open(async move |stream, _| drip(stream, quick).await).await;
        let mut partial = blobs.resume(digest(), length()).unwrap();
        tokio::time::pause();
        let began = Instant::now();
        let refused = transfer(
            (&mut connection, &mut Standing::default()),
            &mut partial,
            digest(),
        )
        .await;
        assert_eq!(refused, Err(Code::FetchBudget));
        assert!(began.elapsed() <= WINDOW + Duration::from_secs(1));
        tokio::time::resume();
        drop(partial);

        // A better server goes on where the evil one was left.
        let mut partial = blobs.resume(digest(), length()).unwrap();
        let kept = usize::try_from(partial.offset()).unwrap();
        assert!(kept >= quick, "what came is kept");
        let (mut connection, server) = open(async move |mut stream: Stream, head| {
            let rest = &BYTES[kept..];
            let answer = format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\n\r\n",
                rest.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(rest).await.unwrap();
            stream.flush().await.unwrap();
            (stream, head)
        })
        .await;
        transfer(
            (&mut connection, &mut Standing::default()),
            &mut partial,
            digest(),
        )
        .await
        .unwrap();
        let (_stream, head) = server.await.unwrap();
        assert!(head.contains(&format!("range: bytes={kept}-\r\n")), "{head}");
        partial.finish().unwrap();
        assert_eq!(
            blobs.verified(digest(), length()).unwrap().as_deref(),
            Some(&BYTES[..])
        );
    }
}

#[tokio::test]
async fn a_line_just_above_the_floor_is_patiently_read() {
    // Half a megabyte over several windows: positive control of the two above.
    const LARGE: usize = 768 * 1024;
    let (mut connection, _server) = open(async |mut stream: Stream, _| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..LARGE / 4096 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stream.write_all(&BYTES).await.unwrap();
            stream.flush().await.unwrap();
        }
        stream
    })
    .await;
    let (_folder, blobs) = blobs();
    let whole = vec![7; LARGE];
    let (digest, length) = (Digest::of(&whole), ByteCount::new(u64::try_from(LARGE).unwrap()));
    let mut partial = blobs.resume(digest, length).unwrap();
    tokio::time::pause();
    transfer((&mut connection, &mut Standing::default()), &mut partial, digest)
        .await
        .unwrap();
    partial.finish().unwrap();
}

#[test]
fn whoever_writes_to_an_artifact_while_it_is_read_hands_nothing_to_the_compiler() {
    // The attacker has another process that replaces the verified file again and again; the bytes that were hashed are the
    // bytes that are returned.
    let (folder, blobs) = blobs();
    let name = folder.path().join(digest().to_string());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let attacker = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            for bytes in [&BYTES, &[8; 4096]] {
                drop(std::fs::write(&name, bytes));
            }
        }
    });
    let mut read = 0;
    while read < 500 {
        if let Some(bytes) = blobs.verified(digest(), length()).unwrap() {
            assert_eq!(bytes, BYTES);
            read += 1;
        }
    }
    drop(stop);
    attacker.join().unwrap();
}
