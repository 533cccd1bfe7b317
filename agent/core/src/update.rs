//! The update state machine, over whole release sets.
//!
//! ```text
//! Idle ─▶ Offered ─▶ Decided ─▶ Fetching(member) ─▶ Stored ─▶ Prepared ─▶ Trial(n) ─▶ Committed
//!                       ▲            │   ▲            │                     │
//!                       │            ▼   │            ▼                     ▼
//!                  newer direction   Waiting ◀── transient fault         Reverting ─▶ Reverted (digests denied)
//! ```
//! Decided, Stored, Trial, Committed, Reverting and Reverted are in the journal before anything they announce is done.
//! Offered, Fetching, Waiting and Prepared are not: nothing depends on them (a fetch finds its own offset on disk), and flash
//! wears. A newer direction cancels whatever comes before Trial.

use crate::Mono;
use crate::journal::{DENIED_MAX, Denied, MemberRecord, Record, Seq, SetRecord};
use crate::slots::{Slot, Slots, Stage};
use crate::trial::Verdict;
use redan_protocol::ipc::{Signals, SlotId};
use redan_protocol::report::{Health, Phase};
use redan_protocol::{ByteCount, Code, ComponentName, Digest, DirectionSequence, Millis, PublisherName};
use redan_trust::Plan;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// An offer is forgotten when `decide()` never answers: the shell asks again at the next check-in.
pub const OFFERED_DEADLINE: Millis = Millis::seconds(600);
/// For fetching a whole set: 64 MiB over a line of 30 kbit/s takes five hours.
pub const FETCH_DEADLINE: Millis = Millis::seconds(6 * 3600);
/// For compiling, linking and the first probe: an 18 MB component took 8 s on the slowest machine measured; times a hundred.
pub const PREPARE_DEADLINE: Millis = Millis::seconds(900);
/// Beyond the longest probation of the set: after that a version that is never quite well goes back.
pub const TRIAL_SLACK: Millis = Millis::seconds(300);
/// For going back, which is a pointer swap; then what could not be restored is reported as stopped.
pub const REVERT_DEADLINE: Millis = Millis::seconds(60);
/// First wait after a transient fault; doubles with each try.
pub const RETRY_WAIT: Millis = Millis::seconds(1);
/// Longest such wait.
pub const RETRY_WAIT_MAX: Millis = Millis::seconds(900);
/// Most repetitions, whatever budget the direction grants.
pub const RETRY_MAX: u32 = 16;
/// Most restarts of executor or device during one trial, whatever the health contract allows.
pub const TRIAL_RESTARTS_MAX: u32 = 4;
/// Wait before a journal record that could not be written is tried again.
pub const JOURNAL_RETRY: Millis = Millis::seconds(5);
/// Most inputs kept while a record is on its way to the disk; beyond that host signals are dropped.
pub const QUEUE_MAX: usize = 1024;

/// Where the update stands. Persisted: append only.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Nothing was ever offered.
    #[default]
    Idle,
    /// A direction was read; `decide()` is asked.
    Offered,
    /// `decide()` said yes.
    Decided(Box<SetRecord>),
    /// The bytes of the member at this place of the set are on their way.
    Fetching(Box<SetRecord>, usize),
    /// All bytes are here and verified; they are compiled, linked and probed beside what runs.
    Stored(Box<SetRecord>),
    /// After a transient fault, until the next try.
    Waiting(Box<SetRecord>, Code),
    /// Every member is linked and answered its first probe well.
    Prepared(Box<SetRecord>),
    /// Serving on trial, for the n-th time.
    Trial(Box<SetRecord>, u32),
    /// The committed set serves for good.
    Committed,
    /// Going back to the committed set.
    Reverting(Box<SetRecord>, Fault),
    /// Back on the committed set.
    Reverted,
}

/// Why a set goes back, and which digests are to blame.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Why.
    pub code: Code,
    /// Digests that will not be tried again.
    pub blame: Vec<Digest>,
}

/// A set that `decide()` said yes to. Made only from a [`Plan`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer(pub(crate) SetRecord);

