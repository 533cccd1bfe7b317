//! How a workload's brokers of messages are spoken to: the files the device ceiling names, opened here and read by the executor.
//!
//! The executor may open nothing outside its own folder, and this process has no use for a password: what passes between them is an
//! open descriptor.

use crate::named;
use redan_channel::AsyncChannel;
use redan_policy::grant::Broker;
use redan_protocol::ipc::{SlotId, ToExecutor};
use redan_protocol::{Code, ComponentName, SpiffeId};
use rustix::fs::OFlags;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Why a file of a broker is not taken. Says which file of the device it is, and nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// It does not open, or is no file.
    #[error("the broker's file {path} does not open: {source}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else could read or write it.
    #[error("the broker's file {path} must be the device's own or root's, and {may}")]
    OpenToOthers {
        /// Which.
        path: String,
        /// What is wanted of it.
        may: &'static str,
    },
}

impl AccessError {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::OpenToOthers { .. } => Code::BrokerFile,
        }
    }
}

/// One broker, as an executor is told of it.
pub(crate) struct Access {
    label: String,
    client: String,
    roots: Option<OwnedFd>,
    credentials: Option<OwnedFd>,
}

impl Access {
    /// Opens what the brokers of a grant need.
    pub(crate) fn open(
        brokers: &[Broker],
        component: &ComponentName,
        device: &SpiffeId,
    ) -> Result<Vec<Self>, AccessError> {
        let opened = brokers.iter().map(|broker| {
            let own = || match device {
                SpiffeId::Device(_, id) => id.to_string(),
                SpiffeId::Control(_) | SpiffeId::Operator(..) => String::new(),
            };
            let prefix = broker.client_id.clone().unwrap_or_else(own);
            let roots = broker.roots.as_deref();
            let credentials = broker.credentials.as_deref();
            Ok(Self {
                label: broker.label.clone(),
                // Two components of a device are two clients: with one name each would end the other's session (MQTT 5.0 §3.1.4).
                client: format!("{prefix}-{}-{}", component.publisher(), component.workload()),
                roots: roots
                    .map(|path| file(path, 0o022, "written by nobody else"))
                    .transpose()?,
                credentials: credentials
                    .map(|path| file(path, 0o077, "of mode 0600 or less"))
                    .transpose()?,
            })
        });
        opened.collect()
    }

    /// Tells an executor, before the slot that needs it is loaded.
    pub(crate) async fn hand_over(self, channel: &AsyncChannel, slot: SlotId) -> Result<(), Code> {
        let message = ToExecutor::Access {
            slot,
            label: self.label,
            client: self.client,
            roots: self.roots.is_some(),
            credentials: self.credentials.is_some(),
        };
        let beside: Vec<_> = self
            .roots
            .iter()
            .chain(&self.credentials)
            .map(|file| file.as_fd())
            .collect();
        channel
            .send(&message, &beside)
            .await
            .map_err(|_| Code::ExecutorFailed)
    }
}

/// Opens a file that is root's or ours, and has none of these bits.
fn file(path: &str, open_to: u32, may: &'static str) -> Result<OwnedFd, AccessError> {
    let failed = |source| AccessError::Open {
        path: path.to_owned(),
        source,
    };
    // A link in its place would be somebody's trick.
    let (opened, found) = named::open(Path::new(path), OFlags::NOFOLLOW).map_err(failed)?;
    if named::is_ours(&found) && found.mode() & open_to == 0 {
        Ok(opened.into())
    } else {
        Err(AccessError::OpenToOthers {
            path: path.to_owned(),
            may,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_of_a_broker_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(&path, "press-7\nsecret\n").unwrap();
        let name = path.to_str().unwrap();
        for (mode, taken) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(file(name, 0o077, "").is_ok(), taken, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(file(name, 0o022, "").is_ok(), "certificates are no secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let refused = file(name, 0o022, "written by nobody else").unwrap_err();
        assert_eq!(refused.code(), Code::BrokerFile);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for wrong in [
            link.to_str().unwrap(),
            folder.path().to_str().unwrap(),
            "/nowhere/at/all",
        ] {
            assert!(
                matches!(file(wrong, 0o022, ""), Err(AccessError::Open { .. })),
                "{wrong}"
            );
        }
    }
}
