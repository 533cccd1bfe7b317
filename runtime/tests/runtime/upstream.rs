//! Between a guest and its upstream: redirects, framing, trailers, whom to believe, and upstreams that drip.

use crate::device::Device;
use crate::egress::{ALLOWED, brokered, fetch, fetching, posting};
use crate::far_end::{Asked, FarEnd};
use crate::grants;
use crate::server::{Seen, certified, ok, read, recording};
use redan_policy::EffectiveGrant;
use redan_policy::grant::Roots;
use redan_protocol::{Code, Millis};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

fn device(to: SocketAddr) -> (Device, Asked) {
    brokered(FarEnd::answering(move |_| Ok(to)))
}

fn requests(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().clone()
}

#[test]
fn a_redirect_is_the_guests_to_follow_and_is_checked_like_any_request() {
    // The attacker owns the allowed upstream, and sends the guest, or a host that followed by itself, to where it may not go.
    for location in [
        "http://denied.example/",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "https://allowed.example/",
        "http://allowed.example:8080/",
        "http://user@allowed.example/",
        "http://allowed.example/elsewhere",
    ] {
        let redirect = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let (address, seen) = recording(None, move |_| redirect.clone());
        let (mut device, asked) = device(address);
        let mut grant = fetching(ALLOWED);
        grant.net_http[0].paths = vec![vec!["/path".to_owned()]];
        assert_eq!(
            fetch(&mut device, &grant),
            Ok(()),
            "{location}: an answer like any other"
        );
        grant.env.insert("FOLLOW".to_owned(), "yes".to_owned());
        let followed = fetch(&mut device, &grant);
        assert!(
            matches!(followed, Err(Code::EgressDenied | Code::Trapped)),
            "{location}: {followed:?}"
        );
        assert_eq!(asked.lock().unwrap().len(), 2, "{location}: one question a fetch");
        assert_eq!(requests(&seen).len(), 2, "{location}");
    }
}

#[test]
fn a_redirect_to_where_the_guest_may_go_is_followed_by_the_guest() {
    let (address, seen) = recording(None, |number| {
        match number {
        0 => "HTTP/1.1 302 Found\r\nlocation: http://allowed.example/other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        _ => ok(),
    }
    });
    let (mut device, asked) = device(address);
    let mut grant = fetching(ALLOWED);
    grant.env.insert("FOLLOW".to_owned(), "yes".to_owned());
    assert_eq!(fetch(&mut device, &grant), Ok(()));
    assert_eq!(asked.lock().unwrap().len(), 2, "asked again for the second");
    assert!(requests(&seen)[1].starts_with("GET /other HTTP/1.1\r\n"));
}

#[test]
fn a_request_that_contradicts_itself_about_its_length_is_not_sent() {
    // The guest wants the upstream, and whatever stands before it, to see two requests where there is one.
    let (address, seen) = recording(None, |_| ok());
    let (mut device, _) = device(address);
    for headers in [
        "content-length: 5|content-length: 6",
        "content-length: 0|content-length: 4096",
        "content-length: 4096|content-length: 4096",
    ] {
        let mut grant = posting(4_096);
        grant.env.insert("HEADERS".to_owned(), headers.to_owned());
        let outcome = fetch(&mut device, &grant);
        assert!(
            matches!(outcome, Err(Code::FieldForbidden | Code::Trapped)),
            "{headers}: {outcome:?}"
        );
    }
    for headers in [
        "transfer-encoding: chunked",
        "host: elsewhere",
        "connection: upgrade",
        "upgrade: h2c",
        "keep-alive: 1",
        "proxy-authorization: x",
        "proxy-authenticate: x",
        "redan-code: x",
    ] {
        let mut grant = posting(4_096);
        grant.env.insert("HEADERS".to_owned(), headers.to_owned());
        assert_eq!(
            fetch(&mut device, &grant),
            Err(Code::Trapped),
            "{headers}: the guest cannot even set it"
        );
    }
    assert!(requests(&seen).is_empty(), "nothing of them left the device");
    let mut grant = posting(4_096);
    grant
        .env
        .insert("HEADERS".to_owned(), "content-length: 4096".to_owned());
    assert_eq!(fetch(&mut device, &grant), Ok(()));
    let sent = &requests(&seen)[0].to_ascii_lowercase();
    assert!(
        sent.contains("content-length: 4096\r\n") && !sent.contains("transfer-encoding"),
        "{sent}"
    );
    assert!(sent.contains("host: allowed.example\r\n"), "{sent}");
}

#[test]
fn an_upstream_never_sees_more_of_a_body_than_it_was_told_to_expect() {
    let (address, seen) = recording(None, |_| ok());
    let (mut device, _) = device(address);
    for length in ["5000", "10"] {
        let mut grant = posting(4_096);
        grant.limits.wall_call = Millis::seconds(2);
        grant
            .env
            .insert("HEADERS".to_owned(), format!("content-length: {length}"));
        // What the guest makes of it is its own affair.
        let _ = fetch(&mut device, &grant);
    }
    for request in requests(&seen) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        assert!(body.len() <= length, "{request}");
    }
}

