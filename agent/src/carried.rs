//! Following a direction that was carried here: the straight path of a session, from a folder and without any server.

use crate::bundle::Bundle;
use crate::fetch::Blobs;
use crate::main_loop::Event;
use crate::refresh::{Files, Source, Which, lookup, refresh, roots};
use crate::revocation::{self, Revoked};
use crate::session::{Adopt, Decided, Stopped, Verdict, document, facts_of, said, state_of};
use redan_policy::DeviceCeiling;
use redan_protocol::{Code, Seconds, SpiffeId, UnixSeconds, Version64};
use redan_trust::{
    DeviceFacts, Directing, Offered, POLICY_PATH, Plan, Refusal, TrustRecord, carried_direction, decide,
    plan_path,
};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// What it starts with.
pub(crate) struct Carried {
    pub(crate) bundle: Bundle,
    pub(crate) id: SpiffeId,
    pub(crate) record: TrustRecord,
    pub(crate) plan_known: Seconds,
    pub(crate) now: UnixSeconds,
    pub(crate) ceiling: DeviceCeiling,
    pub(crate) release: Files,
    pub(crate) blobs: Blobs,
    pub(crate) revoked: Revoked,
    /// Of the timestamps that a server gave; a stick says nothing about them.
    pub(crate) versions: (Version64, Version64),
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

impl Carried {
    /// Reads, decides, and brings every artifact of the plan onto the disk.
    pub(crate) async fn run(self) -> Decided {
        let mut decided = Decided {
            versions: self.versions,
            until: self.now,
            sequence: None,
            plan: None,
            current: false,
            verdict: Verdict::Refused(Code::Internal),
        };
        match self.bundle.note() {
            Ok(note) if note.direction.is_none() => {
                let known = self.know().await;
                decided.verdict = known.map_or_else(Verdict::Refused, |()| Verdict::Rooted);
                return decided;
            }
            _ => {}
        }
        decided.verdict = match self.judge(&mut decided).await {
            Ok(plan) => match self.import(&plan).await {
                // The offline rule took it: newer than all before, and not over yet.
                Ok(()) => {
                    decided.current = true;
                    Verdict::Planned(Box::new(Adopt::from(&plan)))
                }
                Err(code) => Verdict::Refused(code),
            },
            Err(Stopped::Network(Code::Unreachable)) => Verdict::Refused(Code::BundleInvalid),
            Err(Stopped::Network(code)) => Verdict::Refused(code),
            Err(Stopped::Refused(refusal)) => {
                tracing::info!(
                    code = refusal.code().name(),
                    "refused what was carried here: {refusal}"
                );
                Verdict::Refused(refusal.code())
            }
        };
        decided
    }

    /// Walks the roots and nothing else: with the newest one come the fleet's present authorities (decision 0014).
    async fn know(&self) -> Result<(), Code> {
        let source = &mut Source::Folder(&self.bundle);
        let trusted = self.release.trusted(Which::Release, &self.record)?;
        roots(source, &self.release, trusted, self.now, &self.events).await
    }

    async fn judge(&self, decided: &mut Decided) -> Result<Plan, Stopped> {
        let note = self.bundle.note().map_err(Stopped::Network)?;
        if note.device.as_ref() != Some(&self.id) {
            return Err(Stopped::Refused(Refusal::WrongDevice {
                named: note.device,
                device: self.id.clone(),
            }));
        }
        let path = note.direction.ok_or(Stopped::Network(Code::BundleInvalid))?;
        let (files, source) = (&self.release, &mut Source::Folder(&self.bundle));
        let trusted = files
            .trusted(Which::Release, &self.record)
            .map_err(Stopped::Network)?;
        let refreshed = refresh(source, files, Which::Release, trusted, self.now, &self.events).await;
        let mut release = refreshed.map_err(Stopped::Network)?;
        revocation::look(&self.revoked, source, files, &mut release, self.now).await;
        let direction = document(source, files, &mut release, &path).await?;
        let direction = direction.ok_or(Stopped::Network(Code::BundleInvalid))?;
        let read = carried_direction(&direction, &self.id)?;
        decided.sequence = Some(read.sequence);
        let policy = document(source, files, &mut release, POLICY_PATH).await?;
        said(policy.as_ref(), &self.record, &self.events);
        let plan = document(source, files, &mut release, &plan_path(&read.set)).await?;
        decided.plan = plan.as_ref().and_then(|plan| plan.target.sha256());
        let known = decided.plan.is_some() && decided.plan == self.record.plan;
        let plan_known = if known { self.plan_known } else { Seconds::new(0) };
        let mut released = BTreeMap::new();
        for path in plan.iter().flat_map(|plan| members(&plan.bytes)) {
            let target = lookup(source, files, &mut release, &path).await?;
            released.insert(path, target);
        }
        let offered = Offered {
            directing: Directing::Carried(direction),
            release: &release,
            released,
            plan,
            policy,
        };
        let facts = DeviceFacts {
            plan_known,
            ..facts_of(&self.id, &self.ceiling, self.now)
        };
        // Only the director can direct nothing.
        decide(&state_of(&self.record), &offered, &facts)?.ok_or(Stopped::Network(Code::Internal))
    }

    async fn import(&self, plan: &Plan) -> Result<(), Code> {
        for member in plan.members() {
            let (bundle, blobs) = (self.bundle.clone(), self.blobs.clone());
            let (digest, length) = (member.digest(), member.length());
            let imported = tokio::task::spawn_blocking(move || bundle.import(&blobs, digest, length));
            imported.await.map_err(|_| Code::Internal)??;
        }
        Ok(())
    }
}

/// Where the members of a set's document would be, to be looked up. Nothing is believed of it: `decide` reads it again.
fn members(plan: &[u8]) -> Vec<String> {
    let set: Option<redan_trust::release_set::ReleaseSet> = serde_json::from_slice(plan).ok();
    let members = set.map(|set| set.members).unwrap_or_default();
    let most = redan_trust::release_set::MEMBERS_MAX;
    members
        .iter()
        .take(most.saturating_add(1))
        .map(redan_trust::release_set::Member::target_path)
        .collect()
}
