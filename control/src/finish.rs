//! What has begun is finished, whoever waits for it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::Handle;

/// Work that runs where it is waited for, and goes on in a task of its own when nobody waits any more: a caller that hangs up in the
/// middle of a commit, or is cut, leaves no database that has what memory has not. A task for each request would be two more wake-ups.
pub(crate) struct Finishing<F>(Option<Pin<Box<F>>>)
where
    F: Future<Output: Send> + Send + 'static;

/// The work panicked: a bug of ours, and the end of this work alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Panicked;

impl<F> Finishing<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    pub(crate) fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F> Future for Finishing<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut work) = self.0.take() else {
            // Polled again after its end.
            return Poll::Pending;
        };
        // Work that panicked is dropped here and never polled again, so that nobody sees what it left half done.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                self.0 = Some(work);
                Poll::Pending
            }
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

impl<F> Drop for Finishing<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Without a runtime the whole process ends.
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::{mpsc, oneshot};

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_goes_on_to_its_end() {
        let (go, wait) = oneshot::channel();
        let (done, mut ended) = mpsc::unbounded_channel();
        let mut work = Finishing::new(async move {
            wait.await.unwrap();
            done.send("committed").unwrap();
        });
        let begun = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut work).poll(cx))).await;
        assert_eq!(begun, Poll::Pending);
        drop(work);
        go.send(()).unwrap();
        assert_eq!(ended.recv().await, Some("committed"));
    }

    #[tokio::test]
    async fn what_has_ended_is_not_begun_again_and_what_panics_ends_itself_alone() {
        assert_eq!(Finishing::new(async { 7 }).await, Ok(7));
        let again = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&again);
        let broken = Finishing::new(async move {
            assert!(seen.swap(true, Ordering::SeqCst), "broken");
        });
        assert_eq!(broken.await, Err(Panicked));
        assert!(again.load(Ordering::SeqCst));
    }
}