#[test]
fn trailers_carry_no_field_that_belongs_in_the_head() {
    let (address, seen) = recording(None, |_| ok());
    let (mut device, _) = device(address);
    for trailers in [
        "content-length: 0",
        "authorization: Bearer x",
        "cookie: a=b",
        "te: trailers",
        "trailer: x",
    ] {
        let mut grant = posting(4_096);
        grant.env.insert(
            "HEADERS".to_owned(),
            format!("trailer: {}", trailers.split(':').next().unwrap()),
        );
        grant.env.insert("TRAILERS".to_owned(), trailers.to_owned());
        assert_eq!(
            fetch(&mut device, &grant),
            Err(Code::FieldForbidden),
            "{trailers}"
        );
    }
    for trailers in [
        "transfer-encoding: chunked",
        "host: elsewhere",
        "proxy-authorization: x",
    ] {
        let mut grant = posting(4_096);
        grant.env.insert("TRAILERS".to_owned(), trailers.to_owned());
        assert_eq!(
            fetch(&mut device, &grant),
            Err(Code::Trapped),
            "{trailers}: the guest cannot even set it"
        );
    }
    for request in requests(&seen) {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(!body.contains(": "), "no trailer at all: {body}");
    }
    let mut grant = posting(4_096);
    grant
        .env
        .insert("HEADERS".to_owned(), "trailer: x-checksum".to_owned());
    grant
        .env
        .insert("TRAILERS".to_owned(), "x-checksum: 1".to_owned());
    assert_eq!(fetch(&mut device, &grant), Ok(()));
    assert!(requests(&seen).last().unwrap().contains("x-checksum: 1"));
}

#[test]
fn an_upstream_whose_body_drips_ends_with_the_call() {
    // One byte now and then: never silent, never done, never over the body limit.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut device, _) = device(listener.local_addr().unwrap());
    let (over, until_over) = mpsc::channel::<()>();
    let dripping = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // An answer before its question is a protocol error, and would end the call first.
        assert!(read(&mut stream).ends_with("\r\n\r\n"));
        let head = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        let mut drops = 0;
        while head.is_ok() && stream.write_all(b"x").is_ok() {
            drops += 1;
            // The pace of the attack; the test itself waits for nothing but the outcome.
            if until_over.recv_timeout(Duration::from_millis(20)) != Err(mpsc::RecvTimeoutError::Timeout) {
                break;
            }
        }
        drops
    });
    let mut grant = fetching(ALLOWED);
    grant.limits.wall_call = Millis::new(2_000);
    assert_eq!(fetch(&mut device, &grant), Err(Code::WallLimit));
    drop(over);
    assert!(dripping.join().unwrap() > 1, "it dripped while the call lasted");
}

/// A grant for an `https` upstream that believes one certificate.
pub(crate) fn believing(certificate: &str) -> EffectiveGrant {
    let mut grant = fetching("https://allowed.example/path");
    let mut rule = grants::rule("https", "allowed.example", 443);
    rule.roots = Roots::Bundle("acme-ca".to_owned());
    grant.net_http = vec![rule];
    grant
        .bundles
        .insert("acme-ca".to_owned(), vec![certificate.to_owned()]);
    grant
}

#[test]
fn a_rule_believes_its_bundle_and_nobody_else() {
    // The attacker has a good certificate for the name, of another authority.
    let (own, config) = certified("allowed.example");
    let (other, _) = certified("allowed.example");
    let (address, seen) = recording(Some(config), |_| ok());
    let (mut device, _) = device(address);
    assert_eq!(fetch(&mut device, &believing(&own)), Ok(()));
    assert_eq!(requests(&seen).len(), 1);
    assert_eq!(
        fetch(&mut device, &believing(&other)),
        Err(Code::UpstreamUntrusted)
    );
    let mut public = believing(&own);
    public.net_http[0].roots = Roots::Public;
    assert_eq!(
        fetch(&mut device, &public),
        Err(Code::UpstreamUntrusted),
        "public roots do not know it"
    );
    assert_eq!(requests(&seen).len(), 1, "whom nobody believes is sent nothing");
}

#[test]
fn a_certificate_for_another_name_is_not_believed() {
    let (own, config) = certified("other.example");
    let (address, seen) = recording(Some(config), |_| ok());
    let (mut device, _) = device(address);
    assert_eq!(fetch(&mut device, &believing(&own)), Err(Code::UpstreamUntrusted));
    assert_eq!(requests(&seen).len(), 0);
}

#[test]
fn a_bundle_that_is_no_certificate_does_not_load() {
    let (mut device, _) = brokered(FarEnd::refusing());
    let grant = believing("MIIBAAAA");
    let loaded = device.load(&crate::guests::hostile_job(), &grant);
    assert_eq!(loaded, Err(Code::PolicyInvalid));
}

#[test]
fn nothing_older_than_tls_1_3_is_offered_to_an_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut device, _) = device(listener.local_addr().unwrap());
    let (said, hello) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut hello).unwrap();
        said.send(hello).unwrap();
    });
    let (own, _) = certified("allowed.example");
    assert_eq!(fetch(&mut device, &believing(&own)), Err(Code::UpstreamUntrusted));
    // supported_versions (RFC 8446 §4.2.1): one, and it is 1.3.
    let only = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04];
    let hello = hello.recv().unwrap();
    assert!(
        hello.windows(only.len()).any(|window| window == only),
        "{hello:02x?}"
    );
}
