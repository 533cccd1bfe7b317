//! Services: where they listen, what they answer, how they end.

use crate::{bench, guest};
use rustix::process::{Pid, Signal};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ExitStatus, Stdio};

struct Serving {
    child: Child,
    address: SocketAddr,
}

impl Serving {
    fn start(words: &[&str]) -> Self {
        let service = guest::built("conformance_service.wasm");
        let mut command = bench(&[&["-q", service.as_str()], words].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("redan dev: serving http://")
            .unwrap_or_else(|| panic!("{line}"));
        let address: SocketAddr = address.trim_end_matches('/').parse().unwrap();
        assert!(address.ip().is_loopback());
        Self { child, address }
    }

    fn ask(&self, method: &str, path: &str) -> String {
        let mut client = TcpStream::connect(self.address).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        crate::text(&answer)
    }

    fn stop(mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Of a test that failed; one that was stopped is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_service_listens_on_loopback_answers_and_ends_when_told() {
    let serving = Serving::start(&[]);
    assert!(serving.ask("GET", "/headers").starts_with("HTTP/1.1 201 Created"));
    assert!(
        serving.ask("BREW", "/request").contains("other BREW"),
        "every method reaches it"
    );
    assert!(serving.ask("GET", "/panics").contains("redan-code: trapped"));
    assert_eq!(serving.stop().code(), Some(0));
}

#[test]
fn a_service_answers_under_its_learned_ask_what_it_was_asked_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let ask = folder.path().join("ask.toml").display().to_string();
    let serving = Serving::start(&["--learn", &ask]);
    assert!(serving.ask("GET", "/headers").starts_with("HTTP/1.1 201"));
    assert!(serving.ask("POST", "/headers").starts_with("HTTP/1.1 201"));
    assert!(serving.ask("GET", "/fields").starts_with("HTTP/1.1 200"));
    assert_eq!(serving.stop().code(), Some(0));
    let learned = std::fs::read_to_string(&ask).unwrap();
    assert!(
        learned.contains("route = \"/headers\"\nmethods = [\"GET\", \"POST\"]"),
        "{learned}"
    );
    let serving = Serving::start(&["--ask", &ask]);
    assert!(serving.ask("POST", "/headers").starts_with("HTTP/1.1 201"));
    assert!(serving.ask("GET", "/fields").starts_with("HTTP/1.1 200"));
    assert!(
        serving
            .ask("POST", "/fields")
            .contains("redan-code: wrong-method")
    );
    assert!(serving.ask("GET", "/request").contains("redan-code: not-found"));
    assert_eq!(serving.stop().code(), Some(0));
}
