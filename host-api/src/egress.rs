//! Outgoing HTTP: rules are checked here for method, host and path, and again by the broker for host, port and address.
//!
//! The connected socket comes from the broker; TLS and bytes stay in this process. There is no other way out: the crate
//! is built without wasmtime's default sender, and the process may not create sockets.

use crate::body::{Bounded, Toll};
use crate::limits::Verdict;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::{PathAndQuery, Scheme, Uri};
use http_body_util::BodyExt;
use redan_policy::grant::{HttpRule, Limits, Rate};
use redan_protocol::{Code, ComponentName};
use rustls::pki_types::ServerName;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks};

/// Where connected sockets come from: the broker, over its channel.
pub trait Dial: Send + Sync {
    /// A connected socket to a host the broker's own rules allow.
    fn dial(
        &self,
        component: &ComponentName,
        https: bool,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>>;

    /// A connected socket to a broker of messages the device's owner named for this component; to none, where there is no such
    /// owner.
    fn dial_broker(
        &self,
        _component: &ComponentName,
        _host: &str,
        _port: u16,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        Box::pin(async { Err(Code::EgressDenied) })
    }
}

/// The egress of one workload version.
pub struct Egress {
    component: ComponentName,
    rules: Vec<(HttpRule, Arc<Spent>)>,
    dial: Arc<dyn Dial>,
    tls: Arc<rustls::ClientConfig>,
    limits: Limits,
    all: Arc<Spent>,
}

/// What a rule's budget has given out.
#[derive(Default)]
struct Spent {
    concurrent: AtomicU32,
    requests: Mutex<Window>,
    bytes: Mutex<Window>,
}

struct Window {
    start: Instant,
    used: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            used: 0,
        }
    }
}

impl Window {
    fn take(window: &Mutex<Self>, rate: Option<Rate>, amount: u64) -> bool {
        let Some(rate) = rate else {
            return true;
        };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.start.elapsed() >= Duration::from_millis(rate.per.get()) {
            *window = Self::default();
        }
        let used = window.used.saturating_add(amount);
        if used > rate.amount {
            return false;
        }
        window.used = used;
        true
    }
}

/// What the rules of publishing have given out.
#[derive(Default)]
pub struct Publishing(Mutex<std::collections::HashMap<String, Arc<Spent>>>);

impl Publishing {
    /// Whether the budget of a rule admits a message of so many bytes now; then it is spent.
    pub fn admits(&self, rule: &redan_policy::grant::MqttRule, bytes: u64) -> bool {
        let spent = {
            let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(rules.entry(rule.id.clone()).or_default())
        };
        Window::take(&spent.requests, rule.budget.messages, 1)
            && Window::take(&spent.bytes, rule.budget.bytes_out, bytes)
    }
}

/// One of a rule's concurrent requests; given back when the exchange is over.
struct Place(Arc<Spent>);

