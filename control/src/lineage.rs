//! Which of a device's keys may speak (20-identity, life of a certificate): the present one, and after a renewal the next one until
//! it speaks for the first time. What was superseded and speaks again raises the clone alarm, and so does a report whose number goes back:
//! two hold keys of one device.

use crate::error::Refused;
use crate::fleet::{DeviceRow, Fleet, State};
use crate::store::Put;
use redan_identity::{Anchors, IssuerKind, VerifiedIdentity};
use redan_policy::parse::RENEWAL_GRACE;
use redan_protocol::audit::Action;
use redan_protocol::wire::{CheckIn, EST_REENROLL};
use redan_protocol::{Code, DeviceId, Digest, Seconds, UnixSeconds};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::time::Instant;

/// Most superseded keys that are remembered: three years of renewals.
const SUPERSEDED_MAX: usize = 64;
/// A clone that goes on asking is counted each time and written to the audit log no more often than this.
const AUDITED_EVERY: Seconds = Seconds::new(3600);

/// Why two seem to speak as one device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suspicion {
    /// A superseded key spoke again.
    #[default]
    KeySuperseded,
    /// A report's number went back, or came twice (attacks D09, E07).
    ReportNumber,
}

/// Two seem to speak as one device: a copy of its disk, or the device itself restored from one.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneAlarm {
    /// The key that spoke last.
    pub spki: Digest,
    /// Why, the last time.
    #[serde(default)]
    pub why: Suspicion,
    /// How often so far.
    pub count: u64,
    /// When first.
    pub first: UnixSeconds,
    /// When last.
    pub last: UnixSeconds,
    /// When the audit log was last told.
    pub audited: UnixSeconds,
}

impl DeviceRow {
    /// Whether the certificate it last spoke with is under an authority that was revoked since, and could still be renewed by its age if it
    /// were not: the key, which is as good as it was, may get another one (decision 0014). When that certificate ended is known no more,
    /// but not later than a whole life after it was last seen.
    pub(crate) fn orphaned(&self, anchors: &Anchors, grace: Seconds, now: UnixSeconds) -> bool {
        let gone = self
            .authority
            .is_some_and(|authority| anchors.state(authority).is_none());
        let ended = self
            .last_seen
            .map(|seen| seen.after(IssuerKind::Device.leaf_life()));
        gone && ended.is_some_and(|ended| now <= ended.after(grace))
    }

    /// Keys that count no longer.
    pub(crate) fn supersede(&mut self, keys: impl IntoIterator<Item = Digest>) {
        self.superseded.extend(keys);
        let old = self.superseded.len().saturating_sub(SUPERSEDED_MAX);
        self.superseded.drain(..old);
    }

    /// Whether a check-in cannot follow the one before in one device's life: its number is lower, or the same with something else to say.
    /// `late`: its connection is older than what was said last, so that it may have been overtaken on its way.
    pub(crate) fn doubts(&self, check_in: &CheckIn, late: bool) -> bool {
        let Some(last) = &self.report else {
            return false;
        };
        match check_in.report.sequence.cmp(&last.sequence) {
            Ordering::Greater => false,
            Ordering::Less => !late,
            // Sent once more on its way, it is the same to the last bit.
            Ordering::Equal => {
                self.nonce.is_some_and(|nonce| nonce != check_in.nonce) || check_in.report != *last
            }
        }
    }

    /// Notes that two seem to speak as this device; gives what the audit log is to be told, if it is time to.
    pub(crate) fn suspect(
        &mut self,
        device: &DeviceId,
        (why, spki): (Suspicion, Digest),
        now: UnixSeconds,
    ) -> Option<(Action, String)> {
        let before = self.clone_alarm.take();
        let told = before
            .as_ref()
            .map(|alarm| ((alarm.why, alarm.spki), alarm.audited.after(AUDITED_EVERY)));
        let audit = told.is_none_or(|(what, again)| what != (why, spki) || now >= again);
        self.clone_alarm = Some(CloneAlarm {
            spki,
            why,
            count: before.as_ref().map_or(0, |alarm| alarm.count).saturating_add(1),
            first: before.as_ref().map_or(now, |alarm| alarm.first),
            last: now,
            audited: before.filter(|_| !audit).map_or(now, |alarm| alarm.audited),
        });
        audit.then(|| (Action::CloneSuspected, format!("{device} {spki}")))
    }
}

