//! A request as a guest is handed it, by the WASI the guest is of.

use super::tasks::{self, Task};
use super::{Refused, status};
use crate::version::{Call, Version};
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use redan_host_api::body::Bounded;
use redan_host_api::state::GuestState;
use redan_protocol::Code;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::p3::bindings::ServicePre;

/// What a guest gave, or would not.
pub(super) type Answer<B, E> = Result<Response<B>, E>;
/// A store, and what is asked of the guest in it.
pub(super) type Ready = (Store<GuestState>, Asked);

/// What is asked of a guest, by the WASI it is of.
pub(super) enum Asked {
    Handle(
        ProxyPre<GuestState>,
        Resource<HostIncomingRequest>,
        Resource<HostResponseOutparam>,
    ),
    Task(Task),
}

impl Asked {
    /// Until the guest has ended.
    pub(super) async fn run(self, store: &mut Store<GuestState>) -> wasmtime::Result<()> {
        match self {
            Self::Handle(entry, incoming, out) => {
                let proxy = entry.instantiate_async(&mut *store).await?;
                let handler = proxy.wasi_http_incoming_handler();
                handler.call_handle(store, incoming, out).await
            }
            Self::Task(task) => task.run(store).await,
        }
    }
}

/// Makes a store ready for a request, and the request for a guest of WASI 0.2.
pub(super) fn prepare(
    entry: &ProxyPre<GuestState>,
    call: &Call,
    version: &Version,
    request: Request<Incoming>,
    sender: oneshot::Sender<Answer<HyperOutgoingBody, ErrorCode>>,
) -> Result<Ready, Refused> {
    let mut store = call.store(version).map_err(|code| (status(code), code))?;
    let limit = call.limits().body_request;
    let request = request.map(|body| Bounded::new(body, limit, call.verdict.clone()));
    let mut http = store.data_mut().http();
    // Fails without a readable Host (RFC 9112 §3.2).
    let incoming = http
        .new_incoming_request(Scheme::Http, request)
        .map_err(|_| (StatusCode::BAD_REQUEST, Code::BadRequest))?;
    let out = http.new_response_outparam(sender);
    let out = out.map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, Code::HandleLimit))?;
    Ok((store, Asked::Handle(entry.clone(), incoming, out)))
}

/// The same for WASI 0.3.
pub(super) fn prepare_task(
    entry: &ServicePre<GuestState>,
    call: &Call,
    version: &Version,
    request: Request<Incoming>,
    sender: oneshot::Sender<tasks::Answer>,
) -> Result<Ready, Refused> {
    // As for 0.2, which is told the authority (RFC 9112 §3.2).
    let host = request.headers().get(http::header::HOST);
    let readable = host.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    if readable.is_none() && request.uri().authority().is_none() {
        return Err((StatusCode::BAD_REQUEST, Code::BadRequest));
    }
    let mut store = call.store(version).map_err(|code| (status(code), code))?;
    let limit = call.limits().body_request;
    let request = request.map(|body| Bounded::new(body, limit, call.verdict.clone()));
    let task = Task::new(entry, &mut store, request, sender);
    Ok((store, Asked::Task(task)))
}
