//! HTTP over a connection whose handshake is done: which one, within which limits, and for how long.

use crate::error::Refused;
use crate::finish::{Finishing, Panicked};
use crate::live::Entry;
use crate::routes::{Caller, answer};
use axum::http::{Request, Response};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use redan_identity::tls::TlsStream;
use redan_protocol::Code;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

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
pub(crate) async fn speak(stream: TlsStream<TcpStream>, conversation: Conversation<'_, '_>) {
    let over_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let caller = Arc::clone(&conversation.caller);
    let service = service_fn(move |request: Request<Incoming>| {
        let caller = Arc::clone(&caller);
        // What has begun ends in order, also when the connection is cut or the caller hangs up in the middle of a commit.
        let answered = Finishing::new(async move { answer(&caller, request).await });
        async move {
            let answer: Response<_> = match answered.await {
                Ok(answer) => answer,
                Err(Panicked) => Refused::plain(Code::Internal).into_response(),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let stream = TokioIo::new(stream);
    if over_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_MAX_H2)
            .keep_alive_interval(Some(PING_EVERY));
        let connection = builder.serve_connection(stream, service);
        // In a place of its own: devices speak the other one, and a connection has room for the larger of what may become of it.
        let connection = Box::pin(connection);
        conversation
            .until(connection, http2::Connection::graceful_shutdown)
            .await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEADERS_MAX);
        let connection = std::pin::pin!(builder.serve_connection(stream, service));
        conversation
            .until(connection, http1::Connection::graceful_shutdown)
            .await;
    }
}

impl Conversation<'_, '_> {
    /// Until one of the two has enough of it. `end`: how to say that no more is taken.
    async fn until<C, P>(mut self, mut connection: Pin<P>, end: fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
        P: std::ops::DerefMut<Target = C>,
    {
        let mut stopping = false;
        let mut grown_old = std::pin::pin!(tokio::time::sleep(CONNECTION_AGE));
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection failed");
                    }
                    return;
                }
                // Revoked: not a word more.
                () = cut(self.entry.as_deref_mut()) => return,
                _ = self.stop.changed(), if !stopping => {
                    stopping = true;
                    end(connection.as_mut());
                }
                () = grown_old.as_mut(), if !stopping => {
                    stopping = true;
                    end(connection.as_mut());
                }
            }
        }
    }
}

/// Until a connection is to be closed; never, for one that nobody revokes.
async fn cut(entry: Option<&mut Entry<'_>>) {
    match entry {
        Some(entry) => entry.cut().await,
        None => std::future::pending().await,
    }
}
