//! What a workload has of its executor, all versions and all calls together: memory, CPU time, descriptors.
//!
//! Memory is a ledger and no guess: growth is entered before it happens and taken out when the call's store is gone. What
//! is kept for one workload cannot be had by another, whoever comes first.

use crate::limits::Verdict;
use crate::tokens::Tokens;
use crate::volume::Usage;
use redan_protocol::{ByteCount, Code, ComponentName};
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What all workloads of an executor share.
#[derive(Debug)]
pub struct Pools {
    ledger: Mutex<Ledger>,
    descriptors: Count,
    descriptors_max: u64,
}

#[derive(Debug, Default)]
struct Ledger {
    total: u64,
    committed: u64,
    accounts: BTreeMap<ComponentName, Account>,
}

/// One workload's memory. Kept for it is the largest minimum of its versions; it may hold more, as long as there is more.
#[derive(Debug, Default)]
struct Account {
    minima: Vec<u64>,
    used: u64,
}

impl Account {
    fn committed(&self) -> u64 {
        self.minima.iter().copied().fold(self.used, u64::max)
    }
}

/// What changes in an account.
#[derive(Clone, Copy, Debug)]
enum Change {
    Keep(u64),
    LetGo(u64),
    Grow(u64),
    Shrink(u64),
}

impl Ledger {
    /// Changes one account, unless the sum of all would be over the total and over what it was. Every call comes here twice: it copies
    /// no name and no list.
    fn change(&mut self, component: &ComponentName, change: Change) -> bool {
        let account = match self.accounts.get_mut(component) {
            Some(account) => account,
            None => self.accounts.entry(component.clone()).or_default(),
        };
        let (before, used) = (account.committed(), account.used);
        match change {
            Change::Keep(minimum) => account.minima.push(minimum),
            Change::LetGo(minimum) => {
                if let Some(at) = account.minima.iter().position(|kept| *kept == minimum) {
                    account.minima.swap_remove(at);
                }
            }
            Change::Grow(by) => account.used = used.saturating_add(by),
            Change::Shrink(by) => account.used = used.saturating_sub(by),
        }
        let after = account.committed();
        let sum = self.committed.saturating_sub(before).saturating_add(after);
        let held = after <= before || sum <= self.total;
        if held {
            self.committed = sum;
        } else {
            account.used = used;
            if matches!(change, Change::Keep(_)) {
                account.minima.pop();
            }
        }
        if account.minima.is_empty() && account.used == 0 {
            self.accounts.remove(component);
        }
        held
    }
}

impl Pools {
    /// An executor's pools: no memory until [`Self::set_memory`], and of its descriptors one half. The other half is left to
    /// clients, to the broker's sockets and to the executor itself, so that no guest can take what those need.
    pub fn new() -> Arc<Self> {
        let most = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS_DEFAULT);
        Arc::new(Self {
            ledger: Mutex::default(),
            descriptors: Count::default(),
            descriptors_max: most / 2,
        })
    }

    /// The executor's part of the device's memory. Less than what is held takes nothing away: nothing grows until it is enough again.
    pub fn set_memory(&self, total: ByteCount) {
        self.ledger().total = total.get();
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `getrlimit` says on a system that sets nothing.
const DESCRIPTORS_DEFAULT: u64 = 1024;

/// What the versions of one workload share.
#[derive(Debug)]
pub struct Workload {
    component: ComponentName,
    pools: Arc<Pools>,
    descriptors: Count,
    volumes: Mutex<BTreeMap<String, Arc<Usage>>>,
    pub(crate) cpu: Tokens,
}

impl Workload {
    /// A workload of this executor.
    pub fn new(component: ComponentName, pools: &Arc<Pools>) -> Arc<Self> {
        Arc::new(Self {
            component,
            pools: Arc::clone(pools),
            descriptors: Count::default(),
            volumes: Mutex::default(),
            cpu: Tokens::default(),
        })
    }

    /// Keeps a minimum of memory for a version, or says that it is not there.
    pub(crate) fn keep(self: &Arc<Self>, minimum: ByteCount) -> Option<Arc<Kept>> {
        let minimum = minimum.get();
        let kept = self.pools.ledger().change(&self.component, Change::Keep(minimum));
        kept.then(|| {
            Arc::new(Kept {
                workload: Arc::clone(self),
                minimum,
            })
        })
    }

    /// One more file or folder open, if `most` and the executor's own limit admit it.
    pub(crate) fn open(self: &Arc<Self>, most: u32, verdict: &Verdict) -> Option<Open> {
        let own = self.descriptors.up(u64::from(most));
        let whole = own && self.pools.descriptors.up(self.pools.descriptors_max);
        if own && !whole {
            self.descriptors.down();
        }
        if !whole {
            verdict.deny(Code::DescriptorLimit);
        }
        whole.then(|| Open(Arc::clone(self)))
    }

    /// How full a volume is.
    pub(crate) fn usage(&self, volume: &str) -> Arc<Usage> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(volumes.entry(volume.to_owned()).or_default())
    }
}

/// A version's minimum; given back with the version.
#[derive(Debug)]
pub(crate) struct Kept {
    workload: Arc<Workload>,
    minimum: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut ledger = self.workload.pools.ledger();
        ledger.change(&self.workload.component, Change::LetGo(self.minimum));
    }
}

