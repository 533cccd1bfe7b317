//! Bodies that stop at their limit, in every direction.

use crate::egress::fields::trailers_allowed;
use crate::egress::header_bytes;
use crate::limits::Verdict;
use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use redan_protocol::{ByteCount, Code};
use std::pin::Pin;
use std::task::{Context, Poll};
use wasmtime_wasi_http::Error;

/// Empty frames let through: each costs the host work and the guest nothing (GHSA-f8mm-ggr3-89wh).
pub const EMPTY_FRAMES_MAX: u32 = 256;

/// Asked before each frame of an outgoing request: the egress budget.
pub(crate) type Toll = Box<dyn FnMut(u64) -> bool + Send + Sync>;

/// A body that fails once it passes its limit.
pub struct Bounded<B> {
    inner: B,
    left: u64,
    empty: u32,
    verdict: Verdict,
    outgoing: Option<Outgoing>,
}

/// What else holds for the body of a request that leaves the device.
struct Outgoing {
    toll: Toll,
    /// Fields that carry secrets: not the guest's to set, in trailers neither.
    injected: Vec<HeaderName>,
}

impl<B> Bounded<B> {
    /// At most `limit` bytes of this body; more is a [`Code::BodyLimit`] denial in `verdict`.
    pub fn new(inner: B, limit: ByteCount, verdict: Verdict) -> Self {
        Self {
            inner,
            left: limit.get(),
            empty: 0,
            verdict,
            outgoing: None,
        }
    }

    pub(crate) fn outgoing(mut self, toll: Toll, injected: Vec<HeaderName>) -> Self {
        self.outgoing = Some(Outgoing { toll, injected });
        self
    }

    fn admit(&mut self, frame: &Frame<Bytes>) -> Result<(), Error> {
        // Trailers are bytes on the wire like any others.
        let length = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => u64::try_from(data.len()).unwrap_or(u64::MAX),
            (None, Some(trailers)) => header_bytes(trailers),
            (None, None) => return Ok(()),
        };
        if length == 0 {
            self.empty = self.empty.saturating_add(1);
        }
        let over = length > self.left || self.empty > EMPTY_FRAMES_MAX;
        self.left = self.left.saturating_sub(length);
        if over {
            self.verdict.deny(Code::BodyLimit);
            return Err(Error::HttpRequestBodySize(None));
        }
        let Some(outgoing) = &mut self.outgoing else {
            return Ok(());
        };
        if let Some(trailers) = frame.trailers_ref()
            && !trailers_allowed(trailers, &outgoing.injected)
        {
            self.verdict.deny(Code::FieldForbidden);
            return Err(Error::HttpRequestDenied);
        }
        if !(outgoing.toll)(length) {
            self.verdict.deny(Code::EgressBudget);
            return Err(Error::ConnectionLimitReached);
        }
        Ok(())
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.admit(&frame).map(|()| frame))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    fn frames(sizes: &[usize]) -> impl Body<Data = Bytes, Error = Error> + Unpin {
        let frames: Vec<Result<Frame<Bytes>, Error>> = sizes
            .iter()
            .map(|size| Ok(Frame::data(Bytes::from(vec![0; *size]))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_of_exactly_its_limit_passes_and_one_byte_more_does_not() {
        let verdict = Verdict::default();
        let whole = Bounded::new(frames(&[6, 4]), ByteCount::new(10), verdict.clone());
        assert_eq!(whole.collect().await.unwrap().to_bytes().len(), 10);
        assert_eq!(verdict.code(), None);
        let over = Bounded::new(frames(&[6, 5]), ByteCount::new(10), verdict.clone());
        assert!(over.collect().await.is_err());
        assert_eq!(verdict.code(), Some(Code::BodyLimit));
    }

    #[tokio::test]
    async fn empty_frames_for_ever_are_a_body_over_its_limit() {
        let verdict = Verdict::default();
        let empty = vec![0; 257];
        let body = Bounded::new(frames(&empty), ByteCount::new(10), verdict.clone());
        assert!(body.collect().await.is_err());
        assert_eq!(verdict.code(), Some(Code::BodyLimit));
    }
}
