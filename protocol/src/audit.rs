//! The audit log: append-only, each entry naming the hash of the one before. One function serves writer and checker.

use crate::{Digest, UnixSeconds};
use serde::{Deserialize, Serialize};

/// Longest subject, bytes.
pub const SUBJECT_LEN_MAX: usize = 200;

/// What was done. Closed; append only.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A fleet was registered with this server.
    FleetAdded,
    /// A key was admitted for a device.
    DeviceAdmitted,
    /// A device got its first certificate.
    DeviceEnrolled,
    /// A device got its next certificate.
    DeviceRenewed,
    /// A device was revoked.
    DeviceRevoked,
    /// A device that was decommissioned fetched the order to.
    DeviceDecommissioned,
    /// A revocation list was made.
    CrlMade,
    /// Signed metadata was accepted.
    ReleasePublished,
    /// An artifact was stored.
    ArtifactStored,
    /// A rollout was started.
    RolloutStarted,
    /// A rollout moved on by itself.
    RolloutAdvanced,
    /// A rollout was paused.
    RolloutPaused,
    /// A rollout was resumed.
    RolloutResumed,
    /// A rollout was aborted.
    RolloutAborted,
    /// A rollout halted by itself.
    RolloutHalted,
    /// A rollout is complete.
    RolloutCompleted,
    /// A superseded key of a device was used again.
    CloneSuspected,
    /// A key turned up for a second device, and was refused.
    KeyTwice,
    /// An operator was given a role for the first time, or again.
    OperatorAdded,
    /// An operator's role was changed.
    OperatorRoleChanged,
    /// An operator was removed.
    OperatorRemoved,
    /// Somebody else than its starter agreed to a rollout.
    RolloutApproved,
    /// A request said in a header who it is from, and was refused.
    IdentityClaimed,
    /// A join token was made.
    TokenMade,
    /// A join token was revoked.
    TokenRevoked,
    /// The server's online keys were replaced, on its own host.
    OnlineKeysReplaced,
    /// Certificates were asked for faster than they are signed.
    IssuingPaced,
}

/// One entry.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// From 0, without gaps.
    pub index: u64,
    /// When, by the server's clock.
    pub time: UnixSeconds,
    /// Who: a SPIFFE ID, or `local` for the server's own host, or `server` for the server itself.
    pub actor: String,
    /// What.
    pub action: Action,
    /// To what: names and digests only.
    pub subject: String,
    /// Hash of the entry before; zeros for the first.
    pub previous: Digest,
    /// SHA-256 over everything above.
    pub hash: Digest,
}

/// What breaks a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuditFault {
    /// An entry is missing, twice there, or out of order.
    #[error("entry {at} is missing or out of order")]
    Order {
        /// Index of the first bad entry.
        at: u64,
    },
    /// An entry was edited, or does not follow the one before.
    #[error("entry {at} was edited or does not follow the entry before it")]
    Hash {
        /// Index of the first bad entry.
        at: u64,
    },
}

/// `previous` of the first entry.
pub const GENESIS: Digest = Digest::from_bytes([0; 32]);

impl AuditEntry {
    /// Makes the entry that follows. A subject over the limit is cut at a character's border; characters outside printable ASCII
    /// become `?`.
    pub fn following(
        last: Option<&Self>,
        time: UnixSeconds,
        actor: &str,
        action: Action,
        subject: &str,
    ) -> Self {
        let clean = |text: &str| -> String {
            text.chars()
                .take(SUBJECT_LEN_MAX)
                .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
                .collect()
        };
        let mut entry = Self {
            index: last.map_or(0, |last| last.index.saturating_add(1)),
            time,
            actor: clean(actor),
            action,
            subject: clean(subject),
            previous: last.map_or(GENESIS, |last| last.hash),
            hash: GENESIS,
        };
        entry.hash = entry.computed();
        entry
    }

    /// Every field in a fixed order, each with its length before it, so that no two entries write the same bytes.
    fn computed(&self) -> Digest {
        let action = serde_json::to_string(&self.action).unwrap_or_default();
        let mut bytes = b"redan.audit/1\n".to_vec();
        for field in [
            self.index.to_string(),
            self.time.get().to_string(),
            self.actor.clone(),
            action,
            self.subject.clone(),
            self.previous.to_string(),
        ] {
            bytes.extend_from_slice(format!("{}:{field}\n", field.len()).as_bytes());
        }
        Digest::of(&bytes)
    }
}

/// Checks a chain from its first entry. Says the hash of its head, or the first bad entry. What is cut off at the end does not
/// show here: compare the head with one that was noted before.
pub fn verify_chain(entries: &[AuditEntry]) -> Result<Digest, AuditFault> {
    let mut previous = GENESIS;
    for (at, entry) in (0_u64..).zip(entries) {
        if entry.index != at {
            return Err(AuditFault::Order { at });
        }
        if entry.previous != previous || entry.hash != entry.computed() {
            return Err(AuditFault::Hash { at });
        }
        previous = entry.hash;
    }
    Ok(previous)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for n in 0..length {
            let subject = format!("device press-{n}");
            let entry = AuditEntry::following(
                entries.last(),
                UnixSeconds::new(n),
                "local",
                Action::DeviceAdmitted,
                &subject,
            );
            entries.push(entry);
        }
        entries
    }

    #[test]
    fn an_edited_entry_is_named() {
        let whole = chain(20);
        assert!(verify_chain(&whole).is_ok());
        for at in 0..20_u64 {
            let index = usize::try_from(at).unwrap();
            let mut edited = whole.clone();
            edited[index].subject.push('x');
            assert_eq!(verify_chain(&edited), Err(AuditFault::Hash { at }));
            let mut removed = whole.clone();
            removed.remove(index);
            let cut_at_end = at == 19;
            assert_eq!(verify_chain(&removed).is_ok(), cut_at_end);
            let mut doubled = whole.clone();
            doubled.insert(index, whole[index].clone());
            assert_eq!(verify_chain(&doubled), Err(AuditFault::Order { at: at + 1 }));
        }
    }

    #[test]
    fn a_rewritten_tail_has_another_head() {
        let whole = chain(5);
        let mut rewritten = chain(4);
        let last = AuditEntry::following(
            rewritten.last(),
            UnixSeconds::new(4),
            "local",
            Action::DeviceRevoked,
            "device press-4",
        );
        rewritten.push(last);
        assert!(verify_chain(&rewritten).is_ok());
        assert_ne!(verify_chain(&rewritten), verify_chain(&whole));
    }
}
