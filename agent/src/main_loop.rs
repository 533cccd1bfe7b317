//! The main loop: waits for an event, asks the core, performs what it says. Owns everything that changes.

use crate::authorities::Listed;
use crate::broker::Rules;
use crate::checkin::{Reached, Session, Settled, Unreached};
use crate::clock::{Clock, Proven};
use crate::documents::Documents;
use crate::executor::{Around, Executor};
use crate::journal::Journal;
use crate::link::Link;
use crate::local_bus::Links;
use crate::record::Guard;
use crate::refresh::{Files, Which};
use crate::renewal::{Outcome, Renewal};
use crate::revocation::Revoked;
use crate::seal::SealKey;
use crate::session::{Decided, Verdict};
use crate::status::{Applied, Status};
use crate::store::random;
use crate::trust::Trust;
use redan_agent_core::cadence::{Cadence, News};
use redan_agent_core::{Input, Machine, Mono, SetRecord};
use redan_identity::KeyProvider as _;
use redan_policy::{DeviceCeiling, FleetPolicy};
use redan_protocol::ipc::{RUNNING_EVERY, SlotId, ToBroker, ToSupervisor};
use redan_protocol::report::{Isolation, Phase};
use redan_protocol::wire::Nonce;
use redan_protocol::{Code, ComponentName, DirectionSequence, PublisherName, Seconds, SpiffeId, Version64};
use redan_trust::{Decommissioned, RoleVersions};
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What happened.
pub(crate) enum Event {
    Input(Input),
    /// An executor says something about a slot, which must be one of its own.
    Claim(PublisherName, Input),
    ExecutorEnded(PublisherName),
    Isolated(PublisherName, Isolation),
    /// A refresh verified a newer root, or versions of roles.
    Verified {
        which: Which,
        root: Option<Vec<u8>>,
        versions: RoleVersions,
        done: oneshot::Sender<Result<(), Code>>,
    },
    Reached(Box<Result<Reached, Unreached>>),
    Renewed(Box<Outcome>),
    Forbid(Vec<SocketAddr>),
    /// A fleet policy that its signers named, and its text.
    Policy(Box<FleetPolicy>, String),
    /// Somebody at the device brings a bundle.
    Apply(PathBuf, oneshot::Sender<Applied>),
    /// What was carried was judged.
    Carried(Box<Decided>, oneshot::Sender<Applied>),
    Status(oneshot::Sender<Status>),
    SupervisorGone,
}

/// The running agent.
pub(crate) struct Agent {
    pub(crate) id: SpiffeId,
    pub(crate) link: Link,
    pub(crate) renewal: Renewal,
    pub(crate) identity_folder: PathBuf,
    pub(crate) trust_folder: PathBuf,
    /// What the trust record is bound to, if there is a TPM.
    pub(crate) guard: Option<Guard>,
    pub(crate) bundles: VecDeque<(PathBuf, oneshot::Sender<Applied>)>,
    /// The last direction that was carried here.
    pub(crate) carried: DirectionSequence,
    pub(crate) proven: Proven,
    pub(crate) clock: Clock,
    pub(crate) machine: Machine,
    pub(crate) journal: Journal,
    pub(crate) key: Rc<SealKey>,
    pub(crate) trust: Option<Trust>,
    pub(crate) ceiling: DeviceCeiling,
    pub(crate) documents: Documents,
    pub(crate) listeners: BTreeMap<ComponentName, (SocketAddr, TcpListener)>,
    pub(crate) executors: BTreeMap<PublisherName, Executor>,
    pub(crate) owners: BTreeMap<SlotId, PublisherName>,
    pub(crate) around: Around,
    pub(crate) rules: Rules,
    /// Which workloads speak with each other.
    pub(crate) links: Links,
    pub(crate) isolation: BTreeMap<PublisherName, Isolation>,
    pub(crate) release: Files,
    pub(crate) director: Files,
    pub(crate) revoked: Revoked,
    pub(crate) reports: crate::run::Reports,
    pub(crate) versions: (Version64, Version64),
    pub(crate) settled: Option<Settled>,
    pub(crate) running: bool,
    pub(crate) offline: Option<Code>,
    /// When the server last answered a check-in, on the monotonic clock.
    pub(crate) contact: Option<Seconds>,
    pub(crate) forbidden: Vec<SocketAddr>,
    pub(crate) cadence: Cadence,
    pub(crate) wake: Option<Mono>,
    /// The policy signers ended this device.
    pub(crate) ended: Option<Decommissioned>,
    pub(crate) beat: Instant,
    /// Whether this process' memory stays out of swap.
    pub(crate) memory_locked: bool,
}