/// What one call holds of the memory; given back with its store.
#[derive(Debug)]
pub struct Reservation {
    kept: Arc<Kept>,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn new(kept: &Arc<Kept>) -> Self {
        Self {
            kept: Arc::clone(kept),
            bytes: 0,
        }
    }

    /// Enters growth, if there is room for it.
    pub(crate) fn grow(&mut self, by: u64) -> bool {
        let workload = &self.kept.workload;
        let mut ledger = workload.pools.ledger();
        let grown = ledger.change(&workload.component, Change::Grow(by));
        if grown {
            self.bytes = self.bytes.saturating_add(by);
        }
        grown
    }

    /// Takes growth out again that did not happen.
    pub(crate) fn give_back(&mut self, by: u64) {
        let by = by.min(self.bytes);
        self.bytes = self.bytes.saturating_sub(by);
        let workload = &self.kept.workload;
        let mut ledger = workload.pools.ledger();
        ledger.change(&workload.component, Change::Shrink(by));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// One open descriptor.
#[derive(Debug)]
pub(crate) struct Open(Arc<Workload>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.descriptors.down();
        self.0.pools.descriptors.down();
    }
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn up(&self, most: u64) -> bool {
        if self.0.fetch_add(1, Ordering::Relaxed) < most {
            return true;
        }
        self.down();
        false
    }

    fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(total: u64) -> Arc<Pools> {
        let pools = Pools::new();
        pools.set_memory(ByteCount::new(total));
        pools
    }

    fn workload(name: &str, pools: &Arc<Pools>) -> Arc<Workload> {
        Workload::new(name.parse().unwrap(), pools)
    }

    fn kept(workload: &Arc<Workload>, minimum: u64) -> Option<Arc<Kept>> {
        workload.keep(ByteCount::new(minimum))
    }

    #[test]
    fn nobody_takes_what_is_kept_for_another() {
        let pools = pools(100);
        let greedy = kept(&workload("acme/greedy", &pools), 10).unwrap();
        let modest = kept(&workload("acme/modest", &pools), 30).unwrap();
        let mut much = Reservation::new(&greedy);
        assert!(much.grow(70));
        assert!(!much.grow(1));
        let mut little = Reservation::new(&modest);
        assert!(little.grow(30));
        assert!(!little.grow(1), "beyond its minimum there is nothing left");
        drop(much);
        assert!(little.grow(60), "what was given back is for whoever comes first");
        assert!(!little.grow(1), "but never the other one's minimum");
    }

    #[test]
    fn what_is_held_goes_back_whole_however_it_was_entered() {
        let pools = pools(100);
        let workload = workload("acme/any", &pools);
        let version = kept(&workload, 5).unwrap();
        let mut call = Reservation::new(&version);
        assert!(call.grow(50));
        call.give_back(20);
        assert!(call.grow(70));
        assert!(!call.grow(1));
        drop((call, version));
        let ledger = pools.ledger();
        assert_eq!((ledger.committed, ledger.accounts.len()), (0, 0));
    }

    #[test]
    fn a_minimum_that_is_not_there_is_not_promised() {
        let pools = pools(100);
        let first = kept(&workload("acme/first", &pools), 60).unwrap();
        let second = workload("acme/second", &pools);
        assert!(kept(&second, 41).is_none());
        let second = kept(&second, 40).unwrap();
        // Two versions of one workload share the larger minimum.
        let newer = kept(&first.workload, 50).unwrap();
        drop(first);
        let mut call = Reservation::new(&newer);
        assert!(call.grow(60));
        assert!(!call.grow(1));
        drop(second);
        assert!(call.grow(40));
    }

    #[test]
    fn without_a_part_of_the_device_there_is_no_memory() {
        let pools = Pools::new();
        let workload = workload("acme/any", &pools);
        assert!(kept(&workload, 1).is_none());
        let version = kept(&workload, 0).unwrap();
        assert!(!Reservation::new(&version).grow(1));
    }

    #[test]
    fn a_part_that_shrinks_takes_nothing_away_and_gives_nothing_more() {
        let pools = pools(100);
        let version = kept(&workload("acme/any", &pools), 0).unwrap();
        let mut call = Reservation::new(&version);
        assert!(call.grow(80));
        pools.set_memory(ByteCount::new(50));
        assert!(!call.grow(1));
        call.give_back(40);
        assert!(call.grow(10));
        assert!(!call.grow(1));
    }

    #[test]
    fn the_executors_own_descriptors_are_out_of_reach() {
        let mut pools = Arc::into_inner(pools(0)).unwrap();
        pools.descriptors_max = 3;
        let pools = Arc::new(pools);
        let (a, b) = (workload("acme/a", &pools), workload("acme/b", &pools));
        let verdict = Verdict::default();
        let open: Vec<_> = [&a, &a, &b]
            .into_iter()
            .map(|w| w.open(2, &verdict).unwrap())
            .collect();
        assert_eq!(verdict.code(), None);
        assert!(b.open(2, &verdict).is_none(), "the executor has no more");
        assert_eq!(verdict.code(), Some(Code::DescriptorLimit));
        drop(open);
        let open: Vec<_> = (0..2).map(|_| b.open(2, &verdict).unwrap()).collect();
        assert!(b.open(2, &verdict).is_none(), "the workload has no more");
        drop(open);
    }
}
