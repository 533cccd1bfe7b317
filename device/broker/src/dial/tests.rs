//! Names that answer as an attacker wants. The resolver is scripted; every connection ends at a server on loopback, and what
//! was asked for is kept.

use super::*;
use crate::tests::{acme, asks, book};
use std::collections::VecDeque;
use std::net::TcpListener;

/// A resolver that gives one answer after the other, and a network on which every address is a server of ours.
struct Scripted {
    answers: Mutex<VecDeque<Vec<SocketAddr>>>,
    server: TcpListener,
    dialled: Mutex<Vec<SocketAddr>>,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Self {
        let read = |answer: &&[&str]| answer.iter().map(|a| a.parse().unwrap()).collect();
        Self {
            answers: Mutex::new(answers.iter().map(read).collect()),
            server: TcpListener::bind("127.0.0.1:0").unwrap(),
            dialled: Mutex::default(),
        }
    }

    fn dialled(&self) -> Vec<String> {
        self.dialled
            .lock()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

impl Net for Scripted {
    fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        let next = self.answers.lock().unwrap().pop_front();
        next.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(address);
        TcpStream::connect(self.server.local_addr().unwrap())
    }
}

/// What each of several connections to the one allowed name ends with.
fn outcomes(net: &Scripted, private: bool, connections: usize) -> Vec<Option<Code>> {
    let book = Mutex::new(book("https://api.acme.example", private));
    let admitted = book
        .lock()
        .unwrap()
        .admit(&acme(), &asks("api.acme.example", 443))
        .unwrap();
    (0..connections)
        .map(|_| dial(net, &admitted, &book).err())
        .collect()
}

const REFUSED: Option<Code> = Some(Code::EgressAddressDenied);

#[test]
fn a_name_that_answers_differently_the_second_time_is_judged_again() {
    // The attacker owns the name servers of an allowed name (TTL 0).
    let public = ["1.1.1.1:443"];
    for inside in [
        "10.0.0.1:443",
        "127.0.0.1:443",
        "169.254.169.254:443",
        "[::1]:443",
        "[::ffff:10.0.0.1]:443",
        "[64:ff9b::a00:1]:443",
        "[fd00::1]:443",
    ] {
        let net = Scripted::new(&[&public, &[inside], &public]);
        assert_eq!(outcomes(&net, false, 3), [None, REFUSED, None], "{inside}");
        assert_eq!(net.dialled(), ["1.1.1.1:443", "1.1.1.1:443"], "{inside}");
    }
}

#[test]
fn the_address_that_was_checked_is_the_one_that_is_dialled() {
    // A second look at the name would find the second answer.
    let net = Scripted::new(&[&["1.1.1.1:443"], &["10.0.0.1:443"]]);
    assert_eq!(outcomes(&net, false, 1), [None]);
    assert_eq!(net.dialled(), ["1.1.1.1:443"]);
    assert_eq!(
        net.answers.lock().unwrap().len(),
        1,
        "the name was looked up once"
    );
}

#[test]
fn one_bad_address_of_two_spoils_the_answer_wherever_it_stands() {
    for answer in [
        ["1.1.1.1:443", "10.0.0.1:443"],
        ["10.0.0.1:443", "1.1.1.1:443"],
        ["[2606:4700::1111]:443", "[::ffff:127.0.0.1]:443"],
    ] {
        let net = Scripted::new(&[&answer]);
        assert_eq!(outcomes(&net, false, 1), [REFUSED], "{answer:?}");
        assert!(net.dialled().is_empty(), "{answer:?}");
    }
}

#[test]
fn a_name_that_points_to_another_name_is_judged_by_where_it_ends() {
    // A CNAME into the cloud's own zone: the resolver gives the end of the chain.
    let net = Scripted::new(&[&["169.254.169.254:443"]]);
    assert_eq!(outcomes(&net, true, 1), [REFUSED]);
    let net = Scripted::new(&[&["192.168.1.10:443"], &["192.168.1.10:443"]]);
    assert_eq!(outcomes(&net, false, 1), [REFUSED]);
    assert_eq!(
        outcomes(&net, true, 1),
        [None],
        "private addresses were granted here"
    );
}

#[test]
fn the_control_server_is_out_of_reach_in_every_spelling_of_its_address() {
    // What the agent forbade is 192.168.7.7 and 9.9.9.9; a NAT64 or 6to4 gateway would carry the others there.
    for server in [
        "192.168.7.7:443",
        "192.168.7.7:8443",
        "[::ffff:192.168.7.7]:443",
        "[64:ff9b::c0a8:707]:443",
        "[2002:c0a8:707::1]:443",
        "[::192.168.7.7]:443",
        "9.9.9.9:443",
        "[::ffff:9.9.9.9]:443",
        "[64:ff9b::909:909]:443",
        "[2002:909:909::]:443",
    ] {
        let net = Scripted::new(&[&[server]]);
        assert_eq!(outcomes(&net, true, 1), [REFUSED], "{server}");
        assert!(net.dialled().is_empty(), "{server}");
    }
    let net = Scripted::new(&[&["192.168.7.8:443"]]);
    assert_eq!(outcomes(&net, true, 1), [None]);
}

#[test]
fn no_more_than_eight_addresses_of_a_name_are_tried_and_none_that_was_not_checked() {
    let many: Vec<String> = (1..=9)
        .map(|n| format!("1.1.1.{n}:443"))
        .chain(["10.0.0.1:443".to_owned()])
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refusing = Refusing(Scripted::new(&[&many]));
    let book = Mutex::new(book("https://api.acme.example", false));
    let admitted = book
        .lock()
        .unwrap()
        .admit(&acme(), &asks("api.acme.example", 443))
        .unwrap();
    assert_eq!(
        dial(&refusing, &admitted, &book).err(),
        Some(Code::EgressUnreachable)
    );
    assert_eq!(refusing.0.dialled(), many[..ADDRESSES_MAX]);
}

/// A network on which nobody answers.
struct Refusing(Scripted);

impl Net for Refusing {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.0.resolve(host, port)
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.0.dialled.lock().unwrap().push(address);
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}