impl Agent {
    /// Until the supervisor is gone, or until this device is decommissioned. What ends the agent otherwise drops this future.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Option<Decommissioned> {
        loop {
            if self.ended.is_some() {
                return self.ended;
            }
            self.beat_if_due();
            // First, for a key that may have been superseded must not speak again.
            self.renew_if_due();
            self.apply_if_asked();
            self.check_in_if_due();
            let wake = self.wake.map(|at| self.clock.instant(at).into());
            let check_in = Some(self.clock.instant(self.cadence.next()).into());
            let check_in = check_in.filter(|_| !self.asking());
            let renew = self.renewal.next().filter(|_| !self.asking());
            let until = wake
                .into_iter()
                .chain(check_in)
                .chain(renew)
                .chain([self.beat])
                .min();
            tokio::select! {
                event = events.recv() => match event {
                    None | Some(Event::SupervisorGone) => return None,
                    Some(event) => self.take(event),
                },
                () = sleep(until) => {}
            }
            if self.wake.is_some_and(|at| self.clock.now() >= at) {
                self.wake = None;
                self.feed(Input::Tick);
            }
            self.cadence.hears(&News::of(&self.machine.view()));
        }
    }

    /// Tells the supervisor that this loop turns, which is what a watchdog has to know.
    fn beat_if_due(&mut self) {
        let now = Instant::now();
        if now >= self.beat {
            self.around.native.supervisor.tell(ToSupervisor::Running);
            self.beat = now.checked_add(RUNNING_EVERY).unwrap_or(now);
            self.read_ceiling();
            self.suspend_if_stale();
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.feed(input),
            Event::Claim(publisher, input) => {
                if slot_of(&input).is_some_and(|slot| self.owners.get(&slot) == Some(&publisher)) {
                    if let Input::Unloaded(slot) = &input {
                        self.forget(*slot);
                    }
                    // Before it is asked to answer: the grant it was loaded with may be of long ago.
                    if let Input::Loaded(slot) = &input {
                        self.narrow(*slot);
                    }
                    self.feed(input);
                } else {
                    tracing::warn!(%publisher, "an executor speaks of a slot that is not its own");
                }
            }
            Event::ExecutorEnded(publisher) => self.ended(publisher),
            Event::Isolated(publisher, isolation) => {
                self.isolation.insert(publisher, isolation);
            }
            Event::Verified {
                which,
                root,
                versions,
                done,
            } => {
                let listed = root.as_deref().filter(|_| which == Which::Release);
                let listed = listed.and_then(Listed::of);
                let trust = self.trust.as_mut();
                let stored = trust.map(|trust| trust.verified(which, root, versions));
                if let (Some(Ok(())), Some(listed)) = (&stored, listed) {
                    self.believe(&listed);
                }
                // The session may have been dropped.
                done.send(stored.unwrap_or(Err(Code::StateLost))).ok();
            }
            Event::Reached(reached) => self.reached(*reached),
            Event::Renewed(renewed) => self.renewed(*renewed),
            Event::Forbid(addresses) => {
                if self.forbidden != addresses {
                    self.forbidden.clone_from(&addresses);
                    self.around.broker.tell(ToBroker::Forbid { addresses });
                }
            }
            Event::Policy(policy, text) => self.take_policy(*policy, &text),
            Event::Apply(folder, asked) => self.bundles.push_back((folder, asked)),
            Event::Carried(decided, asked) => self.carried(*decided, asked),
            Event::Status(asked) => drop(asked.send(self.status())),
            Event::SupervisorGone => {}
        }
    }

    fn ended(&mut self, publisher: PublisherName) {
        self.executors.remove(&publisher);
        self.isolation.remove(&publisher);
        let gone: Vec<SlotId> = self
            .owners
            .iter()
            .filter(|(_, owner)| **owner == publisher)
            .map(|(slot, _)| *slot)
            .collect();
        for slot in gone {
            self.forget(slot);
        }
        self.feed(Input::ExecutorEnded(publisher));
    }

    fn forget(&mut self, slot: SlotId) {
        self.owners.remove(&slot);
        self.documents.forget(slot);
        let changes = self.links.forget(slot);
        self.relink(changes);
        for message in self.rules.forget(slot) {
            self.around.broker.tell(message);
        }
    }

    /// Whether a check-in or a renewal is under way: one at a time.
    pub(crate) fn asking(&self) -> bool {
        self.running || self.renewal.running
    }

    fn check_in_if_due(&mut self) {
        if self.asking() || self.clock.now() < self.cadence.next() {
            return;
        }
        let Ok(nonce) = random() else {
            self.cadence.postponed(self.clock.now());
            return;
        };
        self.read_ceiling();
        self.find_trust();
        let record = self.trust.as_ref().map(Trust::record);
        let view = self.machine.view();
        let confirmed = !self.documents.wants_refresh(&self.ceiling, self.metadata_age());
        let undisturbed = confirmed && view.refusal.is_none() && view.phase != Phase::Offered;
        let session = Session {
            link: self.link.clone(),
            id: self.id.clone(),
            keys: vec![
                self.renewal.identity.voucher.spki,
                self.renewal.identity.key.spki_sha256(),
            ],
            nonce: Nonce(nonce),
            now: self.proven.now(),
            proven: self.proven.clone(),
            plan_known: self
                .trust
                .as_ref()
                .map_or_else(Seconds::default, Trust::plan_known),
            record,
            settled: self.settled.filter(|_| undisturbed),
            report: self.report(),
            ceiling: self.ceiling.clone(),
            release: self.release.clone(),
            director: self.director.clone(),
            revoked: self.revoked.clone(),
            events: self.around.events.clone(),
        };
        self.running = true;
        self.cadence
            .begins(self.clock.now(), News::of(&self.machine.view()));
        let events = self.around.events.clone();
        let link = self.link.clone();
        tokio::task::spawn_local(async move {
            drop(events.send(Event::Forbid(link.addresses().await)));
            drop(events.send(Event::Reached(Box::new(Box::pin(session.run()).await))));
        });
    }

    /// A device whose record was lost looks whether it was recovered meanwhile.
    pub(crate) fn find_trust(&mut self) {
        if self.trust.is_some() {
            return;
        }
        let guard = self.guard.as_ref();
        match Trust::open(&self.trust_folder, &self.id, self.clock, &self.proven, guard) {
            Ok(Ok(mut trust)) => {
                tracing::warn!("there is a trust record again: the device follows its fleet from it");
                trust.settle(&self.machine);
                self.trust = Some(trust);
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::warn!(code = error.code().name(), "{error}"),
        }
    }

    fn reached(&mut self, reached: Result<Reached, Unreached>) {
        self.running = false;
        let [byte] = random::<1>().unwrap_or_default();
        match reached {
            Err(unreached) => {
                let code = unreached.code();
                if code == Code::AuthorityRevoked {
                    self.renewal.revoked();
                }
                if matches!(unreached, Unreached::Refused(Code::CertificateExpired)) {
                    self.renewal.expired();
                }
                match unreached {
                    // Nobody else will say so to whoever stands before a device that was off while its fleet's authority changed.
                    Unreached::Link(Code::ForeignServer | Code::AuthorityRevoked) => tracing::warn!(
                        code = code.name(),
                        remedy = code.remedy(),
                        "the server and this device do not believe each other; what runs goes on, and it is tried again"
                    ),
                    Unreached::Link(_) => tracing::info!(code = code.name(), "the check-in failed"),
                    // Somebody has to do something about it, and may be looking at this device only.
                    Unreached::Refused(_) => tracing::warn!(
                        code = code.name(),
                        remedy = code.remedy(),
                        "the server refused the check-in; what runs goes on, and it is tried again"
                    ),
                }
                self.offline = Some(code);
                self.cadence.failed(self.clock.now(), byte);
            }
            Ok(Reached {
                interval,
                time,
                verdict,
            }) => {
                if let Some(time) = time {
                    self.renewal.told(time);
                }
                self.offline = None;
                self.contact = Some(self.clock.elapsed());
                self.cadence.answered(self.clock.now(), interval, byte);
                if let Some(decided) = verdict {
                    self.decided(decided);
                }
            }
        }
        if let Some(trust) = &mut self.trust {
            trust.save_if_due();
        }
    }

    pub(crate) fn decided(&mut self, decided: Decided) {
        if decided.current
            && let Some(trust) = &mut self.trust
        {
            trust.confirmed();
        }
        self.suspend_if_stale();
        let moved = self.versions != decided.versions;
        self.versions = decided.versions;
        self.settled = None;
        let settled = Settled {
            versions: decided.versions,
            until: decided.until,
        };
        let under_way = self.machine.candidate().map(SetRecord::sequence);
        if outranked(under_way, self.carried, &decided) {
            return;
        }
        if let Some(trust) = &mut self.trust {
            trust.plan(decided.plan);
        }
        match decided.verdict {
            Verdict::Moved => {
                // Once more at once when something new was stored; else at the next check-in.
                if moved {
                    self.cadence.soon();
                }
            }
            Verdict::Decommissioned(proof) => self.ended = Some(proof),
            Verdict::Rooted => {}
            Verdict::Undirected => {
                self.settled = Some(settled);
                self.feed(Input::Undirected);
            }
            Verdict::Refused(code) => self.feed(Input::Refused {
                sequence: decided.sequence.unwrap_or_default(),
                code,
            }),
            Verdict::Planned(adopt) => {
                self.settled = Some(settled);
                if let Some(trust) = &mut self.trust {
                    trust.adopt(adopt.kept);
                }
                if let Some(sequence) = decided.sequence {
                    self.feed(Input::Offered(sequence));
                }
                self.feed(Input::Planned(Box::new(adopt.offer)));
            }
        }
    }
}

