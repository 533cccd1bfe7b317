//! The documents as they stand now, and what they take from workloads that run already.
//!
//! A fleet policy is believed as soon as its signers are, whatever becomes of the direction it came with, and the ceiling as soon as the
//! administrator wrote it. Both can only take: each version keeps the grant it was loaded with as its upper bound, and gets more by being
//! loaded anew, under a direction that was decided on.

use crate::AgentError;
use crate::broker::Rules;
use crate::disk::{Disk, RealDisk, replace};
use crate::main_loop::Agent;
use crate::seal::{Purpose, SealKey, TAG_LEN};
use redan_agent_core::{Input, MemberRecord};
use redan_policy::standing::{reports_counters, stale_after, stops_after};
use redan_policy::{
    DeviceCeiling, EffectiveGrant, FleetPolicy, intersect, parse_ask, parse_device, parse_fleet,
};
use redan_protocol::ipc::{SlotId, ToBroker, ToExecutor};
use redan_protocol::{ByteCount, Digest, Seconds};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest stored policy, bytes: a document and its MAC.
const STORED_LEN_MAX: ByteCount = ByteCount::kib(65);

/// The last believed fleet policy, the ceiling's file, and what is left of grants.
pub(crate) struct Documents {
    policy: Option<FleetPolicy>,
    /// What the policy that is known and stored was read from.
    text: Option<Digest>,
    stored: PathBuf,
    ceiling: PathBuf,
    /// The ceiling as it was last looked at, good or not.
    seen: String,
    left: BTreeMap<SlotId, EffectiveGrant>,
    stale: bool,
}

impl Documents {
    /// Reads the policy that was believed before the last start. One that is not as this device wrote it is as good as none: the next
    /// refresh brings it.
    pub(crate) fn open(
        stored: PathBuf,
        key: &SealKey,
        ceiling: &Path,
        serial: u64,
    ) -> Result<Self, AgentError> {
        let failed = |path: &Path, source| AgentError::file("read", path, source);
        let bytes = RealDisk
            .read(&stored, STORED_LEN_MAX)
            .map_err(|source| failed(&stored, source))?;
        let opened = bytes.and_then(|bytes| opened(key, &bytes));
        let (policy, text) = opened.filter(|(policy, _)| policy.serial() >= serial).unzip();
        Ok(Self {
            policy,
            text,
            seen: std::fs::read_to_string(ceiling).map_err(|source| failed(ceiling, source))?,
            stored,
            ceiling: ceiling.to_owned(),
            left: BTreeMap::new(),
            stale: false,
        })
    }

    /// Workloads are stopped because the metadata is stale.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Forgets a slot that is gone.
    pub(crate) fn forget(&mut self, slot: SlotId) {
        self.left.remove(&slot);
    }

    /// What a version has left of its grant. Without a policy that is known: what it was given.
    pub(crate) fn left(&self, member: &MemberRecord, ceiling: &DeviceCeiling) -> EffectiveGrant {
        let granted = member.grant();
        let policy = self.policy.as_ref();
        policy.map_or_else(
            || granted.clone(),
            |policy| left(granted, member.ask(), policy, ceiling),
        )
    }

    /// The digest of what a slot has now, `granted` being what it was loaded with.
    pub(crate) fn digest(&self, slot: SlotId, granted: &EffectiveGrant) -> Digest {
        self.left.get(&slot).unwrap_or(granted).digest()
    }

    /// Takes a policy and keeps it for the next start; whether it is another one than was known. What did not get onto the disk is tried
    /// again with the next refresh.
    fn adopt(&mut self, disk: &impl Disk, key: &SealKey, policy: FleetPolicy, text: &str) -> bool {
        let digest = Digest::of(text.as_bytes());
        let older = |known: &FleetPolicy| known.serial() > policy.serial();
        if self.text == Some(digest) || self.policy.as_ref().is_some_and(older) {
            return false;
        }
        let stored = [&key.tag(Purpose::Policy, &[text.as_bytes()]), text.as_bytes()].concat();
        let kept = replace(disk, &self.stored, &stored);
        if let Err(error) = &kept {
            tracing::warn!("the fleet policy was not kept: {error}");
        }
        self.text = kept.is_ok().then_some(digest);
        self.policy = Some(policy);
        true
    }

    /// Whether reports may say how many calls there were.
    pub(crate) fn reports_counters(&self, ceiling: &DeviceCeiling) -> bool {
        reports_counters(self.policy.as_ref(), ceiling)
    }