impl From<&Plan> for Offer {
    fn from(plan: &Plan) -> Self {
        Self(SetRecord::from(plan))
    }
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// A direction was read from verified metadata.
    Offered(DirectionSequence),
    /// `decide()` said no. The sequence is zero when no direction could be read.
    Refused {
        /// To which direction.
        sequence: DirectionSequence,
        /// Which rule.
        code: Code,
    },
    /// Verified metadata directs this device to nothing: what runs goes on, what was under way ends.
    Undirected,
    /// `decide()` said yes.
    Planned(Box<Offer>),
    /// The blob with this digest is on disk, its hash met.
    Fetched(Digest),
    /// It could not be had.
    FetchFailed(Digest, Code),
    /// The slot is linked.
    Loaded(SlotId),
    /// The slot has the traffic.
    Activated(SlotId),
    /// The slot is gone.
    Unloaded(SlotId),
    /// The slot could not do what it was told.
    Failed(SlotId, Code),
    /// What a probe said.
    Probed {
        /// Of which slot.
        slot: SlotId,
        /// How it is.
        health: Health,
        /// Why.
        code: Option<Code>,
    },
    /// What the host saw.
    Signals {
        /// Of which slot.
        slot: SlotId,
        /// What.
        signals: Signals,
    },
    /// An executor is gone, and every slot in it.
    ExecutorEnded(PublisherName),
    /// The record is durable.
    Journaled(Seq),
    /// The record could not be written.
    JournalFailed(Seq, Code),
    /// Time passed.
    Tick,
}

/// What the shell does, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Make this record durable. Answer: [`Input::Journaled`] or [`Input::JournalFailed`].
    Journal(Box<Record>),
    /// Get these bytes onto the disk. Answer: [`Input::Fetched`] or [`Input::FetchFailed`].
    Fetch {
        /// Their digest.
        digest: Digest,
        /// Their length.
        length: ByteCount,
    },
    /// Compile if need be, seal, and link beside whatever runs. Answer: [`Input::Loaded`] or [`Input::Failed`].
    Load {
        /// The new slot.
        slot: SlotId,
        /// What to load.
        member: Box<MemberRecord>,
    },
    /// Answer: [`Input::Probed`] or [`Input::Failed`].
    Probe {
        /// Which slot.
        slot: SlotId,
        /// Its component.
        component: ComponentName,
    },
    /// Give the slot its component's traffic. Answer: [`Input::Activated`] or [`Input::Failed`].
    Activate {
        /// Which slot.
        slot: SlotId,
        /// Its component.
        component: ComponentName,
    },
    /// Take the traffic from a component altogether. No answer.
    Deactivate {
        /// Which.
        component: ComponentName,
    },
    /// Take a slot out. Answer: [`Input::Unloaded`].
    Unload {
        /// Which slot.
        slot: SlotId,
        /// Its component.
        component: ComponentName,
        /// How long its calls may go on.
        drain: Millis,
    },
    /// What is committed or denied changed: bring the trust record up to date, report at once.
    Settled,
    /// Send [`Input::Tick`] at this moment. Replaces an earlier one.
    Wake(Mono),
}

/// What [`Machine::step`] answers with.
pub type Effects = Vec<Effect>;

/// The machine. One per device.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) record: Record,
    pub(crate) slots: Slots,
    pub(crate) refusal: Option<Code>,
    pub(crate) direction: DirectionSequence,
    since: Mono,
    tries: u32,
    asked: Option<Digest>,
    settle: bool,
    writing: Option<Writing>,
    hold: Option<Mono>,
    queue: VecDeque<Input>,
}

/// A record on its way to the disk.
#[derive(Clone, Debug)]
struct Writing {
    seq: Seq,
    before: Box<Record>,
}

/// A line of the table.
enum Next {
    Stay,
    To(State),
    /// Back to where nothing is under way, with the reason if there is one.
    Rest(Option<Code>),
    Commit(Box<SetRecord>),
    Deny(Box<SetRecord>, Fault),
}