impl Place {
    fn take(spent: &Arc<Spent>, most: Option<u32>) -> Option<Self> {
        let before = spent.concurrent.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(spent));
        most.is_none_or(|most| before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.concurrent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Egress {
    /// The egress a grant's rules allow; `tls` says which roots are believed.
    pub fn new(
        component: ComponentName,
        rules: &[HttpRule],
        limits: Limits,
        dial: Arc<dyn Dial>,
        tls: Arc<rustls::ClientConfig>,
    ) -> Self {
        let rules = rules.iter().map(|rule| (rule.clone(), Arc::default())).collect();
        Self {
            component,
            rules,
            dial,
            tls,
            limits,
            all: Arc::default(),
        }
    }

    /// Sends an item of an outbox as a `POST`: under the rules of this grant, as a guest's own request would go. `Ok`: the status.
    pub async fn post(
        self: Arc<Self>,
        url: &str,
        content_type: &str,
        key: &str,
        payload: Vec<u8>,
    ) -> Result<u16, Code> {
        let mut request = http::Request::post(url).header("idempotency-key", key);
        if let Ok(uri) = url.parse::<Uri>()
            && let Some(authority) = uri.authority()
        {
            request = request.header(http::header::HOST, authority.as_str());
        }
        if !content_type.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let body = http_body_util::Full::new(Bytes::from(payload))
            .map_err(Into::into)
            .boxed_unsync();
        let request = request.body(body).map_err(|_| Code::EgressDenied)?;
        let verdict = Verdict::default();
        match self.send(request, None, verdict.clone()).await {
            // The connection ends with its worker, and the answer's body is not read: its status is the answer.
            Ok((answer, _worker)) => Ok(answer.status().as_u16()),
            Err(_) => Err(verdict.code().unwrap_or(Code::EgressUnreachable)),
        }
    }

    async fn send(
        self: Arc<Self>,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        verdict: Verdict,
    ) -> Result<(http::Response<WasiBody>, Worker), Error> {
        let to = Destination::of(request.uri()).ok_or(Error::HttpRequestUriInvalid)?;
        let method = request.method().as_str();
        let admitted = self.rules.iter().find(|(rule, _)| {
            redan_policy::egress::admits(rule, method, to.https, &to.host, to.port, request.uri().path())
        });
        let Some((rule, spent)) = admitted else {
            verdict.deny(Code::EgressDenied);
            return Err(Error::HttpRequestDenied);
        };
        let place = Place::take(spent, rule.budget.concurrent);
        let Some(place) = place.filter(|_| Window::take(&spent.requests, rule.budget.requests, 1)) else {
            verdict.deny(Code::EgressBudget);
            return Err(Error::ConnectionLimitReached);
        };
        let Some(socket) = Place::take(&self.all, Some(self.limits.sockets)) else {
            verdict.deny(Code::SocketLimit);
            return Err(Error::ConnectionLimitReached);
        };
        let toll: Toll = {
            let (spent, rate) = (Arc::clone(spent), rule.budget.bytes_out);
            Box::new(move |bytes| Window::take(&spent.bytes, rate, bytes))
        };
        let request = prepared(request, &self.limits, verdict.clone(), toll)?;
        let wall = Duration::from_millis(self.limits.wall_call.get());
        let options = options.unwrap_or_default();
        let connect = async {
            let socket = self.dial.dial(&self.component, to.https, &to.host, to.port).await;
            let socket = socket.map_err(|code| refused(code, &verdict))?;
            let socket = connected(socket).map_err(Error::Connect)?;
            if to.https {
                let name = ServerName::try_from(to.host.clone()).map_err(|_| Error::HttpRequestUriInvalid)?;
                let tls = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
                let stream = tls.connect(name, socket).await.map_err(Error::Tls)?;
                exchange(stream).await
            } else {
                exchange(socket).await
            }
        };
        let limit = options.connect_timeout.unwrap_or(wall).min(wall);
        let connection = tokio::time::timeout(limit, connect).await;
        let (mut sender, connection) = connection.map_err(|_| Error::ConnectionTimeout)??;
        let mut worker: Worker = Box::pin(async move {
            let _places = (place, socket);
            connection.await
        });
        // The connection makes no progress unless it is polled, the answer neither.
        let limit = options.first_byte_timeout.unwrap_or(wall).min(wall);
        let answer = tokio::time::timeout(limit, async {
            let answer = sender.send_request(request);
            tokio::pin!(answer);
            tokio::select! {
                answer = &mut answer => (answer.map_err(Error::Hyper), true),
                ended = &mut worker => match ended {
                    Ok(()) => (answer.await.map_err(Error::Hyper), false),
                    Err(error) => (Err(error), false),
                },
            }
        });
        let (answer, open) = answer.await.map_err(|_| Error::ConnectionReadTimeout)?;
        let answer = answer?;
        let worker: Worker = Box::pin(async move {
            // A future that has ended must not be polled again; an answer without a body ends its connection at once.
            if open {
                // How it ends, the body says too; wasmtime would log the error, whose text a peer may have chosen.
                let _ = worker.await;
            }
            Ok(())
        });
        let limit = self.limits.body_response;
        let answer = answer.map(|body| Bounded::new(body, limit, verdict).boxed_unsync());
        Ok((answer, worker))
    }
}

type Worker = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
type Sender = hyper::client::conn::http1::SendRequest<Bounded<WasiBody>>;

async fn exchange<S>(stream: S) -> Result<(Sender, Worker), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(Error::Hyper)?;
    Ok((
        sender,
        Box::pin(async move { connection.await.map_err(Error::Hyper) }),
    ))
}

pub(crate) fn connected(socket: OwnedFd) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(socket)
}