    /// Whether it is time to have the metadata confirmed although nothing is new: at half the time after which it is stale.
    pub(crate) fn wants_refresh(&self, ceiling: &DeviceCeiling, age: Seconds) -> bool {
        stale_after(self.policy.as_ref(), ceiling).is_some_and(|limit| age.get() > limit.get() / 2)
    }
}

fn opened(key: &SealKey, bytes: &[u8]) -> Option<(FleetPolicy, Digest)> {
    let (tag, text) = bytes.split_at_checked(TAG_LEN)?;
    if !key.is(Purpose::Policy, &[text], tag) {
        return None;
    }
    let policy = parse_fleet(redan_trust::POLICY_PATH, std::str::from_utf8(text).ok()?).ok()?;
    Some((policy, Digest::of(text)))
}

impl Agent {
    /// Policy signers named this policy. An older one than is known was refused before.
    pub(crate) fn take_policy(&mut self, policy: FleetPolicy, text: &str) {
        if self.documents.adopt(&RealDisk, &self.key, policy, text) {
            self.narrow_all();
        }
    }

    /// Looks whether the administrator changed the ceiling. One that does not read changes nothing: the one before stays in force.
    pub(crate) fn read_ceiling(&mut self) {
        let Ok(text) = std::fs::read_to_string(&self.documents.ceiling) else {
            return;
        };
        if text == self.documents.seen {
            return;
        }
        match parse_device(&self.documents.ceiling.display().to_string(), &text) {
            Ok(ceiling) => {
                tracing::info!("the device ceiling changed");
                self.ceiling = ceiling;
                self.narrow_all();
                // What it gives more, it gives by a decision.
                self.settled = None;
                self.cadence.soon();
            }
            Err(error) => {
                tracing::error!("the device ceiling does not read, the one before stays in force: {error}");
            }
        }
        self.documents.seen = text;
    }

    fn narrow_all(&mut self) {
        let slots: Vec<SlotId> = self.machine.view().slots.iter().map(|slot| slot.slot).collect();
        for slot in slots {
            self.narrow(slot);
        }
    }

    /// Tells executor and broker what a slot has left, if that changed.
    pub(crate) fn narrow(&mut self, slot: SlotId) {
        let view = self.machine.view();
        let Some(member) = view
            .slots
            .iter()
            .find(|seen| seen.slot == slot)
            .map(|seen| seen.member)
        else {
            return;
        };
        let left = self.documents.left(member, &self.ceiling);
        if *self.documents.left.get(&slot).unwrap_or(member.grant()) == left {
            return;
        }
        let component = member.component().clone();
        tracing::info!(%component, slot = slot.0, "policy changed what a running version has");
        let (to_broker, to_executor) = orders(&mut self.rules, slot, &left);
        for message in to_broker {
            self.around.broker.tell(message);
        }
        if self.links.knows(slot) {
            let changes = self.links.put(slot, &left);
            self.relink(changes);
        }
        self.tell(&component, slot, to_executor);
        self.documents.left.insert(slot, left);
    }

    /// How long ago the metadata was last verified as current, in the time this device was running.
    pub(crate) fn metadata_age(&self) -> Seconds {
        let now = self.proven.now();
        let refreshed = self
            .trust
            .as_ref()
            .and_then(crate::trust::Trust::refreshed)
            .unwrap_or(now);
        Seconds::new(now.get().saturating_sub(refreshed.get()))
    }

    /// Stops workloads when policy says so, and lets them go on.
    pub(crate) fn suspend_if_stale(&mut self) {
        let limit = stops_after(self.documents.policy.as_ref(), &self.ceiling);
        let stale = limit.is_some_and(|limit| self.metadata_age() > limit);
        if stale != self.documents.stale {
            self.documents.stale = stale;
            if stale {
                let code = redan_protocol::Code::Stale;
                tracing::warn!(code = code.name(), remedy = code.remedy(), "workloads stop");
            }
            self.feed(Input::Suspended(stale));
        }
    }
}

/// What is said when a slot has no more than this left: to the broker process first, so that what the executor closes it cannot open
/// again.
fn orders(rules: &mut Rules, slot: SlotId, left: &EffectiveGrant) -> (Vec<ToBroker>, ToExecutor) {
    let to_broker = rules.set(&left.component, slot, left);
    let grant = left.canonical_json();
    (to_broker, ToExecutor::Narrow { slot, grant })
}

