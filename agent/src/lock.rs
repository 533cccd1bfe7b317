//! One agent on one state folder: two would each commit what the other does not know.

use crate::AgentError;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Held as long as it lives; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct StateLock {
    _held: OwnedFd,
}

impl StateLock {
    /// Takes the folder, or says that another agent has it.
    pub(crate) fn take(state: &Path) -> Result<Self, AgentError> {
        let path = state.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| AgentError::file("open", &path, errno.into()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _held: file }),
            Err(Errno::WOULDBLOCK) => Err(AgentError::Locked {
                state: state.to_owned(),
            }),
            Err(errno) => Err(AgentError::file("lock", &path, errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_on_one_store_are_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateLock::take(folder.path()).unwrap();
        let error = StateLock::take(folder.path()).unwrap_err();
        assert!(matches!(error, AgentError::Locked { state } if state == folder.path()));
        drop(first);
        StateLock::take(folder.path()).unwrap();
    }
}
