//! The trust record while the agent runs: what it must not forget, and the clocks that go on between two writes.

use crate::AgentError;
use crate::clock::{Clock, Proven};
use crate::disk::{Disk, RealDisk};
use crate::record::{Guard, Loss, Opened, RecordFile};
use crate::refresh::Which;
use crate::session::Kept;
use redan_agent_core::Machine;
use redan_protocol::{Code, Digest, Seconds, SpiffeId, UnixSeconds};
use redan_trust::record::RecordFormat;
use redan_trust::{RoleVersions, TrustRecord};
use std::path::Path;

/// Longest monotonic time a power cut may take from the record.
const SAVE_EVERY: Seconds = Seconds::new(600);

/// The open record.
pub(crate) struct Trust {
    file: RecordFile,
    record: TrustRecord,
    proven: Proven,
    clock: Clock,
    saved: Seconds,
    kept: Option<Kept>,
    dirty: bool,
}

impl Trust {
    /// Opens the record, and says what time it proves; the loss when both copies are bad, gone, another device's or older than this
    /// device's newest: the state is lost and nothing is adopted.
    pub(crate) fn open(
        folder: &Path,
        id: &SpiffeId,
        clock: Clock,
        proven: &Proven,
        guard: Option<&Guard>,
    ) -> Result<Result<Self, Loss>, AgentError> {
        let (file, opened) = RecordFile::open(&RealDisk, folder, id, guard)?;
        let mut record = match opened {
            Opened::Record(record) => *record,
            Opened::Nothing => return Ok(Err(Loss::Unreadable)),
            Opened::Lost(loss) => return Ok(Err(loss)),
        };
        proven.learn(record.proven);
        // After it: a maximum takes nothing back that was proven.
        proven.bound(record.maximum);
        // A record of before this was kept: it counts from now.
        record.refreshed.get_or_insert(proven.now());
        Ok(Ok(Self {
            file,
            proven: proven.clone(),
            record,
            clock,
            saved: clock.elapsed(),
            kept: None,
            dirty: false,
        }))
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> TrustRecord {
        TrustRecord {
            proven: self.proven.now(),
            plan_known: self.plan_known(),
            ..self.record.clone()
        }
    }

    /// How long the plan of the record is known.
    pub(crate) fn plan_known(&self) -> Seconds {
        let since = self.clock.elapsed().get().saturating_sub(self.saved.get());
        Seconds::new(self.record.plan_known.get().saturating_add(since))
    }

    /// What a refresh verified: a newer root, from the one before, and the versions of the roles under it. Written at once, both
    /// together, and only when something is new.
    pub(crate) fn verified(
        &mut self,
        which: Which,
        root: Option<Vec<u8>>,
        versions: RoleVersions,
    ) -> Result<(), Code> {
        let root = root.map(String::from_utf8).transpose();
        let root = root.map_err(|_| Code::MetadataInvalid)?;
        let (known_root, known) = match which {
            Which::Release => (&mut self.record.release_root, &mut self.record.release_versions),
            Which::Director => (&mut self.record.director_root, &mut self.record.director_versions),
        };
        if root.is_none() && known.as_ref() == Some(&versions) {
            return Ok(());
        }
        if let Some(root) = root {
            *known_root = root;
        }
        *known = Some(versions);
        self.save(&RealDisk)
    }

    /// The metadata was verified as current. Written with the clocks: a power cut makes it look older by their interval at most.
    pub(crate) fn confirmed(&mut self) {
        self.record.refreshed = Some(self.proven.now());
    }

    /// When that was.
    pub(crate) fn refreshed(&self) -> Option<UnixSeconds> {
        self.record.refreshed
    }

    /// The plan that was read; its rings begin to run when it is new.
    pub(crate) fn plan(&mut self, plan: Option<Digest>) {
        if plan.is_some() && plan != self.record.plan {
            self.record.plan = plan;
            self.advance();
            self.record.plan_known = Seconds::default();
            self.dirty = true;
        }
    }

    /// What a plan that `decide()` said yes to teaches.
    ///
    /// The maximum of the clock counts from here on, together with the serial and the revoked digests of the same policy, and not
    /// from the moment a policy's signature verified: the serial is what a later policy is held against, and a maximum taken
    /// without it could be moved by an older policy. Being held back from a decision wins an attacker no more than the state
    /// before: to move the clock it needs a chain of this fleet's custodians.
    pub(crate) fn adopt(&mut self, kept: Kept) {
        let before = self.record.clone();
        self.record.policy_serial = self.record.policy_serial.max(kept.policy_serial);
        self.record.revoked.clone_from(&kept.revoked);
        self.record.maximum = kept.maximum;
        self.proven.bound(kept.maximum);
        if self.record.set.as_ref() == Some(&kept.set) {
            self.record
                .rollback_sets
                .extend(kept.rollback_sets.iter().cloned());
        }
        self.kept = Some(kept);
        self.dirty |= self.record != before;
    }

    /// What is committed and denied, as the machine has it.
    pub(crate) fn settle(&mut self, machine: &Machine) {
        let before = self.record.clone();
        if let Some(set) = machine.committed() {
            if self.record.set.as_ref() != Some(set.id()) {
                self.record.rollback_sets = self.record.set.replace(set.id().clone()).into_iter().collect();
                if let Some(kept) = self.kept.as_ref().filter(|kept| kept.set == *set.id()) {
                    self.record
                        .rollback_sets
                        .extend(kept.rollback_sets.iter().cloned());
                }
            }
            self.record.sequence = self.record.sequence.max(set.sequence());
            for member in set.members() {
                let counter = self.record.committed.entry(member.component().clone());
                let counter = counter.or_insert(member.counter());
                *counter = (*counter).max(member.counter());
            }
        }
        self.record.denied = machine.denied().iter().map(|denied| denied.digest).collect();
        self.dirty |= self.record != before;
        self.save_if_due();
    }

    /// Writes what changed, and every now and then the clocks.
    pub(crate) fn save_if_due(&mut self) {
        let age = self.clock.elapsed().get().saturating_sub(self.saved.get());
        if (self.dirty || age >= SAVE_EVERY.get())
            && let Err(code) = self.save(&RealDisk)
        {
            tracing::error!(
                code = code.name(),
                "the trust record could not be written; trying again"
            );
        }
    }

    fn advance(&mut self) {
        self.record.proven = self.proven.now();
        self.record.plan_known = self.plan_known();
        self.saved = self.clock.elapsed();
    }

    fn save(&mut self, disk: &impl Disk) -> Result<(), Code> {
        self.dirty = true;
        self.advance();
        self.record.generation = self.record.generation.saturating_add(1);
        self.record.format = RecordFormat::V2;
        self.file
            .store(disk, &self.record, self.clock.elapsed())
            .map_err(|error| {
                tracing::error!(code = error.code().name(), "the trust record: {error}");
                error.code()
            })?;
        self.dirty = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
