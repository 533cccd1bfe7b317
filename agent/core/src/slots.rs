//! The installed versions, as far as executors have told: linked, active, or gone.

use crate::deadline::{DEFER_MAX, YIELD_WITHIN};
use crate::effect::{Effect, Input};
use crate::journal::{MemberRecord, SetRecord};
use crate::trial::Judge;
use crate::{Mono, trial::Verdict};
use redan_protocol::ipc::SlotId;
use redan_protocol::report::{Bucket, Health};
use redan_protocol::{Code, ComponentName, Millis};

/// First wait before a version that should run is loaded again; doubles up to [`RELOAD_WAIT_MAX`].
pub(crate) const RELOAD_WAIT: Millis = Millis::new(500);
/// Longest such wait: an operator who repaired the device should not wait longer.
pub(crate) const RELOAD_WAIT_MAX: Millis = Millis::seconds(60);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Told to load.
    Loading,
    /// Linked beside whatever runs; no traffic.
    Linked,
    /// Told to take the traffic.
    Activating,
    /// Has the traffic.
    Active,
    /// Told to go.
    Unloading,
    /// Could not be loaded or run; tried again at this time.
    Dead { again: Mono },
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    pub(crate) member: MemberRecord,
    pub(crate) stage: Stage,
    pub(crate) judge: Judge,
    pub(crate) fault: Option<Code>,
    pub(crate) yielding: Yielding,
    pub(crate) tries: u32,
    pub(crate) calls: u64,
    pub(crate) failures: u64,
}

impl Slot {
    pub(crate) fn health(&self) -> (Health, Option<Code>) {
        match self.stage {
            Stage::Dead { .. } => (Health::Stopped, self.fault),
            _ => self.judge.health(),
        }
    }

    fn kill(&mut self, now: Mono, code: Code) {
        let wait = RELOAD_WAIT
            .get()
            .saturating_mul(1 << self.tries.min(10))
            .min(RELOAD_WAIT_MAX.get());
        self.stage = Stage::Dead {
            again: now.after(Millis::new(wait)),
        };
        self.fault = Some(code);
        self.tries = self.tries.saturating_add(1);
    }
}

/// How far a version that will be replaced or stopped has got with its own end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Yielding {
    /// Nobody asked.
    Unasked,
    /// Asked.
    Asked,
    /// Would rather at this moment; asked again then.
    Later(Mono),
    /// May end.
    Ready,
}

impl Slot {
    /// How long it may put its end off, all in all.
    fn defer(&self) -> Millis {
        self.member.grant.upgrade.max_defer.min(DEFER_MAX)
    }

    /// When it ends whatever it says, having been asked first at `since`.
    fn ends(&self, since: Mono) -> Mono {
        since.after(self.defer().max(YIELD_WITHIN))
    }

    fn yields(&mut self, now: Mono, after: Option<Millis>) {
        if self.yielding == Yielding::Asked {
            self.yielding = match after {
                // A grant that lets it put off nothing: it was told, and that was all.
                Some(after) if self.defer().get() > 0 => Yielding::Later(now.after(after)),
                Some(_) | None => Yielding::Ready,
            };
        }
    }
}

/// All slots. Numbers go up and are never used again while the agent lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    last: u32,
    pub(crate) list: Vec<Slot>,
}

impl Slots {
    /// Takes down what an executor said. Whether it changes the update is the machine's to decide.
    pub(crate) fn note(&mut self, now: Mono, input: &Input) {
        match input {
            Input::Loaded(id) => self.stage(*id, Stage::Loading, Stage::Linked),
            Input::Activated(id) => self.activated(now, *id),
            Input::Unloaded(id) => self.list.retain(|slot| slot.id != *id),
            Input::Yields { slot, after } => {
                if let Some(slot) = self.get(*slot) {
                    slot.yields(now, *after);
                }
            }
            Input::Failed(id, code) => self.failed(now, *id, *code),
            Input::Probed { slot, health, code } => {
                if let Some(slot) = self.get(*slot) {
                    slot.judge.probed(now, *health, *code);
                }
            }
            Input::Signals { slot, signals } => {
                if let Some(slot) = self.get(*slot) {
                    slot.judge.saw(*signals);
                    slot.calls = slot.calls.saturating_add(u64::from(signals.calls));
                    slot.failures = slot.failures.saturating_add(u64::from(signals.failures));
                }
            }
            Input::ExecutorEnded(publisher) => {
                self.list.retain(|slot| {
                    slot.member.component.publisher() != publisher || slot.stage != Stage::Unloading
                });
                for slot in &mut self.list {
                    let dead = matches!(slot.stage, Stage::Dead { .. });
                    if slot.member.component.publisher() == publisher && !dead {
                        slot.kill(now, Code::ExecutorFailed);
                    }
                }
            }
            Input::Offered(_)
            | Input::Refused { .. }
            | Input::Planned(_)
            | Input::Undirected
            | Input::Fetched(_)
            | Input::FetchFailed(..)
            | Input::Journaled(_)
            | Input::JournalFailed(..)
            | Input::Suspended(_)
            | Input::Tick => {}
        }
    }