/// Whether a direction that was carried here is under way, and newer than what the server says. What it says is then left aside until that
/// one is done, but for the end of the device: it is no direction, and no sequence outranks it.
fn outranked(under_way: Option<DirectionSequence>, carried: DirectionSequence, said: &Decided) -> bool {
    let ends = matches!(said.verdict, Verdict::Decommissioned(_));
    !ends && under_way == Some(carried) && said.sequence.unwrap_or_default() < carried
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn slot_of(input: &Input) -> Option<SlotId> {
    match input {
        Input::Loaded(slot)
        | Input::Activated(slot)
        | Input::Unloaded(slot)
        | Input::Failed(slot, _)
        | Input::Probed { slot, .. }
        | Input::Yields { slot, .. }
        | Input::Signals { slot, .. } => Some(*slot),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::UnixSeconds;

    /// The server's word on a direction, or on none.
    fn said(sequence: Option<u64>, verdict: Verdict) -> Decided {
        Decided {
            versions: (Version64::new(1), Version64::new(1)),
            until: UnixSeconds::new(1),
            sequence: sequence.map(DirectionSequence::new),
            plan: None,
            current: false,
            verdict,
        }
    }

    #[test]
    fn a_carried_direction_under_way_outranks_every_older_word_of_the_server_and_no_other_does() {
        let at = DirectionSequence::new;
        let of_server = |sequence| said(Some(sequence), Verdict::Refused(Code::DirectionReplayed));
        for (under_way, carried, server, outranks) in [
            (Some(7), 7, 6, true),
            (Some(7), 7, 1, true),
            // The same or a newer one is followed.
            (Some(7), 7, 7, false),
            (Some(7), 7, 8, false),
            // What is under way came from the server, or nothing is.
            (Some(8), 7, 6, false),
            (Some(6), 7, 6, false),
            (None, 7, 6, false),
            // Nothing was ever carried here.
            (Some(3), 0, 2, false),
            (None, 0, 2, false),
        ] {
            let seen = outranked(under_way.map(at), at(carried), &of_server(server));
            assert_eq!(seen, outranks, "{under_way:?} {carried} {server}");
        }
    }

    #[test]
    fn a_server_that_directs_nothing_does_not_stop_what_was_carried_here() {
        let at = DirectionSequence::new;
        for verdict in [
            Verdict::Undirected,
            Verdict::Moved,
            Verdict::Refused(Code::Unreachable),
        ] {
            let nothing = said(None, verdict);
            assert!(outranked(Some(at(7)), at(7), &nothing));
            assert!(!outranked(None, at(7), &nothing));
        }
    }
}
