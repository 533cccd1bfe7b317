//! A client of services that sees what is on the wire: heads, cut bodies, kept connections.

use crate::device::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as announced.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The host's own refusal: status and code, nothing else.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        assert!(self.body.is_empty(), "a refusal has no body");
        (self.status, self.header("redan-code").unwrap_or("none"))
    }

    pub(crate) fn text(&self) -> &str {
        assert_eq!((self.status, self.whole), (200, true), "{self:?}");
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One connection.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends; a server that refuses early may have closed already.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// A request whose body comes later, in chunks; returns once the guest began to read it.
    pub(crate) fn begin(&mut self, path: &str) {
        assert!(self.try_begin(path), "refused");
    }

    /// The same, if the guest comes to read it; else it was refused.
    pub(crate) fn try_begin(&mut self, path: &str) -> bool {
        self.send(
            format!(
                "POST {path} HTTP/1.1\r\nhost: device\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            .as_bytes(),
        );
        if self.line() != "HTTP/1.1 100 Continue" {
            return false;
        }
        assert_eq!(self.line(), "");
        true
    }

    /// Ends the body of a request that was begun.
    pub(crate) fn end(&mut self) -> Answer {
        self.send(b"0\r\n\r\n");
        self.answer()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: device\r\nte: trailers\r\n\r\n").as_bytes());
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.line();
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .unwrap_or_else(|| panic!("{head:?} is no answer"));
        let mut answer = Answer {
            status: status[..3].parse().unwrap(),
            headers: Vec::new(),
            body: Vec::new(),
            whole: false,
        };
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
        let length = answer
            .header("content-length")
            .map(|length| length.parse().unwrap());
        answer.whole = match length {
            Some(length) => {
                answer.body.resize(length, 0);
                self.0.read_exact(&mut answer.body).is_ok()
            }
            None => self.chunks(&mut answer.body).is_some(),
        };
        answer
    }

    /// Reads the head of an answer, and leaves the rest.
    pub(crate) fn hears_head(&mut self) {
        while !self.line().is_empty() {}
    }

    /// What comes until the connection closes.
    pub(crate) fn hears_all(mut self) -> String {
        let mut all = Vec::new();
        // A reset is an end as well.
        let _ = self.0.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Whether the connection is still up. Reads nothing.
    pub(crate) fn is_open(&self) -> bool {
        self.stays_open(Duration::ZERO)
    }

    /// Waits until the other end is gone, asking now and then: a kernel that gives up on a closed window tells nobody.
    pub(crate) fn is_dropped(&mut self) -> bool {
        let asked = Duration::from_millis(200);
        let often = PATIENCE.as_millis() / asked.as_millis();
        (0..often).any(|_| {
            self.send(b" ");
            !self.stays_open(asked)
        })
    }

    fn stays_open(&self, within: Duration) -> bool {
        let mut watched = [PollFd::new(self.0.get_ref(), PollFlags::RDHUP)];
        let limit = Timespec::try_from(within).unwrap();
        rustix::event::poll(&mut watched, Some(&limit)).unwrap() == 0
    }

    /// Whether anything came that was not read yet; does not wait.
    pub(crate) fn is_silent(&self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        self.0.buffer().is_empty() && peeked.is_err()
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let length = usize::from_str_radix(self.maybe_line()?.trim(), 16).ok()?;
            if length == 0 {
                // Trailers, then an empty line.
                while !self.maybe_line()?.is_empty() {}
                return Some(());
            }
            let start = body.len();
            body.resize(start + length, 0);
            self.0.read_exact(&mut body[start..]).ok()?;
            self.maybe_line()?;
        }
    }

    fn line(&mut self) -> String {
        self.maybe_line()
            .unwrap_or_else(|| panic!("the connection closed without an answer"))
    }

    fn maybe_line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// One request on a connection of its own.
pub(crate) fn get(to: SocketAddr, path: &str) -> Answer {
    Client::connect(to).get(path)
}

/// One request with a body of known length.
pub(crate) fn post(to: SocketAddr, path: &str, body: &[u8]) -> Answer {
    let mut client = Client::connect(to);
    let length = body.len();
    client
        .send(format!("POST {path} HTTP/1.1\r\nhost: device\r\ncontent-length: {length}\r\n\r\n").as_bytes());
    client.send(body);
    client.answer()
}
