//! The fleet's policy as its signers published it. The server reads from it what the signers say about the server's own work, and
//! writes nothing of it.

use crate::error::Refused;
use crate::fleet::Fleet;
use crate::release::current_role;
use redan_policy::{FleetPolicy, parse_fleet};
use redan_protocol::Code;
use redan_trust::POLICY_PATH;

impl Fleet {
    /// The published policy; `None` before the first one. One that does not read is refused for what it is: to take it for a missing
    /// one would be to go by a default its signers may have meant to change.
    pub(crate) async fn policy(&self) -> Result<Option<FleetPolicy>, Refused> {
        let digest = {
            let state = self.state.lock().await;
            let role = current_role(&state.release, "policy");
            role.and_then(|(_, targets)| targets.targets.get(POLICY_PATH)?.sha256())
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
}
