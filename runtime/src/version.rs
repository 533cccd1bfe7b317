//! One linked version of a workload, its calls, and what the host saw of them.

use crate::swap::Leases;
use futures_util::future::Either;
use redan_host_api::bench::Told;
use redan_host_api::bindings::{MessagesPre, ProbedPre, StoppedPre};
use redan_host_api::egress::Publishing;
use redan_host_api::limits::{Cpu, Verdict};
use redan_host_api::link;
use redan_host_api::mqtt::Access;
use redan_host_api::state::{Capabilities, GuestState, new_store};
use redan_host_api::volume::MEASURE_INTERVAL;
use redan_policy::EffectiveGrant;
use redan_policy::grant::Limits;
use redan_protocol::ipc::{Signals, SlotId, WorkloadKind};
use redan_protocol::report::Bucket;
use redan_protocol::{Code, ComponentName, Millis};
use redan_sealed::Sealed;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use wasmtime::component::InstancePre;
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

/// What a version does when it is called.
pub(crate) enum Entry {
    /// Answers requests.
    Service(ProxyPre<GuestState>),
    /// The same, of WASI 0.3.
    Tasks(ServicePre<GuestState>),
    /// Runs to its end.
    Job(CommandPre<GuestState>),
    /// Handles messages.
    Message(MessagesPre<GuestState>),
}

/// One linked version.
pub(crate) struct Version {
    pub(crate) slot: SlotId,
    pub(crate) component: ComponentName,
    pub(crate) entry: Entry,
    pub(crate) plain: InstancePre<GuestState>,
    pub(crate) health: Option<ProbedPre<GuestState>>,
    pub(crate) stopped: Option<StoppedPre<GuestState>>,
    /// How each broker of its grant is spoken to.
    pub(crate) access: HashMap<String, Access>,
    pub(crate) publishing: Publishing,
    /// What it was loaded with, and what is left of it now.
    loaded: Arc<Capabilities>,
    present: RwLock<Arc<Capabilities>>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) leases: Leases,
    withheld: Mutex<Option<Withheld>>,
    engine: Engine,
    seen: Mutex<Seen>,
}

/// Places that a narrower grant took: held by a task until there is another grant.
struct Withheld(AbortHandle);

impl Withheld {
    fn new(places: &Arc<Semaphore>, count: u32) -> Self {
        let places = Arc::clone(places);
        let holds = async move {
            let _held = places.acquire_many_owned(count).await;
            std::future::pending::<()>().await;
        };
        Self(tokio::spawn(holds).abort_handle())
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct Seen {
    calls: u32,
    failures: u32,
    last: Option<Code>,
    told: bool,
    cpu_millis: u64,
}

impl Version {
    /// Deserialises, links by the grant alone and resolves every import once.
    pub(crate) fn link(
        engine: &Engine,
        slot: SlotId,
        kind: WorkloadKind,
        native: &Sealed,
        capabilities: Arc<Capabilities>,
        access: HashMap<String, Access>,
    ) -> Result<Arc<Self>, Code> {
        let component = native.component(engine).map_err(|error| error.code())?;
        let linker = link::linker_for(engine, &capabilities).map_err(|_| Code::Internal)?;
        let plain = linker.instantiate_pre(&component).map_err(|_| Code::LinkFailed)?;
        let entry = match kind {
            WorkloadKind::Service if capabilities.grant().world.is_wasi_0_3() => {
                ServicePre::new(plain.clone()).map(Entry::Tasks)
            }
            WorkloadKind::Service => ProxyPre::new(plain.clone()).map(Entry::Service),
            WorkloadKind::Job => CommandPre::new(plain.clone()).map(Entry::Job),
            WorkloadKind::Message => MessagesPre::new(plain.clone()).map(Entry::Message),
        };
        let entry = entry.map_err(|_| Code::MissingExport)?;
        let concurrency = usize::try_from(capabilities.grant().limits.concurrency).unwrap_or(usize::MAX);
        Ok(Arc::new(Self {
            slot,
            component: capabilities.grant().component.clone(),
            entry,
            health: ProbedPre::new(plain.clone()).ok(),
            stopped: StoppedPre::new(plain.clone()).ok(),
            access,
            publishing: Publishing::default(),
            plain,
            places: Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS))),
            present: RwLock::new(Arc::clone(&capabilities)),
            loaded: capabilities,
            withheld: Mutex::default(),
            engine: engine.clone(),
            leases: Leases::default(),
            seen: Mutex::default(),
        }))
    }

    /// What the next call may do.
    pub(crate) fn capabilities(&self) -> Arc<Capabilities> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From the next call on: what it was loaded with, as far as `later` gives it too. What does not narrow leaves nothing.
    pub(crate) fn narrow(&self, later: &EffectiveGrant) {
        let narrowed = self.loaded.narrowed(later);
        let narrowed = narrowed.or_else(|_| self.loaded.narrowed(&later.nothing()));
        if let Ok(narrowed) = narrowed {
            let [loaded, left] = [&self.loaded, &narrowed].map(|c| c.grant().limits.concurrency);
            let taken = loaded.saturating_sub(left);
            *self.withheld.lock().unwrap_or_else(PoisonError::into_inner) =
                (taken > 0).then(|| Withheld::new(&self.places, taken));
            *self.present.write().unwrap_or_else(PoisonError::into_inner) = narrowed;
        }
    }

    /// What was seen since the last time; `None` when there were no calls and nothing was noted.
    pub(crate) fn take_signals(&self) -> Option<Signals> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = std::mem::take(&mut *seen);
        (seen.calls > 0 || seen.told).then_some(Signals {
            calls: seen.calls,
            failures: seen.failures,
            last: seen.last,
            cpu: Bucket::of(seen.cpu_millis),
        })
    }

    /// Something worth a code happened outside any call: it counts as none.
    pub(crate) fn note(&self, code: Code) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.last = Some(code);
        seen.told = true;
    }

    pub(crate) fn record(&self, failure: Option<Code>, noted: Option<Code>, cpu_millis: u64) {
        if let Some(bench) = self.loaded.bench() {
            bench.ended(cpu_millis, failure);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.calls = seen.calls.saturating_add(1);
        seen.failures = seen.failures.saturating_add(u32::from(failure.is_some()));
        seen.last = failure.or(noted).or(seen.last);
        seen.cpu_millis = seen.cpu_millis.saturating_add(cpu_millis);
    }
}