impl Machine {
    /// Starts from what the journal says. A trial that was cut off counts as an attempt.
    pub fn boot(record: Record, now: Mono) -> (Self, Effects) {
        let direction = match (record.state.set(), &record.committed) {
            (Some(set), _) | (None, Some(set)) => set.sequence,
            (None, None) => DirectionSequence::default(),
        };
        let mut machine = Self {
            record,
            slots: Slots::default(),
            refusal: None,
            direction,
            since: now,
            tries: 0,
            asked: None,
            settle: true,
            writing: None,
            hold: None,
            queue: VecDeque::new(),
        };
        let mut out = Effects::new();
        match machine.record.state.clone() {
            State::Trial(set, attempt) => {
                let next = machine.interrupted(set, attempt);
                machine.follow(now, next, &mut out);
            }
            State::Fetching(set, _) | State::Stored(set) | State::Waiting(set, _) | State::Prepared(set) => {
                machine.record.state = State::Decided(set);
            }
            State::Offered => machine.record.state = machine.resting(),
            State::Idle | State::Decided(_) | State::Committed | State::Reverting(..) | State::Reverted => {}
        }
        machine.settle_down(now, &mut out);
        (machine, out)
    }

    /// Takes one input and says what to do.
    pub fn step(&mut self, now: Mono, input: Input) -> Effects {
        let mut out = Effects::new();
        if self.hold.is_some_and(|until| now >= until) {
            self.hold = None;
            self.asked = None;
        }
        match (self.writing.take(), input) {
            (Some(writing), Input::Journaled(seq)) if writing.seq == seq => {}
            (Some(writing), Input::JournalFailed(seq, code)) if writing.seq == seq => {
                self.unwritten(now, *writing.before, code);
            }
            (writing, Input::Journaled(_) | Input::JournalFailed(..)) => self.writing = writing,
            (Some(writing), Input::Tick) => self.writing = Some(writing),
            (Some(writing), Input::Signals { .. }) if self.queue.len() >= QUEUE_MAX => {
                self.writing = Some(writing)
            }
            (writing, input) => {
                self.writing = writing;
                self.queue.push_back(input);
            }
        }
        while self.writing.is_none()
            && let Some(input) = self.queue.pop_front()
        {
            self.slots.note(now, &input);
            match &input {
                Input::Offered(sequence) | Input::Refused { sequence, .. } => {
                    self.direction = self.direction.max(*sequence);
                }
                Input::Planned(offer) => self.direction = self.direction.max(offer.0.sequence),
                _ => {}
            }
            let next = self.next(now, &input);
            self.follow(now, next, &mut out);
        }
        self.settle_down(now, &mut out);
        out
    }

    /// The digests this device does not try again, for the trust record.
    pub fn denied(&self) -> &[Denied] {
        &self.record.denied
    }

    /// What runs for good, for the trust record.
    pub fn committed(&self) -> Option<&SetRecord> {
        self.record.committed.as_ref()
    }

    /// The set an update is about, if one is under way.
    pub fn candidate(&self) -> Option<&SetRecord> {
        self.record.state.set()
    }

