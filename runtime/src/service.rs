//! A service: a listener that never closes, and each request's way through the version that answers.

mod asked;
mod tasks;

use crate::swap::{Lease, Pointer};
use crate::version::{Call, Entry};
use asked::{Answer, Ready};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use redan_host_api::body::Bounded;
use redan_host_api::egress::{empty_body, header_bytes};
use redan_host_api::state::Capabilities;
use redan_policy::grant::HttpTrigger;
use redan_protocol::Code;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;
use wasmtime_wasi_http::{Error, WasiBody};

/// Open connections of one listener. Each costs a task and a read buffer.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// How long a client may take for its request head.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave what is sent to it unread. The kernel counts, also while the client's window is closed.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may wait for one of the workload's places before it is refused.
pub(crate) const QUEUE_TIMEOUT: Duration = Duration::from_millis(250);
/// Read buffer of a connection, bytes: bounds the request head before the grant's own limit is asked.
const READ_BUFFER: usize = 128 * 1024;
/// Pause when the process has no descriptors left: accepting would fail at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The service of one component, whatever version answers.
#[derive(Default)]
pub(crate) struct Service {
    /// Which version answers.
    pub(crate) pointer: Pointer,
    listening: Mutex<Option<(SocketAddr, AbortHandle)>>,
}

impl Service {
    /// Takes a listening socket. The same address again changes nothing: the listener that is open stays open.
    pub(crate) fn listen(self: &Arc<Self>, socket: OwnedFd) -> std::io::Result<()> {
        let socket = std::net::TcpListener::from(socket);
        let address = socket.local_addr()?;
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.as_ref().is_some_and(|(open, _)| *open == address) {
            return Ok(());
        }
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let task = tokio::spawn(accept(Arc::clone(self), listener)).abort_handle();
        if let Some((_, old)) = listening.replace((address, task)) {
            old.abort();
        }
        Ok(())
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<WasiBody> {
        match self.try_answer(request).await {
            Ok(answer) => answer,
            Err((status, code)) => refusal(status, code),
        }
    }

    async fn try_answer(&self, request: Request<Incoming>) -> Result<Response<WasiBody>, Refused> {
        let version = self
            .pointer
            .lease()
            .ok_or((StatusCode::SERVICE_UNAVAILABLE, Code::NothingToRunSafely))?;
        let capabilities = version.capabilities();
        admitted(&capabilities, request.method(), request.uri().path())?;
        let limits = &capabilities.grant().limits;
        if header_bytes(request.headers()) > limits.header_bytes.get() {
            return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::HeaderLimit));
        }
        if declared(request.headers()).is_some_and(|length| length > limits.body_request.get()) {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, Code::BodyLimit));
        }
        let place = place(&version.places).await;
        let place = place.ok_or((StatusCode::SERVICE_UNAVAILABLE, Code::ConcurrencyLimit));
        let place = place.inspect_err(|(_, code)| version.record(Some(*code), None, 0))?;
        let call = Call::new(&version);
        let refused = |(_, code): &Refused| version.record(Some(*code), None, 0);
        match &version.entry {
            Entry::Service(entry) => {
                let (sender, receiver) = oneshot::channel();
                let ready = asked::prepare(entry, &call, &version, request, sender).inspect_err(refused)?;
                handled(version, call, place, ready, receiver).await
            }
            Entry::Tasks(entry) => {
                let (sender, receiver) = oneshot::channel();
                let ready =
                    asked::prepare_task(entry, &call, &version, request, sender).inspect_err(refused)?;
                handled(version, call, place, ready, receiver).await
            }
            Entry::Job(_) | Entry::Message(_) => Err((StatusCode::INTERNAL_SERVER_ERROR, Code::Internal)),
        }
    }
}

/// Runs the guest until it has given its answer's head; what it writes after that follows while the client reads.
async fn handled<B, E>(
    version: Lease,
    call: Call,
    place: OwnedSemaphorePermit,
    (mut store, asked): Ready,
    mut receiver: oneshot::Receiver<Answer<B, E>>,
) -> Result<Response<WasiBody>, Refused>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Error>,
{
    let account = Arc::new(Account {
        version,
        call,
        outcome: Mutex::new(None),
    });
    let running = Arc::clone(&account);
    let mut guest = Box::pin(async move {
        // Places bound guests, not clients: one that does not read its answer holds none.
        let _place = place;
        let guest = asked.run(&mut store);
        let outcome = running
            .call
            .run(&running.version, running.call.limits().wall_call, guest)
            .await;
        // Before the store goes: its end is the end of the body, and then it must be known why.
        running.ended(outcome.err());
        outcome
    });
    let (answer, goes_on) = tokio::select! {
        biased;
        outcome = &mut guest => match (receiver.try_recv(), outcome) {
            (Ok(answer), _) => (answer, false),
            (Err(_), Err(code)) => return Err((status(code), code)),
            (Err(_), Ok(())) => return Err(account.failed(Code::Trapped)),
        },
        answer = &mut receiver => match answer {
            Ok(answer) => (answer, true),
            Err(_) => match guest.await {
                Err(code) => return Err((status(code), code)),
                Ok(()) => return Err(account.failed(Code::Trapped)),
            },
        },
    };
    // An answer that is refused takes the guest with it.
    let answer = outgoing(answer, account)?;
    if goes_on {
        tokio::spawn(guest);
    }
    Ok(answer)
}

