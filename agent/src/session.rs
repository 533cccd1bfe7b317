//! What follows a check-in that has news: refresh, look up, decide. Changes nothing but stored metadata.

use crate::checkin::Session;
use crate::link::Standing;
use crate::main_loop::Event;
use crate::refresh::{Files, Source, Which, lookup, refresh};
use crate::revocation;
use crate::view::runtime_version;
use redan_agent_core::Offer;
use redan_identity::client::Connection;
use redan_policy::DeviceCeiling;
use redan_policy::grant::World;
use redan_protocol::wire::{CheckInReply, DOCUMENT_LEN_MAX};
use redan_protocol::{
    ByteCount, Code, Digest, DirectionSequence, Seconds, SetId, SpiffeId, UnixSeconds, Version64,
};
use redan_trust::{
    Decommissioned, DeviceFacts, Directing, Document, Offered, POLICY_PATH, Plan, Refusal, Repository,
    TrustRecord, TrustState, believed_policy, decide, decommission_path, decommissioned, directive,
    plan_path, verify_statement,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// What was decided, and on which versions.
pub(crate) struct Decided {
    pub(crate) versions: (Version64, Version64),
    /// When the first of the files with these versions expires.
    pub(crate) until: UnixSeconds,
    /// The direction that was read.
    pub(crate) sequence: Option<DirectionSequence>,
    /// The plan whose rings run.
    pub(crate) plan: Option<Digest>,
    /// Somebody who can know said in this very session that the metadata is current.
    pub(crate) current: bool,
    pub(crate) verdict: Verdict,
}

/// What to tell the machine.
pub(crate) enum Verdict {
    Undirected,
    Planned(Box<Adopt>),
    Refused(Code),
    /// The server moved on while we looked: ask again.
    Moved,
    /// The policy signers ended this device.
    Decommissioned(Decommissioned),
    /// The newest root is known, which was all that was carried here.
    Rooted,
}

/// A plan, and what the trust record keeps of it.
pub(crate) struct Adopt {
    pub(crate) offer: Offer,
    pub(crate) kept: Kept,
}

/// What the trust record learns from a plan.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) set: SetId,
    pub(crate) rollback_sets: Vec<SetId>,
    pub(crate) policy_serial: u64,
    pub(crate) revoked: BTreeSet<Digest>,
    pub(crate) maximum: Option<UnixSeconds>,
}

impl From<&Plan> for Adopt {
    fn from(plan: &Plan) -> Self {
        Self {
            offer: Offer::from(plan),
            kept: Kept {
                set: plan.set().id.clone(),
                rollback_sets: plan.set().rollback_sets.clone(),
                policy_serial: plan.policy_serial(),
                revoked: plan.revoked().clone(),
                maximum: plan.maximum_time(),
            },
        }
    }
}

impl Session {
    pub(crate) async fn follow(
        &self,
        record: &TrustRecord,
        (connection, standing): (&mut Connection, &mut Standing),
        reply: &CheckInReply,
    ) -> Result<Decided, Code> {
        let mut source = Source::Server(connection);
        let trusted = self.release.trusted(Which::Release, record)?;
        let release = refresh(
            &mut source,
            &self.release,
            Which::Release,
            trusted,
            self.now,
            &self.events,
        )
        .await;
        // Its roots may have revoked the authority that this very connection was opened under: not a word more over it.
        if let Source::Server(connection) = &source
            && !standing.holds(connection)
        {
            return Err(Code::ForeignServer);
        }
        let mut release = release;
        if let Ok(release) = &mut release {
            // First: whatever else is wrong, a server that was taken back is refused from the next handshake on.
            revocation::look(&self.revoked, &mut source, &self.release, release, self.now).await;
        }
        let trusted = self.director.trusted(Which::Director, record)?;
        let director = refresh(
            &mut source,
            &self.director,
            Which::Director,
            trusted,
            self.now,
            &self.events,
        )
        .await;
        let refused = |code| Decided {
            versions: (self.report.release, self.report.director),
            until: self.now,
            sequence: None,
            plan: None,
            current: false,
            verdict: Verdict::Refused(code),
        };
        let (mut release, director) = match (release, director) {
            (Ok(release), Ok(director)) => (release, director),
            (Err(Code::Unreachable), _) | (_, Err(Code::Unreachable)) => return Err(Code::Unreachable),
            (Err(code), _) | (_, Err(code)) => return Ok(refused(code)),
        };
        let versions = (
            Version64::new(release.timestamp_version()),
            Version64::new(director.timestamp_version()),
        );
        let mut decided = Decided {
            versions,
            until: release.expires().min(director.expires()),
            ..refused(Code::Internal)
        };
        if let Some(proof) = self.order(&mut source, &mut release).await {
            decided.verdict = Verdict::Decommissioned(proof);
            return Ok(decided);
        }
        match self
            .judge(record, &mut source, reply, &mut release, &director, &mut decided)
            .await
        {
            Ok(Some(plan)) => decided.verdict = Verdict::Planned(Box::new(Adopt::from(&plan))),
            Ok(None) => decided.verdict = Verdict::Undirected,
            Err(Stopped::Network(code)) => return Err(code),
            Err(Stopped::Refused(Refusal::NotFresh)) => decided.verdict = Verdict::Moved,
            Err(Stopped::Refused(refusal)) => {
                tracing::info!(code = refusal.code().name(), "refused: {refusal}");
                decided.verdict = Verdict::Refused(refusal.code());
            }
        }
        Ok(decided)
    }

