//! A client that says what it likes: any certificate or none, any protocol, bytes of its own.

use crate::site::Door;
use hyper_util::rt::{TokioExecutor, TokioIo};
use redan_identity::KeyFile;
use redan_protocol::FleetId;
use redan_protocol::wire::control_host;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version,
};

/// Takes any server for the right one: a stranger's client is not what is tested.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection of such a client.
pub(crate) struct Raw(TlsStream<TcpStream>);

/// What a client that presents a certificate, or none, gets to see.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// An alert and not one byte of HTTP.
    Alert(AlertDescription),
    /// Something else.
    Bytes(Vec<u8>),
}

async fn connect(
    address: SocketAddr,
    fleet: &FleetId,
    bundle: Option<&Path>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match bundle {
        None => builder.with_no_client_auth(),
        Some(bundle) => {
            let text = std::fs::read(bundle).unwrap();
            let chain = CertificateDer::pem_slice_iter(&text)
                .collect::<Result<_, _>>()
                .unwrap();
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&text).unwrap())
                .unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let host = control_host(fleet);
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(host).unwrap(), stream)
        .await
}

impl Raw {
    /// With a key and certificate that open connections.
    pub(crate) async fn known(site: &Door, bundle: &Path) -> Self {
        Self::at(site.address, &site.fleet, bundle).await
    }

    /// The same with a server that is not a site's.
    pub(crate) async fn at(address: SocketAddr, fleet: &FleetId, bundle: &Path) -> Self {
        let stream = connect(address, fleet, Some(bundle), b"http/1.1").await;
        Self(stream.unwrap())
    }

    /// The same with another protocol.
    pub(crate) async fn speaking(site: &Door, bundle: &Path, alpn: &[u8]) -> Self {
        let stream = connect(site.address, &site.fleet, Some(bundle), alpn).await;
        Self(stream.unwrap())
    }

    /// The next frame of HTTP/2: type, stream and payload; `None`: the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((kind, u32::from_be_bytes(stream), payload))
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // It may be refused before all of it is there.
        drop(self.0.write_all(bytes).await);
        drop(self.0.flush().await);
    }

    /// The server's own certificate.
    pub(crate) fn server(&self) -> CertificateDer<'static> {
        let chain = self.0.get_ref().1.peer_certificates();
        chain.unwrap()[0].clone().into_owned()
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Reads up to the end of the next head.
    pub(crate) async fn head(&mut self) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(self.0.read_u8().await.unwrap());
        }
        String::from_utf8(read).unwrap()
    }

    /// The status of the next head.
    pub(crate) async fn status(&mut self) -> String {
        let head = self.head().await;
        head.split(' ').nth(1).unwrap().to_owned()
    }

    /// The status of the next answer, whose body is read too.
    pub(crate) async fn answer(&mut self) -> String {
        let head = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        head.split(' ').nth(1).unwrap().to_owned()
    }

    /// Whatever comes until the connection ends, in order or not.
    pub(crate) async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        drop(self.0.read_to_end(&mut read).await);
        String::from_utf8(read).unwrap()
    }
}

/// A key and a certificate of it that nobody but itself has signed, PEM.
pub(crate) fn self_signed(key: &KeyFile) -> String {
    let pair = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
    let own = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    format!("{}{}", key.to_pem().as_str(), own.pem())
}

/// Asks for a route with this certificate or none, and says what came back.
pub(crate) async fn seen(site: &Door, bundle: Option<&Path>, method: &str, path: &str) -> Seen {
    let mut read = Vec::new();
    let outcome = async {
        let mut stream = connect(site.address, &site.fleet, bundle, b"http/1.1").await?;
        let host = control_host(&site.fleet);
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n");
        // TLS 1.3: the server may have refused already, and the write may or may not learn of it.
        drop(stream.write_all(request.as_bytes()).await);
        stream.read_to_end(&mut read).await.map(drop)
    };
    let refused: Option<AlertDescription> =
        outcome
            .await
            .err()
            .and_then(|error| match error.get_ref()?.downcast_ref::<Error>()? {
                Error::AlertReceived(alert) => Some(*alert),
                _ => None,
            });
    match refused {
        Some(alert) if read.is_empty() => Seen::Alert(alert),
        _ => Seen::Bytes(read),
    }
}

/// The status of one HTTP/2 request with a header field of this length.
pub(crate) async fn status_over_http2(site: &Door, bundle: &Path, field: usize) -> u16 {
    let mut streams = Streams::open(site, bundle).await;
    let long = ("x-long", "x".repeat(field));
    streams
        .status_with("/tuf/release/timestamp.json", Some(long))
        .await
}

/// One HTTP/2 connection.
pub(crate) struct Streams {
    host: String,
    send: hyper::client::conn::http2::SendRequest<String>,
    driver: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Streams {
    pub(crate) async fn open(site: &Door, bundle: &Path) -> Self {
        let stream = connect(site.address, &site.fleet, Some(bundle), b"h2")
            .await
            .unwrap();
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        Self {
            host: control_host(&site.fleet),
            send,
            driver: tokio::spawn(connection),
        }
    }

    /// Until the other end has closed the connection.
    pub(crate) async fn closed(&mut self) {
        // How it ends is the other end's affair.
        drop((&mut self.driver).await);
    }

    /// The status of one request on a stream of its own.
    pub(crate) async fn status(&mut self, path: &str) -> u16 {
        self.status_with(path, None).await
    }

    async fn status_with(&mut self, path: &str, field: Option<(&str, String)>) -> u16 {
        let mut request = http::Request::get(format!("https://{}{path}", self.host));
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let request = request.body(String::new()).unwrap();
        self.send.send_request(request).await.unwrap().status().as_u16()
    }
}
