//! A key that turns up for a second device (attack P17): one machine that was copied before it enrolled, or somebody who tries with a key
//! that they have stolen. Refused where it turns up, and an alarm here: in the audit log, the metrics and the log.

use crate::error::Refused;
use crate::fleet::{Fleet, State};
use crate::store::Put;
use redan_protocol::audit::Action;
use redan_protocol::{DeviceId, Digest, Seconds, UnixSeconds};

/// Of one device's keys the audit log is told no more often than this; each time is counted.
const AUDITED_EVERY: Seconds = Seconds::new(3600);

impl State {
    /// Another device whose key this is or was.
    pub(crate) fn holder(&self, spki: Digest, but: &DeviceId) -> Option<&DeviceId> {
        let known = self
            .devices
            .iter()
            .find(|(id, row)| *id != but && (row.keys.contains(&spki) || row.superseded.contains(&spki)));
        known.map(|(id, _)| id)
    }
}

impl Fleet {
    /// Whether a key is or was another device's. If so, the alarm is raised, for whoever asked by the connection; the caller refuses.
    pub(crate) async fn is_anothers(
        &self,
        state: &mut State,
        who: &str,
        (device, spki): (&DeviceId, Digest),
        now: UnixSeconds,
    ) -> Result<Option<DeviceId>, Refused> {
        let Some(holder) = state.holder(spki, device).cloned() else {
            return Ok(None);
        };
        tracing::warn!(fleet = %self.id, %holder, wanted = %device, %spki, "a key turned up for a second device");
        let count = state.keys_twice.saturating_add(1);
        let told = state.twice_told.get(&holder).copied();
        let tell = told.is_none_or(|told| now >= told.after(AUDITED_EVERY));
        let action = (Action::KeyTwice, format!("{device} {spki} of {holder}"));
        let actions = if tell { vec![action] } else { Vec::new() };
        let put = Put::json("alarm", "keys-twice", &count)?;
        self.commit(state, now, who, vec![put], &actions).await?;
        state.keys_twice = count;
        if tell {
            state.twice_told.insert(holder.clone(), now);
        }
        Ok(Some(holder))
    }
}
