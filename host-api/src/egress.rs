//! Outgoing HTTP: rules are checked here for method, host and path, and again by the broker for host, port and address.
//!
//! The connected socket comes from the broker; TLS and bytes stay in this process. There is no other way out: the crate
//! is built without wasmtime's default sender, and the process may not create sockets.

mod budget;
pub(crate) mod fields;
mod outside;

pub use budget::Publishing;
pub use outside::{Outside, Secrets, public_tls, tls_of};

use crate::body::{Bounded, Toll};
use crate::limits::Verdict;
use budget::{Place, Spent};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderName;
use http::uri::{PathAndQuery, Scheme, Uri};
use http_body_util::BodyExt;
use redan_policy::EffectiveGrant;
use redan_policy::grant::{HttpRule, Limits};
use redan_protocol::{Code, ComponentName};
use rustls::pki_types::ServerName;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
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
    rules: Vec<Ruled>,
    outside: Outside,
    limits: Limits,
    all: Arc<Spent>,
}

/// A rule, and what belongs to it.
struct Ruled {
    rule: HttpRule,
    spent: Arc<Spent>,
    tls: Arc<rustls::ClientConfig>,
    /// Fields the host sets, by the handles of the secrets in them.
    inject: Vec<(HeaderName, String)>,
}

impl Egress {
    /// The egress a grant allows.
    pub fn new(grant: &EffectiveGrant, outside: Outside) -> Result<Self, Code> {
        if !outside.has_all(grant) {
            return Err(Code::SecretMissing);
        }
        Self::with(grant, outside, |_| Arc::default())
    }

