//! Upstreams of the tests: they keep what they were sent, byte for byte, and answer as they are told.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Whole requests as they came, in their order.
pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// A certificate for a host, signed by itself, and the configuration of a server that has it.
pub(crate) fn certified(host: &str) -> (String, Arc<rustls::ServerConfig>) {
    let own = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let chain = vec![CertificateDer::from(own.cert.der().to_vec())];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let body = redan_policy::pem::certificates(&own.cert.pem())
        .unwrap()
        .remove(0);
    (body, Arc::new(config))
}

/// A server on loopback that answers the n-th request with the n-th answer and all further ones with the last.
pub(crate) fn recording(
    tls: Option<Arc<rustls::ServerConfig>>,
    answers: impl Fn(usize) -> String + Send + 'static,
) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let keep = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let number = keep.lock().unwrap().len();
            let answer = answers(number);
            match &tls {
                None => serve(stream, &keep, &answer),
                Some(config) => {
                    let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                    serve(rustls::StreamOwned::new(session, stream), &keep, &answer);
                }
            }
        }
    });
    (address, seen)
}

fn serve(mut stream: impl Read + Write, seen: &Seen, answer: &str) {
    let request = read(&mut stream);
    // One that ended before its head was whole asked for nothing: a client that left, or a handshake that failed.
    if request.contains("\r\n\r\n") {
        seen.lock().unwrap().push(request);
        // The client may have been cut off already.
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.flush();
    }
}

/// The head, and the body if there is one.
pub(crate) fn read(stream: &mut impl Read) -> String {
    let mut from = BufReader::new(stream);
    let mut all = String::new();
    while from.read_line(&mut all).is_ok_and(|read| read > 0) && !all.ends_with("\r\n\r\n") {}
    let head = all.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        let ended = |all: &str| all.ends_with("\r\n\r\n") && all[head.len()..].contains("0\r\n");
        while !ended(&all) && from.read_line(&mut all).is_ok_and(|read| read > 0) {}
    } else if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.lines().next().unwrap().parse().unwrap_or(0);
        let mut body = Vec::new();
        // A client that breaks off has sent what it has sent.
        let _ = from.take(length).read_to_end(&mut body);
        all.push_str(&String::from_utf8_lossy(&body));
    }
    all
}

/// An answer that is whole.
pub(crate) fn ok() -> String {
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".to_owned()
}
