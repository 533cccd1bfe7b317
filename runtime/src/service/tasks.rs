//! A request to a service of WASI 0.3: one task of the guest, and the streams it reads and writes, in a store of its own.
//!
//! Everything the guest does happens while [`crate::version::Call::run`] polls this: CPU time, the wall clock and the end of the
//! version are looked at from outside of the store's own loop, which does not always come to it (wasmtime issues 11869 and 11870).

use redan_host_api::state::GuestState;
use std::future::poll_fn;
use std::pin::Pin;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView as _};

/// What the host makes of an answer.
pub(super) type Answer = Result<http::Response<WasiBody>, ErrorCode>;

/// A request that is ready to be handed over.
pub(super) struct Task {
    entry: ServicePre<GuestState>,
    request: Request,
    /// Ends when the guest is done with the request's body, and says how.
    read: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    sender: oneshot::Sender<Answer>,
}

impl Task {
    pub(super) fn new<B>(
        entry: &ServicePre<GuestState>,
        store: &mut Store<GuestState>,
        request: http::Request<B>,
        sender: oneshot::Sender<Answer>,
    ) -> Self
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let (request, read) = Request::from_http(store.data_mut().http().hooks, request);
        Self {
            entry: entry.clone(),
            request,
            read: Box::pin(read),
            sender,
        }
    }

    /// Until the guest has ended, body and trailers of its answer included.
    pub(super) async fn run(self, store: &mut Store<GuestState>) -> wasmtime::Result<()> {
        let Self {
            entry,
            request,
            read,
            sender,
        } = self;
        let service = entry.instantiate_async(&mut *store).await?;
        let handle = async |accessor: &Accessor<GuestState>| {
            let answer = match service.handle(accessor, request).await? {
                Ok(answer) => Ok(taken(accessor, answer, read)?),
                Err(code) => Err(code),
            };
            // Nobody waits any more: then the guest ends all the same.
            drop(sender.send(answer));
            poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
            Ok(())
        };
        store.run_concurrent(handle).await?
    }
}

fn taken(
    accessor: &Accessor<GuestState>,
    answer: Response,
    read: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> wasmtime::Result<http::Response<WasiBody>> {
    accessor.with(|store| answer.into_http(store, read))
}