fn refused(code: Code, verdict: &Verdict) -> Error {
    verdict.deny(code);
    match code {
        Code::EgressDenied | Code::EgressAddressDenied => Error::DestinationIpProhibited,
        Code::EgressNameUnknown => Error::DestinationNotFound,
        Code::EgressBudget => Error::ConnectionLimitReached,
        _ => Error::DestinationUnavailable,
    }
}

/// The request as it goes on the wire: origin form (RFC 9112 §3.2.1), one connection, bounded.
fn prepared(
    request: http::Request<WasiBody>,
    limits: &Limits,
    verdict: Verdict,
    mut toll: Toll,
) -> Result<http::Request<Bounded<WasiBody>>, Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    parts
        .headers
        .insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    let head = header_bytes(&parts.headers);
    if head > limits.header_bytes.get() {
        verdict.deny(Code::HeaderLimit);
        return Err(Error::HttpRequestHeaderSectionSize(None));
    }
    if !toll(head) {
        verdict.deny(Code::EgressBudget);
        return Err(Error::ConnectionLimitReached);
    }
    let body = Bounded::new(body, limits.body_request, verdict).with_toll(toll);
    Ok(http::Request::from_parts(parts, body))
}

/// Bytes of all header fields as HTTP/1.1 writes them.
pub fn header_bytes(headers: &http::HeaderMap) -> u64 {
    let sum = headers
        .iter()
        .map(|(name, value)| name.as_str().len().saturating_add(value.len()).saturating_add(4))
        .fold(0_usize, usize::saturating_add);
    u64::try_from(sum).unwrap_or(u64::MAX)
}

/// Where a request goes, in the spelling rules are written in.
pub(crate) struct Destination {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Destination {
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let https = *uri.scheme()? == Scheme::HTTPS;
        let authority = uri.authority()?;
        // User information has no place here (RFC 9110 §4.2.4): it is how one host is made to look like another.
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .map_or_else(|| host.clone(), str::to_owned);
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok()?,
            None if https => 443,
            None => 80,
        };
        (!host.is_empty()).then_some(Self { https, host, port })
    }
}

/// The hooks of one call: wasmtime asks these for everything that leaves.
pub(crate) struct Hooks {
    pub(crate) egress: Option<Arc<Egress>>,
    pub(crate) verdict: Verdict,
    pub(crate) bench: Option<Arc<crate::state::Capabilities>>,
}

type Answer = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| {
            wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name)
                || *name == http::header::PROXY_AUTHORIZATION
                || *name == http::header::PROXY_AUTHENTICATE
                || name.as_str().starts_with("redan-")
        })
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let lent = self.bench.as_ref().and_then(|bench| bench.egress_for(&request));
        let (egress, verdict) = (lent.or_else(|| self.egress.clone()), self.verdict.clone());
        Box::new(async move {
            let Some(egress) = egress else {
                verdict.deny(Code::EgressDenied);
                return Err(Error::HttpRequestDenied);
            };
            let (answer, worker) = egress.send(request, options, verdict).await?;
            let worker: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(worker);
            Ok((answer, worker))
        })
    }

    // The defaults log the error, whose text a peer may have chosen.
    fn p2_error_from_hyper(
        &mut self,
        _error: &hyper::Error,
    ) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p2::bindings::http::types::ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(
        &mut self,
        _error: &std::io::Error,
    ) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p2::bindings::http::types::ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(
        &mut self,
        _error: &std::io::Error,
    ) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p2::bindings::http::types::ErrorCode::TlsProtocolError
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        OUTGOING_CHUNK
    }
}

/// Largest single write to an outgoing body, bytes. The default of 1 MiB is what two such writes would buffer.
const OUTGOING_CHUNK: usize = 64 * 1024;

/// Public roots (the Mozilla set), TLS 1.3 only.
pub fn public_tls() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    tls_with(roots)
}

/// The same with other roots.
pub fn tls_with(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// A body of nothing, for answers the host makes itself.
pub fn empty_body() -> WasiBody {
    http_body_util::Empty::<Bytes>::new()
        .map_err(Into::into)
        .boxed_unsync()
}
