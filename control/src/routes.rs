//! From a request to what its verified identity may ask for.

use crate::checkin::check_in;
use crate::error::Refused;
use crate::est;
use crate::fleet::Fleet;
use crate::lineage::in_time;
use crate::operator::{Operator, parse};
use crate::server::now;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body as _;
use redan_identity::Peer;
use redan_protocol::wire::{
    CHECKIN, CHECKIN_LEN_MAX, COMPONENT_LEN_MAX, CSR_LEN_MAX, EST_CACERTS, EST_ENROLL, EST_REENROLL,
};
use redan_protocol::{ByteCount, Code, DeviceId, Digest, Seconds, SpiffeId};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for a request's body.
const BODY_WITHIN: Duration = Duration::from_mins(1);
/// Largest operator document: 64 files of metadata in base64. Tripped by `an_operators_document_one_byte_over_the_limit_is_refused`.
const OPERATOR_BODY_MAX: ByteCount = ByteCount::mib(16);

/// Who opened a connection, of which fleet, under which name.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) peer: Peer,
    pub(crate) host: String,
    pub(crate) server: SocketAddr,
    pub(crate) opened: Instant,
    pub(crate) interval: Seconds,
    pub(crate) grace: Seconds,
}

/// Answers a request, whatever it is.
pub(crate) async fn answer(caller: &Caller, request: Request<hyper::body::Incoming>) -> Response<Body> {
    match route(caller, request).await {
        Ok(response) => response,
        Err(refused) => {
            tracing::debug!(code = %refused.code, "a request was refused");
            refused.into_response()
        }
    }
}

async fn route(caller: &Caller, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Refused> {
    if authority(request.uri(), request.headers()).as_deref() != Some(&caller.host) {
        return Err(Refused::plain(Code::MisdirectedRequest));
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Refused::plain(Code::WrongContentType));
    }
    let path = request.uri().path().to_owned();
    match &caller.peer {
        Peer::Enrolling { spki } => enrolment(caller, *spki, &path, request).await,
        // Both are asked for their age: a connection may outlive the certificate that opened it.
        Peer::Known(identity) | Peer::Expired(identity) => match identity.id().clone() {
            SpiffeId::Device(_, device) => {
                // Asked per request: a revocation acts on connections that are open.
                let spki = identity.spki();
                caller.fleet.allows(&device, spki, caller.opened, now()).await?;
                in_time(identity, &path, caller.grace, now())?;
                device_request(caller, (&device, spki), &path, request).await
            }
            SpiffeId::Operator(_, name) => {
                in_time(identity, &path, Seconds::default(), now())?;
                let operator = Operator {
                    fleet: &caller.fleet,
                    name: &name,
                    now: now(),
                };
                operator_request(caller, operator, &path, request).await
            }
            SpiffeId::Control(_) => Err(Refused::plain(Code::NotAuthorised)),
        },
    }
}

/// The authority of the request, without a port.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) => authority.as_str().to_owned(),
        (Some(authority), Some(host), None) if authority.as_str().as_bytes() == host.as_bytes() => {
            authority.as_str().to_owned()
        }
        (None, Some(host), None) => host.to_str().ok()?.to_owned(),
        _ => return None,
    };
    let (host, port) = named.rsplit_once(':').unwrap_or((&named, ""));
    port.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| host.to_ascii_lowercase())
}

