//! The fleet's policy as its signers published it. The server reads from it what the signers say about the server's own work, and
//! writes nothing of it.

use crate::error::Refused;
use crate::fleet::{Fleet, State};
use crate::release::current_role;
use crate::store::Put;
use redan_policy::{FleetPolicy, parse_fleet};
use redan_protocol::audit::Action;
use redan_protocol::{Code, DeviceId, Digest, UnixSeconds};
use redan_trust::{POLICY_PATH, decommission_path};

/// The published order that decommissions a device, as its signed digest (decision 0011).
pub(crate) fn order(state: &State, device: &DeviceId) -> Option<Digest> {
    target(state, &decommission_path(device))
}

/// What the policy role lists at a path.
fn target(state: &State, path: &str) -> Option<Digest> {
    let (_, targets) = current_role(&state.release, "policy")?;
    targets.targets.get(path)?.sha256()
}

impl Fleet {
    /// The published policy; `None` before the first one. One that does not read is refused for what it is: to take it for a missing
    /// one would be to go by a default its signers may have meant to change.
    pub(crate) async fn policy(&self) -> Result<Option<FleetPolicy>, Refused> {
        let digest = {
            let state = self.state.lock().await;
            target(&state, POLICY_PATH)
        };
        let Some(digest) = digest else {
            return Ok(None);
        };
        let bytes = self.artifacts.get(digest).await?;
        let bytes = bytes.ok_or_else(|| Refused::plain(Code::ArtifactMissing))?;
        let read = std::str::from_utf8(&bytes).ok();
        let read = read.and_then(|text| parse_fleet(POLICY_PATH, text).ok());
        read.map(Some).ok_or_else(|| {
            tracing::error!(fleet = %self.id, "the published fleet policy does not read");
            Refused::plain(Code::PolicyInvalid)
        })
    }

    /// Writes down that a decommissioned device asked for its order. It has no key afterwards to say so itself.
    pub(crate) async fn order_fetched(&self, device: &DeviceId, now: UnixSeconds) -> Result<(), Refused> {
        let mut state = self.state.lock().await;
        let Some(mut row) = state
            .devices
            .get(device)
            .cloned()
            .filter(|row| row.ordered.is_none())
        else {
            return Ok(());
        };
        row.ordered = Some(now);
        let put = Put::json("device", device.as_str(), &row)?;
        let actions = [(Action::DeviceDecommissioned, device.to_string())];
        self.commit(&mut state, now, "server", vec![put], &actions)
            .await?;
        state.devices.insert(device.clone(), row);
        Ok(())
    }
}