    /// The table. What `input` brought was noted in the slots before.
    fn next(&self, now: Mono, input: &Input) -> Next {
        match (&self.record.state, input) {
            (State::Idle | State::Committed | State::Reverted, Input::Offered(_)) => Next::To(State::Offered),
            (
                State::Idle
                | State::Offered
                | State::Decided(_)
                | State::Fetching(..)
                | State::Stored(_)
                | State::Waiting(..)
                | State::Committed
                | State::Reverted,
                Input::Refused { code, .. },
            ) => Next::Rest(Some(*code)),
            (
                State::Offered
                | State::Decided(_)
                | State::Fetching(..)
                | State::Stored(_)
                | State::Waiting(..),
                Input::Undirected,
            ) => Next::Rest(None),
            (
                State::Idle
                | State::Offered
                | State::Decided(_)
                | State::Fetching(..)
                | State::Stored(_)
                | State::Waiting(..)
                | State::Committed
                | State::Reverted,
                Input::Planned(offer),
            ) => self.consider(&offer.0),
            (State::Offered, _) if self.late(now, OFFERED_DEADLINE) => Next::Rest(None),
            (State::Decided(set), _) => Next::To(State::Fetching(set.clone(), 0)),
            (State::Fetching(set, at), Input::Fetched(digest)) if fetching(set, *at, *digest) => {
                let at = at.saturating_add(1);
                match set.members.get(at) {
                    Some(_) => Next::To(State::Fetching(set.clone(), at)),
                    None => Next::To(State::Stored(set.clone())),
                }
            }
            (State::Fetching(set, at), Input::FetchFailed(digest, code)) if fetching(set, *at, *digest) => {
                self.again(set, *code)
            }
            (State::Fetching(..), _) if self.late(now, FETCH_DEADLINE) => {
                Next::Rest(Some(Code::DeadlinePassed))
            }
            (State::Waiting(set, _), _) if self.late(now, wait(self.tries)) => {
                Next::To(State::Fetching(set.clone(), 0))
            }
            (State::Stored(set), _) => match self.slots.verdict(set, first_word) {
                Ok(true) => Next::To(State::Prepared(set.clone())),
                Err((code, _)) if transient(code) && self.tries < budget(set) => self.again(set, code),
                Err((code, component)) => self.deny(set, code, Some(&component)),
                Ok(false) if self.late(now, PREPARE_DEADLINE) => self.deny(set, Code::DeadlinePassed, None),
                Ok(false) => Next::Stay,
            },
            (State::Prepared(set), _) => Next::To(State::Trial(set.clone(), 1)),
            (State::Trial(set, attempt), Input::ExecutorEnded(publisher))
                if set
                    .members
                    .iter()
                    .any(|member| member.component.publisher() == publisher) =>
            {
                self.interrupted(set.clone(), *attempt)
            }
            (State::Trial(set, _), _) => match self.slots.verdict(set, |slot| on_trial(slot, now)) {
                Ok(true) => Next::Commit(set.clone()),
                Err((code, component)) => self.deny(set, code, Some(&component)),
                Ok(false) if self.late(now, trial_deadline(set)) => {
                    self.deny(set, Code::DeadlinePassed, None)
                }
                Ok(false) => Next::Stay,
            },
            (State::Reverting(set, fault), _) if self.restored() || self.late(now, REVERT_DEADLINE) => {
                Next::Deny(set.clone(), fault.clone())
            }
            (
                State::Idle
                | State::Offered
                | State::Fetching(..)
                | State::Waiting(..)
                | State::Committed
                | State::Reverting(..)
                | State::Reverted,
                _,
            ) => Next::Stay,
        }
    }

    /// The record did not reach the disk. Nothing it announces is done; going back is, for it must not wait for a disk:
    /// after a power cut the trial's own record counts the attempt instead.
    fn unwritten(&mut self, now: Mono, before: Record, code: Code) {
        self.refusal = Some(code);
        match &self.record.state {
            State::Reverting(..) => {}
            State::Trial(set, _) => {
                self.record.state = State::Reverting(
                    set.clone(),
                    Fault {
                        code,
                        blame: Vec::new(),
                    },
                );
                self.since = now;
            }
            _ => {
                let seq = self.record.seq;
                self.record = Record { seq, ..before };
                if self.record.state == State::Offered {
                    self.record.state = self.resting();
                }
                self.hold = Some(now.after(JOURNAL_RETRY));
            }
        }
    }

