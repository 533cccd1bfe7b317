//! HTTP/1.1 to the platform over any stream the caller has connected. Opens no socket.

use crate::anchors::Anchors;
use crate::join::Binding;
use crate::profile::{Purpose, latest_not_before};
use crate::tls::{refusal, rejection};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use redan_protocol::{ByteCount, Code};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

/// Longest wait for a handshake, for the head of an answer, and for the next piece of a body.
pub const STEP_WITHIN: Duration = Duration::from_secs(20);
/// Slowest line a request's body is sent over: the wait for an answer grows by a second for so many bytes.
const BODY_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// The server is not this fleet's control server, or refused our certificate.
    #[error("the handshake was refused: {0}")]
    Refused(Code),
    /// The server refused our certificate. It may say so only after our side of the handshake is done.
    #[error("the control server refused this certificate: {0}")]
    Rejected(Code),
    /// TLS or HTTP failed, or the connection ended.
    #[error("the connection to the control server failed")]
    Connection,
    /// Too slow.
    #[error("the control server did not answer in time")]
    Timeout,
    /// An answer over the limit.
    #[error("the answer is longer than {0}")]
    TooLarge(ByteCount),
    /// A request that cannot be written: a bug of ours.
    #[error("the request cannot be written")]
    Request,
}

impl ClientError {
    /// The code of the failure.
    pub const fn code(&self) -> Code {
        match self {
            Self::Refused(Code::ForeignCertificate | Code::CertificateProfile) => Code::ForeignServer,
            Self::Refused(Code::CertificateRevoked) => Code::ServerRevoked,
            Self::Refused(code) | Self::Rejected(code) => *code,
            Self::Connection | Self::Timeout => Code::Unreachable,
            Self::TooLarge(_) => Code::TooLarge,
            Self::Request => Code::Internal,
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// An answer whose body is taken piece by piece.
#[derive(Debug)]
pub struct Download {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    body: Incoming,
}

impl Download {
    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = within(self.body.frame()).await?;
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(ClientError::Connection),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// One kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    host: HeaderValue,
    binding: Binding,
    presented: Vec<CertificateDer<'static>>,
    send: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
    /// What the server said of our certificate, if it ended the connection for it.
    rejected: Arc<OnceLock<Code>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// TLS, then HTTP, over a connected stream. `host` is the name of both, `control.<fleet>` or `enrol.<fleet>`.
    pub async fn open<S>(stream: S, config: Arc<ClientConfig>, host: &str) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ClientError::Request)?;
        let tls = within(TlsConnector::from(config).connect(name, stream)).await?;
        let tls = tls.map_err(|error| match (refusal(&error), rejection(&error)) {
            (Some(code), _) => ClientError::Refused(code),
            (None, Some(code)) => ClientError::Rejected(code),
            (None, None) => ClientError::Connection,
        })?;
        let binding = Binding::of(tls.get_ref().1).map_err(|_| ClientError::Connection)?;
        let presented = tls.get_ref().1.peer_certificates();
        let presented = presented.map(<[_]>::to_vec).unwrap_or_default();
        let (send, connection) = within(handshake(Io(tls)))
            .await?
            .map_err(|_| ClientError::Connection)?;
        let rejected = Arc::new(OnceLock::new());
        let learned = Arc::clone(&rejected);
        let driver = tokio::spawn(async move {
            // Its error reaches whoever waits for an answer, or nobody when none waits yet.
            if let Err(error) = connection.await
                && let Some(code) = rejected_by(&error)
            {
                learned.get_or_init(|| code);
            }
        });
        let host = HeaderValue::from_str(host).map_err(|_| ClientError::Request)?;
        Ok(Self {
            host,
            binding,
            presented,
            send,
            driver,
            rejected,
        })
    }

    /// What proofs on this connection are bound to.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Whether the chain that the server presented would be taken under these anchors: a connection may outlive the authority it was
    /// opened under. When it was good is no question of the authorities.
    pub fn stands_under(&self, anchors: &Anchors) -> bool {
        let made = latest_not_before(&self.presented);
        anchors.check(&self.presented, Purpose::Server, made).is_ok()
    }

    /// One request, whole answer, at most `limit` bytes of it.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: ByteCount,
    ) -> Result<Response, ClientError> {
        let Download {
            status,
            headers,
            body,
        } = self.send(method, path, headers, body).await?;
        let mut download = Download {
            status,
            headers: HeaderMap::new(),
            body,
        };
        let mut whole = BytesMut::new();
        while let Some(chunk) = download.chunk().await? {
            whole.extend_from_slice(&chunk);
            if u64::try_from(whole.len()).map_or(true, |length| length > limit.get()) {
                return Err(ClientError::TooLarge(limit));
            }
        }
        Ok(Response {
            status,
            headers,
            body: whole.freeze(),
        })
    }

    /// `GET`, body piece by piece.
    pub async fn download(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Download, ClientError> {
        self.send("GET", path, headers, Bytes::new()).await
    }

    /// Why the connection ended.
    async fn ended(&mut self, error: &hyper::Error) -> ClientError {
        if let Some(code) = rejected_by(error) {
            return ClientError::Rejected(code);
        }
        // Whoever drove the connection has read the server's last word, or will within this step.
        if !self.driver.is_finished() {
            drop(within(&mut self.driver).await);
        }
        let rejected = self.rejected.get().copied();
        rejected.map_or(ClientError::Connection, ClientError::Rejected)
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Download, ClientError> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| ClientError::Request)?;
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| ClientError::Request)?;
        request.headers_mut().insert(header::HOST, self.host.clone());
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ClientError::Request)?;
            let value = HeaderValue::from_str(value).map_err(|_| ClientError::Request)?;
            request.headers_mut().insert(name, value);
        }
        if let Err(error) = within(self.send.ready()).await? {
            return Err(self.ended(&error).await);
        }
        let sending = length.checked_div(BODY_BYTES_PER_SECOND).map(Duration::from_secs);
        let patience = STEP_WITHIN.saturating_add(sending.unwrap_or_default());
        let answer = tokio::time::timeout(patience, self.send.send_request(request)).await;
        let answer = match answer {
            Err(_) => return Err(ClientError::Timeout),
            Ok(Err(error)) => return Err(self.ended(&error).await),
            Ok(Ok(answer)) => answer,
        };
        let (parts, body) = answer.into_parts();
        Ok(Download {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}

/// The server's word on our certificate, somewhere below an HTTP error.
fn rejected_by(error: &hyper::Error) -> Option<Code> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref().and_then(rejection) {
            return Some(code);
        }
        cause = error.source();
    }
    None
}

async fn within<F: Future>(step: F) -> Result<F::Output, ClientError> {
    tokio::time::timeout(STEP_WITHIN, step)
        .await
        .map_err(|_| ClientError::Timeout)
}

/// A tokio stream as hyper wants it, without the adapter crate that would bring sockets along.
struct Io<T>(T);

impl<T: AsyncRead + Unpin> hyper::rt::Read for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        // Through a buffer on the stack: handing out hyper's own memory needs `unsafe`.
        let mut buffer = [0; 16 * 1024];
        let room = out.remaining().min(buffer.len());
        let Some(part) = buffer.get_mut(..room) else {
            return Poll::Ready(Ok(()));
        };
        let mut read = ReadBuf::new(part);
        match Pin::new(&mut self.0).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {
                out.put_slice(read.filled());
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<T: AsyncWrite + Unpin> hyper::rt::Write for Io<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