async fn enrolment(
    caller: &Caller,
    spki: Digest,
    path: &str,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Refused> {
    match (path, request.method()) {
        (EST_CACERTS, &Method::GET) => Ok(pkcs7(est::cacerts(&caller.fleet)?)),
        (EST_ENROLL, &Method::POST) => {
            let body = text(request, CSR_LEN_MAX).await?;
            Ok(pkcs7(est::enroll(&caller.fleet, spki, &body, now()).await?))
        }
        (EST_CACERTS | EST_ENROLL, _) => Err(Refused::plain(Code::WrongMethod)),
        _ => Err(Refused::plain(Code::NotFound)),
    }
}

async fn device_request(
    caller: &Caller,
    (device, spki): (&DeviceId, Digest),
    path: &str,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Refused> {
    let fleet = &caller.fleet;
    if path == CHECKIN {
        if request.method() != Method::POST {
            return Err(Refused::plain(Code::WrongMethod));
        }
        if request.headers().get(header::CONTENT_TYPE) != Some(&HeaderValue::from_static("application/json"))
        {
            return Err(Refused::plain(Code::WrongContentType));
        }
        let body = collect(request, CHECKIN_LEN_MAX).await?;
        return json(&check_in(fleet, device, &body, caller.interval, now()).await?);
    }
    if path == EST_REENROLL {
        if request.method() != Method::POST {
            return Err(Refused::plain(Code::WrongMethod));
        }
        let body = text(request, CSR_LEN_MAX).await?;
        return Ok(pkcs7(est::reenroll(fleet, device, spki, &body, now()).await?));
    }
    if request.method() != Method::GET {
        return Err(Refused::plain(Code::WrongMethod));
    }
    if path == EST_CACERTS {
        return Ok(pkcs7(est::cacerts(fleet)?));
    }
    if let Some(digest) = path.strip_prefix("/artifacts/") {
        let digest = Digest::parse(digest).map_err(|_| Refused::plain(Code::NotFound))?;
        return fleet.artifacts.serve(digest, request.headers()).await;
    }
    if let Some(file) = path.strip_prefix("/tuf/release/") {
        return release_file(fleet, file).await;
    }
    if let Some(file) = path.strip_prefix("/tuf/director/") {
        return director_file(fleet, device, file).await;
    }
    Err(Refused::plain(Code::NotFound))
}

async fn release_file(fleet: &Fleet, file: &str) -> Result<Response<Body>, Refused> {
    let state = fleet.state.lock().await;
    let bytes = state.release.get(file).cloned();
    Ok(metadata(bytes.ok_or_else(|| Refused::plain(Code::NotFound))?))
}

async fn director_file(fleet: &Fleet, device: &DeviceId, file: &str) -> Result<Response<Body>, Refused> {
    if let Some(root) = fleet.director_roots.get(file) {
        return Ok(metadata(root.clone()));
    }
    let state = fleet.state.lock().await;
    let row = state
        .director
        .get(device)
        .ok_or_else(|| Refused::plain(Code::NotFound))?;
    let text = match file {
        "timestamp.json" => &row.timestamp,
        _ if file == format!("{}.snapshot.json", row.version) => &row.snapshot,
        _ if file == format!("{}.targets.json", row.version) => &row.targets,
        _ => return Err(Refused::plain(Code::NotFound)),
    };
    Ok(metadata(text.clone().into_bytes()))
}

async fn operator_request(
    caller: &Caller,
    operator: Operator<'_>,
    path: &str,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Refused> {
    let method = request.method().clone();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let device = |id: &str| DeviceId::parse(id).map_err(|_| Refused::plain(Code::NotFound));
    let number = |id: &str| id.parse::<u64>().map_err(|_| Refused::plain(Code::NotFound));
    match (method, segments.as_slice()) {
        (Method::GET, ["v1", "fleet"]) => {
            let fleet = operator.fleet;
            json(
                &serde_json::json!({"fleet": fleet.id, "ca_sha256": fleet.anchor.sha256(), "operator": operator.name}),
            )
        }
        (Method::POST, ["v1", "devices", "admit"]) => {
            let body = collect(request, OPERATOR_BODY_MAX).await?;
            json(&operator.admit(parse(&body)?, &caller.server.to_string()).await?)
        }
        (Method::GET, ["v1", "devices"]) => json(&operator.devices(None).await?),
        (Method::GET, ["v1", "devices", id]) => json(&operator.devices(Some(&device(id)?)).await?),
        (Method::POST, ["v1", "devices", id, "revoke"]) => json(&operator.revoke(&device(id)?).await?),
        (Method::GET, ["v1", "release", file]) => release_file(operator.fleet, file).await,
        (Method::POST, ["v1", "release"]) => {
            let body = collect(request, OPERATOR_BODY_MAX).await?;
            json(&operator.release(parse(&body)?).await?)
        }
        (Method::GET, ["v1", "artifacts", digest]) => {
            let digest = Digest::parse(digest).map_err(|_| Refused::plain(Code::NotFound))?;
            operator.fleet.artifacts.serve(digest, request.headers()).await
        }
        (Method::PUT, ["v1", "artifacts", digest]) => {
            let digest = Digest::parse(digest).map_err(|_| Refused::plain(Code::NotFound))?;
            let body = collect(request, COMPONENT_LEN_MAX).await?;
            json(&operator.put_artifact(digest, body).await?)
        }
        (Method::POST, ["v1", "rollouts"]) => {
            let body = collect(request, OPERATOR_BODY_MAX).await?;
            json(&operator.start(parse(&body)?).await?)
        }
        (Method::GET, ["v1", "rollouts"]) => json(&operator.rollouts(None).await?),
        (Method::GET, ["v1", "rollouts", id]) => json(&operator.rollouts(Some(number(id)?)).await?),
        (Method::POST, ["v1", "rollouts", id, verb]) => json(&operator.steer(number(id)?, verb).await?),
        (Method::GET, ["v1", "audit"]) => json(&operator.audit().await?),
        (Method::GET, ["metrics"]) => crate::metrics::render(operator.fleet, operator.now).await,
        _ => Err(Refused::plain(Code::NotFound)),
    }
}

async fn collect(request: Request<hyper::body::Incoming>, limit: ByteCount) -> Result<Bytes, Refused> {
    // What says that it is too long is refused before a byte of it is read.
    if request.body().size_hint().lower() > limit.get() {
        return Err(Refused::plain(Code::TooLarge));
    }
    let most = usize::try_from(limit.get()).unwrap_or(usize::MAX);
    let body = Limited::new(request.into_body(), most).collect();
    match tokio::time::timeout(BODY_WITHIN, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refused::plain(Code::TooLarge))
        }
        _ => Err(Refused::plain(Code::BadRequest)),
    }
}

async fn text(request: Request<hyper::body::Incoming>, limit: ByteCount) -> Result<String, Refused> {
    let body = collect(request, limit).await?;
    String::from_utf8(body.to_vec()).map_err(|_| Refused::plain(Code::CsrInvalid))
}

fn respond(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (StatusCode::OK, headers, body.into()).into_response()
}

fn json(value: &impl Serialize) -> Result<Response<Body>, Refused> {
    let body = serde_json::to_vec(value).map_err(|_| Refused::plain(Code::Internal))?;
    Ok(respond("application/json", body))
}

fn metadata(bytes: Vec<u8>) -> Response<Body> {
    respond("application/json", bytes)
}

fn pkcs7(text: String) -> Response<Body> {
    respond(redan_identity::est::PKCS7, text)
}
