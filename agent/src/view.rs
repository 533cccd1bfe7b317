//! What the agent says of itself: the report to the platform, the status to the device's owner.

use crate::main_loop::Agent;
use crate::status::{CertificateStatus, RenewalStatus, SlotStatus, Status, date};
use redan_protocol::Code;
use redan_protocol::ipc::SlotId;
use redan_protocol::report::{Bucket, Health, Isolation, REPORT_SLOTS_MAX, Report, SlotReport};

impl Agent {
    /// In force everywhere: the weakest executor counts.
    fn isolation(&self) -> Isolation {
        let both = |a: Isolation, b: &Isolation| Isolation {
            processes: a.processes && b.processes,
            users: a.users && b.users,
            landlock: a.landlock && b.landlock,
            seccomp: a.seccomp && b.seccomp,
            no_new_privs: a.no_new_privs && b.no_new_privs,
        };
        let mut all = self.isolation.values();
        all.next()
            .map_or_else(Isolation::default, |first| all.fold(*first, both))
    }

    fn refusal(&self, refusal: Option<Code>) -> Option<Code> {
        if self.trust.is_none() {
            Some(Code::StateLost)
        } else {
            refusal.or_else(|| self.documents.is_stale().then_some(Code::Stale))
        }
    }

    /// What the platform learns: closed types, the worst slots first when there are too many.
    pub(crate) fn report(&mut self) -> Report {
        let sequence = self.reports.next();
        let isolation = self.isolation();
        let view = self.machine.view();
        let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
        let mut slots: Vec<(SlotId, bool, SlotReport)> = Vec::new();
        for slot in &view.slots {
            let version = slot.member.version();
            slots.push((
                slot.slot,
                slot.active,
                SlotReport {
                    component: slot.member.component().clone(),
                    version: [
                        number(version.major),
                        number(version.minor),
                        number(version.patch),
                    ],
                    counter: slot.member.counter(),
                    digest: slot.member.digest(),
                    grant: self.documents.digest(slot.slot, slot.member.grant()),
                    health: slot.health,
                    code: slot.code,
                    calls: Bucket::default(),
                    failures: Bucket::default(),
                },
            ));
        }
        slots.sort_by_key(|(_, active, slot)| (slot.health == Health::Healthy, !active));
        slots.truncate(REPORT_SLOTS_MAX);
        let mut report = Report {
            sequence,
            runtime: reported_version(),
            set: view.set.cloned(),
            direction: view.direction,
            phase: view.phase,
            refusal: self.refusal(view.refusal),
            rollback: view.rollback,
            release: self.versions.0,
            director: self.versions.1,
            isolation,
            slots: Vec::new(),
        };
        let counts = self.documents.reports_counters(&self.ceiling);
        for (id, _, mut slot) in slots {
            // Forgotten where they may not be told: they do not add up to a later report.
            let (calls, failures) = self.machine.take_counts(id);
            if counts {
                (slot.calls, slot.failures) = (calls, failures);
            }
            report.slots.push(slot);
        }
        report
    }

    /// What the owner of the device learns on its own admin socket.
    pub(crate) fn status(&self) -> Status {
        let view = self.machine.view();
        let slots = view.slots.iter().map(|slot| SlotStatus {
            component: slot.member.component().clone(),
            version: slot.member.version().clone(),
            counter: slot.member.counter(),
            digest: slot.member.digest(),
            grant: self.documents.digest(slot.slot, slot.member.grant()),
            active: slot.active,
            health: slot.health,
            code: slot.code,
            listen: self
                .listeners
                .get(slot.member.component())
                .map(|(address, _)| *address),
        });
        Status {
            id: self.id.clone(),
            set: view.set.cloned(),
            phase: view.phase,
            direction: view.direction,
            refusal: self.refusal(view.refusal),
            rollback: view.rollback,
            release: self.versions.0,
            director: self.versions.1,
            isolation: self.isolation(),
            memory_locked: self.memory_locked,
            offline: self.offline,
            contact_seconds: self
                .contact
                .map(|at| self.clock.elapsed().get().saturating_sub(at.get())),
            revoked_servers: self.revoked.borrow().alarm(),
            certificate: CertificateStatus {
                not_after: date(self.renewal.identity.valid.1),
                authority: self.renewal.identity.authority_state(),
                renewal: self.renewal.pending.then_some(RenewalStatus {
                    failures: self.renewal.failures,
                    code: self.renewal.failed,
                }),
            },
            slots: slots.collect(),
        }
    }
}

/// This runtime's version, as the fleet policy's `runtime.min` is held against it.
pub(crate) fn runtime_version() -> semver::Version {
    env!("CARGO_PKG_VERSION")
        .parse()
        .unwrap_or_else(|_| semver::Version::new(0, 0, 0))
}

/// The same, as it is reported.
fn reported_version() -> [u32; 3] {
    let version = runtime_version();
    [version.major, version.minor, version.patch].map(|part| u32::try_from(part).unwrap_or(u32::MAX))
}
