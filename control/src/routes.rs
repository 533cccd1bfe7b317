//! From a request to what its verified identity may ask for.

use crate::checkin::{Reporter, check_in};
use crate::claims::claimed;
use crate::error::Refused;
use crate::est;
use crate::fleet::Fleet;
use crate::lineage::in_time;
use crate::operator::{Operator, parse};
use crate::server::now;
use crate::table::{Found, Op, Who, find};
use crate::tokens;
use crate::turn::Asked;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body as _;
use redan_identity::est::PKCS10;
use redan_identity::join::Binding;
use redan_identity::{Peer, VerifiedIdentity};
use redan_protocol::join::{Claim, TokenId};
use redan_protocol::wire::{CHECKIN_LEN_MAX, COMPONENT_LEN_MAX, CSR_LEN_MAX, EST_ENROLL};
use redan_protocol::{ByteCount, Code, DeviceId, Digest, OperatorName, Seconds, SpiffeId};
use serde::Serialize;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait for a request's body.
const BODY_WITHIN: Duration = Duration::from_mins(1);
/// Largest operator document: 64 files of metadata in base64. Tripped by `an_operators_document_one_byte_over_the_limit_is_refused`.
const OPERATOR_BODY_MAX: ByteCount = ByteCount::mib(16);

/// Who opened a connection, of which fleet, under which name.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) peer: Peer,
    pub(crate) binding: Binding,
    pub(crate) host: String,
    pub(crate) server: SocketAddr,
    pub(crate) opened: Instant,
    pub(crate) interval: Seconds,
    pub(crate) grace: Option<Seconds>,
}

/// Answers a request, whatever it is.
pub(crate) async fn answer(caller: &Caller, request: Request<Asked>) -> Response<Body> {
    // Says its length or is refused: with chunks, where a request ends is what two readers disagree about (RFC 9112 §6.1, §11.2), and
    // no client of ours sends any. What follows on the connection is not read.
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        let detail = "a request says its length with content-length; no transfer-encoding is taken";
        let mut refused = Refused::because(Code::BadRequest, detail).into_response();
        let close = HeaderValue::from_static("close");
        refused.headers_mut().insert(header::CONNECTION, close);
        return refused;
    }
    match route(caller, request).await {
        Ok(response) => response,
        Err(refused) => {
            tracing::debug!(code = %refused.code, "a request was refused");
            refused.into_response()
        }
    }
}

/// What is rare has a place of its own (`Box::pin`): every check-in would make room for it.
async fn route(caller: &Caller, request: Request<Asked>) -> Result<Response<Body>, Refused> {
    let addressed = authority(request.uri(), request.headers());
    let misdirected = !addressed.is_some_and(|host| host.eq_ignore_ascii_case(&caller.host));
    if misdirected || caller.fleet.gone.load(Ordering::SeqCst) {
        return Err(Refused::plain(Code::MisdirectedRequest));
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Refused::plain(Code::WrongContentType));
    }
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    match &caller.peer {
        Peer::Enrolling { spki } => {
            let token = path == EST_ENROLL;
            no_claims(caller, &"a key that enrols", request.headers(), token).await?;
            let (op, _) = found(Who::Anybody, &method, &path)?;
            Box::pin(enrolment(caller, *spki, op, request)).await
        }
        // Both are asked for their age: a connection may outlive the certificate that opened it.
        Peer::Known(identity) | Peer::Expired(identity) => match identity.id() {
            SpiffeId::Device(_, device) => {
                // Asked per request: a revocation acts on connections that are open.
                let spki = identity.spki();
                match caller.fleet.allows(device, spki, caller.opened, now()).await {
                    Err(refused) if refused.code == Code::Decommissioned => {
                        return Box::pin(last_request(caller, device, &path, request)).await;
                    }
                    allowed => allowed?,
                }
                let fleet = &caller.fleet;
                fleet.in_time(identity, &path, caller.grace, now()).await?;
                no_claims(caller, identity.id(), request.headers(), false).await?;
                let (op, parts) = found(Who::Device, &method, &path)?;
                device_request(caller, (device, identity), (op, &parts), request).await
            }
            SpiffeId::Operator(_, name) => {
                in_time(identity, &path, Seconds::default(), now())?;
                caller.fleet.not_taken_back(identity).await?;
                // Asked per request, of the server's own store.
                let role = caller.fleet.role(name, identity.expires()).await?;
                no_claims(caller, identity.id(), request.headers(), false).await?;
                let (route, parts) = match find(Who::Operator(role), &method, &path) {
                    Found::Route(route, parts) => (route, parts),
                    Found::WrongMethod => return Err(Refused::plain(Code::WrongMethod)),
                    Found::Nothing => return Err(Refused::plain(Code::NotFound)),
                };
                let needs = match route.who {
                    Who::Operator(needs) if needs <= role => needs,
                    Who::Operator(_) | Who::Device | Who::Anybody => {
                        return Err(Refused::plain(Code::NotAuthorised));
                    }
                };
                let operator = Operator {
                    fleet: &caller.fleet,
                    name,
                    expires: identity.expires(),
                    needs,
                    now: now(),
                };
                Box::pin(operator_request(caller, operator, (route.op, &parts), request)).await
            }
            SpiffeId::Control(_) => Err(Refused::plain(Code::NotAuthorised)),
        },
    }
}

