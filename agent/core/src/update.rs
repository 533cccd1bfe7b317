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
//!
//! In Prepared, versions that will lose their traffic are asked whether they may end. One that would rather end later is waited for as
//! long as its grant lets it, all in all; one that is on trial or at fault is not asked, for going back waits for nobody.

use crate::Mono;
use crate::deadline::{
    FETCH_DEADLINE, JOURNAL_RETRY, OFFERED_DEADLINE, PREPARE_DEADLINE, QUEUE_MAX, REVERT_DEADLINE,
    TRIAL_RESTARTS_MAX, budget, trial_deadline, wait,
};
use crate::effect::{Effect, Effects, Input};
use crate::journal::{DENIED_MAX, Denied, Record, Seq, SetRecord};
use crate::slots::{Slot, Slots, Stage};
use crate::state::{Fault, State};
use crate::trial::Verdict;
use redan_protocol::{Code, ComponentName, Digest, DirectionSequence, Millis};
use std::collections::VecDeque;

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
    /// Nothing has traffic until it is told otherwise.
    suspended: bool,
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
            suspended: false,
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
                self.writing = Some(writing);
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
                Input::Suspended(on) => self.suspend(now, *on),
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
                | State::Prepared(_)
                | State::Committed
                | State::Reverted,
                Input::Refused { code, .. },
            ) => Next::Rest(Some(*code)),
            (
                State::Offered
                | State::Decided(_)
                | State::Fetching(..)
                | State::Stored(_)
                | State::Waiting(..)
                | State::Prepared(_),
                Input::Undirected,
            ) => Next::Rest(None),
            (
                State::Idle
                | State::Offered
                | State::Decided(_)
                | State::Fetching(..)
                | State::Stored(_)
                | State::Waiting(..)
                | State::Prepared(_)
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
            (State::Prepared(set), _) if self.slots.yielded(now, self.since, set) => {
                Next::To(State::Trial(set.clone(), 1))
            }
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
                Ok(false) if !self.suspended && self.late(now, trial_deadline(set)) => {
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
                | State::Prepared(_)
                | State::Committed
                | State::Reverting(..)
                | State::Reverted,
                _,
            ) => Next::Stay,
        }
    }

    /// A trial that had no traffic was no trial: it begins anew.
    fn suspend(&mut self, now: Mono, on: bool) {
        if self.suspended && !on && matches!(self.record.state, State::Trial(..)) {
            self.since = now;
        }
        self.suspended = on;
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
        if matches!(self.record.state, State::Prepared(_)) {
            self.slots.forget_yields();
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
        if let State::Prepared(set) = &self.record.state {
            self.slots.ask_to_yield(now, self.since, set, out);
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
        let target = if self.suspended {
            None
        } else if matches!(self.record.state, State::Trial(..)) {
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
            State::Prepared(set) => return self.slots.yield_wake(self.since, set),
            State::Idle | State::Decided(_) | State::Committed | State::Reverted => {
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
        (Stage::Active, _) => slot.judge.verdict(now),
        (Stage::Dead { .. }, Some(code)) if code != Code::ExecutorFailed => Verdict::Failed(code),
        // A dead executor was counted as an attempt when it died; the slot is loaded again.
        (Stage::Dead { .. } | Stage::Loading | Stage::Linked | Stage::Activating | Stage::Unloading, _) => {
            Verdict::Pending
        }
    }
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
            | Code::SecretMissing
    )
}
