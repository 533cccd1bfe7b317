//! Outgoing requests: what `conformance/sender` sends and hears here, and what it does under `wasmtime run -S http`.
//!
//! What the reference does was recorded once, in `outgoing.txt`, and is recorded again wherever the reference is installed
//! (docs/benches.md says how): `REDAN_BLESS=1` writes the file. Here the same scenes must come to the same, byte for byte, but for
//! what [`DIFFERENT`] names.

use crate::{guest, ours};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Scenes that come to something else on purpose, and why (docs/runtime.md).
const DIFFERENT: [(&str, &str); 2] = [
    (
        "nobody-listens",
        "the broker dials, and says no more than that it cannot",
    ),
    (
        "user-information",
        "one host made to look like another: no such request is sent",
    ),
];

/// Scenes whose request breaks off. How much of it leaves before the connection does is a matter of time; what the guest hears is not.
const BROKEN_OFF: [&str; 2] = ["length-short", "unfinished"];

/// What an upstream saw and what the guest saw, by the scene's name.
type Scenes = BTreeMap<String, (String, String)>;

#[test]
fn requests_leave_and_answers_arrive_as_under_the_reference() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wasi/outgoing.txt");
    if let Some(program) = installed() {
        let said = written(&played(|arguments, _| by(&program, arguments)));
        if std::env::var_os("REDAN_BLESS").is_some() {
            std::fs::write(&file, &said).unwrap();
        }
        let recorded = std::fs::read_to_string(&file).unwrap();
        assert_eq!(said, recorded, "the reference does something else than it did");
    }
    let recorded = std::fs::read_to_string(&file).unwrap();
    let expected = scenes_of(&recorded);
    let wasm = std::fs::read(guest::sender()).unwrap();
    let found = played(|arguments, to| {
        let outcome = ours::send(&wasm, arguments, to);
        assert_eq!(outcome.exit, Some(0), "{outcome:?}");
        outcome.out
    });
    // Once more through the text, so that both were written and read alike.
    let found = scenes_of(&written(&found));
    let scenes_in = |scenes: &Scenes| scenes.keys().cloned().collect::<Vec<_>>();
    assert_eq!(scenes_in(&found), scenes_in(&expected));
    let mut different = Vec::new();
    for (name, (mut seen, heard)) in found {
        // Each request has a connection of its own here, and says so.
        seen = seen.replace("connection: close\n", "");
        if (&seen, &heard) != (&expected[&name].0, &expected[&name].1) {
            different.push(format!(
                "== {name}\nhere:\n{seen}{heard}\nthere:\n{}{}\n",
                expected[&name].0, expected[&name].1
            ));
        }
    }
    let named: Vec<&str> = DIFFERENT.iter().map(|(name, _)| *name).collect();
    let unnamed: Vec<_> = different
        .iter()
        .filter(|text| !named.iter().any(|name| text.starts_with(&format!("== {name}\n"))))
        .collect();
    assert!(
        unnamed.is_empty(),
        "{}",
        unnamed.iter().map(|text| text.as_str()).collect::<String>()
    );
    assert_eq!(
        different.len(),
        named.len(),
        "a difference that is named is gone: {different:?}"
    );
}

/// The reference, where it is installed.
fn installed() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    Some(target.join("bench-tools/bin/wasmtime")).filter(|program| program.exists())
}

fn by(program: &Path, arguments: &[String]) -> String {
    let mut run = Command::new(program);
    let done = run
        .args(["run", "-S", "http"])
        .arg(guest::sender())
        .args(arguments)
        .output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Plays all scenes against a fresh upstream. `plays` gets the guest's arguments and the origins it is to reach.
fn played(plays: impl FnOnce(&[String], &[String]) -> String) -> Scenes {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    // Bound and never listened to again: nobody else gets the port meanwhile, and nobody answers there.
    let closed = socket_without_listener();
    let record: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let (records, address) = (Arc::clone(&record), upstream.local_addr().unwrap());
    let upstream = std::thread::spawn(move || {
        let mut answers = Vec::new();
        for client in upstream.incoming() {
            let client = client.unwrap();
            let mut first = [0; 3];
            // Connections come in turn: all of the guest's came before the one that ends this.
            if client.peek(&mut first).is_ok_and(|read| read == 3) && first == *b"END" {
                break;
            }
            let records = Arc::clone(&records);
            answers.push(std::thread::spawn(move || answer(client, port, &records)));
        }
        for answer in answers {
            answer.join().unwrap();
        }
    });
    let closed_port = port_of(&closed);
    let arguments = [format!("localhost:{port}"), format!("localhost:{closed_port}")];
    let to = [
        format!("http://localhost:{port}"),
        format!("http://localhost:{closed_port}"),
    ];
    let said = plays(&arguments, &to);
    drop(closed);
    TcpStream::connect(address).unwrap().write_all(b"END").unwrap();
    upstream.join().unwrap();
    let seen = record.lock().unwrap().clone();
    let mut scenes = Scenes::new();
    for scene in said.split("== ").skip(1) {
        let (name, heard) = scene.split_once('\n').unwrap();
        // The one scene whose request has no path.
        let path = if name == "target-none" { "" } else { name };
        let seen = seen.get(path).filter(|_| !BROKEN_OFF.contains(&name));
        let seen = seen.cloned().unwrap_or_default();
        scenes.insert(
            name.to_owned(),
            (seen, heard.trim_end().replace(&port.to_string(), "PORT")),
        );
    }
    scenes
}

/// A port that is taken and refuses connections.
fn socket_without_listener() -> rustix::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, bind, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket
}

