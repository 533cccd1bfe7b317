//! The executor process: takes orders from the agent, runs guests, reports closed events.

use crate::engine::{self, Allocation, EngineError, Sizes};
use redan_channel::ChannelError;
use redan_protocol::report::Isolation;
use redan_protocol::{Code, Digest};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use wasmtime::Engine;

/// Why the executor ended other than by the agent's leave.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The agent sent what is no order.
    #[error("the channel to the agent: {0}")]
    Channel(#[from] ChannelError),
    /// Threads, the reactor or the data folder are not to be had.
    #[error("the executor does not start: {0}")]
    Start(#[source] std::io::Error),
}

impl ExecutorError {
    /// The code that leaves the process.
    pub const fn code(&self) -> Code {
        Code::ExecutorFailed
    }
}

/// The entry point's name.
#[derive(Debug)]
pub struct Executor;

impl Executor {
    /// Builds engine and pool. Call before confinement: `PAGEMAP_SCAN` needs `/proc/self/pagemap` opened while the
    /// process is still dumpable, and the pool reserves its address space once.
    pub fn prepare(sizes: &Sizes) -> Result<Prepared, ExecutorError> {
        let (engine, allocation) = engine::executor_engine(sizes)?;
        Ok(Prepared { engine, allocation })
    }
}

/// Engine and pool, ready to be confined with the process.
#[derive(Debug)]
pub struct Prepared {
    engine: Engine,
    allocation: Allocation,
}

impl Prepared {
    /// How instances get their memory here.
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Which native code this executor takes.
    pub fn engine_digest(&self) -> Digest {
        engine::digest(&self.engine)
    }

    /// Serves the agent until it closes its channel. `agent` is the inherited descriptor 3, `broker` 4, `data` the
    /// publisher's own folder, `isolation` what the jail really put in force.
    pub fn run(
        self,
        agent: OwnedFd,
        broker: OwnedFd,
        data: PathBuf,
        isolation: Isolation,
    ) -> Result<(), ExecutorError> {
        let _ = (agent, broker, data, isolation);
        Err(ExecutorError::Start(std::io::Error::other("not yet")))
    }
}
