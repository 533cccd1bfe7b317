//! Serves a folder over plain HTTP on loopback, and misbehaves when told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    folder: PathBuf,
    requests: Vec<String>,
    /// Beginning of a path, and what to say instead.
    instead: Option<(String, Answer)>,
}

#[derive(Clone)]
enum Answer {
    Status(u16),
    Body(Vec<u8>),
}

/// Lives as long as the test's process.
pub(crate) struct Server {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            folder,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is its own affair.
                let _ = answer(&stream, &shared);
            }
        });
        Self { url, state }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn serve(&mut self, folder: PathBuf) {
        self.state.lock().unwrap().folder = folder;
    }

    pub(crate) fn substitute(&self, prefix: &str, body: Vec<u8>) {
        self.state.lock().unwrap().instead = Some((prefix.to_owned(), Answer::Body(body)));
    }

    /// Status 0 hangs up.
    pub(crate) fn fail(&self, prefix: &str, status: u16) {
        self.state.lock().unwrap().instead = Some((prefix.to_owned(), Answer::Status(status)));
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let answer = {
        let mut state = state.lock().unwrap();
        state.requests.push(path.clone());
        let instead = state.instead.iter().find(|(prefix, _)| path.starts_with(prefix));
        match instead {
            Some((_, answer)) => answer.clone(),
            None => match std::fs::read(on_disk(&state.folder, &path)) {
                Ok(body) => Answer::Body(body),
                Err(_) => Answer::Status(404),
            },
        }
    };
    let mut stream = stream;
    match answer {
        Answer::Status(0) => Ok(()),
        Answer::Status(status) => write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"),
        Answer::Body(body) => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )?;
            stream.write_all(&body)
        }
    }
}

/// Metadata lies under quoted names; targets lie under their own.
fn on_disk(folder: &std::path::Path, path: &str) -> PathBuf {
    let name = path.trim_start_matches('/');
    if name.starts_with("targets/") {
        folder.join(name.replace("%20", " "))
    } else {
        folder.join(name)
    }
}