/// Nothing in a header says who somebody is.
async fn no_claims(
    caller: &Caller,
    who: &(impl Display + Sync),
    headers: &HeaderMap,
    token: bool,
) -> Result<(), Refused> {
    match claimed(headers, token) {
        None => Ok(()),
        Some(field) => {
            let who = who.to_string();
            Err(Box::pin(caller.fleet.refuse_claim(&who, field, now())).await?)
        }
    }
}

/// The route of a caller who has no roles.
fn found<'a>(who: Who, method: &Method, path: &'a str) -> Result<(Op, Vec<&'a str>), Refused> {
    match find(who, method, path) {
        Found::Route(route, parts) => Ok((route.op, parts)),
        Found::WrongMethod => Err(Refused::plain(Code::WrongMethod)),
        Found::Nothing => Err(Refused::plain(Code::NotFound)),
    }
}

/// The authority of the request, without a port.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) => authority.as_str(),
        (Some(authority), Some(host), None) if authority.as_str().as_bytes() == host.as_bytes() => {
            authority.as_str()
        }
        (None, Some(host), None) => host.to_str().ok()?,
        _ => return None,
    };
    let (host, port) = named.rsplit_once(':').unwrap_or((named, ""));
    port.bytes().all(|b| b.is_ascii_digit()).then_some(host)
}

async fn enrolment(
    caller: &Caller,
    spki: Digest,
    op: Op,
    request: Request<Asked>,
) -> Result<Response<Body>, Refused> {
    match op {
        Op::CaCerts => Ok(pkcs7(est::cacerts(&caller.fleet)?)),
        Op::Enroll => {
            let claim = request.headers().get(header::AUTHORIZATION).cloned();
            let body = text(request, CSR_LEN_MAX).await?;
            let Some(claim) = claim else {
                return Ok(pkcs7(
                    est::enroll(&caller.fleet, spki, &body, caller.grace, now()).await?,
                ));
            };
            let claim = claim.to_str().ok().and_then(Claim::parse);
            let claim = claim.ok_or_else(|| Refused::plain(Code::TokenInvalid))?;
            let from = (spki, &caller.binding);
            Ok(pkcs7(
                tokens::join(&caller.fleet, from, &claim, &body, now()).await?,
            ))
        }
        _ => Err(Refused::plain(Code::NotFound)),
    }
}

async fn device_request(
    caller: &Caller,
    (device, identity): (&DeviceId, &VerifiedIdentity),
    (op, parts): (Op, &[&str]),
    request: Request<Asked>,
) -> Result<Response<Body>, Refused> {
    let fleet = &caller.fleet;
    let part = parts.first().copied().unwrap_or_default();
    match op {
        Op::CheckIn => {
            let kind = request.headers().get(header::CONTENT_TYPE);
            if kind != Some(&HeaderValue::from_static("application/json")) {
                return Err(Refused::plain(Code::WrongContentType));
            }
            let body = collect(request, CHECKIN_LEN_MAX).await?;
            let from = Reporter {
                device,
                identity,
                opened: caller.opened,
            };
            let reply = check_in(fleet, from, &body, caller.interval, now()).await?;
            Ok(respond("application/json", reply))
        }
        Op::Reenroll => {
            let body = text(request, CSR_LEN_MAX).await?;
            let renewed = est::reenroll(fleet, device, identity.spki(), &body, now());
            Ok(pkcs7(Box::pin(renewed).await?))
        }
        Op::CaCerts => Ok(pkcs7(est::cacerts(fleet)?)),
        Op::Artifact => Box::pin(fleet.artifacts.serve(digest(part)?, request.headers())).await,
        Op::ReleaseFile => release_file(fleet, part).await,
        Op::DirectorFile => director_file(fleet, device, part).await,
        _ => Err(Refused::plain(Code::NotFound)),
    }
}

fn digest(text: &str) -> Result<Digest, Refused> {
    Digest::parse(text).map_err(|_| Refused::plain(Code::NotFound))
}

