//! One workload in this process, for its publisher: the same linking, calls, limits and listener as in an executor, without the
//! agent, and with what a [`redan_host_api::bench::Bench`] lends. No program of a device calls this (`tests/boundaries`).

use crate::broker::Broker;
use crate::engine::{self, EngineError, Native, Sizes};
use crate::executor::ExecutorError;
use crate::job;
use crate::service::Service;
use crate::version::Version;
use redan_channel::ChannelError;
use redan_host_api::egress::Dial;
use redan_host_api::state::Capabilities;
use redan_protocol::ipc::{SlotId, WorkloadKind};
use redan_protocol::{Code, Digest, Millis};
use redan_sealed::Sealed;
use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use wasmtime::Engine;

/// An engine and its ticker.
pub struct Bench {
    engine: Engine,
}

impl Bench {
    /// With the pool a device has, or, without sizes, with room for whatever a grant names. Code of another kind than the plain one
    /// runs without a pool on a device too.
    pub fn new(sizes: Option<&Sizes>, native: Native) -> Result<Self, EngineError> {
        let engine = match sizes {
            Some(sizes) if native == Native::Plain => engine::executor_engine(sizes)?.0,
            _ => engine::compiler_engine(native)?,
        };
        engine::start_ticker(&engine)?;
        Ok(Self { engine })
    }

    /// Which native code it takes.
    pub fn engine_digest(&self) -> Digest {
        engine::digest(&self.engine)
    }

    /// Links a workload by its grant alone, as an executor does.
    pub fn link(
        &self,
        kind: WorkloadKind,
        native: &Sealed,
        capabilities: Arc<Capabilities>,
    ) -> Result<Workload, Code> {
        Version::link(
            &self.engine,
            SlotId(1),
            kind,
            native,
            capabilities,
            HashMap::new(),
        )
        .map(Workload)
    }
}

/// The executor's side of a broker's channel. Call inside a runtime.
pub fn dial_through(channel: OwnedFd) -> Result<Arc<dyn Dial>, ChannelError> {
    Ok(Broker::start(channel)?)
}

/// A linked workload.
pub struct Workload(Arc<Version>);

impl Workload {
    /// Runs a job to its exit status.
    pub async fn run(&self) -> Result<i32, Code> {
        let lease = self.0.lease().ok_or(Code::Superseded)?;
        job::exit(&lease).await
    }

    /// How it is, as a device asks before it sends traffic.
    pub async fn probe(&self) -> Result<(), Code> {
        let lease = self.0.lease().ok_or(Code::Superseded)?;
        let (_, code) = job::probe(&lease).await;
        code.map_or(Ok(()), Err)
    }

    /// Answers a listener's requests, until the runtime ends.
    pub fn serve(&self, listener: TcpListener) -> Result<(), ExecutorError> {
        let service = Arc::new(Service::default());
        service.pointer.swap(Some(Arc::clone(&self.0)));
        service.listen(listener.into()).map_err(ExecutorError::Start)
    }

    /// The code of the last call that failed or was cut off, and how many failed, since this was asked last.
    pub fn failures(&self) -> (u32, Option<Code>) {
        let signals = self.0.take_signals();
        signals.map_or((0, None), |signals| (signals.failures, signals.last))
    }

    /// Lets what runs end, then takes no further call.
    pub async fn end(&self, within: Millis) {
        self.0.drain(within).await;
    }
}
