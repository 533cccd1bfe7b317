//! A device in one thread: a journal that survives, blobs that survive, executors that do not.

use crate::{Effect, Effects, Input, Machine, MemberRecord, Mono, Offer, Record, SetRecord, State};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{HealthContract, Limits, Messages, Upgrade, World as WitWorld};
use redan_protocol::ipc::{Signals, SlotId, WorkloadKind};
use redan_protocol::report::{Bucket, Health, Phase};
use redan_protocol::{
    ByteCount, Code, ComponentName, Digest, DirectionSequence, Millis, PublisherName, ReleaseCounter, SetId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Virtual time one run may take: longer than any deadline of the machine but the fetch's.
const HORIZON: u64 = 3_600_000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Guest {
    Healthy,
    Unhealthy,
    HealthyButFailing,
    /// Many calls, each of them good.
    Busy,
}

pub(super) fn member(name: &str, version: u64) -> MemberRecord {
    let component = ComponentName::parse(name).unwrap();
    let version_text = semver::Version::new(version, 0, 0);
    MemberRecord {
        component: component.clone(),
        version: version_text.clone(),
        counter: ReleaseCounter::new(version),
        digest: Digest::of(format!("{name} {version}").as_bytes()),
        length: ByteCount::new(10),
        kind: WorkloadKind::Service,
        ask: String::new(),
        grant: EffectiveGrant {
            component,
            version: version_text,
            world: WitWorld::HttpProxy,
            trigger_http: vec![],
            job_args: Vec::new(),
            trigger_timer: vec![],
            net_http: vec![],
            messages: Messages::default(),
            bundles: std::collections::BTreeMap::new(),
            secrets: vec![],
            fs: vec![],
            kv: vec![],
            env: BTreeMap::new(),
            config: None,
            clock: None,
            random: None,
            log: None,
            limits: Limits {
                memory_total: ByteCount::mib(1),
                memory_min: ByteCount::mib(1),
                table_elements: 1,
                instances_max: 1,
                concurrency: 1,
                cpu_per_call: Millis::new(1),
                cpu_share: None,
                fuel_per_call: 0,
                wall_call: Millis::new(1),
                wall_start: Millis::new(1),
                wasm_stack: ByteCount::kib(1),
                handles: 1,
                descriptors: 1,
                sockets: 1,
                hostcall_bytes: ByteCount::kib(1),
                body_request: ByteCount::kib(1),
                body_response: ByteCount::kib(1),
                header_bytes: ByteCount::kib(1),
            },
            isolation: BTreeSet::new(),
            health: HealthContract {
                interval: Millis::seconds(1),
                timeout: Millis::new(500),
                fail_after: 2,
                probation: Millis::seconds(10),
                max_error_permille: 50,
                max_restarts: 1,
            },
            upgrade: Upgrade {
                strategy: redan_policy::grant::Strategy::Swap,
                drain: Millis::seconds(1),
                reuse_calls: 1,
                max_defer: Millis::new(0),
            },
            denied_optional: vec![],
        },
    }
}

pub(super) fn set(id: &str, sequence: u64, members: &[MemberRecord]) -> SetRecord {
    SetRecord {
        id: SetId::parse(id).unwrap(),
        sequence: DirectionSequence::new(sequence),
        retry_budget: 2,
        unblocked: vec![],
        members: members.to_vec(),
    }
}

#[derive(Clone, Debug)]
struct Linked {
    component: ComponentName,
    version: u64,
    active: bool,
}

pub(super) struct World {
    // survives a power cut
    pub(super) journal: Record,
    blobs: BTreeSet<Digest>,
    // does not
    machine: Machine,
    slots: BTreeMap<SlotId, Linked>,
    pending: VecDeque<Effect>,
    wake: Option<Mono>,
    // the surroundings
    pub(super) now: Mono,
    guests: BTreeMap<(String, u64), Guest>,
    network: Option<Code>,
    withheld: BTreeSet<Digest>,
    disk: Option<Code>,
    served: BTreeSet<(String, u64)>,
    /// What versions answer that are asked whether they may end, in order; then: they may.
    pub(super) defers: VecDeque<Option<Millis>>,
    /// How often one was asked; and whether nobody answers.
    pub(super) asked: usize,
    pub(super) mute: bool,
    pub(super) performed: usize,
    /// What was done since the last start.
    pub(super) work: Work,
}

/// Work of a start, in what takes time on a device: reading, hashing and linking a component; a durable write; a download; a probe.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Work {
    pub(super) loads: usize,
    pub(super) records: usize,
    pub(super) fetches: usize,
    pub(super) probes: usize,
}