    /// One rule that believes the public roots, without a grant around it.
    pub(crate) fn of_one(component: ComponentName, rule: HttpRule, limits: Limits, outside: Outside) -> Self {
        let ruled = Ruled {
            rule,
            spent: Arc::default(),
            tls: Arc::clone(&outside.public),
            inject: Vec::new(),
        };
        Self {
            component,
            rules: vec![ruled],
            outside,
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

    /// The same with less: what was spent of a rule stays spent.
    pub(crate) fn narrowed(&self, grant: &EffectiveGrant) -> Result<Self, Code> {
        let narrowed = Self::with(grant, self.outside.clone(), |id| {
            let known = self.rules.iter().find(|ruled| ruled.rule.id == id);
            known.map_or_else(Arc::default, |ruled| Arc::clone(&ruled.spent))
        })?;
        Ok(Self {
            all: Arc::clone(&self.all),
            ..narrowed
        })
    }

    fn with(
        grant: &EffectiveGrant,
        outside: Outside,
        spent: impl Fn(&str) -> Arc<Spent>,
    ) -> Result<Self, Code> {
        let mut rules = Vec::new();
        for rule in &grant.net_http {
            let own = grant.secrets.iter().filter(|inject| inject.net == rule.id);
            let inject = own.map(|inject| {
                let name =
                    HeaderName::from_bytes(inject.header.as_bytes()).map_err(|_| Code::PolicyInvalid)?;
                Ok((name, inject.secret.clone()))
            });
            rules.push(Ruled {
                spent: spent(&rule.id),
                tls: outside.tls(rule, grant)?,
                inject: inject.collect::<Result<_, Code>>()?,
                rule: rule.clone(),
            });
        }
        Ok(Self {
            component: grant.component.clone(),
            rules,
            outside,
            limits: grant.limits,
            all: Arc::default(),
        })
    }

    async fn send(
        self: Arc<Self>,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        verdict: Verdict,
    ) -> Result<(http::Response<WasiBody>, Worker), Error> {
        let to = Destination::of(request.uri()).ok_or(Error::HttpRequestUriInvalid)?;
        let method = request.method().as_str();
        let path = request.uri().path();
        let admitted = self.rules.iter().find(|ruled| {
            redan_policy::egress::admits(&ruled.rule, method, to.https, &to.host, to.port, path)
        });
        let Some(ruled) = admitted else {
            verdict.deny(Code::EgressDenied);
            return Err(Error::HttpRequestDenied);
        };
        let Ruled { rule, spent, .. } = ruled;
        let place = Place::take(spent, rule.budget.concurrent);
        let Some(place) = place.filter(|_| spent.request(rule.budget.requests, Instant::now())) else {
            verdict.deny(Code::EgressBudget);
            return Err(Error::ConnectionLimitReached);
        };
        let Some(socket) = Place::take(&self.all, Some(self.limits.sockets)) else {
            verdict.deny(Code::SocketLimit);
            return Err(Error::ConnectionLimitReached);
        };
        let request = self.prepared(request, ruled, to.https, &verdict)?;
        let wall = Duration::from_millis(self.limits.wall_call.get());
        let options = options.unwrap_or_default();
        let connect = async {
            let socket = self
                .outside
                .dial
                .dial(&self.component, to.https, &to.host, to.port)
                .await;
            let socket = socket.map_err(|code| refused(code, &verdict))?;
            let socket = connected(socket).map_err(Error::Connect)?;
            if to.https {
                let name = ServerName::try_from(to.host.clone()).map_err(|_| Error::HttpRequestUriInvalid)?;
                let tls = tokio_rustls::TlsConnector::from(Arc::clone(&ruled.tls));
                let stream = tls.connect(name, socket).await.map_err(|error| {
                    verdict.deny(Code::UpstreamUntrusted);
                    Error::Tls(error)
                })?;
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

    /// The request as it goes on the wire: origin form (RFC 9112 §3.2.1), one connection, one framing, bounded, and with the rule's
    /// secrets. It is out of the guest's hands by then: nothing gives a sent request back.
    fn prepared(
        &self,
        request: http::Request<WasiBody>,
        ruled: &Ruled,
        https: bool,
        verdict: &Verdict,
    ) -> Result<http::Request<Bounded<WasiBody>>, Error> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let injected: Vec<HeaderName> = ruled.inject.iter().map(|(name, _)| name.clone()).collect();
        // A guest that sets the field believes that its own value counts, or wants to learn how the host takes it.
        let sets_own = injected.iter().any(|name| parts.headers.contains_key(name));
        if sets_own || !fields::one_framing(&mut parts.headers) {
            verdict.deny(Code::FieldForbidden);
            return Err(Error::HttpRequestDenied);
        }
        parts
            .headers
            .insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        if header_bytes(&parts.headers) > self.limits.header_bytes.get() {
            verdict.deny(Code::HeaderLimit);
            return Err(Error::HttpRequestHeaderSectionSize(None));
        }
        // Only over TLS, whatever the grant says.
        for (name, handle) in ruled.inject.iter().filter(|_| https) {
            let Some(value) = self.outside.secrets.get(handle) else {
                verdict.deny(Code::SecretMissing);
                return Err(Error::HttpRequestDenied);
            };
            parts.headers.insert(name.clone(), value.clone());
        }
        let mut toll: Toll = {
            let (spent, rate) = (Arc::clone(&ruled.spent), ruled.rule.budget.bytes_out);
            Box::new(move |bytes| spent.bytes(rate, Instant::now(), bytes))
        };
        if !toll(header_bytes(&parts.headers)) {
            verdict.deny(Code::EgressBudget);
            return Err(Error::ConnectionLimitReached);
        }
        let body = Bounded::new(body, self.limits.body_request, verdict.clone()).outgoing(toll, injected);
        Ok(http::Request::from_parts(parts, body))
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

    fn p3_error_from_hyper(
        &mut self,
        _error: &hyper::Error,
    ) -> wasmtime_wasi_http::p3::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p3::bindings::http::types::ErrorCode::HttpProtocolError
    }

    fn p3_error_from_connect(
        &mut self,
        _error: &std::io::Error,
    ) -> wasmtime_wasi_http::p3::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p3::bindings::http::types::ErrorCode::ConnectionRefused
    }

    fn p3_error_from_tls(
        &mut self,
        _error: &std::io::Error,
    ) -> wasmtime_wasi_http::p3::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p3::bindings::http::types::ErrorCode::TlsProtocolError
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        OUTGOING_CHUNK
    }
}

/// Largest single write to an outgoing body, bytes. The default of 1 MiB is what two such writes would buffer. A longer write of a
/// stream of WASI 0.3 is taken this far, and the guest goes on with the rest.
const OUTGOING_CHUNK: usize = 64 * 1024;

/// A body of nothing, for answers the host makes itself.
pub fn empty_body() -> WasiBody {
    http_body_util::Empty::<Bytes>::new()
        .map_err(Into::into)
        .boxed_unsync()
}