    fn follow(&mut self, now: Mono, next: Next, out: &mut Effects) {
        let reverts = matches!(next, Next::To(State::Reverting(..)));
        let durable = match &next {
            Next::To(state) => state.announces(),
            Next::Rest(_) => self.record.state.set().is_some(),
            Next::Commit(_) | Next::Deny(..) => true,
            Next::Stay => return,
        };
        if durable && self.hold.is_some() && !reverts {
            return;
        }
        let before = Box::new(self.record.clone());
        let state = match next {
            Next::Stay => return,
            Next::To(state) => state,
            Next::Rest(reason) => {
                self.refusal = reason;
                self.resting()
            }
            Next::Commit(set) => {
                self.record.committed = Some(*set);
                self.record.rollback = None;
                self.record.failed = None;
                self.refusal = None;
                self.settle = true;
                State::Committed
            }
            Next::Deny(set, fault) => {
                if !transient(fault.code) {
                    self.record.failed = Some((set.fingerprint(), set.sequence));
                }
                self.record.rollback = Some(fault.code);
                for digest in fault.blame {
                    self.record.denied.retain(|denied| denied.digest != digest);
                    self.record.denied.push(Denied {
                        digest,
                        code: fault.code,
                    });
                }
                let extra = self.record.denied.len().saturating_sub(DENIED_MAX);
                self.record.denied.drain(..extra);
                self.settle = true;
                State::Reverted
            }
        };
        if let State::Decided(set) = &state {
            self.refusal = None;
            self.tries = 0;
            let unblocked = &set.unblocked;
            self.record
                .denied
                .retain(|denied| !unblocked.contains(&denied.digest));
        }
        if let State::Trial(set, _) = &state {
            self.slots.begin(now, set);
        }
        if let State::Waiting(_, code) = &state {
            self.refusal = Some(*code);
            self.tries = self.tries.saturating_add(1);
        }
        self.record.state = state;
        self.since = now;
        self.asked = None;
        if durable {
            self.record.seq = Seq(self.record.seq.0.saturating_add(1));
            self.writing = Some(Writing {
                seq: self.record.seq,
                before,
            });
            out.push(Effect::Journal(Box::new(self.record.clone())));
        }
    }

    /// What the present state calls for, once it is durable; then the transitions that need no input.
    fn settle_down(&mut self, now: Mono, out: &mut Effects) {
        while self.writing.is_none() {
            self.perform(now, out);
            let next = self.next(now, &Input::Tick);
            let seq = self.record.seq;
            let present = self.record.state.phase();
            self.follow(now, next, out);
            if self.writing.is_none() && self.record.seq == seq && self.record.state.phase() == present {
                break;
            }
        }
        if self.writing.is_none() {
            let slots = self.slots.wake(now, self.candidate_in_memory());
            let due = self.deadline().into_iter().chain(self.hold).chain(slots).min();
            out.extend(due.map(Effect::Wake));
        }
    }

    fn perform(&mut self, now: Mono, out: &mut Effects) {
        if let State::Fetching(set, at) = &self.record.state
            && let Some(member) = set.members.get(*at)
            && self.asked != Some(member.digest)
        {
            self.asked = Some(member.digest);
            out.push(Effect::Fetch {
                digest: member.digest,
                length: member.length,
            });
        }
        let committed = self.record.committed.as_ref();
        let candidate = match &self.record.state {
            State::Stored(set) | State::Prepared(set) | State::Trial(set, _) => Some(&**set),
            State::Idle
            | State::Offered
            | State::Decided(_)
            | State::Fetching(..)
            | State::Waiting(..)
            | State::Committed
            | State::Reverting(..)
            | State::Reverted => None,
        };
        let target = if matches!(self.record.state, State::Trial(..)) {
            candidate
        } else {
            committed
        };
        let kept: Vec<&SetRecord> = committed.into_iter().chain(candidate).collect();
        for set in &kept {
            self.slots.place(now, set, out);
        }
        self.slots.aim(target, out);
        self.slots.clear(&kept, out);
        self.slots.probe(now, candidate, out);
        if std::mem::take(&mut self.settle) {
            out.push(Effect::Settled);
        }
    }

