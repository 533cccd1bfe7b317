//! The fleet's policy as its signers published it. The server reads from it what the signers say about the server's own work, and
//! writes nothing of it.

use crate::error::Refused;
use crate::fleet::{Fleet, State};
use crate::release::{Files, current_role};
use crate::store::Put;
use redan_identity::IssuerKind;
use redan_identity::crl::{OPERATOR_LISTS, Revocations};
use redan_policy::{FleetPolicy, parse_fleet};
use redan_protocol::audit::Action;
use redan_protocol::{Code, DeviceId, Digest, UnixSeconds};
use redan_trust::{POLICY_PATH, decommission_path};

/// The published order that decommissions a device, as its signed digest (decision 0011).
pub(crate) fn order(state: &State, device: &DeviceId) -> Option<Digest> {
    target(&state.release, &decommission_path(device))
}

/// What the policy role lists at a path.
fn target(files: &Files, path: &str) -> Option<Digest> {
    let (_, targets) = current_role(files, "policy")?;
    targets.targets.get(path)?.sha256()
}

impl Fleet {
    /// The published policy; `None` before the first one. One that does not read is refused for what it is: to take it for a missing
    /// one would be to go by a default its signers may have meant to change.
    pub(crate) async fn policy(&self) -> Result<Option<FleetPolicy>, Refused> {
        let digest = {
            let state = self.state.lock().await;
            target(&state.release, POLICY_PATH)
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

    /// The lists of operators' certificates that were taken back, when metadata to be accepted names others than what is there. A file
    /// that is not good refuses the whole upload: its signers learn it at once, and the last good lists stay (attack P16).
    pub(crate) async fn operator_lists(
        &self,
        state: &State,
        files: &Files,
        now: UnixSeconds,
    ) -> Result<Option<Revocations>, Refused> {
        let there = target(&state.release, OPERATOR_LISTS);
        let Some(digest) = target(files, OPERATOR_LISTS).filter(|new| there != Some(*new)) else {
            return Ok(None);
        };
        let bytes = self.artifacts.get(digest).await?;
        let bytes = bytes.ok_or_else(|| Refused::plain(Code::ArtifactMissing))?;
        let mut lists = state.operator_lists.clone();
        lists
            .adopt(&self.held().anchors, IssuerKind::Operator, &bytes, now)
            .map_err(|fault| {
                let detail = format!("{OPERATOR_LISTS}: {fault}");
                Refused::because(fault.code(), detail)
            })?;
        Ok(Some(lists))
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