impl World {
    pub(super) fn new() -> Self {
        let (machine, effects) = Machine::boot(Record::default(), Mono::default());
        let mut world = Self {
            journal: Record::default(),
            blobs: BTreeSet::new(),
            machine,
            slots: BTreeMap::new(),
            pending: VecDeque::new(),
            wake: None,
            now: Mono::default(),
            guests: BTreeMap::new(),
            network: None,
            withheld: BTreeSet::new(),
            disk: None,
            served: BTreeSet::new(),
            defers: VecDeque::new(),
            asked: 0,
            mute: false,
            performed: 0,
            work: Work::default(),
        };
        world.push(effects);
        world
    }

    /// Power comes back: everything volatile is gone.
    pub(super) fn reboot(&mut self) {
        self.slots.clear();
        self.pending.clear();
        self.wake = None;
        self.work = Work::default();
        let (machine, effects) = Machine::boot(self.journal.clone(), self.now);
        self.machine = machine;
        self.push(effects);
    }

    fn push(&mut self, effects: Effects) {
        for effect in effects {
            if let Effect::Wake(at) = effect {
                self.wake = Some(at);
            } else {
                self.pending.push_back(effect);
            }
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.wake = None;
        let effects = self.machine.step(self.now, input);
        self.push(effects);
    }

    pub(super) fn offer(&mut self, set: SetRecord) {
        self.input(Input::Offered(set.sequence));
        self.input(Input::Planned(Box::new(Offer(set))));
    }

    pub(super) fn run(&mut self) {
        self.run_until(|_| false);
    }

    /// Until the condition holds, or nothing but probes of a settled device is left to do.
    pub(super) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let horizon = self.now.millis() + HORIZON;
        let mut quiet = 0;
        while !done(self) && self.now.millis() < horizon {
            if !self.advance() {
                return;
            }
            let resting = matches!(self.phase(), Phase::Idle | Phase::Committed | Phase::Reverted);
            let probing = self
                .pending
                .iter()
                .all(|effect| matches!(effect, Effect::Probe { .. }));
            quiet = if resting && probing { quiet + 1 } else { 0 };
            if quiet > 60 {
                return;
            }
        }
        assert!(self.now.millis() < horizon, "stuck in {:?}", self.state());
    }

    /// One effect, or one tick; false when there is nothing to wait for.
    pub(super) fn advance(&mut self) -> bool {
        if let Some(effect) = self.pending.pop_front() {
            self.performed += 1;
            self.perform(effect);
        } else if let Some(at) = self.wake.take() {
            self.now = self.now.max(at);
            self.input(Input::Tick);
        } else {
            return false;
        }
        self.check();
        true
    }