fn port_of(socket: &rustix::fd::OwnedFd) -> u16 {
    let address = rustix::net::getsockname(socket).unwrap();
    std::net::SocketAddr::try_from(address).unwrap().port()
}

/// Hears one request to its end, writes it down, and answers as its path says.
fn answer(client: TcpStream, port: u16, records: &Mutex<BTreeMap<String, String>>) {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    loop {
        let mut line = Vec::new();
        if client.read_until(b'\n', &mut line).unwrap_or(0) == 0 || line == b"\r\n" {
            break;
        }
        head.push_str(&line.escape_ascii().to_string().replace("\\r\\n", "\n"));
    }
    if head.is_empty() {
        // It went away before it said anything.
        return;
    }
    let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let name = path.split('?').next().unwrap_or_default().to_owned();
    let mut body = String::new();
    if head.contains("transfer-encoding: chunked\n") {
        let end = chunks(&mut client, &mut body);
        body.push_str(if end { " whole" } else { " cut" });
    } else if let Some(length) = head.split("content-length: ").nth(1) {
        let length = length.split('\n').next().unwrap().parse().unwrap();
        let mut bytes = Vec::new();
        client
            .by_ref()
            .take(length)
            .read_to_end(&mut bytes)
            .unwrap_or_default();
        body = shown(&bytes);
    }
    let head = head.replace(&port.to_string(), "PORT");
    records
        .lock()
        .unwrap()
        .insert(name.clone(), format!("{head}{body}\n"));
    let client = client.get_mut();
    if name == "first-byte-too-late" {
        // Until the other side has had enough.
        let _ = client.read(&mut [0]);
        return;
    }
    // A client that went away has said what it wanted.
    let _ = client.write_all(&answered(&name));
    let _ = client.shutdown(Shutdown::Write);
    let _ = client.read_to_end(&mut Vec::new());
}

fn shown(bytes: &[u8]) -> String {
    if bytes.len() > 100 {
        format!("{} bytes", bytes.len())
    } else {
        bytes.escape_ascii().to_string()
    }
}

/// Whether they came to an end. Where one chunk ends and the next begins is a matter of time.
fn chunks(client: &mut BufReader<TcpStream>, text: &mut String) -> bool {
    let mut bytes = Vec::new();
    let end = loop {
        let mut line = String::new();
        if client.read_line(&mut line).unwrap_or(0) == 0 {
            break None;
        }
        let length = u64::from_str_radix(line.trim(), 16).unwrap();
        if length == 0 {
            let mut trailers = String::new();
            while client.read_line(&mut trailers).unwrap_or(0) > 2 {}
            break Some(trailers.trim().to_owned());
        }
        client
            .by_ref()
            .take(length)
            .read_to_end(&mut bytes)
            .unwrap_or_default();
        client.read_line(&mut line).unwrap_or_default();
    };
    text.push_str(&shown(&bytes));
    if let Some(trailers) = &end {
        let _ = write!(text, " [{trailers}]");
    }
    end.is_some()
}

fn answered(name: &str) -> Vec<u8> {
    let text = match name {
        "answer-length" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Case: Kept\r\n\r\nhello",
        "answer-chunked" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3;x=y\r\ntwo\r\n0\r\n\r\n"
        }
        "answer-trailers" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n4\r\nbody\r\n0\r\nsum: 42\r\n\r\n"
        }
        "answer-to-the-end" => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil it closes",
        "answer-large" => {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n";
            return [head.as_bytes(), &vec![b'x'; 300_000]].concat();
        }
        "answer-204" => "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
        "answer-304" => "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 5\r\n\r\n",
        "answer-redirect" => {
            "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 0\r\n\r\n"
        }
        "answer-500" => "HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno",
        "answer-999" => "HTTP/1.1 999 Strange\r\ncontent-length: 0\r\n\r\n",
        "answer-early-hints" => {
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        }
        "answer-many-fields" => {
            "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-empty:\r\nx-spaces:   wide  \r\ncontent-length: 0\r\n\r\n"
        }
        "answer-old" => "HTTP/1.0 200 OK\r\n\r\nold",
        "answer-short" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "answer-cut-chunk" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nshort",
        "answer-nothing" => "",
        "answer-garbage" => "this is no HTTP\r\n\r\n",
        "answer-bad-length" => "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\nx",
        "answer-hop-by-hop" => {
            "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nx-hop: 1\r\n\
             content-length: 0\r\n\r\n"
        }
        "head" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    };
    text.as_bytes().to_vec()
}

fn written(scenes: &Scenes) -> String {
    let mut text = String::new();
    for (name, (seen, heard)) in scenes {
        let _ = writeln!(text, "== {name}");
        for (mark, lines) in [('>', seen), ('<', heard)] {
            for line in lines.lines() {
                text.push_str(format!("{mark} {line}").trim_end());
                text.push('\n');
            }
        }
    }
    text
}

fn scenes_of(text: &str) -> Scenes {
    let mut scenes = Scenes::new();
    for scene in text.split("== ").skip(1) {
        let (name, lines) = scene.split_once('\n').unwrap();
        let of = |mark: char| {
            let mut of = String::new();
            for line in lines.lines().filter_map(|line| line.strip_prefix(mark)) {
                let _ = writeln!(of, "{}", line.trim());
            }
            of
        };
        scenes.insert(name.to_owned(), (of('>'), of('<')));
    }
    scenes
}
