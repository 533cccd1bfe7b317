//! Becoming one kind of process: take the inherited channels, confine, serve.

use crate::fault::Fault;
use redan_jail::{Kind, confine, inherited, keep_out_of_swap};
use redan_protocol::PublisherName;
use redan_runtime::engine::Sizes;
use redan_runtime::executor::Executor;
use redan_runtime::watch::{self, Budget, Watch};
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// The agent: keys, network to the control server, trust store.
pub(crate) fn agent(config: &Path) -> Result<(), Fault> {
    // Before it reads a key.
    let locked = keep_out_of_swap();
    if !locked {
        tracing::info!("the agent's memory may be swapped: nobody lets it lock all of it (RLIMIT_MEMLOCK)");
    }
    let (supervisor, broker) = (inherited(3)?, inherited(4)?);
    let config = redan_agent::Config::load(config)?;
    confine(Kind::Agent, None, None)?;
    redan_agent::run(&config, (supervisor, broker), locked, |id| {
        crate::say(&format!("redan-device: running as {id}"));
    })?;
    Ok(())
}

/// An executor: one publisher's guests. Engine and pool are made before confinement (corrections 8).
pub(crate) fn executor(
    publisher: &PublisherName,
    data: &Path,
    user: Option<u32>,
    wasi_0_3: bool,
) -> Result<(), Fault> {
    let (agent, broker) = (inherited(3)?, inherited(4)?);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let data = rustix::fs::open(data, flags, Mode::empty())
        .map_err(|errno| Fault::system("opening the data folder")(errno.into()))?;
    let prepared =
        Executor::prepare(&Sizes::default(), wasi_0_3).map_err(|error| Fault::Sibling(error.to_string()))?;
    let isolation = confine(Kind::Executor, Some(data.as_fd()), user)?;
    tracing::debug!(%publisher, ?isolation, "an executor is confined");
    prepared
        .run(agent, broker, PathBuf::from("."), isolation)
        .map_err(|error| Fault::Sibling(error.to_string()))
}

/// The broker: dials what the agent's rules admit.
pub(crate) fn broker(user: Option<u32>) -> Result<(), Fault> {
    let agent = inherited(3)?;
    confine(Kind::Broker, None, user)?;
    redan_broker::run(agent).map_err(|error| Fault::Sibling(error.to_string()))
}

/// A compiler: one component.
pub(crate) fn compiler(user: Option<u32>, budget: Budget) -> Result<(), Fault> {
    let channel = inherited(3)?;
    let watch = Watch::new(budget);
    confine(Kind::Compiler, None, user)?;
    watch::run(&channel, &watch).map_err(|error| Fault::Sibling(error.to_string()))
}