    /// Whether to follow a set that `decide()` said yes to.
    fn consider(&self, set: &SetRecord) -> Next {
        let fingerprint = set.fingerprint();
        if let Some(committed) = &self.record.committed
            && committed.fingerprint() == fingerprint
        {
            // The same work under a new name needs no trial; under its own name it needs nothing.
            return if committed.id == set.id {
                Next::Rest(None)
            } else {
                Next::Commit(Box::new(set.clone()))
            };
        }
        if let Some(present) = self.record.state.set()
            && present.id == set.id
            && present.fingerprint() == fingerprint
        {
            return Next::Stay;
        }
        let denied = |digest: Digest| {
            !set.unblocked.contains(&digest)
                && self.record.denied.iter().any(|denied| denied.digest == digest)
        };
        let failed = self
            .record
            .failed
            .is_some_and(|(failed, sequence)| failed == fingerprint && sequence >= set.sequence);
        if failed || set.members.iter().any(|member| denied(member.digest)) {
            return Next::Rest(Some(Code::DeniedAfterTrial));
        }
        Next::To(State::Decided(Box::new(set.clone())))
    }

    /// A transient fault: once more after a wait, while the direction's budget lasts.
    fn again(&self, set: &SetRecord, code: Code) -> Next {
        if self.tries < budget(set) {
            Next::To(State::Waiting(Box::new(set.clone()), code))
        } else {
            Next::Rest(Some(code))
        }
    }

    /// A trial lost its executor or its device.
    fn interrupted(&self, set: Box<SetRecord>, attempt: u32) -> Next {
        let allowed = set
            .members
            .iter()
            .map(|member| member.grant.health.max_restarts)
            .min();
        if attempt > allowed.unwrap_or(0).min(TRIAL_RESTARTS_MAX) {
            self.deny(&set, Code::TrialAttempts, None)
        } else {
            Next::To(State::Trial(set, attempt.saturating_add(1)))
        }
    }

    /// Back to the committed set. To blame is the component, if one is known, else all that is new.
    fn deny(&self, set: &SetRecord, code: Code, component: Option<&ComponentName>) -> Next {
        let kept = |digest| {
            self.record
                .committed
                .as_ref()
                .is_some_and(|set| set.has_digest(digest))
        };
        let new = set.members.iter().filter(|member| !kept(member.digest));
        let mut blame: Vec<Digest> = new
            .clone()
            .filter(|member| Some(&member.component) == component)
            .map(|member| member.digest)
            .collect();
        if blame.is_empty() {
            blame = new.map(|member| member.digest).collect();
        }
        Next::To(State::Reverting(Box::new(set.clone()), Fault { code, blame }))
    }

    /// Whether the committed set serves again as far as it can, and nothing else does.
    fn restored(&self) -> bool {
        let committed = self.record.committed.as_ref();
        let back = committed.is_none_or(|set| {
            set.members.iter().all(|member| {
                self.slots
                    .of(member)
                    .is_some_and(|slot| matches!(slot.stage, Stage::Active | Stage::Dead { .. }))
            })
        });
        let quiet = self.slots.list.iter().all(|slot| {
            !matches!(slot.stage, Stage::Active | Stage::Activating)
                || committed.is_some_and(|set| set.holds(&slot.member))
        });
        back && quiet
    }

    fn resting(&self) -> State {
        match (&self.record.rollback, &self.record.committed) {
            (Some(_), _) => State::Reverted,
            (None, Some(_)) => State::Committed,
            (None, None) => State::Idle,
        }
    }

    /// The set that is linked beside the committed one.
    fn candidate_in_memory(&self) -> Option<&SetRecord> {
        match &self.record.state {
            State::Stored(set) | State::Prepared(set) | State::Trial(set, _) => Some(set),
            State::Idle
            | State::Offered
            | State::Decided(_)
            | State::Fetching(..)
            | State::Waiting(..)
            | State::Committed
            | State::Reverting(..)
            | State::Reverted => None,
        }
    }

    fn late(&self, now: Mono, span: Millis) -> bool {
        now >= self.since.after(span)
    }

