//! The audit log: append-only, each entry naming the hash of the one before. One function serves writer and checker.

use crate::{Code, Digest, UnixSeconds};
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
    /// An entry is another than the one that was seen before under this index.
    #[error(
        "entry {at} is another than the one seen before: the log was written anew, or two logs are shown"
    )]
    Rewritten {
        /// Its index.
        at: u64,
    },
    /// What was seen before is no longer there.
    #[error(
        "entry {seen} was seen before, and the log now ends after {entries} entries: it was cut, or an older copy put in its place"
    )]
    Shortened {
        /// Index of the newest entry seen.
        seen: u64,
        /// So many there are.
        entries: u64,
    },
    /// Who did something finds nothing of it in the log.
    #[error("the server did what was asked, and no new entry of its log says so")]
    Untold,
}

impl AuditFault {
    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Order { .. } | Self::Hash { .. } | Self::Rewritten { .. } => Code::AuditRewritten,
            Self::Shortened { .. } => Code::AuditShortened,
            Self::Untold => Code::AuditUntold,
        }
    }
}

/// The newest entry of a log, as somebody outside the server has seen it: what makes a log that was cut or written anew show.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The entry's index.
    pub index: u64,
    /// Its hash, in which all before it is.
    pub hash: Digest,
}

impl From<&AuditEntry> for Head {
    fn from(entry: &AuditEntry) -> Self {
        let (index, hash) = (entry.index, entry.hash);
        Self { index, hash }
    }
}

/// A log that is read entry by entry, in pages or whole, and held to what was seen of it before.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    seen: Option<Head>,
    next: u64,
    /// Hash of the entry before the next; `None` where the walk begins in the middle.
    previous: Option<Digest>,
    head: Option<Head>,
}

impl Walk {
    /// From the first entry on.
    pub const fn whole(seen: Option<Head>) -> Self {
        Self {
            seen,
            next: 0,
            previous: Some(GENESIS),
            head: None,
        }
    }

    /// From the newest entry that was seen: that it is there, and what follows it.
    pub const fn from(seen: Head) -> Self {
        Self {
            seen: Some(seen),
            next: seen.index,
            previous: None,
            head: None,
        }
    }

    /// The entry to go on with.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Takes what comes next.
    pub fn take(&mut self, entries: &[AuditEntry]) -> Result<(), AuditFault> {
        for entry in entries {
            let at = self.next;
            if entry.index != at {
                return Err(AuditFault::Order { at });
            }
            let follows = self.previous.is_none_or(|previous| previous == entry.previous);
            if !follows || entry.hash != entry.computed() {
                return Err(AuditFault::Hash { at });
            }
            if self
                .seen
                .is_some_and(|seen| seen.index == at && seen.hash != entry.hash)
            {
                return Err(AuditFault::Rewritten { at });
            }
            self.previous = Some(entry.hash);
            self.head = Some(entry.into());
            self.next = at.saturating_add(1);
        }
        Ok(())
    }

    /// There is no more: the newest entry; `None`: an empty log.
    pub fn end(self) -> Result<Option<Head>, AuditFault> {
        match self.seen {
            Some(seen) if self.next <= seen.index => Err(AuditFault::Shortened {
                seen: seen.index,
                entries: self.next,
            }),
            _ => Ok(self.head),
        }
    }
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
    let mut walk = Walk::whole(None);
    walk.take(entries)?;
    Ok(walk.end()?.map_or(GENESIS, |head| head.hash))
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

    fn head(entries: &[AuditEntry]) -> Head {
        entries.last().unwrap().into()
    }

    /// What somebody says who has seen a head and is shown a log.
    fn shown(seen: Head, log: &[AuditEntry]) -> [Result<Option<Head>, AuditFault>; 2] {
        let mut whole = Walk::whole(Some(seen));
        let mut on = Walk::from(seen);
        let rest = log.get(usize::try_from(on.next()).unwrap()..).unwrap_or_default();
        [
            whole.take(log).and_then(|()| whole.end()),
            on.take(rest).and_then(|()| on.end()),
        ]
    }

    #[test]
    fn a_log_that_grew_is_followed_in_pages_and_from_the_middle() {
        let log = chain(20);
        for seen in 1..=20 {
            assert_eq!(shown(head(&log[..seen]), &log), [Ok(Some(head(&log))); 2]);
        }
        let mut walk = Walk::whole(None);
        for page in log.chunks(7) {
            assert_eq!(walk.next(), page[0].index);
            walk.take(page).unwrap();
        }
        assert_eq!(walk.end(), Ok(Some(head(&log))));
        assert_eq!(Walk::whole(None).end(), Ok(None));
    }

    #[test]
    fn a_log_cut_below_what_was_seen_is_shortened_also_when_it_is_empty() {
        let log = chain(20);
        let seen = head(&log);
        for entries in 0..20 {
            let cut = usize::try_from(entries).unwrap();
            let whole = AuditFault::Shortened { seen: 19, entries };
            // From the middle nobody knows how much is missing.
            let on = AuditFault::Shortened {
                seen: 19,
                entries: 19,
            };
            assert_eq!(shown(seen, &log[..cut]), [Err(whole), Err(on)]);
        }
    }

    #[test]
    fn a_log_written_anew_is_told_by_whoever_saw_the_old_one() {
        let log = chain(20);
        // Edited at one place, with every hash after it made again: a good chain, and another one.
        for edited in 0..20 {
            let mut forged: Vec<AuditEntry> = Vec::new();
            for entry in &log {
                let subject = if entry.index == edited {
                    "device press-x"
                } else {
                    &entry.subject
                };
                let next =
                    AuditEntry::following(forged.last(), entry.time, &entry.actor, entry.action, subject);
                forged.push(next);
            }
            assert!(verify_chain(&forged).is_ok());
            assert_eq!(
                shown(head(&log), &forged),
                [Err(AuditFault::Rewritten { at: 19 }); 2]
            );
        }
    }

    #[test]
    fn every_fault_has_a_code_of_its_kind() {
        let at = 3;
        for (fault, code) in [
            (AuditFault::Order { at }, Code::AuditRewritten),
            (AuditFault::Hash { at }, Code::AuditRewritten),
            (AuditFault::Rewritten { at }, Code::AuditRewritten),
            (
                AuditFault::Shortened { seen: 3, entries: 2 },
                Code::AuditShortened,
            ),
            (AuditFault::Untold, Code::AuditUntold),
        ] {
            assert_eq!(fault.code(), code);
        }
    }
}
