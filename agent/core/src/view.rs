//! What may be seen of the machine from outside: the facts of the report and of `status`.

use crate::slots::{Slot, Stage};
use crate::update::Machine;
use redan_protocol::ipc::SlotId;
use redan_protocol::report::{Bucket, Health, Phase};
use redan_protocol::{Code, DirectionSequence, SetId};

use crate::MemberRecord;

/// Where the update stands and what is installed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View<'a> {
    /// The committed set.
    pub set: Option<&'a SetId>,
    /// The direction followed or refused.
    pub direction: DirectionSequence,
    /// Where the update stands.
    pub phase: Phase,
    /// Why what is offered is not adopted.
    pub refusal: Option<Code>,
    /// Why the last trial was rolled back.
    pub rollback: Option<Code>,
    /// The installed versions.
    pub slots: Vec<SlotView<'a>>,
}

/// One installed version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotView<'a> {
    /// Its number.
    pub slot: SlotId,
    /// What it is.
    pub member: &'a MemberRecord,
    /// Whether it has the traffic.
    pub active: bool,
    /// How it is.
    pub health: Health,
    /// Why.
    pub code: Option<Code>,
}

impl Machine {
    /// The present state, to be shown.
    pub fn view(&self) -> View<'_> {
        let slots = self
            .slots
            .list
            .iter()
            .filter(|slot| slot.stage != Stage::Unloading)
            .map(see);
        View {
            set: self.record.committed.as_ref().map(crate::SetRecord::id),
            direction: self.direction,
            phase: self.record.state.phase(),
            refusal: self.refusal,
            rollback: self.rollback(),
            slots: slots.collect(),
        }
    }

    /// Why the last trial was rolled back: nothing while a newer direction is refused or on its way, for it would pass for news of that
    /// one, and a rollout would halt for what happened before it began.
    fn rollback(&self) -> Option<Code> {
        let older = self
            .record
            .failed
            .is_some_and(|(_, tried)| tried < self.direction);
        let resting = matches!(
            self.record.state.phase(),
            Phase::Idle | Phase::Committed | Phase::Reverted
        );
        let news = older && (self.refusal.is_some() || !resting);
        self.record.rollback.filter(|_| !news)
    }

    /// Calls and failures of a slot since this was last asked.
    pub fn take_counts(&mut self, slot: SlotId) -> (Bucket, Bucket) {
        self.slots.take_counts(slot)
    }
}

fn see(slot: &Slot) -> SlotView<'_> {
    let (health, code) = slot.health();
    SlotView {
        slot: slot.id,
        member: &slot.member,
        active: slot.stage == Stage::Active,
        health,
        code,
    }
}