    fn deadline(&self) -> Option<Mono> {
        let span = match &self.record.state {
            State::Idle | State::Decided(_) | State::Prepared(_) | State::Committed | State::Reverted => {
                return None;
            }
            State::Offered => OFFERED_DEADLINE,
            State::Fetching(..) => FETCH_DEADLINE,
            State::Stored(_) => PREPARE_DEADLINE,
            State::Waiting(..) => wait(self.tries),
            State::Trial(set, _) => trial_deadline(set),
            State::Reverting(..) => REVERT_DEADLINE,
        };
        Some(self.since.after(span))
    }
}

impl State {
    /// The word of the report.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Idle => Phase::Idle,
            Self::Offered => Phase::Offered,
            Self::Decided(_) => Phase::Decided,
            Self::Fetching(..) => Phase::Fetching,
            Self::Stored(_) => Phase::Stored,
            Self::Waiting(..) => Phase::Waiting,
            Self::Prepared(_) => Phase::Prepared,
            Self::Trial(..) => Phase::Trial,
            Self::Committed => Phase::Committed,
            Self::Reverting(..) => Phase::Reverting,
            Self::Reverted => Phase::Reverted,
        }
    }

    /// Whether side effects follow it, so that it must be on disk first.
    fn announces(&self) -> bool {
        match self {
            Self::Decided(_) | Self::Stored(_) | Self::Trial(..) | Self::Reverting(..) => true,
            Self::Idle
            | Self::Offered
            | Self::Fetching(..)
            | Self::Waiting(..)
            | Self::Prepared(_)
            | Self::Committed
            | Self::Reverted => false,
        }
    }

    /// The set an update is about.
    pub(crate) fn set(&self) -> Option<&SetRecord> {
        match self {
            Self::Decided(set)
            | Self::Fetching(set, _)
            | Self::Stored(set)
            | Self::Waiting(set, _)
            | Self::Prepared(set)
            | Self::Trial(set, _)
            | Self::Reverting(set, _) => Some(set),
            Self::Idle | Self::Offered | Self::Committed | Self::Reverted => None,
        }
    }
}

fn fetching(set: &SetRecord, at: usize, digest: Digest) -> bool {
    set.members.get(at).is_some_and(|member| member.digest == digest)
}

fn first_word(slot: &Slot) -> Verdict {
    match slot.stage {
        Stage::Dead { .. } => Verdict::Failed(slot.fault.unwrap_or(Code::ExecutorFailed)),
        Stage::Linked => slot.judge.first_word(),
        // It serves already, as part of the committed set.
        Stage::Active | Stage::Activating => Verdict::Passed,
        Stage::Loading | Stage::Unloading => Verdict::Pending,
    }
}

fn on_trial(slot: &Slot, now: Mono) -> Verdict {
    match (slot.stage, slot.fault) {
        // Counted as an attempt when it happened; it is loaded again.
        (Stage::Dead { .. }, None | Some(Code::ExecutorFailed)) => Verdict::Pending,
        (Stage::Dead { .. }, Some(code)) => Verdict::Failed(code),
        (Stage::Active, _) => slot.judge.verdict(now),
        (Stage::Loading | Stage::Linked | Stage::Activating | Stage::Unloading, _) => Verdict::Pending,
    }
}

fn budget(set: &SetRecord) -> u32 {
    set.retry_budget.min(RETRY_MAX)
}

fn wait(tries: u32) -> Millis {
    let doubled = RETRY_WAIT
        .get()
        .saturating_mul(1 << tries.saturating_sub(1).min(20));
    Millis::new(doubled.min(RETRY_WAIT_MAX.get()))
}

fn trial_deadline(set: &SetRecord) -> Millis {
    let longest = set
        .members
        .iter()
        .map(|member| member.grant.health.probation.get())
        .max();
    Millis::new(longest.unwrap_or(0).saturating_add(TRIAL_SLACK.get()))
}

/// Not the set's fault: the same bytes may do well later.
fn transient(code: Code) -> bool {
    matches!(
        code,
        Code::DiskFull
            | Code::DiskFailed
            | Code::ExecutorFailed
            | Code::CompilerFailed
            | Code::ArtifactMissing
            | Code::DigestMismatch
            | Code::LengthMismatch
            | Code::FetchBudget
            | Code::Unreachable
    )
}