    fn get(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.list.iter_mut().find(|slot| slot.id == id)
    }

    fn stage(&mut self, id: SlotId, from: Stage, to: Stage) {
        if let Some(slot) = self.get(id)
            && slot.stage == from
        {
            slot.stage = to;
        }
    }

    /// The swap happened: whichever slot of the component had the traffic has it no more.
    fn activated(&mut self, now: Mono, id: SlotId) {
        let Some(component) = self.get(id).map(|slot| slot.member.component.clone()) else {
            return;
        };
        for slot in &mut self.list {
            if slot.id == id && slot.stage == Stage::Activating {
                slot.stage = Stage::Active;
                slot.judge.begin(now);
                slot.tries = 0;
                slot.fault = None;
            } else if slot.member.component == component && slot.stage == Stage::Active {
                slot.stage = Stage::Linked;
            }
        }
    }

    fn failed(&mut self, now: Mono, id: SlotId, code: Code) {
        let Some(slot) = self.get(id) else { return };
        match slot.stage {
            Stage::Loading | Stage::Activating => slot.kill(now, code),
            Stage::Linked | Stage::Active => slot.judge.probed(now, Health::Unhealthy, Some(code)),
            Stage::Unloading => self.list.retain(|slot| slot.id != id),
            Stage::Dead { .. } => {}
        }
    }

    /// The slot that does a member's work, dead or alive.
    pub(crate) fn of(&self, member: &MemberRecord) -> Option<&Slot> {
        self.list
            .iter()
            .find(|slot| slot.stage != Stage::Unloading && slot.member.same_work(member))
    }

    fn of_mut(&mut self, member: &MemberRecord) -> Option<&mut Slot> {
        self.list
            .iter_mut()
            .find(|slot| slot.stage != Stage::Unloading && slot.member.same_work(member))
    }

    /// Loads what a set needs and does not have; loads again what died, when its wait is over.
    pub(crate) fn place(&mut self, now: Mono, set: &SetRecord, out: &mut Vec<Effect>) {
        for member in &set.members {
            let next = self.last.saturating_add(1);
            let slot = SlotId(next);
            if let Some(present) = self.of_mut(member) {
                match present.stage {
                    Stage::Dead { again } if now >= again => {
                        present.id = slot;
                        present.stage = Stage::Loading;
                        present.yielding = Yielding::Unasked;
                        present.judge = Judge::new(member.grant.health, now);
                    }
                    _ => continue,
                }
            } else {
                self.list.push(Slot {
                    id: slot,
                    member: member.clone(),
                    stage: Stage::Loading,
                    judge: Judge::new(member.grant.health, now),
                    fault: None,
                    yielding: Yielding::Unasked,
                    tries: 0,
                    calls: 0,
                    failures: 0,
                });
            }
            self.last = next;
            out.push(Effect::Load {
                slot,
                member: Box::new(member.clone()),
            });
        }
    }

    /// Moves traffic towards a set: its linked members take it, components it does not have lose it.
    pub(crate) fn aim(&mut self, target: Option<&SetRecord>, out: &mut Vec<Effect>) {
        for slot in &mut self.list {
            match slot.stage {
                Stage::Linked if target.is_some_and(|set| set.holds(&slot.member)) => {
                    slot.stage = Stage::Activating;
                    out.push(Effect::Activate {
                        slot: slot.id,
                        component: slot.member.component.clone(),
                    });
                }
                Stage::Active if !target.is_some_and(|set| set.runs(&slot.member.component)) => {
                    slot.stage = Stage::Linked;
                    out.push(Effect::Deactivate {
                        component: slot.member.component.clone(),
                    });
                }
                _ => {}
            }
        }
    }

    /// Slots whose work a set does not do: they lose their traffic when it gets its own.
    fn leaving<'s>(&'s self, set: &'s SetRecord) -> impl Iterator<Item = &'s Slot> {
        let active = self.list.iter().filter(|slot| slot.stage == Stage::Active);
        active.filter(|slot| !set.holds(&slot.member))
    }