/// One call: what it may do, to its end whatever is taken from the version meanwhile; its verdict and its CPU account.
pub(crate) struct Call {
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) verdict: Verdict,
    pub(crate) cpu: Arc<Cpu>,
}

impl Call {
    pub(crate) fn new(version: &Version) -> Self {
        let capabilities = version.capabilities();
        let verdict = Verdict::default();
        Self {
            cpu: Cpu::new(&capabilities, &verdict),
            verdict,
            capabilities,
        }
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> &Limits {
        &self.capabilities.grant().limits
    }

    /// A fresh store with every limit set.
    pub(crate) fn store(&self, version: &Version) -> Result<Store<GuestState>, Code> {
        let store = new_store(&version.engine, &self.capabilities, &self.verdict, &self.cpu);
        store.map_err(|error| error.code())
    }

    /// Runs guest code under its CPU budget, a wall-clock limit, the version's end and its volumes' quotas.
    ///
    /// Dropping the call at any of these unwinds the guest: nothing of it runs on.
    pub(crate) async fn run<T>(
        &self,
        version: &Version,
        wall: Millis,
        guest: impl Future<Output = wasmtime::Result<T>>,
    ) -> Result<T, Code> {
        let volumes = if self.capabilities.has_writable_volume() {
            Either::Left(over_quota(Arc::clone(&self.capabilities)))
        } else {
            Either::Right(std::future::pending())
        };
        let wall = Duration::from_millis(wall.get());
        let guest = std::pin::pin!(guest);
        let code = tokio::select! {
            biased;
            outcome = tokio::time::timeout(wall, self.cpu.measure(guest)) => match outcome {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => {
                    if let Some(bench) = version.loaded.bench() {
                        (bench.hear)(Told::Trapped(&error));
                    }
                    return Err(link::classify(&error, &self.verdict));
                }
                Err(_) => Code::WallLimit,
            },
            () = version.leases.stopped() => Code::Superseded,
            () = volumes => Code::VolumeQuota,
        };
        self.verdict.deny(code);
        Err(code)
    }
}

async fn over_quota(capabilities: Arc<Capabilities>) {
    loop {
        tokio::time::sleep(MEASURE_INTERVAL).await;
        let capabilities = Arc::clone(&capabilities);
        let over = tokio::task::spawn_blocking(move || capabilities.volume_is_over()).await;
        if over.unwrap_or(true) {
            return;
        }
    }
}
