//! Whether a connection of HTTP/1.1 rests: everything that was asked is answered to its last byte, and nothing more has begun.
//!
//! hyper does not say so itself. What is seen from around it decides: request bodies, answers' bodies, and the stream. Whoever is in
//! doubt says no, for good: a byte of a body that nobody has read would else be taken for the beginning of a request.

use axum::body::Body as Answer;
use axum::http::{Request, Response, Version, header};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was seen of one connection since hyper took it up. Written and read by the connection's own task alone.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Requests that have come.
    asked: AtomicUsize,
    /// Answers whose last byte hyper has taken.
    answered: AtomicUsize,
    /// A request or an answer after which the connection is not simply there for the next one.
    spoilt: AtomicBool,
    /// The last that was tried on the stream was to read, and nothing was there.
    dry: AtomicBool,
    /// Something was written, and not all of it is known to have left.
    unsent: AtomicBool,
}

impl Turn {
    /// How many requests came until it rested; `None`: it does not.
    pub(crate) fn rests(&self) -> Option<usize> {
        let asked = self.asked.load(Ordering::Relaxed);
        let rests = asked > 0
            && asked == self.answered.load(Ordering::Relaxed)
            && !self.spoilt.load(Ordering::Relaxed)
            && self.dry.load(Ordering::Relaxed)
            && !self.unsent.load(Ordering::Relaxed);
        rests.then_some(asked)
    }

    fn spoil(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    /// A request comes.
    pub(crate) fn asked(self: &Arc<Self>, request: Request<Incoming>) -> Request<Asked> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let plain = request.version() == Version::HTTP_11;
        if !plain || request.headers().contains_key(header::CONNECTION) {
            self.spoil();
        }
        let turn = Arc::clone(self);
        request.map(|body| Asked { body, turn })
    }

    /// Its answer goes.
    pub(crate) fn answered(self: &Arc<Self>, answer: Response<Answer>) -> Response<Answered> {
        if answer.headers().contains_key(header::CONNECTION) {
            self.spoil();
        }
        let turn = Arc::clone(self);
        answer.map(|body| Answered { body, turn })
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Asked {
    body: Incoming,
    turn: Arc<Turn>,
}

impl Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.turn.spoil();
        }
    }
}

/// The body of an answer: hyper lets go of it when it has taken all of it.
#[derive(Debug)]
pub(crate) struct Answered {
    body: Answer,
    turn: Arc<Turn>,
}

impl Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.turn.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// The stream, and what hyper had read ahead of the pause before.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    before: Bytes,
    turn: Arc<Turn>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, before: Bytes, turn: Arc<Turn>) -> Self {
        Self { stream, before, turn }
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.turn.dry.store(false, Ordering::Relaxed);
        if !self.before.is_empty() {
            let part = self.before.len().min(into.remaining());
            let part = self.before.split_to(part);
            into.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        self.turn.dry.store(read.is_pending(), Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.turn.unsent.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.turn.unsent.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.turn.unsent.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.turn.spoil();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn of which one thing is not as it is at rest.
    fn turn(change: impl FnOnce(&Turn)) -> bool {
        let turn = Turn::default();
        turn.asked.store(2, Ordering::Relaxed);
        turn.answered.store(2, Ordering::Relaxed);
        turn.dry.store(true, Ordering::Relaxed);
        change(&turn);
        turn.rests().is_some()
    }

    #[test]
    fn a_connection_rests_only_when_nothing_is_under_way_in_any_direction() {
        assert!(turn(|_| ()), "positive control");
        assert!(
            !turn(|turn| turn.asked.store(3, Ordering::Relaxed)),
            "an answer is owed"
        );
        assert!(
            !turn(Turn::spoil),
            "a body was not read, or the connection is to end"
        );
        assert!(
            !turn(|turn| turn.dry.store(false, Ordering::Relaxed)),
            "more was read"
        );
        assert!(
            !turn(|turn| turn.unsent.store(true, Ordering::Relaxed)),
            "something is on its way"
        );
        assert!(
            Turn::default().rests().is_none(),
            "nothing was asked yet: whoever drips its first head is on hyper's clock"
        );
    }

    #[tokio::test]
    async fn what_was_read_ahead_comes_first_and_what_was_written_counts_as_sent_when_it_is_flushed() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut far, near) = tokio::io::duplex(64);
        let turn = Arc::<Turn>::default();
        let mut watched = Watched::new(near, Bytes::from_static(b"GET "), Arc::clone(&turn));
        far.write_all(b"/ HTTP/1.1").await.unwrap();
        let mut read = [0; 14];
        watched.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"GET / HTTP/1.1");
        watched.write_all(b"HTTP").await.unwrap();
        assert!(turn.unsent.load(Ordering::Relaxed));
        watched.flush().await.unwrap();
        assert!(!turn.unsent.load(Ordering::Relaxed));
        watched.shutdown().await.unwrap();
        assert!(turn.spoilt.load(Ordering::Relaxed));
    }
}