/// A device that was decommissioned may read the order and what it is signed with, also with a certificate that has expired, and
/// nothing else.
async fn last_request(
    caller: &Caller,
    device: &DeviceId,
    path: &str,
    request: Request<Asked>,
) -> Result<Response<Body>, Refused> {
    let fleet = &caller.fleet;
    let refused = || Refused::plain(Code::Decommissioned);
    if request.method() != Method::GET {
        return Err(refused());
    }
    if let Some(file) = path.strip_prefix("/tuf/release/") {
        return release_file(fleet, file).await;
    }
    let order = crate::policy::order(&*fleet.state.lock().await, device).ok_or_else(refused)?;
    if path != format!("/artifacts/{order}") {
        return Err(refused());
    }
    fleet.order_fetched(device, now()).await?;
    fleet.artifacts.serve(order, request.headers()).await
}

async fn release_file(fleet: &Fleet, file: &str) -> Result<Response<Body>, Refused> {
    let state = fleet.state.lock().await;
    let bytes = state.release.get(file).cloned();
    Ok(metadata(bytes.ok_or_else(|| Refused::plain(Code::NotFound))?))
}

async fn director_file(fleet: &Fleet, device: &DeviceId, file: &str) -> Result<Response<Body>, Refused> {
    if let Some(root) = fleet.held().director_roots.get(file) {
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
    (op, parts): (Op, &[&str]),
    request: Request<Asked>,
) -> Result<Response<Body>, Refused> {
    let part = parts.first().copied().unwrap_or_default();
    let device = || DeviceId::parse(part).map_err(|_| Refused::plain(Code::NotFound));
    let number = || part.parse::<u64>().map_err(|_| Refused::plain(Code::NotFound));
    let name = || OperatorName::parse(part).map_err(|_| Refused::plain(Code::NotFound));
    match op {
        Op::Fleet => json(&operator.whoami().await?),
        Op::Admit => json(
            &operator
                .admit(document(request).await?, &caller.server.to_string())
                .await?,
        ),
        Op::Devices => json(&operator.devices(None).await?),
        Op::Device => json(&operator.devices(Some(&device()?)).await?),
        Op::Revoke => json(&operator.revoke(&device()?).await?),
        Op::ReleaseFile => release_file(operator.fleet, part).await,
        Op::Publish => json(&operator.release(document(request).await?).await?),
        Op::Artifact => {
            operator
                .fleet
                .artifacts
                .serve(digest(part)?, request.headers())
                .await
        }
        Op::PutArtifact => {
            let digest = digest(part)?;
            let body = collect(request, COMPONENT_LEN_MAX).await?;
            json(&operator.put_artifact(digest, body).await?)
        }
        Op::Start => json(&operator.start(document(request).await?).await?),
        Op::Rollouts => json(&operator.rollouts(None).await?),
        Op::Rollout => json(&operator.rollouts(Some(number()?)).await?),
        Op::Pause => json(&operator.steer(number()?, "pause").await?),
        Op::Resume => json(&operator.steer(number()?, "resume").await?),
        Op::Abort => json(&operator.steer(number()?, "abort").await?),
        Op::Approve => json(&operator.approve(number()?).await?),
        Op::Crl => json(&operator.crl().await?),
        Op::Audit => json(&operator.audit().await?),
        Op::AuditFrom => json(&operator.audit_from(number()?).await?),
        Op::Metrics => crate::metrics::render(operator.fleet, operator.now).await,
        Op::Operators => json(&operator.operators().await),
        Op::AddOperator => json(&operator.add_operator(document(request).await?).await?),
        Op::SetRole => {
            let name = name()?;
            json(&operator.set_role(&name, document(request).await?).await?)
        }
        Op::Tokens => json(&operator.tokens().await),
        Op::MakeToken => {
            let server = caller.server.to_string();
            json(&operator.make_token(document(request).await?, &server).await?)
        }
        Op::RevokeToken => {
            let token = TokenId::parse(part).map_err(|_| Refused::plain(Code::NotFound))?;
            json(&operator.revoke_token(&token).await?)
        }
        Op::RemoveOperator => json(&operator.remove_operator(&name()?).await?),
        Op::CaCerts | Op::Enroll | Op::Reenroll | Op::CheckIn | Op::DirectorFile => {
            Err(Refused::plain(Code::NotFound))
        }
    }
}

/// What an operator sends, read strictly.
async fn document<T: for<'de> serde::Deserialize<'de>>(request: Request<Asked>) -> Result<T, Refused> {
    parse(&collect(request, OPERATOR_BODY_MAX).await?)
}

async fn collect(request: Request<Asked>, limit: ByteCount) -> Result<Bytes, Refused> {
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

async fn text(request: Request<Asked>, limit: ByteCount) -> Result<String, Refused> {
    // RFC 7030 §4.2.1.
    if request.headers().get(header::CONTENT_TYPE) != Some(&HeaderValue::from_static(PKCS10)) {
        return Err(Refused::plain(Code::WrongContentType));
    }
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