    /// What a device that is refused as decommissioned does before it believes it: reads the release repository once more.
    pub(crate) async fn last_order(
        &self,
        record: &TrustRecord,
        connection: &mut Connection,
    ) -> Option<Decided> {
        let mut source = Source::Server(connection);
        let trusted = self.release.trusted(Which::Release, record).ok()?;
        let (files, now) = (&self.release, self.now);
        let release = refresh(&mut source, files, Which::Release, trusted, now, &self.events).await;
        let proof = self.order(&mut source, &mut release.ok()?).await?;
        Some(Decided {
            versions: (self.report.release, self.report.director),
            until: self.now,
            sequence: None,
            plan: None,
            current: false,
            verdict: Verdict::Decommissioned(proof),
        })
    }

    /// The order that ends this device, if the policy signers gave one. Anything that goes wrong on the way means none.
    async fn order(&self, source: &mut Source<'_>, release: &mut Repository) -> Option<Decommissioned> {
        if release.root().fleet.as_ref() != Some(self.id.fleet()) {
            return None;
        }
        let SpiffeId::Device(_, device) = &self.id else {
            return None;
        };
        let document = document(source, &self.release, release, &decommission_path(device)).await;
        decommissioned(&document.ok()??, &self.id, &self.keys)
    }

    async fn judge(
        &self,
        record: &TrustRecord,
        source: &mut Source<'_>,
        reply: &CheckInReply,
        release: &mut Repository,
        director: &Repository,
        decided: &mut Decided,
    ) -> Result<Option<Plan>, Stopped> {
        let mut released = BTreeMap::new();
        let policy = document(source, &self.release, release, POLICY_PATH).await?;
        said(policy.as_ref(), record, &self.events);
        let mut plan = None;
        let mut plan_known = Seconds::new(0);
        if let Some(directive) = directive(director, &self.id)? {
            decided.sequence = Some(directive.direction.sequence);
            for path in directive.targets.keys() {
                let target = lookup(source, &self.release, release, path).await?;
                released.insert(path.clone(), target);
            }
            let path = plan_path(&directive.direction.set);
            plan = document(source, &self.release, release, &path).await?;
            decided.plan = plan.as_ref().and_then(|plan| plan.target.sha256());
            if decided.plan.is_some() && decided.plan == record.plan {
                plan_known = self.plan_known;
            }
        }
        let statement = verify_statement(director, &reply.statement)?;
        decided.current = statement.get().nonce == self.nonce;
        let state = state_of(record);
        let offered = Offered {
            directing: Directing::Online {
                director,
                statement: Some(statement),
            },
            release,
            released,
            plan,
            policy,
        };
        let facts = DeviceFacts {
            plan_known,
            nonce: Some(self.nonce),
            ..facts_of(&self.id, &self.ceiling, self.now)
        };
        Ok(decide(&state, &offered, &facts)?)
    }
}

/// Hands the main loop the fleet policy, whatever becomes of the direction: what it takes away it takes now.
pub(crate) fn said(policy: Option<&Document>, record: &TrustRecord, events: &mpsc::UnboundedSender<Event>) {
    if let Ok((policy, text)) = believed_policy(policy, record.policy_serial) {
        drop(events.send(Event::Policy(Box::new(policy), text.to_owned())));
    }
}

/// A small signed document; `None` when nobody trusted lists it.
pub(crate) async fn document(
    source: &mut Source<'_>,
    files: &Files,
    release: &mut Repository,
    path: &str,
) -> Result<Option<Document>, Stopped> {
    let Some(target) = lookup(source, files, release, path).await? else {
        return Ok(None);
    };
    let Some(digest) = target.sha256() else {
        return Ok(None);
    };
    let limit = ByteCount::new(target.entry.length).min(DOCUMENT_LEN_MAX);
    let bytes = source.artifact(digest, limit).await.map_err(Stopped::Network)?;
    Ok(Some(Document { target, bytes }))
}

/// What is true of this device however a direction reaches it.
pub(crate) fn facts_of(id: &SpiffeId, ceiling: &DeviceCeiling, now: UnixSeconds) -> DeviceFacts {
    DeviceFacts {
        device: id.clone(),
        // Also WASI 0.3: whether it is switched on the ceiling says, with its own code and remedy.
        worlds: vec![
            World::HttpProxy,
            World::Command,
            World::Messages,
            World::HttpService,
        ],
        runtime: runtime_version(),
        ceiling: ceiling.clone(),
        installed: BTreeMap::new(),
        plan_known: Seconds::new(0),
        now,
        nonce: None,
    }
}

/// What a decision needs of the trust record.
pub(crate) fn state_of(record: &TrustRecord) -> TrustState {
    TrustState {
        committed: record.committed.clone(),
        rollback_sets: record.rollback_sets.clone(),
        sequence: record.sequence,
        policy_serial: record.policy_serial,
        denied: record.denied.clone(),
    }
}

/// Why a session ended without a plan.
pub(crate) enum Stopped {
    Network(Code),
    Refused(Refusal),
}

impl<T: Into<Refusal>> From<T> for Stopped {
    fn from(refusal: T) -> Self {
        match refusal.into() {
            refusal if refusal.code() == Code::Unreachable => Self::Network(Code::Unreachable),
            refusal => Self::Refused(refusal),
        }
    }
}
