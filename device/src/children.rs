//! Becoming one kind of process: take the inherited channels, confine, serve.

use crate::fault::Fault;
use redan_jail::{Folders, Kind, Lent, confine, inherited, keep_out_of_swap};
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
    confine(Kind::Agent, Folders::default(), None)?;
    redan_agent::run(&config, (supervisor, broker), locked, |id| {
        crate::say(&format!("redan-device: running as {id}"));
    })?;
    Ok(())
}

/// An executor: one publisher's guests. Engine and pool are made before confinement (corrections 8). `lent`: folders that the device
/// ceiling maps volumes to, and whether to write there.
pub(crate) fn executor(
    publisher: &PublisherName,
    data: &Path,
    lent: &[(PathBuf, bool)],
    user: Option<u32>,
    wasi_0_3: bool,
) -> Result<(), Fault> {
    let (agent, broker) = (inherited(3)?, inherited(4)?);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let data = rustix::fs::open(data, flags, Mode::empty())
        .map_err(|errno| Fault::system("opening the data folder")(errno.into()))?;
    let lent: Vec<Lent> = lent
        .iter()
        .filter_map(|(path, writable)| lend(path, *writable))
        .collect();
    let prepared =
        Executor::prepare(&Sizes::default(), wasi_0_3).map_err(|error| Fault::Sibling(error.to_string()))?;
    let folders = Folders {
        data: Some(data.as_fd()),
        lent: &lent,
    };
    let isolation = confine(Kind::Executor, folders, user)?;
    drop(lent);
    tracing::debug!(%publisher, ?isolation, "an executor is confined");
    prepared
        .run(agent, broker, PathBuf::from("."), isolation)
        .map_err(|error| Fault::Sibling(error.to_string()))
}

/// A link in the path is followed: it is the administrator's, as the ceiling is. One that is not there is missed by whoever is granted it,
/// and by nobody else.
fn lend(path: &Path, writable: bool) -> Option<Lent> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(folder) => Some(Lent { folder, writable }),
        Err(error) => {
            tracing::warn!(folder = %path.display(), "a folder that the device ceiling maps does not open: {error}");
            None
        }
    }
}

/// The broker: dials what the agent's rules admit.
pub(crate) fn broker(user: Option<u32>) -> Result<(), Fault> {
    let agent = inherited(3)?;
    confine(Kind::Broker, Folders::default(), user)?;
    redan_broker::run(agent).map_err(|error| Fault::Sibling(error.to_string()))
}

/// A compiler: one component.
pub(crate) fn compiler(user: Option<u32>, budget: Budget) -> Result<(), Fault> {
    let channel = inherited(3)?;
    let watch = Watch::new(budget);
    confine(Kind::Compiler, Folders::default(), user)?;
    watch::run(&channel, &watch).map_err(|error| Fault::Sibling(error.to_string()))
}
