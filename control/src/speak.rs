//! HTTP over a connection whose handshake is done: which one, within which limits, and for how long.

use crate::error::Refused;
use crate::finish::{Finishing, Panicked};
use crate::live::Entry;
use crate::routes::{Caller, answer};
use crate::turn::{Answered, Turn, Watched};
use axum::http::{Request, Response};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use redan_identity::tls::TlsStream;
use redan_protocol::Code;
use std::convert::Infallible;
use std::future::Future;
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// Longest wait for a request's head (hyper's own default needs a timer, which is set here).
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Oldest connection: older ones are told to come again, and prove themselves again.
const CONNECTION_AGE: Duration = Duration::from_hours(1);
/// Most bytes of a request's head. Tripped by `a_head_over_the_limit_is_refused`.
const HEADERS_MAX: usize = 16 * 1024;
/// The same for HTTP/2, after decompression. Tripped by `a_head_over_the_limit_is_refused`.
const HEADERS_MAX_H2: u32 = 16 * 1024;
/// Most streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// After how long without a request a connection of HTTP/1.1 counts as waiting, at the earliest; twice that at the latest.
const REST_AFTER: Duration = Duration::from_millis(500);
/// Longest wait of such a connection for the next request.
const PAUSE_MAX: Duration = HEAD_WITHIN;
/// How long the other side is told goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// How often a silent HTTP/2 connection is asked whether somebody is there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Who is served over one connection, and what ends it before its time.
pub(crate) struct Conversation<'a, 'live> {
    pub(crate) caller: Arc<Caller>,
    /// Cut when whoever opened it is revoked.
    pub(crate) entry: Option<&'a mut Entry<'live>>,
    /// The server stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Answers what is asked, in the protocol that the handshake agreed on (RFC 7301 §3.2): what its first bytes look like is not asked.
pub(crate) async fn speak(stream: Box<TlsStream<TcpStream>>, conversation: Conversation<'_, '_>) {
    let over_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let grown_old = pin!(tokio::time::sleep(CONNECTION_AGE));
    let talk = Talk {
        conversation,
        grown_old,
    };
    if over_http2 {
        // In a place of its own: devices speak the other one.
        Box::pin(talk.http2(stream)).await;
    } else {
        talk.http1(stream).await;
    }
}

struct Talk<'a, 'live, 'age> {
    conversation: Conversation<'a, 'live>,
    grown_old: Pin<&'age mut Sleep>,
}

impl Talk<'_, '_, '_> {
    async fn http2(mut self, stream: Box<TlsStream<TcpStream>>) {
        let turn = Arc::default();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_MAX_H2)
            .keep_alive_interval(Some(PING_EVERY));
        let service = service(Arc::clone(&self.conversation.caller), turn);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let end = http2::Connection::graceful_shutdown;
        self.until(&mut connection, end, None).await;
    }

    /// While nothing is asked, nothing is kept but the stream: hyper holds 16 KiB for what may come next.
    async fn http1(mut self, mut stream: Box<TlsStream<TcpStream>>) {
        let mut before = Bytes::new();
        loop {
            let turn = Arc::<Turn>::default();
            let mut connection = {
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .max_buf_size(HEADERS_MAX);
                let service = service(Arc::clone(&self.conversation.caller), Arc::clone(&turn));
                let watched = TokioIo::new(Watched::new(stream, before, Arc::clone(&turn)));
                Box::pin(builder.serve_connection(watched, service))
            };
            let end = http1::Connection::graceful_shutdown;
            let Next::Pause = self.until(&mut connection, end, Some(&turn)).await else {
                return;
            };
            let parts = Pin::into_inner(connection).into_parts();
            // An empty one would hold its whole buffer.
            before = Some(parts.read_buf)
                .filter(|read| !read.is_empty())
                .unwrap_or_default();
            stream = parts.io.into_inner().into_stream();
            // What has begun to come is waited for as long as hyper waits for a head.
            if before.is_empty() && !self.pause(&mut stream).await {
                return;
            }
        }
    }

    /// Until one of the two has enough of the connection, or it has rested for a while. `end`: how to say that no more is taken.
    /// `turn`: what says whether it rests, if it ever may.
    async fn until<C, P>(
        &mut self,
        connection: &mut Pin<P>,
        end: fn(Pin<&mut C>),
        turn: Option<&Turn>,
    ) -> Next
    where
        C: Future<Output = hyper::Result<()>>,
        P: DerefMut<Target = C>,
    {
        let (mut ending, mut rested) = (false, None);
        let mut look = pin!(tokio::time::sleep(REST_AFTER));
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection failed");
                    }
                    return Next::End;
                }
                // Revoked: not a word more.
                () = cut(self.conversation.entry.as_deref_mut()) => return Next::End,
                // One that is told to end does so by itself.
                () = look.as_mut(), if !ending && turn.is_some() => {
                    let now = turn.and_then(Turn::rests);
                    if now.is_some() && now == rested {
                        return Next::Pause;
                    }
                    rested = now;
                    look.as_mut().reset(Instant::now() + REST_AFTER);
                    continue;
                }
                _ = self.conversation.stop.changed(), if !ending => {}
                () = self.grown_old.as_mut(), if !ending => {}
            }
            ending = true;
            end(connection.as_mut());
        }
    }

    /// Until something comes; `false`: nothing does, or none is taken any more.
    async fn pause(&mut self, stream: &mut TlsStream<TcpStream>) -> bool {
        let _waiting = Waiting::begin(&self.conversation.caller.fleet.waiting);
        tokio::select! {
            came = stream.get_ref().0.readable() => return came.is_ok(),
            // Revoked: not a word more.
            () = cut(self.conversation.entry.as_deref_mut()) => return false,
            _ = self.conversation.stop.changed() => {}
            () = self.grown_old.as_mut() => {}
            () = tokio::time::sleep(PAUSE_MAX) => {}
        }
        drop(tokio::time::timeout(GOODBYE_WITHIN, stream.shutdown()).await);
        false
    }
}

/// One that waits, as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What becomes of a connection.
enum Next {
    Pause,
    End,
}

/// Answers each request of one connection.
fn service(
    caller: Arc<Caller>,
    turn: Arc<Turn>,
) -> impl Service<Request<Incoming>, Response = Response<Answered>, Error = Infallible, Future: Send + 'static>
+ Unpin
+ 'static {
    service_fn(move |request: Request<Incoming>| {
        let (caller, turn) = (Arc::clone(&caller), Arc::clone(&turn));
        let request = turn.asked(request);
        // What has begun ends in order, also when the connection is cut or the caller hangs up in the middle of a commit.
        let answered = Finishing::new(async move { answer(&caller, request).await });
        async move {
            let answer = match answered.await {
                Ok(answer) => answer,
                Err(Panicked) => Refused::plain(Code::Internal).into_response(),
            };
            Ok::<_, Infallible>(turn.answered(answer))
        }
    })
}

/// Until a connection is to be closed; never, for one that nobody revokes.
async fn cut(entry: Option<&mut Entry<'_>>) {
    match entry {
        Some(entry) => entry.cut().await,
        None => std::future::pending().await,
    }
}