type Refused = (StatusCode, Code);
/// Checks the guest's answer and bounds its body.
fn outgoing<B, E>(answer: Answer<B, E>, account: Arc<Account>) -> Result<Response<WasiBody>, Refused>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Error>,
{
    let limits = account.call.limits();
    let (header_limit, body_limit) = (limits.header_bytes, limits.body_response);
    let Ok(answer) = answer else {
        return Err(account.failed(Code::Trapped));
    };
    if header_bytes(answer.headers()) > header_limit.get() {
        return Err(account.failed(Code::HeaderLimit));
    }
    if declared(answer.headers()).is_some_and(|length| length > body_limit.get()) {
        return Err(account.failed(Code::BodyLimit));
    }
    let verdict = account.call.verdict.clone();
    Ok(answer.map(|body| {
        let body = Bounded::new(body, body_limit, verdict);
        Answered { body, account }.boxed_unsync()
    }))
}

/// The body of an answer. The account is closed when guest and client are both done with it.
struct Answered<B> {
    body: Bounded<B>,
    account: Arc<Account>,
}

impl<B> Body for Answered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // A guest that was cut off leaves a body that just ends: the client must not take it for the whole.
        if matches!(frame, Poll::Ready(None)) && self.account.outcome().is_some() {
            return Poll::Ready(Some(Err(Error::HttpProtocolError)));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One call's account, recorded when the last who holds it lets go.
struct Account {
    version: Lease,
    call: Call,
    outcome: Mutex<Option<Code>>,
}

impl Account {
    fn outcome(&self) -> Option<Code> {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, failure: Option<Code>) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        *outcome = outcome.or(failure);
    }

    /// The call failed although the guest did not; also the refusal for the client.
    fn failed(&self, code: Code) -> Refused {
        let code = self.call.verdict.code().unwrap_or(code);
        self.ended(Some(code));
        (status(code), code)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let outcome = *self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner);
        let cut = self.call.verdict.code().filter(|code| *code == Code::BodyLimit);
        let noted = self.call.verdict.noted();
        self.version
            .record(outcome.or(cut), noted, self.call.cpu.used_millis());
    }
}

async fn place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    // Places that come free go to who waits first: nobody is overtaken here.
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    let place = Arc::clone(places).acquire_owned();
    tokio::time::timeout(QUEUE_TIMEOUT, place).await.ok()?.ok()
}

/// Whether the version may be asked this: by its grant, or by a publisher's bench.
fn admitted(capabilities: &Capabilities, method: &Method, path: &str) -> Result<(), Refused> {
    if let Some(bench) = capabilities.bench() {
        bench.answered(method.as_str(), path);
        if bench.every_request {
            return Ok(());
        }
    }
    routed(&capabilities.grant().trigger_http, method, path)
}

/// Whether a trigger of the grant admits it. A route ending in `/...` admits everything below.
fn routed(triggers: &[HttpTrigger], method: &Method, path: &str) -> Result<(), Refused> {
    let mut found = false;
    for trigger in triggers {
        let under = match trigger.route.strip_suffix("/...") {
            Some(prefix) => path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            None => path == trigger.route,
        };
        found |= under;
        if under && trigger.methods.iter().any(|allowed| allowed == method.as_str()) {
            return Ok(());
        }
    }
    if found {
        Err((StatusCode::METHOD_NOT_ALLOWED, Code::WrongMethod))
    } else {
        Err((StatusCode::NOT_FOUND, Code::NotFound))
    }
}

fn declared(headers: &http::HeaderMap) -> Option<u64> {
    headers
        .get(http::header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The status a failed call answers with.
fn status(code: Code) -> StatusCode {
    match code {
        Code::CpuLimit | Code::WallLimit => StatusCode::GATEWAY_TIMEOUT,
        Code::ConcurrencyLimit
        | Code::DeviceMemory
        | Code::InstanceLimit
        | Code::Superseded
        | Code::NothingToRunSafely => StatusCode::SERVICE_UNAVAILABLE,
        Code::BodyLimit => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An answer of the host's own: a code, no text of the guest.
fn refusal(status: StatusCode, code: Code) -> Response<WasiBody> {
    let mut answer = Response::new(empty_body());
    *answer.status_mut() = status;
    let name = HeaderValue::from_static(code.name());
    answer.headers_mut().insert("redan-code", name);
    answer
}

async fn accept(service: Arc<Service>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // A place first: what is not accepted waits in the kernel's queue, which is bounded.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    let _place = place;
                    connection(service, client).await;
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(service: Arc<Service>, client: TcpStream) {
    let _ = client.set_nodelay(true);
    let stall = u32::try_from(STALL_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&client, stall);
    let answer = hyper::service::service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    // A connection's end, good or bad, concerns its client alone; the text of the error is not ours to keep.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(client), answer)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_admits_its_own_paths_and_methods_only() {
        let triggers = [HttpTrigger {
            route: "/thermo/...".to_owned(),
            methods: vec!["GET".to_owned()],
        }];
        let ask = |method, path| routed(&triggers, &method, path).map_err(|(_, code)| code);
        assert_eq!(ask(Method::GET, "/thermo/"), Ok(()));
        assert_eq!(ask(Method::GET, "/thermo/a/b"), Ok(()));
        assert_eq!(ask(Method::GET, "/thermo"), Ok(()));
        assert_eq!(ask(Method::POST, "/thermo/"), Err(Code::WrongMethod));
        assert_eq!(ask(Method::GET, "/thermometer"), Err(Code::NotFound));
        assert_eq!(ask(Method::GET, "/"), Err(Code::NotFound));
    }
}