    /// One effect, or one tick that is due until then; else nothing happens until then.
    pub(super) fn advance_to(&mut self, until: Mono) {
        if !self.pending.is_empty() || self.wake.is_some_and(|at| at <= until) {
            self.advance();
        } else {
            self.now = self.now.max(until);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match &effect {
            Effect::Load { .. } => self.work.loads += 1,
            Effect::Journal(_) => self.work.records += 1,
            Effect::Fetch { .. } => self.work.fetches += 1,
            Effect::Probe { .. } => self.work.probes += 1,
            _ => {}
        }
        let answer = match effect {
            Effect::Journal(record) => {
                if let Some(code) = self.disk {
                    Input::JournalFailed(record.seq, code)
                } else {
                    self.journal = *record;
                    Input::Journaled(self.journal.seq)
                }
            }
            Effect::Fetch { digest, .. } if self.withheld.contains(&digest) => {
                Input::FetchFailed(digest, Code::ArtifactMissing)
            }
            Effect::Fetch { digest, .. } => match self.network {
                Some(code) if !self.blobs.contains(&digest) => Input::FetchFailed(digest, code),
                _ => {
                    self.blobs.insert(digest);
                    Input::Fetched(digest)
                }
            },
            Effect::Load { slot, member } => {
                assert!(self.blobs.contains(&member.digest), "loads what was not fetched");
                let linked = Linked {
                    component: member.component.clone(),
                    version: member.counter.get(),
                    active: false,
                };
                assert!(
                    self.slots.insert(slot, linked).is_none(),
                    "a slot number is used twice"
                );
                Input::Loaded(slot)
            }
            Effect::Probe { slot, .. } => return self.probe(slot),
            Effect::Activate { slot, component } => {
                for linked in self
                    .slots
                    .values_mut()
                    .filter(|linked| linked.component == component)
                {
                    linked.active = false;
                }
                let linked = self.slots.get_mut(&slot).expect("activates what is not linked");
                linked.active = true;
                self.served.insert((component.to_string(), linked.version));
                Input::Activated(slot)
            }
            Effect::PrepareStop { slot, .. } => {
                assert!(self.slots.contains_key(&slot), "asks what is not linked");
                self.asked += 1;
                if self.mute {
                    return;
                }
                let after = self.defers.pop_front().unwrap_or_default();
                Input::Yields { slot, after }
            }
            Effect::Deactivate { component } => {
                for linked in self
                    .slots
                    .values_mut()
                    .filter(|linked| linked.component == component)
                {
                    linked.active = false;
                }
                return;
            }
            Effect::Unload { slot, .. } => {
                let gone = self.slots.remove(&slot).expect("unloads what is not linked");
                assert!(!gone.active, "unloads what has traffic");
                Input::Unloaded(slot)
            }
            Effect::Settled | Effect::Wake(_) => return,
        };
        self.input(answer);
    }

    fn probe(&mut self, slot: SlotId) {
        let linked = self.slots.get(&slot).expect("probes what is not linked").clone();
        let key = (linked.component.to_string(), linked.version);
        let guest = self.guests.get(&key).copied().unwrap_or(Guest::Healthy);
        if matches!(guest, Guest::HealthyButFailing | Guest::Busy) && linked.active {
            let failing = guest == Guest::HealthyButFailing;
            let signals = Signals {
                calls: if failing { 20 } else { 20_000 },
                failures: if failing { 10 } else { 0 },
                last: failing.then_some(Code::Trapped),
                cpu: Bucket::default(),
            };
            self.input(Input::Signals { slot, signals });
        }
        let health = if guest == Guest::Unhealthy {
            Health::Unhealthy
        } else {
            Health::Healthy
        };
        self.input(Input::Probed {
            slot,
            health,
            code: None,
        });
    }

    /// What must hold at any instant.
    fn check(&self) {
        let mut active: Vec<&ComponentName> = self
            .slots
            .values()
            .filter(|linked| linked.active)
            .map(|linked| &linked.component)
            .collect();
        let all = active.len();
        active.dedup();
        assert_eq!(active.len(), all, "two versions of a component have traffic");
    }

    pub(super) fn kill(&mut self, publisher: &PublisherName) {
        self.slots
            .retain(|_, linked| linked.component.publisher() != publisher);
        self.pending.clear();
        self.input(Input::ExecutorEnded(publisher.clone()));
    }

    pub(super) fn guest(&mut self, name: &str, version: u64, guest: Guest) {
        self.guests.insert((name.to_owned(), version), guest);
    }

    pub(super) fn network(&mut self, fault: Option<Code>) {
        self.network = fault;
    }

    /// The server has everything but these.
    pub(super) fn withhold(&mut self, members: &[MemberRecord]) {
        self.withheld = members.iter().map(|member| member.digest).collect();
    }

    pub(super) fn disk(&mut self, fault: Option<Code>) {
        self.disk = fault;
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn state(&self) -> &State {
        &self.machine.record.state
    }

    pub(super) fn phase(&self) -> Phase {
        self.machine.view().phase
    }

    pub(super) fn committed(&self) -> Option<&str> {
        self.journal.committed.as_ref().map(|set| set.id.as_str())
    }

    pub(super) fn serving(&self) -> Vec<(&str, u64)> {
        let active = self.slots.values().filter(|linked| linked.active);
        let mut all: Vec<_> = active
            .map(|linked| match linked.component.workload().as_str() {
                "thermo" => ("acme/thermo", linked.version),
                _ => ("acme/tick", linked.version),
            })
            .collect();
        all.sort_unstable();
        all
    }

    pub(super) fn serves(&self, name: &str, version: u64) -> bool {
        self.serving().contains(&(name, version))
    }

    pub(super) fn ever_served(&self, name: &str, version: u64) -> bool {
        self.served.contains(&(name.to_owned(), version))
    }

    pub(super) fn has_blob(&self, name: &str, version: u64) -> bool {
        self.blobs.contains(&member(name, version).digest)
    }

    pub(super) fn linked(&self) -> usize {
        self.slots.len()
    }
}