    /// Asks what leaves whether it may end now, for the first time or again.
    pub(crate) fn ask_to_yield(&mut self, now: Mono, since: Mono, set: &SetRecord, out: &mut Vec<Effect>) {
        for slot in &mut self.list {
            let due = match slot.yielding {
                Yielding::Unasked => true,
                Yielding::Later(at) => now >= at,
                Yielding::Asked | Yielding::Ready => false,
            };
            let ends = slot.ends(since);
            if due && slot.stage == Stage::Active && now < ends && !set.holds(&slot.member) {
                slot.yielding = Yielding::Asked;
                out.push(Effect::PrepareStop {
                    slot: slot.id,
                    component: slot.member.component.clone(),
                    deadline: Millis::new(ends.millis().saturating_sub(now.millis())),
                });
            }
        }
    }

    /// Whether nothing that leaves wants, or may have, more time.
    pub(crate) fn yielded(&self, now: Mono, since: Mono, set: &SetRecord) -> bool {
        let mut leaving = self.leaving(set);
        leaving.all(|slot| slot.yielding == Yielding::Ready || now >= slot.ends(since))
    }

    /// When to look again at what leaves.
    pub(crate) fn yield_wake(&self, since: Mono, set: &SetRecord) -> Option<Mono> {
        let leaving = self.leaving(set).filter(|slot| slot.yielding != Yielding::Ready);
        let wakes = leaving.map(|slot| match slot.yielding {
            Yielding::Later(at) => at.min(slot.ends(since)),
            Yielding::Unasked | Yielding::Asked | Yielding::Ready => slot.ends(since),
        });
        wakes.min()
    }

    /// Whatever was asked is asked anew the next time.
    pub(crate) fn forget_yields(&mut self) {
        for slot in &mut self.list {
            slot.yielding = Yielding::Unasked;
        }
    }

    /// Unloads what no kept set needs and has no traffic.
    pub(crate) fn clear(&mut self, kept: &[&SetRecord], out: &mut Vec<Effect>) {
        let needed = |slot: &Slot| kept.iter().any(|set| set.holds(&slot.member));
        self.list
            .retain(|slot| !matches!(slot.stage, Stage::Dead { .. }) || needed(slot));
        for slot in &mut self.list {
            if slot.stage == Stage::Linked && !needed(slot) {
                slot.stage = Stage::Unloading;
                out.push(Effect::Unload {
                    slot: slot.id,
                    component: slot.member.component.clone(),
                    drain: slot.member.grant.upgrade.drain,
                });
            }
        }
    }

    /// Probes that are due: of what has traffic, and of a candidate before it gets any.
    pub(crate) fn probe(&mut self, now: Mono, candidate: Option<&SetRecord>, out: &mut Vec<Effect>) {
        for slot in &mut self.list {
            let watched = slot.stage == Stage::Active
                || slot.stage == Stage::Linked && candidate.is_some_and(|set| set.holds(&slot.member));
            if watched && slot.judge.due(now) {
                out.push(Effect::Probe {
                    slot: slot.id,
                    component: slot.member.component.clone(),
                });
            }
        }
    }

    /// The earliest moment at which a slot wants a [`Input::Tick`].
    pub(crate) fn wake(&self, now: Mono, candidate: Option<&SetRecord>) -> Option<Mono> {
        let watched = self.list.iter().filter_map(|slot| match slot.stage {
            Stage::Active => {
                let over = slot.judge.over().filter(|over| *over > now);
                Some(over.map_or(slot.judge.wake(), |over| over.min(slot.judge.wake())))
            }
            Stage::Linked if candidate.is_some_and(|set| set.holds(&slot.member)) => Some(slot.judge.wake()),
            Stage::Dead { again } => Some(again),
            Stage::Linked | Stage::Loading | Stage::Activating | Stage::Unloading => None,
        });
        watched.min()
    }

    /// The trial of a set begins anew for every member.
    pub(crate) fn begin(&mut self, now: Mono, set: &SetRecord) {
        for slot in &mut self.list {
            if set.holds(&slot.member) {
                slot.judge.begin(now);
            }
        }
    }

    /// The first fault among a set's slots and whose it is, or whether all of them pass `word`.
    pub(crate) fn verdict(
        &self,
        set: &SetRecord,
        word: impl Fn(&Slot) -> Verdict,
    ) -> Result<bool, (Code, ComponentName)> {
        let mut all = true;
        for member in &set.members {
            match self.of(member).map(&word) {
                Some(Verdict::Failed(code)) => return Err((code, member.component.clone())),
                Some(Verdict::Passed) => {}
                Some(Verdict::Pending) | None => all = false,
            }
        }
        Ok(all)
    }

    /// Calls and failures since the last report, and forgets them.
    pub(crate) fn take_counts(&mut self, id: SlotId) -> (Bucket, Bucket) {
        self.get(id).map_or_else(Default::default, |slot| {
            (
                Bucket::of(std::mem::take(&mut slot.calls)),
                Bucket::of(std::mem::take(&mut slot.failures)),
            )
        })
    }
}