/// What a version has left of its grant under the documents as they are now. If they refuse it altogether: nothing.
fn left(
    granted: &EffectiveGrant,
    ask: &str,
    policy: &FleetPolicy,
    ceiling: &DeviceCeiling,
) -> EffectiveGrant {
    let later = parse_ask("ask", ask).ok();
    let later = later.and_then(|ask| intersect(&ask, policy, ceiling).ok());
    later.map_or_else(|| granted.nothing(), |later| granted.narrowed_to(&later))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io;

    const ASK: &str = include_str!("../../policies/ask/thermo.toml");
    const FLEET: &str = include_str!("../../policies/fleet/demo.toml");
    const CEILING: &str = include_str!("../../policies/device/demo.toml");

    fn granted(fleet: &str, ceiling: &str) -> EffectiveGrant {
        let ask = parse_ask("ask", ASK).unwrap();
        let fleet = parse_fleet("fleet", fleet).unwrap();
        intersect(&ask, &fleet, &parse_device("device", ceiling).unwrap()).unwrap()
    }

    fn now(fleet: &str, ceiling: &str) -> EffectiveGrant {
        let fleet = parse_fleet("fleet", fleet).unwrap();
        let ceiling = parse_device("device", ceiling).unwrap();
        left(&granted(FLEET, CEILING), ASK, &fleet, &ceiling)
    }

    #[test]
    fn documents_that_did_not_change_take_nothing() {
        assert_eq!(now(FLEET, CEILING), granted(FLEET, CEILING));
    }

    #[test]
    fn a_policy_or_a_ceiling_that_gives_less_takes_the_rest() {
        let smaller = FLEET.replace("\"128KiB\"", "\"64KiB\"");
        assert_eq!(now(&smaller, CEILING).kv[0].bytes, ByteCount::kib(64));
        let without_log = CEILING.replace("[log]\nbudget = \"64KiB/min\"\n", "");
        let left = now(FLEET, &without_log);
        assert_eq!((left.log, left.denied_optional), (None, vec!["log".to_owned()]));
    }

    #[test]
    fn a_broker_that_is_taken_is_out_of_reach_for_the_executor_and_for_the_broker_process() {
        const ALARM: &str = include_str!("../../policies/ask/alarm.toml");
        const PLANTS: &str = include_str!("../../policies/fleet/messages.toml");
        const PRESS: &str = include_str!("../../policies/device/messages.toml");
        let ask = parse_ask("ask", ALARM).unwrap();
        let ceiling = parse_device("device", PRESS).unwrap();
        let granted = intersect(&ask, &parse_fleet("fleet", PLANTS).unwrap(), &ceiling).unwrap();
        let (mut rules, slot) = (Rules::default(), SlotId(1));
        rules.set(&granted.component, slot, &granted);
        let elsewhere = PRESS.replace("127.0.0.1:1884", "127.0.0.1:1885");
        for (fleet, ceiling, still) in [
            // The handler's subscription was required: it keeps nothing.
            (PLANTS.replace("\"plant/#\"", "\"office/#\""), PRESS, vec![]),
            (
                PLANTS.to_owned(),
                elsewhere.as_str(),
                vec![("127.0.0.1".to_owned(), 1883)],
            ),
        ] {
            let fleet = parse_fleet("fleet", &fleet).unwrap();
            let ceiling = parse_device("device", ceiling).unwrap();
            let left = left(&granted, ALARM, &fleet, &ceiling);
            let (to_broker, to_executor) = orders(&mut rules, slot, &left);
            let wanted = ToBroker::Brokers {
                component: granted.component.clone(),
                brokers: still.clone(),
            };
            assert!(to_broker.contains(&wanted), "{to_broker:?}");
            let ToExecutor::Narrow { slot: of, grant } = to_executor else {
                panic!("{to_executor:?}");
            };
            let told = EffectiveGrant::from_canonical_json(&grant).unwrap();
            let told = told.messages.brokers.iter();
            let told: Vec<_> = told.map(|broker| (broker.host.clone(), broker.port)).collect();
            assert_eq!((of, told), (slot, still));
        }
    }

    #[test]
    fn documents_that_give_more_add_nothing() {
        let larger = FLEET
            .replace("\"128KiB\"", "\"256KiB\"")
            .replace("\"16MiB\"", "\"64MiB\"");
        assert_eq!(now(&larger, CEILING), granted(FLEET, CEILING));
    }

    #[test]
    fn a_workload_the_documents_refuse_keeps_nothing() {
        let nothing = granted(FLEET, CEILING).nothing();
        // Its bucket was required.
        let without_bucket = FLEET.replace(
            "[[kv]]\nlabel = \"default\"\nquota = { bytes = \"128KiB\", keys = 50 }\n",
            "",
        );
        assert_eq!(now(&without_bucket, CEILING), nothing);
        let revoked = format!("{FLEET}\n[revoke]\nmin_version = {{ \"acme/thermo\" = \"2.0.0\" }}\n");
        assert_eq!(now(&revoked, CEILING), nothing);
        let denied = CEILING.replace(
            "names = [\"acme/*\"]",
            "names = [\"acme/*\"]\ndeny = [\"acme/thermo\"]",
        );
        assert_eq!(now(FLEET, &denied), nothing);
    }

    #[test]
    fn a_stored_policy_that_somebody_changed_is_none() {
        let key = SealKey::new(&[7; crate::seal::KEY_LEN]);
        let stored = [&key.tag(Purpose::Policy, &[FLEET.as_bytes()]), FLEET.as_bytes()].concat();
        assert_eq!(opened(&key, &stored).map(|(policy, _)| policy.serial()), Some(1));
        let changed = String::from_utf8_lossy(&stored[TAG_LEN..]).replace("16MiB", "99MiB");
        assert!(opened(&key, &[&stored[..TAG_LEN], changed.as_bytes()].concat()).is_none());
        assert!(opened(&key, &stored[..TAG_LEN - 1]).is_none());
        let other = SealKey::new(&[8; crate::seal::KEY_LEN]);
        assert!(opened(&other, &stored).is_none());
    }

    /// The real disk, and how often it was asked for anything.
    #[derive(Default)]
    struct Counted {
        calls: Cell<u32>,
        full: Cell<bool>,
    }

    impl Counted {
        fn one<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
            self.calls.set(self.calls.get() + 1);
            if self.full.get() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            outcome
        }
    }

    impl Disk for Counted {
        fn read(&self, path: &Path, limit: ByteCount) -> io::Result<Option<Vec<u8>>> {
            self.one(RealDisk.read(path, limit))
        }
        fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            self.one(RealDisk.write(path, bytes))
        }
        fn overwrite(&self, path: &Path, bytes: &[u8], room: ByteCount) -> io::Result<()> {
            self.one(RealDisk.overwrite(path, bytes, room))
        }
        fn sync(&self, path: &Path) -> io::Result<()> {
            self.one(RealDisk.sync(path))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.one(RealDisk.rename(from, to))
        }
        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            self.one(RealDisk.sync_folder(folder))
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.one(RealDisk.remove(path))
        }
    }

    #[test]
    fn a_policy_that_is_known_costs_nothing_when_it_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let (stored, ceiling) = (folder.path().join("policy"), folder.path().join("ceiling.toml"));
        std::fs::write(&ceiling, CEILING).unwrap();
        let key = SealKey::new(&[7; crate::seal::KEY_LEN]);
        let open = || Documents::open(stored.clone(), &key, &ceiling, 0).unwrap();
        let (disk, mut documents) = (Counted::default(), open());
        let adopt = |documents: &mut Documents, text: &str| {
            let before = disk.calls.get();
            let policy = parse_fleet("fleet", text).unwrap();
            let another = documents.adopt(&disk, &key, policy, text);
            (another, disk.calls.get() - before)
        };
        let newer = FLEET.replace("serial = 1", "serial = 2");
        let (taken, calls) = adopt(&mut documents, FLEET);
        assert!(taken && calls > 0);
        assert_eq!(adopt(&mut documents, FLEET), (false, 0));
        // Known from before the start as well.
        documents = open();
        assert_eq!(adopt(&mut documents, FLEET), (false, 0));
        assert!(adopt(&mut documents, &newer).0);
        assert_eq!(adopt(&mut documents, FLEET), (false, 0), "older");
        // In force, but not kept: tried again.
        let newest = FLEET.replace("serial = 1", "serial = 3");
        disk.full.set(true);
        assert!(adopt(&mut documents, &newest).0);
        assert_eq!(documents.policy.as_ref().map(FleetPolicy::serial), Some(3));
        disk.full.set(false);
        assert!(adopt(&mut documents, &newest).0);
        assert_eq!(adopt(&mut documents, &newest), (false, 0));
        assert_eq!(open().policy.map(|policy| policy.serial()), Some(3));
    }
}
