//! An evil control server: TLS with a certificate the thief has, and whatever answers he likes.

use anyhow::{Context, Result};
use redan_protocol::report::Report;
use redan_protocol::wire::{CHECKIN, CheckIn};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What it answers: the path asked for, and the check-in if it is one. `None`: not found.
pub type Answers = Box<dyn Fn(&str, Option<&CheckIn>) -> Option<Vec<u8>> + Send + Sync>;

/// Longest a connection is waited for.
const IDLE: Duration = Duration::from_secs(10);

/// A running evil server.
pub struct EvilServer {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepts: Option<JoinHandle<()>>,
}

struct Shared {
    tls: Arc<ServerConfig>,
    answers: Answers,
    reports: Mutex<Vec<Report>>,
    over: AtomicBool,
}

impl EvilServer {
    /// Starts it.
    pub fn start(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        answers: Answers,
    ) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let shared = Arc::new(Shared {
            tls: Arc::new(tls),
            answers,
            reports: Mutex::new(Vec::new()),
            over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let address = listener.local_addr()?;
        let accepts = std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A device that goes away in the middle is no concern of his.
                std::thread::spawn(move || shared.serve(socket).ok());
            }
        });
        Ok(Self {
            address,
            shared,
            accepts: Some(accepts),
        })
    }

    /// What it was told, the last first.
    pub fn reports(&self) -> Vec<Report> {
        let reports = self.shared.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.iter().rev().cloned().collect()
    }
}

impl Drop for EvilServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(accepts) = self.accepts.take() {
            drop(accepts.join());
        }
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream) -> Result<()> {
        socket.set_read_timeout(Some(IDLE))?;
        let connection = ServerConnection::new(Arc::clone(&self.tls))?;
        let mut stream = BufReader::new(StreamOwned::new(connection, socket));
        while !self.over.load(Ordering::SeqCst) {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let path = line.split(' ').nth(1).context("no request")?.to_owned();
            let mut length = 0;
            loop {
                let mut header = String::new();
                stream.read_line(&mut header)?;
                let Some((name, value)) = header.split_once(':') else {
                    break;
                };
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse()?;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            let check_in: Option<CheckIn> = (path == CHECKIN)
                .then(|| serde_json::from_slice(&body).ok())
                .flatten();
            if let Some(check_in) = &check_in {
                let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
                reports.push(check_in.report.clone());
            }
            let (status, answer) = match (self.answers)(&path, check_in.as_ref()) {
                Some(answer) => ("200 OK", answer),
                None => ("404 Not Found", Vec::new()),
            };
            let out = stream.get_mut();
            write!(
                out,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            )?;
            out.write_all(&answer)?;
            out.flush()?;
        }
        Ok(())
    }
}