impl Fleet {
    /// Whether a key may speak for a device now. Asked for every request, so that a revocation acts on open connections. The first
    /// request under the next key ends the one before. `opened`: when the connection was.
    pub async fn allows(
        &self,
        device: &DeviceId,
        spki: Digest,
        opened: Instant,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let mut state = self.state.lock().await;
        let revoked = || Refused::plain(Code::CertificateRevoked);
        let row = state.devices.get(device);
        if row.is_some_and(|row| !row.revoked && row.keys.first() == Some(&spki)) {
            return Ok(());
        }
        if row.is_some_and(|row| row.revoked) {
            // It is told when there is an order for it to read. It believes the policy signers, not this word.
            return Err(match crate::policy::order(&state, device) {
                Some(_) => Refused::plain(Code::Decommissioned),
                None => revoked(),
            });
        }
        let mut row = row.ok_or_else(revoked)?.clone();
        match row.keys.iter().position(|key| *key == spki) {
            Some(0) => Ok(()),
            Some(place) => {
                let old: Vec<Digest> = row.keys.drain(..place).collect();
                row.supersede(old);
                // Whoever speaks with the new key has the answer.
                row.renewal = None;
                let put = Put::json("device", device.as_str(), &row)?;
                Box::pin(self.commit(&mut state, now, "server", vec![put], &[])).await?;
                state.devices.insert(device.clone(), row);
                state.superseded_at.insert(device.clone(), Instant::now());
                Ok(())
            }
            None if row.superseded.contains(&spki) => {
                // What the device itself had under way when its new key spoke is refused and means nothing.
                let under_way = state.superseded_at.get(device).is_some_and(|at| opened < *at);
                if !under_way {
                    Box::pin(self.raise(&mut state, device, row, spki, now)).await?;
                }
                Err(Refused::plain(Code::KeySuperseded))
            }
            None => Err(revoked()),
        }
    }

    /// How long after its end a certificate may still get another: what the fleet's policy signers grant, or less.
    pub(crate) async fn grace(&self, shorter: Option<Seconds>) -> Result<Seconds, Refused> {
        let signed = self
            .policy()
            .await?
            .map_or(RENEWAL_GRACE, |policy| policy.renewal_grace());
        Ok(shorter.map_or(signed, |shorter| shorter.min(signed)))
    }

    /// [`in_time`] for a device, with the grace that the fleet's policy signers grant. `shorter`: what this server is set to, which may
    /// take from it and adds nothing.
    pub(crate) async fn in_time(
        &self,
        identity: &VerifiedIdentity,
        path: &str,
        shorter: Option<Seconds>,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let grace = if now > identity.expires() && path == EST_REENROLL {
            Box::pin(self.grace(shorter)).await?
        } else {
            Seconds::default()
        };
        in_time(identity, path, grace, now)
    }

    async fn raise(
        &self,
        state: &mut State,
        device: &DeviceId,
        mut row: DeviceRow,
        spki: Digest,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        tracing::warn!(fleet = %self.id, %device, %spki, "clone alarm: a superseded key was used again");
        let told = row.suspect(device, (Suspicion::KeySuperseded, spki), now);
        let put = Put::json("device", device.as_str(), &row)?;
        let actions: Vec<_> = told.into_iter().collect();
        self.commit(state, now, "server", vec![put], &actions).await?;
        state.devices.insert(device.clone(), row);
        Ok(())
    }
}

/// What a certificate that has expired may still do: ask for the next one, as long as the grace lasts (attacks.md P05). Asked for
/// every request, for a connection may outlive the certificate that opened it.
pub(crate) fn in_time(
    identity: &VerifiedIdentity,
    path: &str,
    grace: Seconds,
    now: UnixSeconds,
) -> Result<(), Refused> {
    if now <= identity.expires() {
        Ok(())
    } else if path != EST_REENROLL {
        Err(Refused::plain(Code::CertificateExpired))
    } else if now > identity.expires().after(grace) {
        Err(Refused::plain(Code::RenewalTooLate))
    } else {
        Ok(())
    }
}
